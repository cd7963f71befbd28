"""Shards that are damaged or missing are found, and made again."""

import errno
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from discl_ray.core.storage import Store
from discl_ray.errors import IntegrityError, UnreadableError
from discl_ray.spectrum.files import committed_files
from discl_ray.spectrum.read import open_spectrum
from discl_ray.spectrum.records import committed
from discl_ray.spectrum.verify import drop_damaged, drop_strays, verify
from tests.support.spectra import LAX

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


def test_a_changed_byte_is_found(copy, spectrum_run):
    record = next(iter(committed(copy).values()))
    file = Path(copy.path(record.files[0].name))
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 1
    file.write_bytes(data)
    with pytest.raises(IntegrityError, match=r"bytes differ from its commit") as caught:
        verify(copy, spectrum_run[1].plan)
    assert str(file) in str(caught.value)
    assert record.shard_id in str(caught.value)


def test_shards_that_are_damaged_are_made_again_and_others_are_whole(copy, capsys):
    """Not where the disk fails: what it does not give may be whole."""
    flipped, gone, garbled, *rest = sorted(committed(copy))
    assert drop_damaged(copy) == {flipped, gone, garbled, *rest}
    assert capsys.readouterr().out == ""
    file = Path(copy.path(f"spectrum/{flipped}.parquet"))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    copy.delete(f"spectrum/{gone}.parquet")
    copy.write(f"commits/{garbled}.json", b'{"shard_id": "another", "files": []}')
    assert drop_damaged(copy) == set(rest)
    (line,) = capsys.readouterr().out.splitlines()
    assert "its images are made again (likewise 2 more shards)" in line
    assert sorted(committed(copy)) == rest


def test_a_disk_that_fails_costs_no_shard(copy, monkeypatch):
    before = sorted(committed(copy))

    def read(self, name):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Store, "read", read)
    with pytest.raises(UnreadableError):
        drop_damaged(copy)
    monkeypatch.undo()
    assert sorted(committed(copy)) == before


def test_a_missing_commit_is_found_and_its_rows_do_not_exist(copy, spectrum_run):
    plan = spectrum_run[1].plan
    shard_id, record = next(iter(committed(copy).items()))
    Path(copy.path(f"commits/{shard_id}.json")).unlink()
    lost = sum(file.rows for file in record.files)
    with pytest.raises(IntegrityError, match=f"{lost} planned images are not committed"):
        verify(copy, plan)
    assert open_spectrum(copy, LAX).num_rows == plan.num_rows - lost
    assert Path(copy.path(record.files[0].name)).exists()


def test_foreign_and_doubled_rows_are_found(copy, spectrum_run):
    plan = spectrum_run[1].plan
    with pytest.raises(IntegrityError, match="1 committed images are not in the plan"):
        verify(copy, plan.slice(1))
    record = next(iter(committed(copy).values()))
    copy.write_json("commits/ffff.json", asdict(replace(record, shard_id="ffff")))
    with pytest.raises(IntegrityError, match="committed twice"):
        verify(copy, plan)
