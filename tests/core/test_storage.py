import errno
import os
import shutil
import subprocess

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.fs as pafs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from discl_ray.core.storage import ROW_GROUP, TEMPORARY, Store, parquet_bytes, probe, reference
from discl_ray.errors import IntegrityError, StorageError, UnreadableError


@pytest.fixture(params=["path", "uri", "other_filesystem"])
def store(request, tmp_path):
    if request.param == "path":
        return Store.at(tmp_path)
    if request.param == "uri":
        return Store.at(tmp_path.as_uri())
    return Store(
        pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem()), "runs"
    )  # not local, as an object store


def test_files_come_back_as_they_were_written(store):
    if store.local is None:
        store.filesystem.create_dir("runs/a", recursive=True)
    assert store.list("a") == []
    assert not store.exists("a/x.json")
    store.write_json("a/x.json", {"b": 1, "a": [1.5, "λ"]})
    store.write("a/y.bin", b"1")
    store.write("a/y.bin", b"2")
    assert store.read_json("a/x.json") == {"a": [1.5, "λ"], "b": 1}
    assert store.read("a/y.bin") == b"2"
    assert store.exists("a/y.bin")
    assert not store.exists("a")
    assert store.list("a") == ["a/x.json", "a/y.bin"]
    assert store.list("a", ".json") == ["a/x.json"]
    assert store.within("a").read("y.bin") == b"2"
    assert store.within("a").list() == ["x.json", "y.bin"]
    with pytest.raises(FileNotFoundError):
        store.read("a/none")


@pytest.mark.parametrize("broken", ["replace", "fsync"])
def test_an_interrupted_write_leaves_the_old_file_whole(tmp_path, monkeypatch, broken):
    store = Store.at(tmp_path)
    store.write("data.bin", b"old")

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, broken, fail)
    for name in ("data.bin", "new.bin"):
        with pytest.raises(
            StorageError, match=rf"{name}: cannot be written \(No space left on device\); make room"
        ):
            store.write(name, b"new and longer")
    assert [p.name for p in tmp_path.iterdir()] == ["data.bin"]
    assert store.read("data.bin") == b"old"
    assert not store.exists("new.bin")


def test_readers_of_a_folder_do_not_see_what_a_killed_write_left(tmp_path):
    store = Store.at(tmp_path)
    store.write_table("spectrum/lam_pct=0/a.parquet", pa.table({"x": [1]}))

    left = TEMPORARY.format(name="b.parquet", token="0123abcd")
    (tmp_path / "spectrum" / "lam_pct=0" / left).write_bytes(b"PAR1 half a file")
    assert store.list("spectrum/lam_pct=0") == ["spectrum/lam_pct=0/a.parquet"]
    found = pads.dataset(str(tmp_path / "spectrum"), format="parquet", partitioning="hive")
    assert found.to_table()["x"].to_pylist() == [1]
    assert len(list(tmp_path.rglob("*.tmp"))) == 1
    store.sweep()
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["a.parquet"]


def test_no_temporary_file_stays_after_a_write(tmp_path):
    Store.at(tmp_path).write("a/b.bin", b"1")
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["b.bin"]


def test_whether_a_folder_can_be_written_is_found_out_without_a_trace(tmp_path):
    assert probe(tmp_path / "not" / "yet") == tmp_path
    assert list(tmp_path.iterdir()) == []
    for store in (
        Store.at(tmp_path / "x"),
        Store(pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem()), "x"),
    ):
        if store.local is None:
            store.filesystem.create_dir("x")
        store.probe()
    assert [p.name for p in tmp_path.rglob("*")] == ["x"]
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for place in (tmp_path / "file", tmp_path / "file" / "x", tmp_path / "link", "/proc/nowhere"):
        with pytest.raises(OSError, match=r"a directory|such file"):
            Store.at(place).probe()


def test_a_disk_that_is_full_leaves_no_half_file(tmp_path):
    small = ["mount", "-t", "tmpfs", "-o", "size=128k", "none", str(tmp_path)]
    if (
        shutil.which("mount") is None
        or subprocess.run(small, capture_output=True, check=False).returncode
    ):
        pytest.skip("needs the right to mount a small disk")
    try:
        store = Store.at(tmp_path)
        store.write("a/first.bin", b"." * 60_000)
        with pytest.raises(StorageError, match="No space left on device"):
            store.write("a/second.bin", b"." * 100_000)
        assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["first.bin"]
        store.write("a/filler.bin", b"." * 60_000)
        with pytest.raises(OSError, match="No space left on device"):
            store.probe()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def image_table(rows, chunks=1):
    images = pa.array([{"bytes": bytes([i % 256]) * 2000, "path": None} for i in range(rows)])
    table = pa.table(
        {
            "gid": [f"g{i}" for i in range(rows)],
            "image": images,
            "lam_pct": pa.array([30] * rows, pa.int32()),
        }
    )
    return pa.concat_tables(
        [table.slice(i * rows // chunks, rows // chunks) for i in range(chunks)]
    )


def test_equal_tables_give_equal_bytes_however_they_are_chunked():
    data = parquet_bytes(image_table(200))
    assert data == parquet_bytes(image_table(200))
    assert data == parquet_bytes(image_table(200, chunks=4))
    assert data != parquet_bytes(image_table(201))


def test_tables_come_back_with_small_row_groups_and_uncompressed_images(tmp_path):
    import pyarrow.parquet as pq

    store, table = Store.at(tmp_path), image_table(2 * ROW_GROUP + 1)
    store.write_table("lam_pct=99/t.parquet", table)  # the folder's name must not become a column
    assert store.read_table("lam_pct=99/t.parquet").equals(table)
    assert store.read_table("lam_pct=99/t.parquet", ["gid"]).column_names == ["gid"]
    meta = pq.read_metadata(tmp_path / "lam_pct=99" / "t.parquet")
    assert meta.num_row_groups == 3
    columns = [meta.row_group(0).column(i) for i in range(meta.num_columns)]
    compression = {c.path_in_schema: c.compression for c in columns}
    assert compression["image.bytes"] == "UNCOMPRESSED"
    assert compression["gid"] == "ZSTD"


NAMES = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=20
)


@given(parts=st.lists(NAMES, min_size=1, max_size=4))
@example(parts=["C#", "why?", "a b", "50%", "%20", "?region=x", "é.png"])
@pytest.mark.parametrize(
    "root",
    [
        *(
            "file:///photos #2/why?/a b",
            "/photos #2/why?/%20",
            "s3://bucket/red fox?region=x&endpoint_override=http://h:9000",
        ),
        *("s3://bucket?region=x", "gs://anonymous@bucket/a%20b", "memory://red fox/C#"),
    ],
)
def test_a_file_under_a_root_is_found_again_by_its_reference(root, parts):
    name = "/".join(part for part in parts if part.strip(".")) or "x"
    store = Store.at(root)
    folder, last = Store.file(reference(root, name))
    assert folder.path(last) == store.path(name)
    assert folder.filesystem.equals(store.filesystem) or "memory" in root
    if "***" not in store.location(name):  # a name that looks like a password in a URI
        folder, last = Store.file(store.location(name))
        assert folder.path(last) == store.path(name)


def test_a_uri_is_opened_once_and_may_hold_what_paths_hold(tmp_path):
    (tmp_path / "C# why?" / "50% é").mkdir(parents=True)
    (tmp_path / "C# why?" / "50% é" / "x").write_bytes(b"1")
    for text in (f"file://{tmp_path}/C# why?/50% é", f"FILE://{tmp_path}/C%23%20why%3F/50% é/"):
        assert Store.at(text).read("x") == b"1"
    first, second = (Store.at(f"s3://bucket/{name}?region=x") for name in "ab")
    assert first.filesystem is second.filesystem
    with pytest.raises(pa.ArrowInvalid, match="Unexpected query parameter"):
        Store.at("s3://bucket/a?nonsense=1")


@given(st.integers(0, 10**9), st.integers(0, 7))
@pytest.mark.parametrize("columns", [None, ["gid", "image"]])
def test_no_changed_bit_of_a_table_passes_unseen(tmp_path_factory, columns, at, bit):
    """All but the footer, which is read by others' code.

    A page has a checksum, whatever is in it.
    """
    store, table = Store.at(tmp_path_factory.mktemp("flipped")), image_table(20)
    data = bytearray(parquet_bytes(table))
    pages = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    data[at % pages] ^= 1 << bit
    store.write("t.parquet", bytes(data))
    wanted = table if columns is None else table.select(columns)
    for read in (
        lambda: store.read_table("t.parquet", columns),
        lambda: store.dataset("t.parquet").to_table(columns),
    ):
        try:
            with store.reading("t.parquet"):
                assert read().equals(wanted)
        except IntegrityError:
            continue


def test_a_disk_that_does_not_answer_is_no_damage(tmp_path):
    with pytest.raises(UnreadableError, match="cannot be read"), Store.at(tmp_path).reading("x"):
        raise OSError(errno.EIO, "Input/output error")
    with (
        pytest.raises(IntegrityError, match="x: is gone; run it"),
        Store.at(tmp_path).reading("x", "delete it and run it"),
    ):
        raise FileNotFoundError


def test_links_to_no_file_are_found_and_not_listed(tmp_path):
    store = Store.at(tmp_path)
    store.write("a/sound.json", b"{}")
    for name, target in (("link", "sound.json"), ("lost", "gone"), (".hidden", "gone")):
        (tmp_path / "a" / f"{name}.json").symlink_to(target)
    assert store.list("a", ".json") == ["a/link.json", "a/sound.json"]
    assert store.broken_links("a", ".json") == ["a/lost.json"]
    assert store.broken_links("nowhere", ".json") == []
