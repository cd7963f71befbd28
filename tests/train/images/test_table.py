import io
import multiprocessing
import os
import shutil
import tempfile
import time
import uuid
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from discl_ray.cluster import map_blocks as parallel
from discl_ray.core.lam import REAL
from discl_ray.core.schema import IMAGE
from discl_ray.core.storage import Store
from discl_ray.errors import DataError, IntegrityError
from discl_ray.spectrum.config import FilterConfig
from discl_ray.spectrum.open import Spectrum
from discl_ray.spectrum.samples import SAMPLES_AT
from discl_ray.train.images import node_cache as local
from discl_ray.train.images import segments, writer
from discl_ray.train.images.segments import ROWS, load_pixels
from discl_ray.train.images.table import (
    INDEX,
    ImageTable,
    TableRef,
    append_segment,
    build_table,
    open_table,
)

SIDE = 20  # another than the images', so that they are resized


def copied(spectrum_run, root: Path) -> Spectrum:
    """The spectrum and its samples as a run of its own."""
    source = spectrum_run[1].store.local
    shutil.copytree(source.parent, root, dirs_exist_ok=True)
    return Spectrum.open(Store.at(root / source.name))


def same(one: ImageTable, other: ImageTable) -> None:
    rows = np.arange(len(one.label))
    assert np.array_equal(one.images[rows], other.images[rows])
    for name in ("label", "lam_pct", "role", "hard", "domain", "sample_id"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name


def picture(seed: int, side: int = 9) -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side + 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def new_rows(count: int, **values: object) -> pa.Table:
    plain = {"label": 1, "lam_pct": 50, "role": "train", "hard": False, "domain": "here"} | values
    rows = [
        {**plain, "sample_id": f"new {i}", "image": {"bytes": picture(i), "path": None}}
        for i in range(count)
    ]
    return pa.Table.from_pylist(rows, schema=pa.schema([*ROWS, ("image", IMAGE)]))


# -- reading rows


def test_what_comes_out_is_a_copy_and_stays_when_the_table_is_gone(spectrum_run, tmp_path):
    spectrum_of_run = copied(spectrum_run, tmp_path)
    opened = open_table(build_table(spectrum_of_run, spectrum_run[0].filter, SIDE))
    pixels = opened.images[[3, 3, 0]]
    before = pixels.copy()
    pixels[0] = 0
    assert np.array_equal(opened.images[[3]], before[:1])
    del opened
    assert np.array_equal(pixels[1:], before[1:])


# -- what a table holds


def test_rows_are_marked_right_and_none_is_of_test(spectrum_run, tmp_path):
    config, spectrum_of_run = spectrum_run[0], copied(spectrum_run, tmp_path)
    opened = open_table(build_table(spectrum_of_run, config.filter, SIDE))
    real = {
        s: {r["sample_id"]: r for r in spectrum_of_run.split(s).to_pylist()}
        for s in ("train", "val", "test")
    }
    sources = set(spectrum_of_run.sources()["sample_id"].to_pylist())
    spectrum = spectrum_of_run.table(config.filter).to_pylist()
    kept = [
        row for row in spectrum if row["kept"] or (row["role"] == "probe" and row["status"] == "ok")
    ]
    assert {row["role"] for row in kept} == {"train", "probe"}
    assert set(opened.role) == {"train", "probe", "val"}
    assert not set(opened.sample_id) & set(real["test"])
    assert (opened.role == "val").sum() == len(real["val"])
    assert ((opened.role == "train") & (opened.lam_pct == REAL)).sum() == len(real["train"])
    for role in ("train", "probe"):
        made = (opened.role == role) & (opened.lam_pct != REAL)
        assert made.sum() == sum(row["role"] == role for row in kept)
    assert np.array_equal(
        opened.hard, (opened.lam_pct == REAL) & np.isin(opened.sample_id, list(sources))
    )
    assert opened.hard[opened.role == "train"].any()
    assert opened.hard[opened.role == "val"].any()
    images = {(row["sample_id"], row["lam_pct"], row["replica"]): row["image"] for row in kept}
    assert len({key[:2] for key in images}) == len(images)  # one replica: rows can be told apart
    images = {key[:2]: image for key, image in images.items()}
    for i, key in enumerate(zip(opened.sample_id.tolist(), opened.lam_pct.tolist(), strict=True)):
        source = real["val" if opened.role[i] in ("val", "probe") else "train"][key[0]]
        image = source["image"] if key[1] == REAL else images[key]
        assert np.array_equal(opened.images[[i]][0], load_pixels(image, SIDE))
        assert (opened.label[i], opened.domain[i]) == (source["label"], source["domain"] or "")
    with pytest.raises(ValueError, match="read-only"):
        opened.label[0] = 1


def test_encoded_images_are_the_same_and_auto_knows_when(spectrum_run, tmp_path, monkeypatch):
    monkeypatch.setattr(segments, "ENCODED_ROWS", 7)
    spectrum_of_run, judged = copied(spectrum_run, tmp_path), spectrum_run[0].filter
    decoded = build_table(spectrum_of_run, judged, SIDE)
    encoded = build_table(spectrum_of_run, judged, SIDE, mode="encoded")
    assert (decoded.mode, encoded.mode) == ("decoded", "encoded")
    assert build_table(spectrum_of_run, judged, SIDE, max_decoded_gb=1e-6).mode == "encoded"
    assert len(encoded.segments) > 1
    assert (
        len(
            {
                decoded.store.base,
                encoded.store.base,
                build_table(spectrum_of_run, judged, 8).store.base,
            }
        )
        == 3
    )
    one, other = open_table(decoded), open_table(encoded)
    same(one, other)
    assert other.images.shape == one.images.shape == (len(decoded), SIDE, SIDE, 3)
    rows = np.array([5, 0, len(decoded) - 1, 5])
    assert np.array_equal(other.images[rows], one.images[rows])
    assert other.images[[]].shape == (0, SIDE, SIDE, 3)
    for row in (-1, len(encoded)):
        with pytest.raises(IndexError):
            other.images[[row]]


def test_a_table_is_made_once_and_does_not_depend_on_its_segments(
    spectrum_run, tmp_path, monkeypatch
):
    spectrum_of_run, judged = copied(spectrum_run, tmp_path / "a"), spectrum_run[0].filter
    ref = build_table(spectrum_of_run, judged, SIDE)
    assert TableRef.read(ref.store) == ref
    monkeypatch.setattr(writer, "write_segment", None)
    assert build_table(spectrum_of_run, judged, SIDE) == ref
    monkeypatch.undo()
    monkeypatch.setattr(segments, "SEGMENT_ROWS", 5)
    cut = build_table(copied(spectrum_run, tmp_path / "b"), judged, SIDE)
    assert len(cut.segments) > len(ref.segments)
    same(open_table(cut), open_table(ref))


@pytest.mark.parametrize("mode", ["decoded", "encoded"])
def test_appended_rows_come_after_the_old_ones(spectrum_run, tmp_path, mode):
    ref = build_table(copied(spectrum_run, tmp_path), spectrum_run[0].filter, SIDE, mode=mode)
    old, before = open_table(ref), ref.store.read(INDEX)
    rows = new_rows(3, domain=None)
    longer = append_segment(ref, rows)
    assert append_segment(ref, rows) == longer  # again: the same
    assert TableRef.read(longer.store, longer.name) == longer
    new = open_table(longer)
    count = len(ref)
    assert len(longer) == len(new.label) == count + 3
    assert np.array_equal(new.images[np.arange(count)], old.images[np.arange(count)])
    assert new.sample_id[:count].tolist() == old.sample_id.tolist()
    assert new.sample_id[count:].tolist() == ["new 0", "new 1", "new 2"]
    assert new.domain[count:].tolist() == [""] * 3
    expected = [load_pixels(image, SIDE) for image in rows["image"].to_pylist()]
    assert np.array_equal(new.images[np.arange(count, count + 3)], np.stack(expected))
    assert ref.store.read(INDEX) == before
    same(open_table(ref), old)
    assert open_table(append_segment(longer, new_rows(1, role="probe"))).role[-1] == "probe"
    with pytest.raises(ValueError, match="role 'test'"):
        append_segment(ref, new_rows(1, role="test"))


@pytest.mark.parametrize("mode", ["decoded", "encoded"])
@pytest.mark.parametrize("by_ray", [False, True])
def test_a_broken_image_is_named(spectrum_run, tmp_path, monkeypatch, mode, by_ray):
    spectrum_of_run = copied(spectrum_run, tmp_path)
    samples = spectrum_of_run.samples
    name = samples.list("train", ".parquet")[0]
    rows = samples.read_table(name).to_pylist()
    rows[2]["image"] = {"bytes": None, "path": str(tmp_path / "gone.png")}
    (tmp_path / "gone.png").write_bytes(b"no image")
    samples.write_table(name, pa.Table.from_pylist(rows, schema=samples.read_table(name).schema))
    if by_ray:
        monkeypatch.setattr(parallel, "SMALL", 0)
    for words in ("gone.png: not_an_image.*make generate", "gone.png.*make generate"):
        with pytest.raises(DataError, match=words):
            build_table(spectrum_of_run, spectrum_run[0].filter, SIDE, mode=mode)
        (tmp_path / "gone.png").unlink(missing_ok=True)


# -- several processes


def test_ray_makes_the_same_table(spectrum_run, tmp_path, monkeypatch, capsys):
    import ray

    monkeypatch.setattr(segments, "SEGMENT_ROWS", 9)
    here = build_table(copied(spectrum_run, tmp_path / "here"), spectrum_run[0].filter, SIDE)
    monkeypatch.setattr(parallel, "SMALL", 0)
    by_ray = build_table(copied(spectrum_run, tmp_path / "by ray"), spectrum_run[0].filter, SIDE)
    assert by_ray.segments == here.segments
    assert f"{len(here)}/{len(here)} images into the table" in capsys.readouterr().out
    assert not parallel.in_ray_worker()
    spectrum_of_run = copied(spectrum_run, tmp_path / "in a task")

    @ray.remote(num_cpus=4)  # all of them: whoever waits here for another task waits for ever
    def build(spectrum_of_run: Spectrum, judged: FilterConfig) -> TableRef:
        from discl_ray.cluster import map_blocks as parallel
        from discl_ray.train.images.table import build_table

        assert parallel.in_ray_worker()
        parallel.SMALL = 0
        return build_table(spectrum_of_run, judged, 20)

    inside = ray.get(build.remote(spectrum_of_run, spectrum_run[0].filter))
    same(open_table(inside), open_table(here))


def test_two_processes_make_one_table(spectrum_run, tmp_path):
    spectrum_of_run = copied(spectrum_run, tmp_path)
    context = multiprocessing.get_context("spawn")
    with context.Pool(2) as pool:
        results = pool.map(
            _build_slowly, [(spectrum_of_run, spectrum_run[0].filter)] * 2, chunksize=1
        )
    (one, written), (other, also_written) = results
    assert one == other
    assert sorted([written, also_written]) == [0, len(one.segments)]


def _build_slowly(arguments: tuple[Store, object]) -> tuple[TableRef, int]:
    written = []

    def write(*values: object) -> segments.Segment:
        time.sleep(1)
        written.append(segments.write_segment(*values))
        return written[-1]

    writer.write_segment = write
    return build_table(*arguments, SIDE), len(written)


def test_one_process_fetches_for_a_node(spectrum_run, tmp_path, monkeypatch):
    monkeypatch.setattr(segments, "SEGMENT_ROWS", 30)
    ref = build_table(copied(spectrum_run, tmp_path / "run"), spectrum_run[0].filter, SIDE)
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        fetched = pool.map(_fetch_slowly, [(ref, str(tmp_path / "node"))] * 3, chunksize=1)
    assert sum(fetched) == len(ref.segments)


def _fetch_slowly(arguments: tuple[TableRef, str]) -> int:
    ref, folder = arguments
    os.makedirs(folder, exist_ok=True)
    tempfile.tempdir = folder
    fetched = []

    def count(store: Store, segment: segments.Segment, target: Path) -> None:
        time.sleep(0.2)
        fetched.append(segment)
        local.fetch(store, segment, target)

    paths = local.make_local(ref.store, ref.segments, count, shared=True)
    assert all(str(path).startswith(folder) for path in paths)
    open_table(ref)
    return len(fetched)


# -- on a node


@pytest.fixture
def node(tmp_path, monkeypatch) -> Path:
    (tmp_path / "node").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "node"))
    return tmp_path / "node"


def test_a_table_in_an_object_store_is_copied_and_a_damaged_copy_fetched_again(
    spectrum_run, node, monkeypatch
):
    monkeypatch.setattr(segments, "SEGMENT_ROWS", 30)
    source = spectrum_run[1].store
    bucket = Store.at(f"memory://bucket-{uuid.uuid4().hex[:8]}/runs")
    for file in source.local.parent.rglob("*.*"):
        if file.is_file():
            bucket.write(str(file.relative_to(source.local.parent)), file.read_bytes())
    spectrum_of_run = Spectrum.open(bucket.within(source.local.name))
    assert spectrum_of_run.store.exists(SAMPLES_AT)
    ref = build_table(spectrum_of_run, spectrum_run[0].filter, SIDE)
    assert build_table(spectrum_of_run, spectrum_run[0].filter, SIDE) == ref
    assert ref.store.local is None
    first = open_table(ref)
    copies = sorted(node.rglob("*.arrow"))
    assert len(copies) == len(ref.segments) > 1
    content = copies[0].read_bytes()
    copies[0].unlink()
    copies[0].write_bytes(content[: len(content) // 2])
    same(open_table(ref), first)
    assert copies[0].read_bytes() == content
    assert not list(node.rglob("*.tmp"))
    # damaged where it comes from: no copy appears
    copies[0].unlink()
    name = f"segments/{copies[0].name}"
    ref.store.write(name, content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(IntegrityError, match=f"{name}: gone or damaged"):
        open_table(ref)
    assert not copies[0].exists()
    ref.store.delete(name)
    with pytest.raises(IntegrityError, match=f"{name}: gone or damaged"):
        open_table(ref)
    longer = append_segment(ref, new_rows(2))
    ref.store.write(name, content)
    assert open_table(longer).sample_id[-1] == "new 1"


def test_a_table_on_this_disk_is_mapped_in_place(spectrum_run, tmp_path, node, monkeypatch):
    ref = build_table(copied(spectrum_run, tmp_path / "run"), spectrum_run[0].filter, SIDE)
    monkeypatch.setattr(local, "on_shared_disk", lambda _: False)
    opened = open_table(ref)
    assert not list(node.iterdir())
    monkeypatch.setattr(local, "on_shared_disk", lambda _: True)
    same(open_table(ref), opened)
    assert len(list(node.rglob("*.arrow"))) == len(ref.segments)
    monkeypatch.setattr(local, "on_shared_disk", lambda _: False)
    file = ref.store.local / ref.segments[0].name
    file.unlink()
    file.write_bytes(b"ARROW1")
    with pytest.raises(IntegrityError, match="gone or damaged"):
        open_table(ref)


def test_a_table_of_arrays_needs_no_domain():
    images = np.zeros((2, 4, 4, 3), np.uint8)
    plain = ImageTable(
        images, np.zeros(2, int), np.zeros(2, int), np.array(["train", "val"]), np.zeros(2, bool)
    )
    assert plain.domain.tolist() == plain.sample_id.tolist() == ["", ""]
