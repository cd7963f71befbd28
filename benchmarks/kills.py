"""What kills cost `make generate`: SIGKILL at random moments, again and again.

    # 30 kills; killed itself, it goes on where it was (DIR/kills.jsonl)
    python benchmarks/kills.py --work DIR
    python benchmarks/kills.py --work DIR --kills 6 --seed 1

A kill takes the driver, a worker or the whole tree. A run is made once in peace and once under
kills, on a plan of some hundred small shards. Told for each kill: what was committed, which shards
were underway (begun and not committed), and which of them were begun again. In the end the images
have to be the same bytes, none may be `crashed`, and only shards that were in a killed worker's
hands may have been made in smaller parts. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from discl_ray.core.ids import sha256
from discl_ray.core.storage import Store
from discl_ray.evaluate.held_out import commit
from discl_ray.spectrum.config import FilterConfig
from discl_ray.spectrum.read import open_spectrum
from discl_ray.spectrum.records import committed
from discl_ray.spectrum.verify import check_planned, verify
from discl_ray.synthesize.planned import read_planned

ROOT = Path(__file__).resolve().parents[1]
PLAN = (
    "plan.replicas=12",
    "plan.num_steps=20",
    "plan.shard_steps=60",
    "generator.micro_batch=4",
    "run.num_cpus=4",
)
VICTIMS = ("driver", "worker", "tree")
LONGEST_S = 6.0
"""A kill comes so many seconds after a shard was begun, at the latest."""

JOB = """
import json, os, runpy, sys
from discl_ray.synthesize import graph as module
Real = module.GenerateStage
class GenerateStage(Real):  # by this name its processes are found
    def __init__(self, *args):
        import discl_ray.generate.actor as actor
        Real.__init__(self, *args)
        opened = actor.CrashJournal.open
        def open_(run, shard_id, gids, origin):
            journal = opened(run, shard_id, gids, origin)
            line = {"shard": shard_id, "pid": os.getpid(), "session": origin.session,
                    "alone": journal.has_suspects, "crashed": len(journal.crashed)}
            with open(LOG, "a") as file:
                file.write(json.dumps(line) + "\\n")
            return journal
        actor.CrashJournal = type("Logged", (), {"open": staticmethod(open_)})
module.GenerateStage = GenerateStage
LOG = sys.argv[1]
sys.argv = ["jobs/generate.py", *sys.argv[2:]]
runpy.run_path("jobs/generate.py", run_name="__main__")
"""
"""The job, whose generators write down each shard they begin."""


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Whole lines of a file of JSON; a killed writer may have left half of one."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines() if line.endswith("}")]


def processes() -> dict[int, tuple[int, str]]:
    """Parent and command line by process."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                stat, command = (folder / "stat").read_text(), (folder / "cmdline").read_text()
            except OSError:
                continue
            found[int(folder.name)] = (int(stat.rpartition(")")[2].split()[1]), command)
    return found


def descendants(pid: int) -> dict[int, str]:
    """Command lines of a process's children, and theirs."""
    known, found, parents = processes(), dict[int, str](), [pid]
    while parents:
        parent = parents.pop()
        children = {child: command for child, (above, command) in known.items() if above == parent}
        found |= children
        parents += children
    return found


class Run:
    """A run's folder and the job that makes it."""

    def __init__(self, root: Path) -> None:
        self.root, self.log = root, root.with_suffix(".begun.jsonl")
        self.process: subprocess.Popen[bytes] | None = None
        root.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        """Starts the job."""
        command = [sys.executable, "-c", JOB, str(self.log), f"run.root={self.root}", *PLAN]
        output = self.root.with_suffix(".log").open("ab")
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output)

    @property
    def store(self) -> Store:
        """Where the spectrum lies."""
        (folder,) = self.root.glob("digits_lt/generate-*")
        return Store.at(folder)

    def commits(self) -> set[str]:
        """Committed shards."""
        return {path.stem for path in self.root.glob("digits_lt/generate-*/commits/[!.]*.json")}

    def begun(self) -> list[dict[str, Any]]:
        """What the generators wrote down."""
        return read_lines(self.log)

    def underway(self) -> dict[str, dict[str, Any]]:
        """By shard: the last beginning of each that is begun and not committed."""
        done = self.commits()
        return {line["shard"]: line for line in self.begun() if line["shard"] not in done}

    def images(self) -> dict[str, tuple[str, str]]:
        """Status and hash of each image."""
        rows = open_spectrum(self.store, FilterConfig(), columns=["image"]).to_pylist()
        return {row["gid"]: (row["status"], sha256(row["image"]["bytes"] or b"")) for row in rows}


def wait_for_work(run: Run, before: int) -> bool:
    """Until a shard is begun that was not when there were `before` beginnings.

    Returns False if the job ended instead.
    """
    assert run.process is not None
    while len(run.begun()) <= before:
        if run.process.poll() is not None:
            return False
        time.sleep(0.02)
    return True


def kill(run: Run, victim: str, rng: random.Random) -> int:
    """Kills and returns which process; a killed driver's tree is waited for."""
    assert run.process is not None
    below = descendants(run.process.pid)
    workers = sorted(pid for pid, command in below.items() if "GenerateStage" in command)
    if victim == "worker":
        pid = rng.choice(workers)  # there is one: a shard was begun
        os.kill(pid, signal.SIGKILL)
        return pid
    for pid in [run.process.pid, *(below if victim == "tree" else ())]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    run.process.wait()
    while any(Path(f"/proc/{pid}").exists() for pid in below):
        time.sleep(0.05)
    return run.process.pid


def next_kill(run: Run, number: int, seed: int) -> dict[str, Any] | None:
    """One kill at a random moment; None if the run was made before it came."""
    rng = random.Random(f"{seed} {number}")
    victim, delay, before = rng.choice(VICTIMS), rng.uniform(0.0, LONGEST_S), len(run.begun())
    if run.process is None or run.process.poll() is not None:
        run.start()
    assert run.process is not None
    if not wait_for_work(run, before):
        return None
    time.sleep(delay)
    if run.process.poll() is not None:
        return None
    pid = kill(run, victim, rng)
    underway = run.underway()
    return {
        "kill": number,
        "victim": victim,
        "pid": pid,
        "after_s": round(delay, 2),
        "committed": len(run.commits()),
        "begun": len(run.begun()),
        # a worker takes only what it has in hand with it; a driver everything that is not committed
        "lost": sorted(
            s for s, line in underway.items() if victim != "worker" or line["pid"] == pid
        ),
    }


def repeated(kills: list[dict[str, Any]], begun: list[dict[str, Any]]) -> list[int]:
    """For each kill, how many of the shards it cost were begun again."""
    return [len(set(k["lost"]) & {line["shard"] for line in begun[k["begun"] :]}) for k in kills]


def unexplained(kills: list[dict[str, Any]], begun: list[dict[str, Any]]) -> int:
    """Beginnings of a shard in smaller parts that no killed worker had had in hand before."""
    found = 0
    for number, line in enumerate(begun):
        if line["alone"]:
            earlier = [k for k in kills if k["victim"] == "worker" and k["begun"] <= number]
            found += not any(line["shard"] in k["lost"] for k in earlier)
    return found


def main() -> None:
    """Makes both runs and says what the kills cost."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--work", type=Path, required=True, help="folder of both runs and of the record of kills"
    )
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    whole, run, record = (
        Run(args.work / "undisturbed"),
        Run(args.work / "killed"),
        args.work / "kills.jsonl",
    )
    kills = read_lines(record)
    while len(kills) < args.kills:
        found = next_kill(run, len(kills), args.seed)
        if found is None:
            print(
                f"the run was made after {len(kills)} kills; "
                f"a longer plan is needed for {args.kills}"
            )
            break
        kills.append(found)
        with record.open("a") as file:
            file.write(json.dumps(found) + "\n")
        print(
            f"  {found['kill'] + 1}/{args.kills} · {found['victim']} · "
            f"{found['committed']} committed",
            flush=True,
        )
    for each in (run, whole):
        if each.process is None or each.process.poll() is not None:
            each.start()
        assert each.process is not None
        assert each.process.wait() == 0, f"see {each.root.with_suffix('.log')}"
    print(report(run, whole, kills, args.seed))


def report(run: Run, whole: Run, kills: list[dict[str, Any]], seed: int) -> str:
    """The table of kills and what is left in the end."""
    begun, again = run.begun(), repeated(kills, run.begun())
    check_planned(run.store, read_planned(run.store).gids())
    assert not verify(run.store).damaged
    made, expected = run.images(), whole.images()
    shards, lost = len(committed(run.store)), sum(len(k["lost"]) for k in kills)
    statuses = Counter(status for status, _ in made.values())
    rows = [
        f"| {k['kill'] + 1} | {k['victim']} | {k['after_s']} | {k['committed']} "
        f"| {len(k['lost'])} | {r} |"
        for k, r in zip(kills, again, strict=True)
    ]
    victims = ", ".join(
        f"{count} {name}" for name, count in sorted(Counter(k["victim"] for k in kills).items())
    )
    return "\n".join(
        [
            f"# {len(kills)} kills of `make generate`, {shards} shards of {len(made)} images\n",
            "| kill | victim | s after a shard was begun | committed | underway | begun again |",
            "| --: | --- | --: | --: | --: | --: |",
            *rows,
            "",
            f"- Killed with SIGKILL: {victims} (the driver alone, one generator, or every process"
            " of the job at once).",
            "- Images that differ from those of a run nobody disturbed:"
            f" {sum(made.get(g) != v for g, v in expected.items())} of {len(expected)}. Status:"
            f" {', '.join(f'{n} {s}' for s, n in sorted(statuses.items()))};"
            f" `crashed`: {statuses['crashed']}.",
            "- Shards underway at the kills (begun, not committed; at a worker's, those it had"
            f" begun): {lost}; begun again of them: {sum(again)}, the others had left the killed"
            f" generator for the scorer; begun in all: {len(begun)} for {shards} shards.",
            f"- Begun in smaller parts: {sum(line['alone'] for line in begun)}, all in a killed"
            f" worker's hands before but {unexplained(kills, begun)}.",
            f"- Command: `python benchmarks/kills.py --work DIR --kills {len(kills)}"
            f" --seed {seed}`, commit {commit()}, {os.cpu_count()} CPUs.",
        ]
    )


if __name__ == "__main__":
    main()
