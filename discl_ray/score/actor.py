"""The scorer's Ray actor: a shard with images in, the same rows with the columns SCORES out.

Class prompts are embedded once per process, each real image once per shard; made images are scored as they are stored.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch

from discl_ray.core.images import decode_image
from discl_ray.core.schema import SCORES, SPECTRUM
from discl_ray.core.shards import pack, unpack
from discl_ray.core.sources import read_sources
from discl_ray.core.storage import Store
from discl_ray.score.clip import ClipScorer, rank_of
from discl_ray.score.config import ScorerConfig


class ScoreActor:
    """PLAN and MADE in, SPECTRUM out."""

    def __init__(self, config: ScorerConfig, class_prompts: Sequence[str], run: Store) -> None:
        torch.set_num_threads(config.threads)
        device = "cuda" if config.num_gpus and torch.cuda.is_available() else "cpu"
        self.scorer, self.run = ClipScorer(config, device), run
        self.prompts = list(class_prompts)
        self.texts = self.scorer.embed_texts(self.prompts)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """The packed shard with its scores; rows without an image have none."""
        shard_id, table = unpack(batch)
        rows = table.select(["sample_id", "filter_prompt", "status"]).to_pylist()
        made = [i for i, row in enumerate(rows) if row["status"] == "ok"]
        scores: list[dict[str, object]] = [{} for _ in rows]
        if made:
            sources, _ = read_sources(self.run, table["sample_id"].unique())
            real = dict(zip(sources, self.scorer.embed_images(list(sources.values())), strict=True))
            images = table["image"].to_pylist()
            embedded = self.scorer.embed_images([decode_image(images[i]["bytes"]) for i in made])
            for i, image in zip(made, embedded, strict=True):
                similarities = self.texts @ image
                own = self.prompts.index(rows[i]["filter_prompt"])
                scores[i] = {
                    "text_sim": np.float32(similarities[own]),
                    "text_rank": rank_of(own, similarities),
                    "image_sim": np.float32(real[rows[i]["sample_id"]] @ image),
                }
        scored = pa.Table.from_pylist(scores, schema=SCORES)
        for name in SCORES.names:
            table = table.append_column(SCORES.field(name), scored[name])
        return pack(shard_id, table.cast(SPECTRUM))
