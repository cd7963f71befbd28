# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions at import; pyright cannot see them)
"""The scorer's Ray actor: a shard with images in, the same rows with the columns SCORES out.

Class prompts are embedded once per process. Real images are too, except those that fall out of a
cache of CACHED_SOURCES. Made images are scored as they are stored.
"""

from __future__ import annotations

import os
import socket
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from discl_ray.cluster.heartbeat import WorkerSigns, report_loading
from discl_ray.core.images import decode_image
from discl_ray.core.schema import SCORED, SCORES
from discl_ray.core.shards import pack, unpack
from discl_ray.core.sources import read_sources
from discl_ray.core.storage import Store
from discl_ray.errors import DataError
from discl_ray.models.device import CPU_ONLY, device_of
from discl_ray.process.calls import AGAIN
from discl_ray.score.clip import ClipScorer, rank_of
from discl_ray.score.config import ScorerConfig

CACHED_SOURCES = 4096
"""Real images whose embeddings are kept: 8 MB for 512 numbers each."""


class ScoreActor:
    """PLAN and MADE in, SCORED out."""

    def __init__(
        self, config: ScorerConfig, class_prompts: Sequence[str], run: Store, heartbeat: Any = None
    ) -> None:
        torch.set_num_threads(config.threads)
        self.run = run
        self.batch = config.batch
        self.place: dict[str, int] = {}
        for i, prompt in enumerate(class_prompts):
            self.place.setdefault(prompt, i)  # two classes may share a prompt
        name = f"scorer {os.getpid()} on {socket.gethostname()}"
        with report_loading(heartbeat, name):
            device = device_of(config.on_gpu, CPU_ONLY)
            self.scorer = ClipScorer(config, device)
            self.texts = self.scorer.embed_texts(class_prompts)
        if heartbeat is not None:
            heartbeat.report.remote(name, WorkerSigns(phase="idle"))
        self.sources: OrderedDict[str, NDArray[np.float32]] = OrderedDict()

    def __call__(self, batch: pa.Table) -> pa.Table:
        """The packed shard with its scores; rows without an image have none."""
        shard_id, table = unpack(batch)
        made = pc.equal(table["status"], "ok").to_numpy()
        scores = pa.table(self._score(table.filter(pa.array(made))), schema=SCORES)
        places = pa.array(np.cumsum(made) - 1, mask=~made)
        for name in SCORES.names:
            table = table.append_column(SCORES.field(name), scores[name].take(places))
        return pack(shard_id, table.cast(SCORED))

    def _score(self, made: pa.Table) -> dict[str, NDArray[Any]]:
        """SCORES of rows with an image, shape (rows,) each.

        Products of one image with all prompts, so that a score's bits depend on no other image of
        the shard.
        """
        ids = made["sample_id"].to_pylist()
        own = [self.place[prompt] for prompt in made["filter_prompt"].to_pylist()]
        real = self._embed_sources(ids)
        ranks: dict[tuple[str, int], int] = {}
        for sample_id, prompt in set(zip(ids, own, strict=True)):
            ranks[sample_id, prompt] = rank_of(prompt, self.texts @ real[sample_id])
        scores = {field.name: np.zeros(len(ids), field.type.to_pandas_dtype()) for field in SCORES}
        for i, image in enumerate(self._embed_made(made["image"])):
            similarities = self.texts @ image
            source = real[ids[i]]
            scores["text_sim"][i] = similarities[own[i]]
            scores["text_rank"][i] = rank_of(own[i], similarities)
            scores["image_sim"][i] = source @ image
            scores["source_text_sim"][i] = self.texts[own[i]] @ source
            scores["source_text_rank"][i] = ranks[ids[i], own[i]]
        return scores

    def _embed_made(self, images: pa.ChunkedArray) -> Iterator[NDArray[np.float32]]:
        """Unit vectors of stored images, shape (D,) each; pixels of one batch at a time."""
        for begin in range(0, len(images), self.batch):
            part = images.slice(begin, self.batch).to_pylist()
            pixels = [decode_image(image["bytes"]) for image in part]
            yield from self.scorer.embed_images(pixels)

    def _embed_sources(self, sample_ids: Iterable[str]) -> dict[str, NDArray[np.float32]]:
        """Unit vectors of real images, shape (D,) each; those not in the cache are read."""
        wanted = dict.fromkeys(sample_ids)
        new = [sample_id for sample_id in wanted if sample_id not in self.sources]
        if new:
            self._read_sources(new)
        real: dict[str, NDArray[np.float32]] = {}
        for sample_id in wanted:
            self.sources.move_to_end(sample_id)
            real[sample_id] = self.sources[sample_id]
        # only now: a shard may have more sources than are kept
        while len(self.sources) > CACHED_SOURCES:
            self.sources.popitem(last=False)
        return real

    def _read_sources(self, sample_ids: Sequence[str]) -> None:
        """Embeds real images into the cache."""
        sources, broken = read_sources(self.run, pa.array(sample_ids))
        if broken:
            name, reason = min(broken.items())
            raise DataError(
                f"{name}: its image was read before and cannot be read now ({reason}); bring it "
                f"back and {AGAIN}"
            )
        for sample_id, source in sources.items():
            # alone, so that its bits depend neither on its shard nor on the cache
            self.sources[sample_id] = self.scorer.embed_images([source])[0]
