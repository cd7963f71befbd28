"""How each step grows: at N and at 10 N, in fresh processes, without a model.

    python benchmarks/scale.py                       every step, and benchmarks/results/scale.md
    python benchmarks/scale.py --work FOLDER         the same; called again, it goes on
    python benchmarks/scale.py --only plan,judge     some of them, printed only
    python benchmarks/scale.py --tiny                small counts: plumbing only, no measurement

A step is prepared in a process of its own (fabricated tables, images of noise), then run in
a fresh one: CPU seconds of all its threads, the highest memory above what it began with, and bytes
read, each without what importing the package takes. The median of three. The exponent is that of
time, log10 of the ratio, where less than a tenth of a second counts as one; a step that takes less
than two tenths at 10 N has none.
"""

from __future__ import annotations

import argparse
import json
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the steps are modules of benchmarks

from benchmarks.scale_data import DATA  # noqa: E402
from benchmarks.scale_gpus import saturation  # noqa: E402
from benchmarks.scale_rules import Cost, Line, rules_table, verdicts  # noqa: E402
from benchmarks.scale_runs import RUNS  # noqa: E402
from benchmarks.scale_steps import PLANS, Step  # noqa: E402
from benchmarks.scale_train import TRAINING  # noqa: E402

STEPS: dict[str, Step] = {step.name: step for step in (*PLANS, *RUNS, *DATA, *TRAINING)}
"""In the order of the page; those that share what is prepared are neighbours."""

RESULT = ROOT / "benchmarks" / "results" / "scale.md"

TINY = 400
"""Counts of `--tiny` are divided by this."""

ENDS_S = 20.0
"""Seconds that a process has to end after it is asked to."""


def main() -> int:
    """Measures and writes the page; 1 if a rule is broken."""
    signal.signal(signal.SIGTERM, _end)
    args = _arguments()
    chosen = args.only.split(",") if args.only else list(STEPS)
    steps = [STEPS[name] for name in chosen if name not in args.but.split(",")]
    known = Known.open(args.work)
    runner = Runner(known, args.repeats, args.work, tiny=args.tiny, here=args.here)
    lines = runner.lines(steps)
    text = _page(lines, tiny=args.tiny)
    print(text)
    if args.tiny:
        return 0
    if len(steps) == len(STEPS):
        RESULT.write_text(text)
    return 1 if any(verdict.broken for verdict in verdicts(lines)) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="names of steps, with commas between")
    parser.add_argument("--but", default="", help="names of steps that are left out")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument(
        "--work",
        type=Path,
        help="folder of what is prepared and of what was measured, which is not measured again "
        "at the same commit",
    )
    parser.add_argument(
        "--here", action="store_true", help="all in this process, for a test of the plumbing"
    )
    return parser.parse_args()


def _end(number: int, _frame: object) -> None:
    """Ends by an exception, so that what was prepared is deleted."""
    sys.exit(128 + number)


@dataclass(frozen=True)
class Known:
    """What was measured at this commit, in a file."""

    file: Path | None
    costs: dict[str, Cost]

    @classmethod
    def open(cls, folder: Path | None) -> Known:
        """What a folder has; without one, nothing is kept."""
        if folder is None:
            return cls(None, {})
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"scale-{commit()}.json"
        found = json.loads(file.read_text()) if file.exists() else {}
        return cls(file, {key: Cost(**cost) for key, cost in found.items()})

    def note(self, key: str, cost: Cost) -> None:
        """Keeps a cost."""
        self.costs[key] = cost
        if self.file is not None:
            plain = {key: asdict(cost) for key, cost in self.costs.items()}
            self.file.write_text(json.dumps(plain, indent=1))


def commit() -> str:
    """The short hash of this code's commit."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip()


def _key(step: Step, count: int) -> str:
    """What a cost is kept by."""
    return f"{step.name} at {count}"


@dataclass(frozen=True)
class Runner:
    """Measures steps."""

    known: Known
    repeats: int
    work: Path | None
    tiny: bool
    here: bool

    def lines(self, steps: list[Step]) -> list[Line]:
        """Each step at both counts."""
        for _, group in groupby(steps, key=lambda step: (step.prepare, step.count)):
            together = list(group)
            for count in self._counts(together[0]):
                self._measure(together, count)
        return [self._line(step) for step in steps]

    def _counts(self, step: Step) -> tuple[int, int]:
        count = max(1, step.count // TINY) if self.tiny else step.count
        return count, 10 * count

    def _line(self, step: Step) -> Line:
        counts = self._counts(step)
        small, large = (self.known.costs[_key(step, count)] for count in counts)
        return Line(step=step, counts=counts, costs=(small, large))

    def _measure(self, steps: list[Step], count: int) -> None:
        """Prepares once for steps that need the same, and runs those that are not known."""
        todo = [step for step in steps if _key(step, count) not in self.known.costs]
        if not todo:
            return
        with tempfile.TemporaryDirectory(
            prefix="scale-", dir=self.work, ignore_cleanup_errors=True
        ) as folder:
            began = time.monotonic()
            self._do(todo[0], Path(folder), count, preparing=True)
            _say(f"{todo[0].name} at {count:,}: prepared in {time.monotonic() - began:.0f} s")
            for step in todo:
                began = time.monotonic()
                cost = self._median(step, Path(folder), count)
                self.known.note(_key(step, count), cost)
                _say(f"{step.name} at {count:,}: {cost}, {time.monotonic() - began:.0f} s")

    def _median(self, step: Step, folder: Path, count: int) -> Cost:
        """The median of each figure, over runs on the same prepared folder."""
        runs: list[Cost] = []
        for _ in range(self.repeats):
            answer = self._do(step, folder, count, preparing=False)
            runs.append(Cost(**json.loads(answer)))
        return Cost(
            cpu_s=statistics.median(run.cpu_s for run in runs),
            memory_mb=statistics.median(run.memory_mb for run in runs),
            read_mb=statistics.median(run.read_mb for run in runs),
            wall_s=statistics.median(run.wall_s for run in runs),
        )

    def _do(self, step: Step, folder: Path, count: int, *, preparing: bool) -> str:
        """Prepares or runs a step, in a fresh process; what that prints last."""
        name = f"prepare:{step.name}" if preparing else step.name
        if self.here:
            return child(name, str(folder), str(count))
        script = "import sys; from benchmarks.scale import child; print(child(*sys.argv[1:]))"
        with _process(["-c", script, name, str(folder), str(count)]) as process:
            printed, _ = process.communicate()
        if process.returncode:
            raise SystemExit(f"{name} at {count}: exit {process.returncode}")
        return printed.splitlines()[-1]


@contextmanager
def _process(arguments: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A Python process, which has ended at the end."""
    command = [sys.executable, *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(ENDS_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def child(name: str, folder: str, count: str) -> str:
    """Prepares a step, or runs it and returns its cost; in a process that does nothing else."""
    if name.startswith("prepare:"):
        STEPS[name.removeprefix("prepare:")].prepare(Path(folder), int(count))
        return ""
    cost = _run_here(STEPS[name], Path(folder), int(count))
    return json.dumps(asdict(cost))


def _run_here(step: Step, folder: Path, count: int) -> Cost:
    """Runs a step in this process."""
    ready = step.load(folder, count)
    _forget_highest()
    cpu, read, began = _cpu_seconds(), _bytes_read(), time.monotonic()
    memory = _status("VmRSS")
    step.run(ready)
    return Cost(
        cpu_s=_cpu_seconds() - cpu,
        memory_mb=(_status("VmHWM") - memory) / 1e6,
        read_mb=(_bytes_read() - read) / 1e6,
        wall_s=time.monotonic() - began,
    )


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
    """The tables as markdown."""
    head = "# How each step grows\n\n"
    if tiny:
        head += "TINY: plumbing only, no measurement.\n\n"
    rows = [
        "| step | N | CPU s | at 10 N | exponent | memory MB | at 10 N | read MB | at 10 N |",
        "|---|---|---|---|---|---|---|---|---|",
        *[line.row() for line in lines],
    ]
    table = "\n".join(rows)
    parts = [f"{head}{__doc__}\n{table}\n\nCommit {commit()}.\n"]
    if not tiny:
        parts.append(rules_table(lines))
    for line in lines:
        if line.step.name == "graph" and not tiny:
            parts.append(saturation(line.costs[1].cpu_s / line.counts[1]))
    return "\n".join(parts)


if __name__ == "__main__":
    sys.exit(main())
