"""What `benchmarks/scale.py` asks of its figures, and whether they hold."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from benchmarks.scale_steps import IMAGE_BYTES, SMALL_BYTES, Step

MEASURABLE_S = 0.1
"""CPU seconds below which caches and memory that was there already decide: less counts as this."""

STEEPEST = 1.15
"""The exponent that no step may exceed."""

ROW_BYTES = 800
"""Memory that a row, an image or a file may take."""

SLACK_MB = 64
"""By which equal memory differs from run to run: allocators keep what is free."""

DRIVER_MB = 500
"""Memory of generate's driver above its start, with 131,000 committed images."""

IMAGE_SHARE = 0.005
"""Memory that a byte of the images may take: none, but for what a measurement is off."""

READ_SHARE = 0.02
"""Share of a run's bytes that opening it for scores may read."""

PLAN_S, PLAN_MB = 25.0, 800
"""CPU seconds and memory of a plan of a million rows, written and read again."""

FILES_S = 25.0
"""CPU seconds of a data set of a million files, apart from reading and decoding."""

READERS = ("imagefolder", "manifest", "imagenet_lt", "inaturalist", "iwildcam", "parquet")

STATS = ("imagefolder", "manifest")
"""Readers that ask the system for each file, which is apart."""

AFTER_LISTING = ("samples", "hard_classes", "reuse")
"""Steps that follow a listing of files."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a step took."""

    cpu_s: float
    memory_mb: float
    """The highest above what the process began with."""
    read_mb: float
    wall_s: float


@dataclass(frozen=True, kw_only=True)
class Line:
    """A step's costs at N and at 10 N."""

    step: Step
    counts: tuple[int, int]
    costs: tuple[Cost, Cost]

    @property
    def large(self) -> Cost:
        """At 10 N."""
        return self.costs[1]

    @property
    def exponent(self) -> float | None:
        """Of time; None where there is too little to measure."""
        small, large = (max(cost.cpu_s, MEASURABLE_S) for cost in self.costs)
        if large < 2 * MEASURABLE_S:
            return None
        return math.log(large / small) / math.log(self.counts[1] / self.counts[0])

    @property
    def row_bytes(self) -> float:
        """Memory of each row more, beyond SLACK_MB."""
        small, large = self.costs
        more = large.memory_mb - small.memory_mb - SLACK_MB
        return max(0.0, more) * 1e6 / (self.counts[1] - self.counts[0])

    def row(self) -> str:
        """A line of the table."""
        small, large = self.costs
        exponent = "–" if self.exponent is None else f"{self.exponent:.2f}"
        cells = [
            self.step.title,
            f"{self.counts[0]:,} {self.step.unit}",
            f"{small.cpu_s:.2f}",
            f"{large.cpu_s:.2f}",
            exponent,
            f"{small.memory_mb:.0f}",
            f"{large.memory_mb:.0f}",
            f"{small.read_mb:.1f}",
            f"{large.read_mb:.1f}",
        ]
        return f"| {' | '.join(cells)} |"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A rule, and what was measured."""

    rule: str
    measured: str
    broken: bool

    def row(self) -> str:
        """A line of the table."""
        return f"| {self.rule} | {self.measured} | {'**no**' if self.broken else 'yes'} |"


def rules_table(lines: list[Line]) -> str:
    """The rules as markdown."""
    rows = ["| rule | measured | holds |", "|---|---|---|"]
    rows += [verdict.row() for verdict in verdicts(lines)]
    return "## What has to hold\n\n" + "\n".join(rows) + "\n"


def verdicts(lines: list[Line]) -> list[Verdict]:
    """Every rule whose steps were measured."""
    by_name = {line.step.name: line for line in lines}
    return [*_growth(lines), *_of_runs(by_name), *_of_plans(by_name), *_of_files(by_name)]


def _growth(lines: list[Line]) -> Iterator[Verdict]:
    """Rules of every step."""
    steep = [line for line in lines if (line.exponent or 0) > STEEPEST]
    highest = max(lines, key=lambda line: line.exponent or 0)
    named = [
        f"{line.step.name} {line.exponent:.2f}" for line in steep or [highest] if line.exponent
    ]
    yield Verdict(
        rule=f"no exponent of time over {STEEPEST}",
        measured=("" if steep else "highest: ") + (", ".join(named) or "too little to measure"),
        broken=bool(steep),
    )
    by_rows = [line for line in lines if line.step.unit != "shards"]
    if not by_rows:
        return
    heavy = [line for line in by_rows if line.row_bytes > ROW_BYTES]
    heaviest = max(by_rows, key=lambda line: line.row_bytes)
    each = [f"{line.step.name} {line.row_bytes:.0f}" for line in heavy or [heaviest]]
    yield Verdict(
        rule=f"memory at 10 N: at most {SLACK_MB} MB more, and {ROW_BYTES} bytes for each row, "
        "image or file more",
        measured=("" if heavy else "most: ") + ", ".join(each),
        broken=bool(heavy),
    )


def _of_runs(lines: Mapping[str, Line]) -> Iterator[Verdict]:
    """Rules of a run with images."""
    driver = lines.get("driver")
    if driver is not None:
        megabytes = driver.large.memory_mb
        yield Verdict(
            rule=f"generate's driver, draft to end, {driver.counts[1]:,} committed rows of "
            f"{IMAGE_BYTES // 1000} KB: at most {DRIVER_MB} MB above its start",
            measured=f"{megabytes:.0f} MB",
            broken=megabytes > DRIVER_MB,
        )
    small = lines.get("small_driver")
    if driver is not None and small is not None:
        fewer = driver.counts[1] * (IMAGE_BYTES - SMALL_BYTES) / 1e6
        share = (driver.large.memory_mb - small.large.memory_mb) / fewer
        yield Verdict(
            rule="its memory does not grow with the images' bytes: at most "
            f"{100 * IMAGE_SHARE:g} % of those that images of {SMALL_BYTES // 1000} KB have less",
            measured=f"{100 * share:.2f} % of {fewer:,.0f} MB",
            broken=share > IMAGE_SHARE,
        )
    for name in ("open_scores", "open_unfolded"):
        if name in lines:
            line = lines[name]
            share = line.large.read_mb * 1e6 / (line.counts[1] * IMAGE_BYTES)
            yield Verdict(
                rule=f"{line.step.title}: reads at most {100 * READ_SHARE:g} % of the bytes",
                measured=f"{100 * share:.2f} %",
                broken=share > READ_SHARE,
            )


def _of_plans(lines: Mapping[str, Line]) -> Iterator[Verdict]:
    """Rules of a plan of a million rows."""
    line = lines.get("plan_in_parts")
    if line is None:
        return
    cost = line.large
    yield Verdict(
        rule=f"a plan of {line.counts[1]:,} rows, made, written and read again: at most "
        f"{PLAN_S:g} CPU s and {PLAN_MB} MB",
        measured=f"{cost.cpu_s:.1f} s, {cost.memory_mb:.0f} MB",
        broken=cost.cpu_s > PLAN_S or cost.memory_mb > PLAN_MB,
    )


def _of_files(lines: Mapping[str, Line]) -> Iterator[Verdict]:
    """Rules of a data set of a million files."""
    if not all(name in lines for name in (*AFTER_LISTING, "stat")):
        return
    after = sum(lines[name].large.cpu_s for name in AFTER_LISTING)
    stat = lines["stat"].large.cpu_s
    for reader in READERS:
        listing = lines.get(f"list_{reader}")
        if listing is None:
            continue
        own = listing.large.cpu_s
        apart = ""
        if reader in STATS:
            own -= stat
            apart = ", the files' dates apart"
        yield Verdict(
            rule=f"{listing.counts[1]:,} files of {reader}: listed, split, hashed, written, the "
            f"hard ones chosen, reuse found: at most {FILES_S:g} CPU s{apart}",
            measured=f"{own:.1f} + {after:.1f} s",
            broken=own + after > FILES_S,
        )
