"""Zero-shot predictions: the scorer compares each real image with a prompt of every class."""

from __future__ import annotations

import logging
from contextlib import ExitStack

import pyarrow as pa

from discl_ray.cluster.heartbeat import Heartbeat, observe
from discl_ray.cluster.placement import placed
from discl_ray.cluster.predicting import ROWS, collect_predictions, predicted_rows, stream_images
from discl_ray.cluster.session import ray_session, start_beside_driver
from discl_ray.cluster.watchdog import Snapshot
from discl_ray.config import Config
from discl_ray.data import Samples
from discl_ray.plan.prompts import Prompts
from discl_ray.process.progress import Progress
from discl_ray.score.model_folder import check_scorer, scorer_fingerprint
from discl_ray.score.zero_shot import ZeroShotActor
from discl_ray.synthesize.checks import judging_crew

log = logging.getLogger(__name__)


def predict_zero_shot(config: Config, samples: Samples, prompts: Prompts) -> pa.Table:
    """PREDICTIONS of all train and val images, block by block.

    Raises ModelError if the scorer cannot be used, SetupError if its actors do not fit the cluster.
    """
    check_scorer(config.scorer)
    with ExitStack() as session:
        session.enter_context(ray_session(num_cpus=config.run.num_cpus, needs={}))
        from ray.data import ActorPoolStrategy

        demand = judging_crew(config)
        placement = session.enter_context(placed(demand))
        (part,) = demand.parts
        scorer = config.scorer.model_copy(update={"actors": part.actors, "num_gpus": part.num_gpus})
        log.info("%s", demand.words("scorer"))
        heartbeat = start_beside_driver(Heartbeat)
        texts = [prompts.filter(name) for name in samples.classes]
        predicted = stream_images(samples.store).map_batches(
            ZeroShotActor,
            fn_constructor_args=(scorer, texts, scorer_fingerprint(scorer)[:16], heartbeat),
            compute=ActorPoolStrategy(min_size=part.actors, max_size=part.actors),
            batch_size=ROWS,
            batch_format="pyarrow",
            **placement.resources(0),
        )

        def look(progress: Progress) -> Snapshot:
            return observe(heartbeat, progress.done, config.run.stall_warning_s)

        total = predicted_rows(samples.table).num_rows
        return collect_predictions(predicted, total, look, config.run)
