"""Sleeping generators, scorers, folds and seeds, placed as a job's are, on a Ray with logical GPUs.

A script, because it has a Ray of its own: `python -m tests.support.placed FOLDER` prints one JSON
line. For each number of GPUs it names the GPU of every generator and scorer, of every fold of
out-of-fold hardness and of every seed of a comparison, and what those that want to compute say
where there is no CUDA.
"""

import json
import os
import signal
import tempfile
import time
from pathlib import Path

import pyarrow as pa

from discl_ray.cluster.demand import Cluster, Node, Stage, demand
from discl_ray.cluster.placement import placed
from discl_ray.config import load_config
from discl_ray.core.shards import pack, unpack
from discl_ray.errors import DisclError
from discl_ray.synthesize.graph import Step, spectrum_graph
from discl_ray.train.workers import each_alone

GPUS = 4
MEMORY = 20e6
"""Bytes that each process reserves."""


class Sleeping:
    """Adds the process it is in, and its GPU, to a shard.

    The first call of the one named `dies` ends its process.

    No call returns before all processes of both stages are up: on a busy machine the last ones
    would find no shard left.
    """

    def __init__(self, column, meeting, everyone, dies=""):
        import ray

        self.column, self.meeting, self.everyone, self.dies = column, meeting, everyone, dies
        self.gpu = ray.get_runtime_context().get_accelerator_ids()["GPU"]
        open(f"{meeting}/{column}-{os.getpid()}", "w").close()

    def meet(self):
        until = time.monotonic() + 180
        while len(os.listdir(self.meeting)) < self.everyone and time.monotonic() < until:
            time.sleep(0.05)

    def __call__(self, batch):
        row, table = unpack(batch)
        if self.dies and not os.path.exists(self.dies):
            open(self.dies, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        self.meet()
        time.sleep(0.2)
        return pack(
            row, table.append_column(self.column, pa.array([f"{os.getpid()}:{','.join(self.gpu)}"]))
        )


def run(gpus, stages, dies):
    """{column: {(process, gpu)}} of a graph on so many GPUs.

    The first call of a stage that `dies` names ends its process, whose place another one takes.
    """
    hands = demand(stages, Cluster((Node(cpus=6, gpus=gpus, memory=4e9),)))
    assert all(part.memory == MEMORY for part in hands.parts)
    shards = [pa.table({"shard_id": [f"{i:03d}"]}) for i in range(6 * hands.parts[0].actors)]
    blocks = [pack(shard, pa.table({"i": [i]})) for i, shard in enumerate(shards)]
    meeting = tempfile.mkdtemp()
    actors = sum(part.actors for part in hands.parts)
    # a scorer dies only once a generator has given it something: generators do not wait for that
    everyone = {"generator": actors + ("generator" in dies), "scorer": actors + len(dies)}
    make, score = (
        Step(Sleeping, (name, meeting, everyone[name], dies.get(name, ""))) for name in everyone
    )
    with placed(hands) as placement:
        graph = spectrum_graph(
            blocks, make=make, score=score, commit=lastly, in_flight=1, placement=placement
        )
        rows = list(graph.iter_rows())
    seen = {name: sorted({row[name] for row in rows}) for name in ("generator", "scorer")}
    return {
        "rows": len(rows),
        "expected": len(blocks),
        "actors": [part.actors for part in hands.parts],
        **seen,
    }


def lastly(batch):
    return unpack(batch)[1]


def trained(scratch):
    """Which GPU each of two folds and each of two seeds was on.

    And what the real ones say, as there is no CUDA.
    """
    from discl_ray.evaluate.out_of_fold import fold_job, train_folds
    from discl_ray.experiments.comparison import compute_seeds
    from discl_ray.experiments.tables import TABLES

    config = each_alone(load_config("conf/digits_lt.yaml"))
    job = fold_job(config.train, seed=0, classes=2)
    seeds = [(config, None)] * 2

    def folds(*work):
        return list(train_folds(job, [], {}, 2, *work))

    def comparison(*work):
        return compute_seeds(seeds, TABLES["short"], *work)

    found = {}
    for name, start in {"folds": folds, "seeds": comparison}.items():
        start(_noting(Path(scratch, name)))
        try:
            start()
        except DisclError as error:
            gpus = Path(scratch, name).read_text().split()
            found[name] = {"gpus": gpus, "said": str(error), "exit": error.exit_code}
    return found


def _noting(path):
    """Stands for training: writes down its GPUs."""

    def note(*_):
        import ray

        with path.open("a") as file:
            file.write(",".join(ray.get_runtime_context().get_accelerator_ids()["GPU"]) + "\n")
        time.sleep(0.5)

    return note


def main(scratch):
    import ray

    ray.init(
        address="local",
        num_cpus=6,
        num_gpus=GPUS,
        include_dashboard=False,
        object_store_memory=150 * 2**20,
        log_to_driver=False,
        logging_level="ERROR",
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    preset = (
        Stage(name="generator", num_gpus=0.8, memory=MEMORY),
        Stage(name="scorer", num_gpus=0.2, memory=MEMORY),
    )
    found = {}
    dying = {2: "scorer", 4: "generator"}
    for gpus in (1, 2, 4):
        others = (
            ray.util.placement_group([{"GPU": 1}] * (GPUS - gpus)) if gpus < GPUS else None
        )  # somebody else's
        if others is not None:
            ray.get(others.ready())
        name = dying.get(gpus)
        found[str(gpus)] = run(gpus, preset, {name: f"{scratch}/{name}"} if name else {})
        if others is not None:
            ray.util.remove_placement_group(others)
    print(json.dumps(found | trained(scratch)))


if __name__ == "__main__":
    import sys

    main(sys.argv[1])
