"""Which rows a process is at, so that a row that kills its process can be found, left out, and the rest be made.

Before anything is done for a shard its rows are written down, and struck off when they are made. A record that is already there
was left by a process that ended over those rows. Only if that process died while its job's driver lived, on a machine that still
lives, may it have been a row's fault, and is it a death; a driver that is killed, a machine that is lost or preempted and a power
cut take processes with them that did nothing wrong, however often they do. After a death the rows are tried in smaller parts, alone
in their process: the whole shard first, then one batch at a time, then row by row; a row that was alone at its shard's third death,
or a later one, is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from discl_ray.core.storage import Store
from discl_ray.errors import IntegrityError

FOLDER = "underway"
DEATHS = 3
"""Deaths after which a row that was alone is given up."""


def _all_alive(_node: str) -> bool:
    return True


@dataclass(frozen=True, kw_only=True)
class Life:
    """Who a process works for, and where."""

    session: str = ""
    """The start of the job it belongs to: drawn anew each time, and known to all its processes."""
    node: str = ""
    """The machine it runs on."""
    node_lives: Callable[[str], bool] = _all_alive
    """Whether another machine of the session is still there."""

    def blames(self, record: dict[str, Any]) -> bool:
        """Whether the process that left a record may have died of its rows, as seen by the one that finds it."""
        if (
            record.get("session") != self.session
        ):  # its driver is gone; one that is older than sessions does not say whose it was
            return False
        return record["node"] == self.node or self.node_lives(record["node"])


ALONE = Life()
"""A process that works for nobody."""


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
    """Rows given up."""

    @classmethod
    def open(cls, run: Store, shard_id: str, gids: Sequence[str], life: Life) -> Self:
        """The shard's record, with one death more if there was one."""
        journal = cls(run, shard_id, tuple(gids), life)
        record = _read(run, journal.name, journal.gids)
        if record is None:
            return journal
        journal.deaths, journal.suspects = record["deaths"], tuple(record["suspects"])
        journal.crashed = set(record["crashed"])
        if not life.blames(record):
            return journal
        journal.deaths, journal.suspects = journal.deaths + 1, tuple(record["running"])
        if len(journal.suspects) == 1 and journal.deaths >= DEATHS:
            journal.crashed.add(journal.suspects[0])
            journal.deaths, journal.suspects = 0, ()
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
        """What to make, one part after the other: the suspects a batch or a row at a time, then the others at once.

        Suspects come first, so that with several culprits each death narrows one down and none leads away from it.
        """
        rest = tuple(g for g in self.gids if g not in self.crashed and g not in self.suspects)
        size = batch if len(self.suspects) > batch else 1
        suspects = [g for g in self.suspects if g not in self.crashed]
        return [
            part
            for part in (
                *(tuple(suspects[i : i + size]) for i in range(0, len(suspects), size)),
                rest,
            )
            if part
        ]

    def enter(self, part: Sequence[str]) -> None:
        """Writes down what is about to be made."""
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
        """Strikes the shard off."""
        self.run.delete(self.name)


def _read(run: Store, name: str, gids: Sequence[str]) -> dict[str, Any] | None:
    """A record of these rows; None if there is none, or none that says who left it: then nothing is held against its rows."""
    if not run.exists(name):
        return None
    try:
        with run.reading(name):
            record = run.read_json(name)
            named = {*record["suspects"], *record["running"], *record["crashed"]}
            sound = (
                named <= set(gids)
                and record["deaths"] >= 0
                and {"session", "node"} <= record.keys()
            )
    except IntegrityError:
        return None
    return record if sound else None
