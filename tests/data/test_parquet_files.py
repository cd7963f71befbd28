import contextlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discl_ray.data.parquet_files import is_parquet, split_of_path
from discl_ray.errors import DataError
from tests.support.parquet import STRUCT, encoded, listed, read, write


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("train-00000-of-00001.parquet", "train"),
        ("data/validation-00000-of-00002-abc.parquet", "val"),
        ("VAL_1.parquet", "val"),
        ("test.parquet", "test"),
        ("training.parquet", "train"),
        ("x/Test/part-0.parquet", "test"),
        ("train/test/0.parquet", "test"),
        ("trainer.parquet", None),
        ("0-train.parquet", None),
        ("testimony/a.parquet", None),
    ],
)
def test_names_of_files_and_folders_say_the_split(path, split):
    assert split_of_path(path) == split


@settings(max_examples=30)
@given(st.integers(1, 40), st.integers(1, 9), st.data())
def test_any_rows_in_any_order_come_from_their_row_groups(tmp_path_factory, count, group, data):
    root = tmp_path_factory.getbasetemp() / "groups"
    root.mkdir(exist_ok=True)
    for name, start in (("a", 0), ("b", 100)):
        write(root / f"{name}.parquet", group, image=encoded(count, start), label=[1] * count)
    wanted = data.draw(st.lists(st.integers(0, 2 * count - 1), max_size=20))
    listing = listed(root)
    assert read(listing, pa.array(wanted, pa.int64())) == [
        (encoded(count) + encoded(count, 100))[i] for i in wanted
    ]


def test_only_the_row_groups_that_are_needed_are_read(tmp_path, monkeypatch):
    write(tmp_path / "a.parquet", 10, image=encoded(100), label=[1] * 100, other=["x"] * 100)
    listing = listed(tmp_path)
    asked = []

    class Watched(pq.ParquetFile):
        def iter_batches(self, *args, **options):
            asked.append((options["row_groups"], options["columns"]))
            return super().iter_batches(*args, **options)

    monkeypatch.setattr(pq, "ParquetFile", Watched)
    assert read(listing, [5, 9, 42]) == [b"image 5", b"image 9", b"image 42"]
    assert asked == [([0], ["image"]), ([4], ["image"])]


def test_a_damaged_page_costs_its_rows_and_no_others(tmp_path):
    file = tmp_path / "a.parquet"
    columns = {"image": [bytes([i]) * 2000 for i in range(20)], "label": [1] * 20}
    pq.write_table(
        pa.table(columns), file, row_group_size=10, compression="zstd", use_dictionary=False
    )
    listing = listed(tmp_path)
    chunk = pq.read_metadata(file).row_group(0).column(0)
    data = bytearray(file.read_bytes())
    data[chunk.data_page_offset + 40 : chunk.data_page_offset + chunk.total_compressed_size] = (
        b"\xff" * (chunk.total_compressed_size - 40)
    )
    file.write_bytes(data)
    assert read(listing) == ["unreadable"] * 10 + [bytes([i]) * 2000 for i in range(10, 20)]
    file.write_bytes(b"PAR1 and no more")
    assert read(listing) == ["unreadable"] * 20
    file.unlink()
    assert read(listing) == ["unreadable"] * 20
    write(file, image=encoded(5), label=[1] * 5)
    assert read(listing) == [*encoded(5), *["missing"] * 15]
    write(file, image=[1.0] * 20, label=[1] * 20)
    assert read(listing) == ["unreadable"] * 20


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PAR1",
        b"PAR1" * 100,
        b"\x89PNG" * 50,
        b"PAR1" + b"\xff" * 100 + b"\xff\xff\xff\x7fPAR1",
    ],
)
def test_a_broken_file_is_named(tmp_path, content):
    (tmp_path / "broken.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"broken\.parquet: cannot be read as a Parquet file"):
        listed(tmp_path)


def test_a_file_damaged_anywhere_ends_in_a_dataerror_or_rows(tmp_path):
    file = tmp_path / "a.parquet"
    write(
        file,
        4,
        image=pa.array([{"bytes": b, "path": None} for b in encoded(12)], STRUCT),
        label=[f"c{i % 3}" for i in range(12)],
    )
    whole = file.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(150):
        data = bytearray(whole)
        for at in rng.integers(0, len(data), 3):
            data[at] = rng.integers(0, 256)
        file.write_bytes(data[: len(data) - int(rng.integers(0, 2) * rng.integers(0, 40))])
        with contextlib.suppress(DataError):
            listing = listed(tmp_path)
            assert len(list(listing.read(listing.root, listing.table))) == listing.table.num_rows


def test_parquet_is_known_by_its_suffix():
    assert is_parquet("a/b.PARQUET")
    assert not is_parquet("parquet/a.csv")
