"""Phase 1 as one Ray Data graph: shards → generators → scorers → committed Parquet.

A shard enters as its row of SHARDS: workers read their part of the plan and their real images.
"""

from __future__ import annotations

import logging
import uuid
import warnings as warnings_
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import pyarrow as pa

from discl_ray.cluster.demand import Demand
from discl_ray.cluster.ending import end_without_destructors
from discl_ray.cluster.heartbeat import GeneratorSigns, Heartbeat, Report, observe
from discl_ray.cluster.placement import Placement, placed
from discl_ray.cluster.session import start_beside_driver
from discl_ray.cluster.watchdog import Snapshot, Watchdog
from discl_ray.config import Config
from discl_ray.core.lease import check_token, token_of
from discl_ray.core.shards import Shard, unpack
from discl_ray.core.storage import Store
from discl_ray.generate.config import GeneratorConfig
from discl_ray.generate.crash_journal import Origin
from discl_ray.process.progress import Progress
from discl_ray.spectrum.commit import write_shard
from discl_ray.spectrum.fold import Folding
from discl_ray.synthesize.planned import Planned
from discl_ray.synthesize.run import Run

log = logging.getLogger(__name__)


def staffed(config: Config, demand: Demand) -> Config:
    """The configuration with numbers for `auto`: how many processes there are, and on what."""
    generator, scorer = demand.parts
    parts = {
        "generator": config.generator.model_copy(
            update={"actors": generator.actors, "num_gpus": generator.num_gpus}
        ),
        "scorer": config.scorer.model_copy(
            update={"actors": scorer.actors, "num_gpus": scorer.num_gpus}
        ),
    }
    return config.model_copy(update=parts)


def _is_node_alive(node: str) -> bool:
    """Whether Ray has a node of this id that is alive."""
    import ray

    return any(known["NodeID"] == node and known["Alive"] for known in ray.nodes())


class GenerateStage:
    """Lazy wrapper of the generator: torch and diffusers are imported on the worker only."""

    def __init__(
        self, config: GeneratorConfig, num_steps: int, run: Store, session: str, heartbeat: Any
    ) -> None:
        import ray

        from discl_ray.generate.actor import GenerateActor

        end_without_destructors()
        origin = Origin(
            session=session,
            node=ray.get_runtime_context().get_node_id(),
            is_node_alive=_is_node_alive,
        )
        self.actor = GenerateActor(config, num_steps, run, origin, heartbeat)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """A shard's row with its images."""
        return self.actor(batch)


class ScoreStage:
    """Lazy wrapper of the scorer: torch and open_clip are imported on the worker only."""

    def __init__(self, *arguments: Any) -> None:
        from discl_ray.score.actor import ScoreActor

        end_without_destructors()
        self.actor = ScoreActor(*arguments)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """A shard's row with images and scores."""
        return self.actor(batch)


class Step(NamedTuple):
    """A class that Ray Data makes actors of, and its constructor's arguments."""

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
    """The Ray Data graph over shards: generators, scorers, and the task that commits.

    Each block is one shard's row.
    """
    import ray
    from ray.data import ActorPoolStrategy

    generators, scorers = placement.demand.parts
    # Two calls at once on one generator: a shard's drain overlaps the next one's start.
    making = ActorPoolStrategy(
        min_size=generators.actors,
        max_size=generators.actors,
        max_tasks_in_flight_per_actor=in_flight,
        max_concurrent_calls_per_actor=in_flight,
        enable_true_multi_threading=True,
    )
    scoring = ActorPoolStrategy(min_size=scorers.actors, max_size=scorers.actors)
    # `placement` gives each actor its place by this argument. Ray 2.60 calls it deprecated and has
    # no replacement.
    warnings_.filterwarnings("ignore", message=".*ray_remote_args_fn.*")
    shards: dict[str, Any] = {"batch_size": 1, "batch_format": "pyarrow"}
    planned = ray.data.from_arrow(cast(Any, blocks))
    made = planned.map_batches(
        make.kind,
        fn_constructor_args=make.arguments,
        compute=making,
        **shards,
        **placement.resources(0),
    )
    scored = made.map_batches(
        score.kind,
        fn_constructor_args=score.arguments,
        compute=scoring,
        **shards,
        **placement.resources(1),
    )
    return scored.map_batches(commit, **shards, num_cpus=0.5)


def run_graph(run: Run, todo: Planned, demand: Demand) -> list[GeneratorSigns]:
    """Executes the Ray Data graph over whole shards; returns the generators' last signs."""
    import ray

    quiet_ray_data()
    config = staffed(run.config, demand)
    stall = config.run
    heartbeat = start_beside_driver(Heartbeat)
    progress = Progress(todo.rows, "images")

    def look() -> Snapshot:
        return observe(heartbeat, progress.done, stall.stall_warning_s)

    make = (config.generator, config.plan.num_steps, run.store, uuid.uuid4().hex, heartbeat)
    score = (config.scorer, run.class_prompts, run.store, heartbeat)
    watchdog = Watchdog(look, warning_s=stall.stall_warning_s, limit_s=stall.stall_limit_s)
    try:
        with placed(demand) as placement, watchdog:
            graph = spectrum_graph(
                _single_rows(todo.shards),
                make=Step(GenerateStage, make),
                score=Step(ScoreStage, score),
                commit=_committer(run.store, run.samples.classes),
                in_flight=config.generator.shards_in_flight,
                placement=placement,
            )
            follow(graph, progress, Folding.begin(run.store), config.generator.micro_batch)
    finally:
        progress.close()
    reports: Mapping[str, Report] = cast(Any, ray.get(heartbeat.read.remote()))
    signs = [report.signs for report in reports.values()]
    return [of_one for of_one in signs if isinstance(of_one, GeneratorSigns)]


def quiet_ray_data() -> None:
    """Turns off Ray Data's own bars and log; errors are raised all the same."""
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.preserve_order = False  # a slow shard must not hold back others
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)


def _single_rows(shards: pa.Table) -> list[pa.Table]:
    """Each row as a table of its own, so that each shard is a block."""
    return [shards.slice(row, 1).combine_chunks() for row in range(shards.num_rows)]


def _committer(store: Store, classes: tuple[str, ...]) -> Callable[[pa.Table], pa.Table]:
    """The task that writes a scored shard.

    It returns one row: `rows`, `failed`, `micro_batch` (the smallest that was needed).
    """

    token = token_of(store)

    def commit(batch: pa.Table) -> pa.Table:
        row, table = unpack(batch)
        check_token(store, token)
        write_shard(store, Shard.of(row).shard_id, table, classes)
        status = Counter(table["status"].to_pylist())
        return pa.table(
            {
                "rows": [table.num_rows],
                "failed": [table.num_rows - status["ok"]],
                "micro_batch": [min(table["micro_batch"].to_pylist())],
            }
        )

    return commit


def follow(graph: Any, progress: Progress, folding: Folding, micro_batch: int) -> None:
    """Runs a graph to its end, shows progress and folds what is committed now and then.

    Logs each smaller micro-batch that was needed.
    """
    for row in graph.iter_rows():
        if row["micro_batch"] < micro_batch:
            micro_batch = row["micro_batch"]
            log.info(
                "out of memory: some images were made at generator.micro_batch=%d; "
                "set it and save the retries",
                micro_batch,
            )
        progress.advance(row["rows"], f"· {row['failed']} failed" if row["failed"] else "")
        folding.note()
