"""Which rows a process is at, so that a row that kills its process can be found, left out, and the rest be made.

Before anything is done for a shard its rows are written down, and struck off when they are made. A record that is already there
says that a process died over those rows. They are then tried in smaller parts, alone in their process: the whole shard first,
then one batch at a time, then row by row; a row that was alone at its shard's third death, or a later one, is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from discl_ray.core.storage import Store

FOLDER = "underway"
DEATHS = 3
"""Deaths after which a row that was alone is given up."""


@dataclass
class Journal:
    """One shard's record."""

    run: Store
    shard_id: str
    gids: tuple[str, ...]
    deaths: int = 0
    suspects: tuple[str, ...] = ()
    """Rows of which one killed the last process, as far as is known."""
    crashed: set[str] = field(default_factory=set)
    """Rows given up."""

    @classmethod
    def open(cls, run: Store, shard_id: str, gids: Sequence[str]) -> Self:
        """The shard's record, with one death more if there was one."""
        journal = cls(run, shard_id, tuple(gids))
        if not run.exists(journal.name):
            return journal
        record = run.read_json(journal.name)
        journal.deaths, journal.suspects = record["deaths"] + 1, tuple(record["running"])
        journal.crashed = set(record["crashed"])
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
        return [part for part in (*(tuple(suspects[i : i + size]) for i in range(0, len(suspects), size)), rest) if part]

    def enter(self, part: Sequence[str]) -> None:
        """Writes down what is about to be made."""
        self.run.write_json(self.name, {"deaths": self.deaths, "running": list(part), "crashed": sorted(self.crashed)})

    def close(self) -> None:
        """Strikes the shard off."""
        self.run.delete(self.name)
