# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions at import; pyright cannot see them)
"""Phase 1 as one Ray Data graph: PLAN shards -> generator actors -> scorer actors -> committed Parquet."""

from __future__ import annotations

import logging
import uuid
import warnings as warnings_
from collections import Counter
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from discl_ray.cluster.demand import Demand
from discl_ray.cluster.heartbeat import GeneratorSigns, Heartbeat, observe
from discl_ray.cluster.placement import Placement, placed
from discl_ray.cluster.session import start_beside_driver
from discl_ray.cluster.watchdog import Snapshot, Watchdog
from discl_ray.config import Config
from discl_ray.core.shards import pack, unpack
from discl_ray.core.storage import Store
from discl_ray.generate.config import GeneratorConfig
from discl_ray.generate.journal import Life
from discl_ray.process.progress import Progress
from discl_ray.spectrum.commit import write_shard
from discl_ray.synthesize.layout import Prepared


def staffed(config: Config, hands: Demand) -> Config:
    """The configuration with numbers where it leaves open how many processes there are, and on what."""
    generator, scorer = ({"actors": part.actors, "num_gpus": part.num_gpus} for part in hands.parts)
    parts = {
        "generator": config.generator.model_copy(update=generator),
        "scorer": config.scorer.model_copy(update=scorer),
    }
    return config.model_copy(update=parts)


def _node_lives(node: str) -> bool:
    """Whether Ray still counts on a node."""
    import ray

    return any(known["NodeID"] == node and known["Alive"] for known in ray.nodes())


class GenerateStage:
    """The generator in its worker, which imports PyTorch and diffusers; the driver, which would wait seconds for them, does not."""

    def __init__(
        self, config: GeneratorConfig, num_steps: int, run: Store, session: str, pulse: Any
    ) -> None:
        import ray

        from discl_ray.generate.actor import GenerateActor

        life = Life(
            session=session, node=ray.get_runtime_context().get_node_id(), node_lives=_node_lives
        )
        self.actor = GenerateActor(config, num_steps, run, life, pulse)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """A packed shard with images."""
        return self.actor(batch)


class ScoreStage:
    """The scorer in its worker, likewise."""

    def __init__(self, *arguments: Any) -> None:
        from discl_ray.score.actor import ScoreActor

        self.actor = ScoreActor(*arguments)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """The packed shard with scores."""
        return self.actor(batch)


class Step(NamedTuple):
    """A class that Ray Data makes actors of, and what it is made with."""

    kind: Any
    arguments: tuple[Any, ...]


def spectrum_graph(
    blocks: list[pa.Table],
    *,
    make: Step,
    score: Step,
    commit: Any,
    in_flight: int,
    placement: Placement,
) -> Any:
    """The Ray Data graph over packed shards: generators, scorers, and what writes; each process on its place."""
    import ray
    from ray.data import ActorPoolStrategy

    generators, scorers = placement.demand.parts
    making = ActorPoolStrategy(
        min_size=generators.actors,
        max_size=generators.actors,
        max_tasks_in_flight_per_actor=in_flight,
        max_concurrent_calls_per_actor=in_flight,
        enable_true_multi_threading=True,
    )
    scoring = ActorPoolStrategy(min_size=scorers.actors, max_size=scorers.actors)
    # said of the places of each actor; Ray 2.60 has nothing in its stead
    warnings_.filterwarnings("ignore", message=".*ray_remote_args_fn.*")
    shards: dict[str, Any] = {"batch_size": 1, "batch_format": "pyarrow"}
    return (
        ray.data.from_arrow(blocks)
        .map_batches(
            make.kind,
            fn_constructor_args=make.arguments,
            compute=making,
            **shards,
            **placement.resources(0),
        )
        .map_batches(
            score.kind,
            fn_constructor_args=score.arguments,
            compute=scoring,
            **shards,
            **placement.resources(1),
        )
        .map_batches(commit, **shards, num_cpus=0.5)
    )


def run_graph(
    prepared: Prepared, todo: pa.Table, config: Config, hands: Demand
) -> list[GeneratorSigns]:
    """Executes the Ray Data graph over whole shards; returns the generators' last signs."""
    import ray
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what it raises is raised
    context.execution_options.preserve_order = False
    store, generator, scorer = prepared.store, config.generator, config.scorer
    shards = [
        (s, todo.filter(pc.equal(todo["shard_id"], s)))
        for s in todo["shard_id"].unique().to_pylist()
    ]
    heartbeat, session = start_beside_driver(Heartbeat), uuid.uuid4().hex

    classes = prepared.samples.classes

    def commit(batch: pa.Table) -> pa.Table:
        shard_id, table = unpack(batch)
        write_shard(store, shard_id, table, classes)
        status = Counter(table["status"].to_pylist())
        smallest = min(table["micro_batch"].to_pylist())
        return pa.table(
            {
                "rows": [table.num_rows],
                "failed": [table.num_rows - status["ok"]],
                "micro_batch": [smallest],
            }
        )

    progress, batch = Progress(todo.num_rows, "images"), generator.micro_batch

    def look() -> Snapshot:
        return observe(heartbeat, progress.done, config.run.stall_warning_s)

    make = Step(GenerateStage, (generator, config.plan.num_steps, store, session, heartbeat))
    score = Step(ScoreStage, (scorer, prepared.class_prompts, store, heartbeat))
    blocks = [pack(shard_id, table) for shard_id, table in shards]
    try:
        with (
            placed(hands) as placement,
            Watchdog(look, warning_s=config.run.stall_warning_s, limit_s=config.run.stall_limit_s),
        ):
            in_flight = generator.shards_in_flight
            dataset = spectrum_graph(
                blocks,
                make=make,
                score=score,
                commit=commit,
                in_flight=in_flight,
                placement=placement,
            )
            for row in dataset.iter_rows():
                if row["micro_batch"] < batch:
                    batch = row["micro_batch"]
                    print(
                        f"  out of memory: some images were made at generator.micro_batch={batch}; set it and save the retries"
                    )
                progress.advance(row["rows"], f"· {row['failed']} failed" if row["failed"] else "")
    finally:
        progress.close()
    signs = [report.signs for report in ray.get(heartbeat.read.remote()).values()]
    return [of_one for of_one in signs if isinstance(of_one, GeneratorSigns)]
