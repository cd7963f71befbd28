"""A record of the rows a process is making, by which a row that kills its process is found.

The rows of a shard are recorded as in progress before anything is done, and removed when they are
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
class Life:
    """The job that a process belongs to, and the machine it runs on."""

    session: str = ""
    """Drawn anew by each start of a job and known to all its processes."""
    node: str = ""
    """The machine it runs on."""
    node_lives: Callable[[str], bool] = _all_alive
    """Whether another machine of the session is still alive."""

    def blames(self, record: dict[str, Any]) -> bool:
        """Whether the process that left a record may have died of its rows."""
        if record.get("session") != self.session:
            return False  # its driver is gone
        return record["node"] == self.node or self.node_lives(record["node"])


ALONE = Life()
"""A process that belongs to no job."""


@dataclass
class Journal:
    """One shard's record."""

    run: Store
    shard_id: str
    gids: tuple[str, ...]
    life: Life = ALONE
    deaths: int = 0
    suspects: tuple[str, ...] = ()
    """Rows of which one killed the last process, as far as is known."""
    crashed: set[str] = field(default_factory=set)
    """Rows that are given up."""

    @classmethod
    def open(cls, run: Store, shard_id: str, gids: Sequence[str], life: Life) -> Self:
        """The shard's record; a process that died of its rows is counted."""
        journal = cls(run, shard_id, tuple(gids), life)
        record = _read(run, journal.name, journal.gids)
        if record is None:
            return journal
        journal.deaths = record["deaths"]
        journal.suspects = tuple(record["suspects"])
        journal.crashed = set(record["crashed"])
        if not life.blames(record):
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
    def suspicious(self) -> bool:
        """Whether the shard has to be alone in its process."""
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

    def enter(self, part: Sequence[str]) -> None:
        """Records rows as in progress."""
        record = {
            "session": self.life.session,
            "node": self.life.node,
            "deaths": self.deaths,
            "suspects": list(self.suspects),
            "running": list(part),
            "crashed": sorted(self.crashed),
        }
        self.run.write_json(self.name, record)

    def close(self) -> None:
        """Removes the record."""
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
