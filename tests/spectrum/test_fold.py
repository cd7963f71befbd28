"""A fold gives the rows of the shards it covers, and no other; without one everything works."""

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from discl_ray.core.schema import SCORED, SPECTRUM
from discl_ray.core.storage import Store
from discl_ray.errors import IntegrityError
from discl_ray.spectrum import fold as folding
from discl_ray.spectrum.commit import write_shard
from discl_ray.spectrum.files import read_ledger
from discl_ray.spectrum.fold import Folding, drop_folds, fold
from discl_ray.spectrum.folded import ROWS, newest_fold
from discl_ray.spectrum.read import open_spectrum
from discl_ray.spectrum.records import committed, committed_ids, record_name
from tests.support.spectra import LAX, dates

SHARDS, ROWS_EACH = 6, 4
COLUMNS = [name for name in SPECTRUM.names if name != "image"] + ["file"]


def commit(run: Store, shard: int, *, score: float = 0.3) -> None:
    """Commits a shard of a few rows."""
    made = [
        {
            "gid": f"{shard:03}-{row}",
            "sample_id": f"s{(7 * shard) % 11:03}",
            "label": 0,
            "role": "train",
            "lam_pct": 10 * row,
            "replica": 0,
            "attempt": 0,
            "status": "ok",
            "text_sim": score,
            "image": {"bytes": bytes([shard]) * 1000, "path": None},
        }
        for row in range(ROWS_EACH)
    ]
    write_shard(run, f"{shard:016x}", pa.Table.from_pylist(made, schema=SCORED), ["a class"])


@pytest.fixture
def run(tmp_path) -> Store:
    run = Store.at(tmp_path / "run")
    for shard in range(SHARDS):
        commit(run, shard)
    return run


def opened(run: Store) -> pa.Table:
    return open_spectrum(run, LAX, COLUMNS)


def one_by_one(run: Store) -> pa.Table:
    """What is opened without any fold."""
    return open_spectrum(run, LAX, COLUMNS, read_ledger(run, use_fold=False))


def test_a_fold_gives_what_the_shards_give_and_is_there_for_anyone(run):
    before = opened(run)
    assert before.num_rows == SHARDS * ROWS_EACH
    fold(run)
    assert read_ledger(run).unfolded == []
    assert opened(run).equals(before)
    whole = pq.read_table(run.path("folded"))  # the folder, as pandas, polars and others do
    assert whole.schema.equals(ROWS)
    assert sorted(whole["gid"].to_pylist()) == sorted(before["gid"].to_pylist())
    was = dates(run)
    fold(run)  # nothing is new
    assert dates(run) == was


def test_shards_since_are_read_beside_it_and_folded_by_the_next(run):
    fold(run)
    (first,) = run.list("folded", ".parquet")
    commit(run, SHARDS)
    assert len(read_ledger(run).unfolded) == 1
    assert opened(run).equals(one_by_one(run))
    fold(run)
    (second,) = run.list("folded", ".parquet")
    assert second != first
    assert len(run.list("folded")) == 2
    assert opened(run).equals(one_by_one(run))
    assert opened(run).num_rows == (SHARDS + 1) * ROWS_EACH


@pytest.mark.parametrize("same_bytes", [True, False])
def test_what_was_deleted_or_made_again_since_is_not_taken_from_it(run, same_bytes):
    """On a GPU a shard that is made again may have other bytes."""
    fold(run)
    run.delete(record_name(f"{0:016x}"))
    gone = opened(run)
    assert gone.equals(one_by_one(run))
    assert gone.num_rows == (SHARDS - 1) * ROWS_EACH
    commit(run, 0, score=0.3 if same_bytes else 0.7)
    (file,) = committed(run)[f"{0:016x}"].files
    assert read_ledger(run).unfolded == ([] if same_bytes else [file.name])
    found = opened(run)
    assert found.equals(one_by_one(run))
    assert len(set(found["text_sim"].to_pylist())) == (1 if same_bytes else 2)
    fold(run)
    assert opened(run).equals(found)
    assert read_ledger(run).behind == 0


def test_a_copied_run_whose_files_have_other_dates_is_opened_by_its_fold(run, tmp_path):
    fold(run)
    copied = Store.at(tmp_path / "copied")
    shutil.copytree(run.base, copied.base, copy_function=shutil.copyfile)
    for file in Path(copied.base).rglob("*"):
        os.utime(file, (1, 1))
    assert read_ledger(copied).unfolded == []
    assert opened(copied).equals(opened(run))


@pytest.mark.parametrize("damage", ["gone", "cut", "bit", "other rows"])
def test_a_fold_that_is_damaged_is_ignored_and_made_again(run, damage):
    fold(run)
    before = one_by_one(run)
    (name,) = run.list("folded", ".parquet")
    data = bytearray(run.read(name))
    if damage == "gone":
        run.delete(name)
    elif damage == "cut":
        run.write(name, bytes(data[:-20]))
    elif damage == "bit":
        data[100] ^= 1
        run.write(name, bytes(data))
    else:
        run.write_table(name, run.read_table(name).slice(1))
        os.truncate(run.path(name), len(data))
    assert opened(run).equals(before)
    commit(run, SHARDS)
    fold(run)
    assert opened(run).equals(one_by_one(run))
    assert read_ledger(run).unfolded == []
    (table,) = run.list("folded", ".parquet")
    assert pq.read_table(run.path(table)).num_rows == (SHARDS + 1) * ROWS_EACH


class Killed(BaseException):
    """Ends a process in the middle."""


@dataclass(frozen=True)
class Mortal(Store):
    """A store whose process is killed at one of its writes or deletions, before or after it."""

    left: list[int] = field(default_factory=list)

    def _live(self) -> None:
        self.left[0] -= 1
        if self.left[0] < 0:
            raise Killed

    def write(self, name, data):
        self._live()
        super().write(name, data)
        self._live()

    def delete(self, name):
        self._live()
        super().delete(name)
        self._live()


def test_killed_at_any_write_nothing_is_lost(run):
    fold(run)
    commit(run, SHARDS)
    run.delete(record_name(f"{0:016x}"))
    expected = one_by_one(run)
    saved = Path(run.base).with_name("saved")
    shutil.copytree(run.base, saved)
    for steps in range(100):
        shutil.rmtree(run.base)
        shutil.copytree(saved, run.base)
        mortal = Mortal(run.filesystem, run.base, [steps])
        try:
            fold(mortal)
        except Killed:
            assert opened(run).equals(expected), steps
            fold(run)
            assert opened(run).equals(expected), steps
            assert read_ledger(run).behind == 0
            assert len(run.list("folded")) == 2
        else:
            break
    assert steps == 8  # a table, a record, and the two of the fold before


def test_while_shards_are_made_it_is_folded_now_and_then(run, monkeypatch):
    monkeypatch.setattr(folding, "EVERY", 3)
    made = Folding.begin(run)
    assert made.folded == 0
    covered = []
    for shard in range(SHARDS, SHARDS + 7):
        commit(run, shard)
        made.note()
        covered.append(newest_fold(run).files.num_rows)
    assert covered == [0, 0, SHARDS + 3, SHARDS + 3, SHARDS + 3, SHARDS + 6, SHARDS + 6]
    assert Folding.begin(run).folded == SHARDS + 6
    monkeypatch.setattr(folding, "GROWTH", 1)  # with so many folded, it waits for as many more
    later = Folding.begin(run)
    for shard in range(SHARDS + 7, SHARDS + 7 + SHARDS + 5):
        commit(run, shard)
        later.note()
        assert newest_fold(run).files.num_rows == SHARDS + 6
    later.note()
    assert newest_fold(run).files.num_rows == 2 * SHARDS + 12


def test_row_groups_of_many_small_shards_are_joined(run, monkeypatch):
    monkeypatch.setattr(folding, "GROUP", 10)
    monkeypatch.setattr(folding, "AT_ONCE", 1)
    fold(run)
    commit(run, SHARDS)
    fold(run)
    (table,) = run.list("folded", ".parquet")
    metadata = pq.read_metadata(run.path(table))
    sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    assert sum(sizes) == (SHARDS + 1) * ROWS_EACH
    assert all(size >= 10 for size in sizes[:-1])
    assert opened(run).equals(one_by_one(run))


def test_a_damaged_shard_is_named_not_left_out(run):
    name = f"spectrum/{2:016x}.parquet"
    run.write(name, run.read(name)[:-20])
    with pytest.raises(IntegrityError, match=name):
        fold(run)


def test_all_folds_can_be_dropped(run):
    fold(run)
    drop_folds(run)
    assert run.list("folded") == []
    assert newest_fold(run).rows == 0
    assert set(committed(run)) == committed_ids(run)
