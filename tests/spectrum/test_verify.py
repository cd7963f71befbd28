"""Shards that are damaged or missing are found, and made again.

A resumed run compares sizes and footers (`drop_damaged`); a changed byte inside a file is found by
`verify`, which alone reads all bytes again.
"""

import errno
import os
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from discl_ray.core.storage import Store
from discl_ray.errors import IntegrityError, UnreadableError
from discl_ray.spectrum.files import committed_files
from discl_ray.spectrum.fold import fold
from discl_ray.spectrum.read import open_spectrum
from discl_ray.spectrum.records import committed, record_name
from discl_ray.spectrum.verify import (
    check_planned,
    damaged_fold,
    drop,
    drop_damaged,
    drop_strays,
    named_records,
    verify,
)
from tests.support.spectra import LAX, check_whole, dates, flip

pytestmark = pytest.mark.timeout(600)


def test_what_no_commit_names_is_dropped(copy):
    before = open_spectrum(copy, LAX)
    copy.write_table("spectrum/lam_pct=50/ffff.parquet", before.slice(0, 1))
    copy.write_table("spectrum/ffff.parquet", before.slice(0, 1))
    copy.write("spectrum/note.txt", b"of a user")
    drop_strays(copy)
    assert copy.list("spectrum", ".parquet") == committed_files(copy)
    assert copy.list("spectrum/lam_pct=50") == []
    assert copy.exists("spectrum/note.txt")
    assert open_spectrum(copy, LAX).equals(before)


@pytest.mark.parametrize("keep_date", [False, True])
@pytest.mark.parametrize("folded", [False, True])
def test_a_changed_byte_is_found_by_verifying_and_by_nothing_else(copy, folded, keep_date):
    """As when a disk's cell flips: size, footer and perhaps the date stay."""
    for name in copy.list("folded"):
        copy.delete(name)
    if folded:
        fold(copy)
    shard_id, record = next(iter(committed(copy).items()))
    flip(copy, record.files[0].name, 1 / 3, keep_date=keep_date)
    drop_damaged(copy)
    assert copy.exists(record_name(shard_id))
    seen = []
    found = verify(copy, lambda: seen.append(1))
    assert list(found.damaged) == [record_name(shard_id)]
    (said,) = found.damaged.values()
    assert copy.path(record.files[0].name) in said
    assert "its bytes differ from its commit; run" in said
    assert found.files == len(seen) == len(committed(copy))
    assert found.bytes == sum(os.path.getsize(copy.path(n)) for n in committed_files(copy))
    drop(copy, found.damaged)
    assert shard_id not in committed(copy)
    assert not verify(copy).damaged


@pytest.mark.parametrize("folded", [False, True])
def test_what_is_cut_short_gone_or_garbled_is_found_without_reading_bytes(copy, capsys, folded):
    for name in copy.list("folded"):
        copy.delete(name)
    if folded:
        fold(copy)
    cut, gone, footer, record, *rest = sorted(committed(copy))
    before = dates(copy)
    drop_damaged(copy)
    assert dates(copy) == before
    assert capsys.readouterr().out == ""
    data = copy.read(f"spectrum/{cut}.parquet")
    copy.write(f"spectrum/{cut}.parquet", data[:-9])
    copy.delete(f"spectrum/{gone}.parquet")
    flip(copy, f"spectrum/{footer}.parquet", 1 - 1e-9)
    copy.write(f"commits/{record}.json", b'{"shard_id": "another", "files": []}')
    drop_damaged(copy)
    (line,) = capsys.readouterr().out.splitlines()
    assert "its images are made again (likewise 3 more shards)" in line
    assert sorted(committed(copy)) == rest
    assert set(open_spectrum(copy, LAX, [])["gid"].to_pylist()) == {
        gid
        for shard in rest
        for gid in copy.read_table(f"spectrum/{shard}.parquet", ["gid"])["gid"].to_pylist()
    }


def test_a_record_of_an_earlier_version_is_checked_by_the_footer(copy):
    """It says no size."""
    for name in copy.list("folded"):
        copy.delete(name)
    for shard_id, record in committed(copy).items():
        older = [{k: v for k, v in asdict(f).items() if k != "size"} for f in record.files]
        copy.write_json(record_name(shard_id), {"shard_id": shard_id, "files": older})
    drop_damaged(copy)
    cut, other, *rest = sorted(committed(copy))
    copy.write(f"spectrum/{cut}.parquet", copy.read(f"spectrum/{cut}.parquet")[:-9])
    copy.write(f"spectrum/{other}.parquet", copy.read(f"spectrum/{rest[0]}.parquet"))
    drop_damaged(copy)
    left = set(committed(copy))
    assert cut not in left
    assert set(rest) <= left
    rows = [copy.read_table(f"spectrum/{s}.parquet", ["gid"]).num_rows for s in (other, rest[0])]
    assert rows[0] == rows[1]
    assert list(verify(copy).damaged) == ([record_name(other)] if other in left else [])


def test_a_disk_that_fails_costs_no_shard(copy, monkeypatch):
    """What it does not give may be whole."""
    before = sorted(committed(copy))

    def fail(*_, **__):
        raise OSError(errno.EIO, "Input/output error")

    for name in copy.list("folded"):
        copy.delete(name)
    failing = replace(copy, filesystem=pafs.PyFileSystem(Failing(copy.filesystem)))
    with pytest.raises(UnreadableError):
        drop_damaged(failing)
    with pytest.raises(UnreadableError):
        verify(failing)
    assert sorted(committed(copy)) == before


def test_a_missing_commit_is_found_and_its_rows_do_not_exist(copy, spectrum_run):
    plan = spectrum_run[1].plan
    shard_id, record = next(iter(committed(copy).items()))
    Path(copy.path(f"commits/{shard_id}.json")).unlink()
    lost = sum(file.rows for file in record.files)
    with pytest.raises(IntegrityError, match=f"{lost} planned images are not committed"):
        check_planned(copy, plan)
    assert open_spectrum(copy, LAX).num_rows == plan.num_rows - lost
    assert Path(copy.path(record.files[0].name)).exists()


def test_foreign_and_doubled_rows_are_found(copy, spectrum_run):
    plan = spectrum_run[1].plan
    check_whole(copy, plan)
    with pytest.raises(IntegrityError, match="1 committed images are not in the plan"):
        check_planned(copy, plan.slice(1))
    record = next(iter(committed(copy).values()))
    copy.write_json("commits/ffff.json", asdict(replace(record, shard_id="ffff")))
    for _ in range(2):
        with pytest.raises(IntegrityError, match="committed twice") as caught:
            check_planned(copy, plan)
        assert copy.path("commits/ffff.json") in str(caught.value)
        fold(copy)  # of such a file it holds no row
    copy.delete("commits/ffff.json")
    check_planned(copy, plan)


def test_another_tools_files_are_read_to_their_ends(of_another_tool):
    names = of_another_tool.list("spectrum", ".parquet")
    found = verify(of_another_tool)
    assert (found.files, found.damaged) == (len(names), {})
    flip(of_another_tool, names[0], 0.3)
    assert list(verify(of_another_tool).damaged) == names[:1]


def test_a_damaged_fold_is_found(copy):
    fold(copy)
    assert damaged_fold(copy) == ""
    (name,) = copy.list("folded", ".parquet")
    flip(copy, name, keep_date=True)
    assert copy.path(name) in damaged_fold(copy)


def test_few_of_many_records_are_named(tmp_path):
    store = Store.at(tmp_path)
    assert named_records(store, ["b", "a"]) == f"{tmp_path}/a, {tmp_path}/b"
    many = named_records(store, [f"{number:02}" for number in range(13)])
    assert many.endswith(f"{tmp_path}/09 and 3 more")


class Failing(pafs.FileSystemHandler):
    """Lists files, and cannot read any."""

    def __init__(self, inner: pafs.FileSystem) -> None:
        self.inner = inner

    def get_type_name(self):
        return "failing"

    def normalize_path(self, path):
        return path

    def get_file_info(self, paths):
        return self.inner.get_file_info(paths)

    def get_file_info_selector(self, selector):
        return self.inner.get_file_info(selector)

    def fail(self, *_):
        raise OSError(errno.EIO, "Input/output error")

    open_input_stream = open_input_file = fail
    create_dir = delete_dir = delete_dir_contents = delete_root_dir_contents = delete_file = fail
    move = copy_file = open_output_stream = open_append_stream = fail
