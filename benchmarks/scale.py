"""How each step grows: at N and at 10 N, in fresh processes, without a model.

    python benchmarks/scale.py                       every step, and benchmarks/results/scale.md
    python benchmarks/scale.py --only plan,judge     some of them, printed only
    python benchmarks/scale.py --tiny                small counts: plumbing only, no measurement

A step is prepared in a process of its own (fabricated tables, images of noise), then run in
a fresh one: CPU seconds of all its threads, the highest memory above what it began with, and bytes
read, each without what importing the package takes. The median of three. The exponent is that of
time, log10 of the ratio; a step that takes less than MEASURABLE_S at 10 N has none.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the steps are a module of benchmarks

from benchmarks.scale_gpus import saturation  # noqa: E402
from benchmarks.scale_steps import STEPS, Step  # noqa: E402
from discl_ray.evaluate.held_out import commit  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "scale.md"

MEASURABLE_S = 0.2
"""CPU seconds below which a step's growth is the timer's noise."""

STEEPEST = 1.15
"""The exponent that no step may exceed."""

TINY = 200
"""Counts of `--tiny` are divided by this."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a step took."""

    cpu_s: float
    memory_mb: float
    """The highest above what the process began with."""
    read_mb: float
    wall_s: float


def main() -> int:
    """Measures and writes the table; 1 if a step grows too steeply."""
    args = _arguments()
    names = args.only.split(",") if args.only else list(STEPS)
    lines = [measured(STEPS[name], args.repeats, tiny=args.tiny) for name in names]
    steep = [line for line in lines if line.steep]
    text = _page(lines, tiny=args.tiny)
    print(text)
    if not args.only and not args.tiny:
        RESULT.write_text(text)
    return 1 if steep and not args.tiny else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="names of steps, with commas between")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tiny", action="store_true")
    return parser.parse_args()


@dataclass(frozen=True, kw_only=True)
class Line:
    """A step's costs at N and at 10 N."""

    step: Step
    counts: tuple[int, int]
    costs: tuple[Cost, Cost]

    @property
    def exponent(self) -> float | None:
        """Of time; None where there is too little to measure."""
        small, large = (cost.cpu_s for cost in self.costs)
        if large < MEASURABLE_S:
            return None
        ratio = large / max(small, 1e-3)
        return math.log(ratio) / math.log(self.counts[1] / self.counts[0])

    @property
    def steep(self) -> bool:
        """Whether time grows faster than it may."""
        return self.exponent is not None and self.exponent > STEEPEST


def measured(step: Step, repeats: int, *, tiny: bool) -> Line:
    """Prepares a step and runs it at both counts."""
    divisor = TINY if tiny else 1
    count = max(1, step.count // divisor)
    counts = (count, 10 * count)
    costs: list[Cost] = []
    for count in counts:
        began = time.monotonic()
        cost = _median_of(step, count, repeats)
        seconds = time.monotonic() - began
        print(f"{step.name} at {count:,}: {cost}, {seconds:.0f} s", file=sys.stderr)
        costs.append(cost)
    return Line(step=step, counts=counts, costs=(costs[0], costs[1]))


def _median_of(step: Step, count: int, repeats: int) -> Cost:
    """The median of each figure, over runs on the same prepared folder."""
    with tempfile.TemporaryDirectory() as folder:
        _in_a_process(step, Path(folder), count, preparing=True)
        runs: list[Cost] = []
        for _ in range(repeats):
            answer = _in_a_process(step, Path(folder), count, preparing=False)
            runs.append(Cost(**json.loads(answer)))
    return Cost(
        cpu_s=statistics.median(run.cpu_s for run in runs),
        memory_mb=statistics.median(run.memory_mb for run in runs),
        read_mb=statistics.median(run.read_mb for run in runs),
        wall_s=statistics.median(run.wall_s for run in runs),
    )


def _in_a_process(step: Step, folder: Path, count: int, *, preparing: bool) -> str:
    """What a fresh process prints last."""
    name = f"prepare:{step.name}" if preparing else step.name
    script = "import sys; from benchmarks.scale import child; child(*sys.argv[1:])"
    command = [sys.executable, "-c", script, name, str(folder), str(count)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    lines = done.stdout.splitlines()
    return lines[-1] if lines else ""


def child(name: str, folder: str, count: str) -> None:
    """Prepares a step, or runs and measures it; in a process that does nothing else."""
    if name.startswith("prepare:"):
        STEPS[name.removeprefix("prepare:")].prepare(Path(folder), int(count))
        return
    _run_here(STEPS[name], Path(folder), int(count))


def _run_here(step: Step, folder: Path, count: int) -> None:
    """Runs a step in this process and prints its cost."""
    ready = step.load(folder, count)
    _forget_highest()
    cpu, read, began = _cpu_seconds(), _bytes_read(), time.monotonic()
    memory = _status("VmRSS")
    step.run(ready)
    cost = Cost(
        cpu_s=_cpu_seconds() - cpu,
        memory_mb=(_status("VmHWM") - memory) / 1e6,
        read_mb=(_bytes_read() - read) / 1e6,
        wall_s=time.monotonic() - began,
    )
    print(json.dumps(asdict(cost)))


def _cpu_seconds() -> float:
    """Of this process and its children that have ended."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _bytes_read() -> int:
    """Bytes this process has asked files for, from the cache or not."""
    text = Path("/proc/self/io").read_text()
    return int(text.split("rchar:")[1].split()[0])


def _status(name: str) -> int:
    """A figure of this process's memory, in bytes."""
    text = Path("/proc/self/status").read_text()
    return int(text.split(f"{name}:")[1].split()[0]) * 1024


def _forget_highest() -> None:
    """Lets the highest memory begin at what is used now."""
    Path("/proc/self/clear_refs").write_text("5")


def _page(lines: list[Line], *, tiny: bool) -> str:
    """The table as markdown."""
    head = "# How each step grows\n\n"
    if tiny:
        head += "TINY: plumbing only, no measurement.\n\n"
    rows = [
        "| step | N | CPU s | at 10 N | exponent | memory MB | at 10 N | read MB | at 10 N |",
        "|---|---|---|---|---|---|---|---|---|",
        *[_row(line) for line in lines],
    ]
    table = "\n".join(rows)
    parts = [f"{head}{__doc__}\n{table}\n\nCommit {commit()}.\n"]
    for line in lines:
        if line.step.name == "graph" and not tiny:
            parts.append(saturation(line.costs[1].cpu_s / line.counts[1]))
    return "\n".join(parts)


def _row(line: Line) -> str:
    """A line of the table."""
    small, large = line.costs
    exponent = "–" if line.exponent is None else f"{line.exponent:.2f}"
    cells = [
        line.step.title,
        f"{line.counts[0]:,} {line.step.unit}",
        f"{small.cpu_s:.2f}",
        f"{large.cpu_s:.2f}",
        exponent,
        f"{small.memory_mb:.0f}",
        f"{large.memory_mb:.0f}",
        f"{small.read_mb:.1f}",
        f"{large.read_mb:.1f}",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
