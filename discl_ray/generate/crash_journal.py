"""Finds the row that kills its process, from a record of the rows each process was making.

The rows of a shard are recorded as in progress before they are begun, and removed when they are
made. A record that already exists was left by a process that ended during those rows. It counts as
a death only if that process died while its job's driver and its machine were alive; a driver that
is killed, a machine that is lost or preempted and a power cut end processes whose rows are not at
fault, however often that happens.

After a death the rows are tried in smaller parts, alone in their process: the whole shard first,
then one batch at a time, then row by row. A row that was alone at its shard's third death, or a
later one, is given up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from discl_ray.core.storage import Store
from discl_ray.errors import IntegrityError

FOLDER = "underway"
DEATHS = 3
"""Deaths after which a row that was alone is given up; one or two may be chance."""


def _all_alive(_node: str) -> bool:
    return True


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Which job a process belongs to, and which machine it runs on."""

    session: str = ""
    """A random id of one start of the job, shared by all its processes."""
    node: str = ""
    """The machine it runs on."""
    is_node_alive: Callable[[str], bool] = _all_alive
    """Whether another machine of the session is still alive."""

    def may_blame_rows(self, record: dict[str, Any]) -> bool:
        """Whether the process that left a record may have died of its rows."""
        if record.get("session") != self.session:
            return False  # of an earlier start: its driver ended, which ends all its processes
        return record["node"] == self.node or self.is_node_alive(record["node"])


NO_JOB = Origin()
"""A process that belongs to no job."""


@dataclass
class CrashJournal:
    """The record of one shard, and what it says of earlier deaths."""

    run: Store
    shard_id: str
    gids: tuple[str, ...]
    origin: Origin = NO_JOB
    deaths: int = 0
    suspects: tuple[str, ...] = ()
    """Rows that the last process died of, if it died of any: at most one part."""
    crashed: set[str] = field(default_factory=set)
    """Rows that are given up."""

    @classmethod
    def open(cls, run: Store, shard_id: str, gids: Sequence[str], origin: Origin) -> Self:
        """Reads the shard's record; counts a death if the process may have died of its rows."""
        journal = cls(run, shard_id, tuple(gids), origin)
        record = _read(run, journal.name, journal.gids)
        if record is None:
            return journal
        journal.deaths = record["deaths"]
        journal.suspects = tuple(record["suspects"])
        journal.crashed = set(record["crashed"])
        if not origin.may_blame_rows(record):
            return journal
        journal.deaths += 1
        journal.suspects = tuple(record["running"])
        if len(journal.suspects) == 1 and journal.deaths >= DEATHS:
            journal.crashed.add(journal.suspects[0])
            # counted anew: another row of the shard may be at fault, too
            journal.deaths = 0
            journal.suspects = ()
        return journal

    @property
    def name(self) -> str:
        """The record's file."""
        return f"{FOLDER}/{self.shard_id}.json"

    @property
    def has_suspects(self) -> bool:
        """Whether the shard must be the only one in its process, so that a death is its own."""
        return bool(self.suspects)

    def parts(self, batch: int) -> list[tuple[str, ...]]:
        """The shard in the order in which to make it: parts of the suspects, then all others.

        Suspects come first, so that with several culprits each death narrows one down and none
        leads away from it.
        """
        size = batch if len(self.suspects) > batch else 1
        suspects = [gid for gid in self.suspects if gid not in self.crashed]
        parts: list[tuple[str, ...]] = []
        for begin in range(0, len(suspects), size):
            parts.append(tuple(suspects[begin : begin + size]))
        excluded = self.crashed.union(self.suspects)
        rest = tuple(gid for gid in self.gids if gid not in excluded)
        return [*parts, rest] if rest else parts

    def begin(self, part: Sequence[str]) -> None:
        """Records rows as in progress."""
        record = {
            "session": self.origin.session,
            "node": self.origin.node,
            "deaths": self.deaths,
            "suspects": list(self.suspects),
            "running": list(part),
            "crashed": sorted(self.crashed),
        }
        self.run.write_json(self.name, record)

    def close(self) -> None:
        """Removes the record: every row is made or given up."""
        self.run.delete(self.name)


def _read(run: Store, name: str, gids: Sequence[str]) -> dict[str, Any] | None:
    """A valid record of these rows, or None.

    One that does not name its session and machine is not counted against its rows.
    """
    if not run.exists(name):
        return None
    try:
        with run.reading(name):
            record = run.read_json(name)
            valid = _is_valid(record, gids)
    except IntegrityError:
        return None
    return record if valid else None


def _is_valid(record: dict[str, Any], gids: Sequence[str]) -> bool:
    named = {*record["suspects"], *record["running"], *record["crashed"]}
    if not named <= set(gids) or record["deaths"] < 0:
        return False
    return "session" in record and "node" in record
