"""The scorer's Ray actor: a shard with images in, the same rows with the columns SCORES out.

Class prompts are embedded once per process, and so is each real image, unless more than REMEMBERED others have come since; made images
are scored as they are stored.
"""

from __future__ import annotations

import os
import socket
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from discl_ray.core.images import decode_image
from discl_ray.core.schema import SCORES, SPECTRUM
from discl_ray.core.shards import pack, unpack
from discl_ray.core.sources import read_sources
from discl_ray.core.storage import Store
from discl_ray.score.clip import ClipScorer, rank_of
from discl_ray.score.config import ScorerConfig
from discl_ray.watch import telling

REMEMBERED = 4096
"""Real images whose embeddings are remembered: 8 MB for 512 numbers each."""


class ScoreActor:
    """PLAN and MADE in, SPECTRUM out."""

    def __init__(self, config: ScorerConfig, class_prompts: Sequence[str], run: Store, pulse: Any = None) -> None:
        torch.set_num_threads(config.threads)
        device = "cuda" if config.num_gpus and torch.cuda.is_available() else "cpu"
        self.run, self.prompts, self.batch = run, list(class_prompts), config.batch
        name = f"scorer {os.getpid()} on {socket.gethostname()}"
        with telling(pulse, name):
            self.scorer = ClipScorer(config, device)
            self.texts = self.scorer.embed_texts(self.prompts)
        if pulse is not None:
            pulse.beat.remote(name, {"phase": "idle"})
        self.known: OrderedDict[str, NDArray[np.float32]] = OrderedDict()

    def __call__(self, batch: pa.Table) -> pa.Table:
        """The packed shard with its scores; rows without an image have none."""
        shard_id, table = unpack(batch)
        rows = table.select(["sample_id", "filter_prompt", "status"]).to_pylist()
        made = [i for i, row in enumerate(rows) if row["status"] == "ok"]
        scores: list[dict[str, object]] = [{} for _ in rows]
        if made:
            real = self._embed_sources(rows[i]["sample_id"] for i in made)
            images = table["image"].to_pylist()
            chunks = [made[k : k + self.batch] for k in range(0, len(made), self.batch)]  # pixels of one at a time
            embedded = [self.scorer.embed_images([decode_image(images[i]["bytes"]) for i in chunk]) for chunk in chunks]
            for i, image in zip(made, np.concatenate(embedded), strict=True):
                similarities = self.texts @ image
                own, source = self.prompts.index(rows[i]["filter_prompt"]), real[rows[i]["sample_id"]]
                scores[i] = {
                    "text_sim": np.float32(similarities[own]),
                    "text_rank": rank_of(own, similarities),
                    "image_sim": np.float32(source @ image),
                    "source_text_sim": np.float32(self.texts[own] @ source),
                }
        scored = pa.Table.from_pylist(scores, schema=SCORES)
        for name in SCORES.names:
            table = table.append_column(SCORES.field(name), scored[name])
        return pack(shard_id, table.cast(SPECTRUM))

    def _embed_sources(self, sample_ids: Iterable[str]) -> dict[str, NDArray[np.float32]]:
        """Unit vectors of real images, shape (D,) each; those that are not remembered are read and embedded."""
        wanted = dict.fromkeys(sample_ids)
        if new := [sample_id for sample_id in wanted if sample_id not in self.known]:
            for sample_id, source in read_sources(self.run, pa.array(new))[0].items():
                # alone, so that its bits depend neither on its shard nor on what is remembered
                self.known[sample_id] = self.scorer.embed_images([source])[0]
        for sample_id in wanted:
            self.known.move_to_end(sample_id)
        real = {sample_id: self.known[sample_id] for sample_id in wanted}
        while len(self.known) > REMEMBERED:
            self.known.popitem(last=False)
        return real
