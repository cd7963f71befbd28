"""Another tool's tables are checked before anything is trained on them."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from discl_ray.core.schema import SAMPLES, SPECTRUM
from discl_ray.core.storage import Store
from discl_ray.errors import IntegrityError
from discl_ray.spectrum.of_another_tool import check_samples, check_spectrum, conform

CLASSES = ("cat", "dog")


def real(sample_id: str, label: int, split: str) -> dict:
    name = CLASSES[label]
    image = {"bytes": b"", "path": None}
    return {
        "sample_id": sample_id,
        "label": label,
        "class_name": name,
        "split": split,
        "image": image,
    }


def made(gid: str, sample_id: str, label: int, **other: object) -> dict:
    row = {"gid": gid, "sample_id": sample_id, "label": label, "role": "train", "lam_pct": 50}
    row |= {"replica": 0, "attempt": 0, "status": "ok", "text_sim": 0.3, "text_rank": 1}
    return row | {"image": {"bytes": b"", "path": None}} | other


@pytest.fixture
def folder(tmp_path):
    """Writes samples and two files of spectrum rows; returns their store."""

    def write(*files: list[dict]) -> Store:
        run = Store.at(tmp_path)
        rows = {"train": [real("a", 0, "train"), real("b", 1, "train")], "val": []}
        for split, of_split in (rows | {"test": [real("c", 0, "test")]}).items():
            table = pa.Table.from_pylist(of_split, schema=SAMPLES)
            run.write_table(f"samples/{split}/0.parquet", table)
        for number, of_file in enumerate(files):
            table = pa.Table.from_pylist(of_file, schema=SPECTRUM)
            run.write_table(f"spectrum/{number}.parquet", table)
        return run

    return write


def check(run: Store) -> None:
    check_spectrum(run, run.list("spectrum"), run.within("samples"), CLASSES)


def test_sound_tables_pass(folder):
    run = folder([made("1", "a", 0)], [made("2", "b", 1, role="probe", lam_pct=99)])
    check_samples(run.within("samples"))
    check(run)


def test_failed_images_need_no_score(folder):
    check(folder([made("1", "a", 0, status="error", text_sim=None, text_rank=None)]))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (made("2", "b", 1, lam_pct=100), "lam_pct holds 100; allowed: whole percents"),
        (made("2", "b", 1, lam_pct=None), "lam_pct holds None"),
        (made("2", "b", 2), "label holds 2; allowed: 0 to 1"),
        (made("2", "b", 1, role="test"), "role holds 'test'; allowed: train or probe"),
        (made("2", "b", 1, status="fine"), "status holds 'fine'"),
        (
            made("2", "b", 1, text_sim=None),
            "text_sim is null in 1 row; the filter needs it where status is ok",
        ),
        (made("2", "c", 0), "'c' is no real image of samples/train or samples/val"),
        (made("2", "b", 0), "label 0 of 'b', which is 1 among the real images"),
        (made("1", "b", 1), "a gid is duplicated"),
    ],
)
def test_the_file_of_a_wrong_row_is_named(folder, row, said):
    run = folder([made("1", "a", 0)], [row])
    with pytest.raises(IntegrityError) as caught:
        check(run)
    assert str(caught.value).startswith(run.path("spectrum/1.parquet"))
    assert said in str(caught.value)


def test_an_image_that_was_made_must_be_there(folder):
    nothing = made("2", "b", 1, image=None)
    failed = made("3", "b", 1, image=None, status="error")
    run = folder([made("1", "a", 0)], [failed, nothing, nothing | {"gid": "4"}])
    with pytest.raises(IntegrityError) as caught:
        check(run)
    assert str(caught.value) == (
        f"{run.path('spectrum/1.parquet')}: column image is null in 2 rows; "
        "{bytes, path} is needed where status is ok"
    )
    check(folder([made("1", "a", 0)], [failed]))


@pytest.mark.parametrize("column", ["image", "sample_id", "label", "class_name"])
def test_real_images_are_complete(folder, column):
    run = folder([made("1", "a", 0)])
    rows = [real("a", 0, "train"), real("b", 1, "train") | {column: None}]
    run.write_table("samples/train/0.parquet", pa.Table.from_pylist(rows, schema=SAMPLES))
    said = f"train/0.parquet: column {column} is null in 1 row; .* in every row"
    with pytest.raises(IntegrityError, match=said):
        check_samples(run.within("samples"))


@pytest.mark.parametrize(
    "kind",
    [
        pa.struct([("path", pa.string())]),
        pa.struct([("bytes", pa.binary())]),
        pa.struct([("bytes", pa.string()), ("path", pa.string())]),
        pa.binary(),
    ],
)
def test_images_of_another_type_are_named(folder, kind):
    run = folder([made("1", "a", 0)])
    table = run.read_table("spectrum/0.parquet")
    place = table.column_names.index("image")
    table = table.set_column(place, "image", pa.nulls(1, kind))
    run.write_table("spectrum/0.parquet", table)
    with pytest.raises(IntegrityError) as caught:
        check(run)
    wanted = "struct<bytes: binary, path: string> is needed"
    assert f"0.parquet: column image is {kind}; {wanted}" in str(caught.value)


def test_the_bytes_of_images_are_not_read(folder):
    image = {"bytes": b"x" * 1000, "path": None}
    run = folder([made("1", "a", 0, image=image)])
    file = run.local / "spectrum" / "0.parquet"
    file.write_bytes(file.read_bytes().replace(b"x" * 1000, b"y" * 1000))
    with pytest.raises(IntegrityError, match="garbled"):
        run.read_table("spectrum/0.parquet")
    check(run)


def test_images_in_files_may_have_bytes_of_no_type(folder):
    run = folder([made("1", "a", 0)])
    table = run.read_table("spectrum/0.parquet")
    image = pa.array([{"bytes": None, "path": "a.png"}])
    table = table.set_column(table.column_names.index("image"), "image", image)
    run.write_table("spectrum/0.parquet", table)
    check(run)


def test_a_column_that_is_there_twice_is_named(folder):
    run = folder([made("1", "a", 0)])
    table = run.read_table("spectrum/0.parquet")
    pq.write_table(table.append_column("label", table["label"]), run.path("spectrum/0.parquet"))
    with pytest.raises(IntegrityError, match=r"0\.parquet: 2 columns are named label; one is"):
        check(run)


def test_a_table_of_real_images_that_is_a_broken_link_is_named(folder, tmp_path):
    run = folder([made("1", "a", 0)])
    (tmp_path / "samples" / "val" / "1.parquet").symlink_to("gone.parquet")
    with pytest.raises(IntegrityError, match=r"val/1\.parquet: a link to a file that cannot be"):
        check_samples(run.within("samples"))


def test_a_spectrum_without_rows_is_rejected(folder):
    with pytest.raises(IntegrityError, match="hold no row"):
        check(folder([]))


def test_an_image_of_two_splits_is_named(folder):
    run = folder([made("1", "a", 0)])
    rows = [real("a", 0, "test")]
    run.write_table("samples/test/0.parquet", pa.Table.from_pylist(rows, schema=SAMPLES))
    with pytest.raises(IntegrityError, match="sample_id a is duplicated; it is in train as well"):
        check_samples(run.within("samples"))


def test_equivalent_types_are_taken_and_others_named():
    schema = pa.schema([("label", pa.int32()), ("role", pa.string())])
    roles = pa.array(["train", "probe"]).dictionary_encode()
    table = conform(pa.table({"label": pa.array([1, 2], pa.int64()), "role": roles}), schema, "f")
    assert table.schema == schema
    with pytest.raises(IntegrityError, match="f: column label is string; values of type int32"):
        conform(pa.table({"label": ["x", "y"], "role": roles}), schema, "f")


def test_many_rows_are_checked_as_columns(folder):
    """In seconds, since no row becomes a Python object."""
    run = folder([])
    count = 300_000
    row = pa.Table.from_pylist([made("", "a", 0)], schema=SPECTRUM)
    columns = {name: pa.repeat(row[name][0], count) for name in row.column_names}
    columns["gid"] = pa.array(range(count)).cast(pa.string())
    table = pa.table(columns, schema=SPECTRUM)
    run.write_table("spectrum/0.parquet", table)
    check(run)
