"""The matrix of GPUs with sleeping processes, placed by the code that places a job's.

And what trains without Ray Train.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from discl_ray.cluster.demand import Cluster, Node, Stage, demand
from discl_ray.cluster.placement import Placement, _bundle, placed


@pytest.mark.slow
def test_each_gpu_gets_its_generator_and_its_scorer_also_after_one_has_died(tmp_path):
    command = [sys.executable, "-m", "tests.support.placed", str(tmp_path)]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    assert "Unhandled error" not in done.stderr  # of the other folds and seeds, which end alike
    for name in ("folds", "seeds"):
        trained = found.pop(name)
        assert len(trained["gpus"]) == len(set(trained["gpus"])) == 2, (
            name
        )  # a GPU each, and its own
        assert trained["said"].startswith("a GPU is reserved, and CUDA is not available "), name
        assert "train.use_gpu=false" in trained["said"]
        assert trained["exit"] == 2
    # on 2 a scorer has died, on 4 a generator
    assert {died.name for died in tmp_path.iterdir()} >= {"scorer", "generator"}
    assert list(found) == ["1", "2", "4"]
    for name, seen in found.items():
        gpus = int(name)
        assert seen["actors"] == [gpus, gpus]
        assert seen["rows"] == seen["expected"]
        for stage in ("generator", "scorer"):
            on = [process.partition(":")[2] for process in seen[stage]]
            assert len(set(on)) == len(on) == gpus, (
                name,
                stage,
            )  # one on each, the one that came back included
        assert {p.partition(":")[2] for p in seen["generator"]} == {
            p.partition(":")[2] for p in seen["scorer"]
        }


@pytest.mark.ray
def test_without_a_gpu_nothing_is_reserved_but_a_cpu():
    crew = demand([Stage(name="scorer", actors=2)], Cluster((Node(cpus=4),)))
    with placed(crew) as placement:  # starts no Ray
        assert placement.groups == ()
        assert placement.resources(0) == {"num_cpus": 1}


def test_an_actor_on_a_gpu_reserves_its_share_and_no_cpu():
    crew = demand([Stage(name="scorer", num_gpus=0.25)], Cluster((Node(cpus=4, gpus=1),)))
    asked = Placement(crew, groups=("a group",)).resources(0)
    assert (asked["num_cpus"], asked["num_gpus"]) == (0, 0.25)
    assert callable(asked["ray_remote_args_fn"])


def test_processes_reserve_their_memory_with_their_cpu_or_their_gpu():
    node = Node(cpus=4, gpus=2, memory=80e9)
    stages = [
        Stage(name="generator", num_gpus=0.75, memory=3e9),
        Stage(name="scorer", num_gpus=0.25, memory=1e9),
    ]
    crew = demand(stages, Cluster((node,)))
    assert [_bundle(crew, counts) for counts in crew.gpus] == [{"GPU": 1, "memory": 4e9}] * 2
    asked = Placement(crew, groups=("one", "another")).resources(0)
    assert asked["memory"] == 3e9
    on_cpu = demand([Stage(name="scorer", actors=2, num_gpus=0, memory=1e9)], Cluster((node,)))
    assert Placement(on_cpu).resources(0) == {"num_cpus": 1, "memory": 1e9}
