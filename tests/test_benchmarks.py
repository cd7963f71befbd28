import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
WITHOUT_RAY = (
    "import os, runpy; sys.path.insert(0, os.path.dirname(sys.argv[0])); "
    "sys.modules['ray'] = None; "
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)


@pytest.mark.slow
def test_gpu_benchmark_runs_without_ray_and_replaces_only_what_it_measured(tmp_path):
    out = tmp_path / "engine_gpu.md"

    def run(line):
        benchmark = str(ROOT / "benchmarks" / "engine_gpu.py")
        script = f"import sys; sys.argv[0] = {benchmark!r}; {WITHOUT_RAY}"
        options = ("--tiny", "--models", "sd15", "--lines", line, "--out", str(out))
        subprocess.run(
            [sys.executable, "-c", script, *options],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        )
        return {
            r["line"]: r
            for r in map(json.loads, out.with_suffix(".jsonl").read_text().splitlines())
        }

    assert list(run("c")) == ["c"]
    first = run("a")
    assert list(first) == ["a", "c"]
    second = run("c")
    assert second["a"] == first["a"]
    assert second["c"] != first["c"]
    assert second["c"]["images_s"] > 0
    assert "TINY: plumbing only, no measurement" in out.read_text()


def growth(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "benchmarks/scale.py", "--tiny", "--repeats", "1", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.slow
def test_every_step_of_growth_runs_and_what_is_known_is_not_measured_again(tmp_path):
    work = ("--work", str(tmp_path))
    first = growth("--only", "judge", *work)  # in fresh processes
    assert first.stderr.count("judge at") == 4  # prepared and run, at two counts
    # Ray's part of it is `tests/synthesize/test_graph.py`
    done = growth("--here", "--but", "graph", *work)
    assert "judge at" not in done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    measured = json.loads(next(tmp_path.iterdir()).read_text())
    assert len(rows) == 1 + len(measured) / 2 > 30
    assert "TINY" in done.stdout
    assert [path.suffix for path in tmp_path.iterdir()] == [".json"]  # what was prepared is gone


def test_a_page_on_growth_says_which_rules_are_broken():
    from benchmarks.scale_rules import Cost, Line, verdicts
    from benchmarks.scale_steps import Step

    def line(name: str, seconds: float, megabytes: float, read: float) -> Line:
        step = Step(name=name, title=name, count=13_100, unit="images", load=print, run=print)
        costs = [
            Cost(cpu_s=cpu, memory_mb=memory, read_mb=read, wall_s=cpu)
            for cpu, memory in ((1.0, 100.0), (seconds, megabytes))
        ]
        return Line(step=step, counts=(13_100, 131_000), costs=(costs[0], costs[1]))

    good = [
        line("driver", 12.0, 190.0, 1.0),
        line("small_driver", 12.0, 150.0, 1.0),
        line("open_scores", 12.0, 150.0, 200.0),
    ]
    held = verdicts(good)
    assert len(held) == 5
    assert not any(verdict.broken for verdict in held)
    bad = [line("driver", 20.0, 501.0, 1.0), good[1], line("open_scores", 12.0, 150.0, 300.0)]
    assert all(verdict.broken for verdict in verdicts(bad))
