"""The plan of a round of attempts, as it lies in a run's folder.

    sources/000000.parquet   SAMPLES: the real images of the first block of sources
    plan/000000.parquet      PLAN of them; a shard's rows lie in one row group
    shards.parquet           SHARDS of all parts, written last
    plan-1/, shards-1.parquet and on: what is tried again, in parts of the same sources

Whoever needs rows reads a part; only the shards are in memory together. A run that an earlier
version laid out has one file, plan.parquet, with all rows, and keeps it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

import pyarrow as pa

from discl_ray.core.columns import is_in, negate, rows_where, total
from discl_ray.core.run_directory import SHARDS_FILE, SOURCES
from discl_ray.core.schema import PLAN
from discl_ray.core.storage import Store, parquet_bytes
from discl_ray.errors import IntegrityError
from discl_ray.plan.shards import run_starts, shards_of
from discl_ray.process.calls import AGAIN
from discl_ray.synthesize.written import is_sound

GROUP_ROWS = 64
"""Rows of a plan after which a row group takes no further shard."""

SHARD_COLUMNS = ["shard_id", "sample_id", "role", "num_steps"]
"""Columns of PLAN that SHARDS are computed from."""


def _of_round(name: str, attempt: int) -> str:
    """A name that later rounds write with their number."""
    return f"{name}-{attempt}" if attempt else name


def whole_file(attempt: int) -> str:
    """The file of a round's plan in a run that an earlier version laid out."""
    return f"{_of_round('plan', attempt)}.parquet"


def shards_file(attempt: int) -> str:
    """The file of a round's SHARDS."""
    return f"{_of_round('shards', attempt)}.parquet"


def plan_part(number: int, attempt: int = 0) -> str:
    """A file of a round's PLAN."""
    return f"{_of_round('plan', attempt)}/{number:06d}.parquet"


def sources_part(number: int) -> str:
    """The file of the real images of a part of the plan."""
    return f"{SOURCES}/{number:06d}.parquet"


@dataclass(frozen=True)
class Planned:
    """The shards of a round's plan; their rows lie in the run's folder."""

    store: Store
    shards: pa.Table
    """SHARDS, by the files of their rows."""

    @property
    def rows(self) -> int:
        """Images."""
        return total(self.shards["rows"])

    @property
    def probes(self) -> int:
        """Images that are probes."""
        return total(self.shards["probes"])

    @property
    def sources(self) -> int:
        """Real images they are made from."""
        return total(self.shards["new_sources"])

    @property
    def unet_steps(self) -> int:
        """Guided steps of all images."""
        return total(self.shards["unet_steps"])

    def without(self, shard_ids: Collection[str]) -> Planned:
        """The shards that are not among some."""
        inside = is_in(self.shards["shard_id"], sorted(shard_ids))
        return replace(self, shards=self.shards.filter(negate(inside)))

    def parts(self) -> Iterator[pa.Table]:
        """SHARDS of each file with rows, one after the other."""
        for file in self.shards["plan"].unique().to_pylist():
            yield rows_where(self.shards, plan=file)

    def read_part(self, shards: pa.Table, columns: list[str] | None = None) -> pa.Table:
        """PLAN of one file, whose SHARDS are given."""
        return self.store.read_table(shards["plan"][0].as_py(), columns)

    def gids(self) -> pa.Table:
        """The gids of all rows, as a table of one column."""
        column = PLAN.field("gid")
        tables = [self.read_part(part, [column.name]) for part in self.parts()]
        return pa.concat_tables([pa.schema([column]).empty_table(), *tables])


def open_planned(store: Store, attempt: int = 0) -> Planned | None:
    """A round's plan; None if it is not planned, or has to be planned anew because of damage."""
    whole = whole_file(attempt)
    if store.exists(whole):
        if not is_sound(store, whole):
            return None
        plan = store.read_table(whole, SHARD_COLUMNS)
        return Planned(store, shards_of(plan, whole))
    if not is_sound(store, shards_file(attempt)):
        return None
    return Planned(store, store.read_table(shards_file(attempt)))


def read_planned(store: Store) -> Planned:
    """The plan of a run that is laid out; raises IntegrityError if it is gone or damaged."""
    planned = open_planned(store)
    if planned is None:
        raise IntegrityError(f"{store.location(SHARDS_FILE)}: is gone or damaged; {AGAIN}")
    return planned


def write_part(store: Store, file: str, plan: pa.Table) -> None:
    """Writes PLAN of some whole shards; a row group never divides one."""
    starts: list[int] = []
    for start in run_starts(plan["shard_id"]).tolist():
        if not starts or start - starts[-1] >= GROUP_ROWS:
            starts.append(start)
    store.write(file, parquet_bytes(plan, starts))
