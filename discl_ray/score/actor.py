"""The scorer's Ray actor: a shard with images in, the same rows with the columns SCORES out.

Class prompts are embedded once per process. Real images are too, except those that fall out of a
cache of CACHED_SOURCES. Made images are scored as they are stored.
"""

from __future__ import annotations

import os
import socket
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch

from discl_ray.cluster.heartbeat import WorkerSigns, report_loading
from discl_ray.core.columns import as_numpy, equal
from discl_ray.core.images import decode_image
from discl_ray.core.schema import SCORED, SCORES
from discl_ray.core.shards import Shard, Slice, pack, unpack
from discl_ray.core.sources import read_sources
from discl_ray.core.storage import Store
from discl_ray.errors import DataError
from discl_ray.models.device import CPU_ONLY, device_of
from discl_ray.process.calls import AGAIN
from discl_ray.score.clip import ClipScorer, Floats, rank_of
from discl_ray.score.config import ScorerConfig

Columns = dict[str, np.ndarray]
"""Columns of a table by name, shape (rows,) each."""

Pair = tuple[str, int]
"""sample_id, and the position of a class prompt."""

Vectors = dict[str, Floats]
"""Unit vectors by sample_id, shape (D,) each."""

CACHED_SOURCES = 4096
"""Real images whose embeddings are kept: 8 MB for 512 numbers each."""


class LoadedScorer(NamedTuple):
    """A scorer with its class prompts."""

    scorer: ClipScorer
    texts: Floats
    """Unit vectors of the prompts, shape (prompts, D)."""


def load_scorer(config: ScorerConfig, class_prompts: Sequence[str], heartbeat: Any) -> LoadedScorer:
    """Loads the scorer on this process's device, and tells the heartbeat, if there is one."""
    name = f"scorer {os.getpid()} on {socket.gethostname()}"
    with report_loading(heartbeat, name):
        device = device_of(config.on_gpu, CPU_ONLY)
        scorer = ClipScorer(config, device)
        texts = scorer.embed_texts(class_prompts)
    if heartbeat is not None:
        signs = WorkerSigns(phase="idle")
        heartbeat.report.remote(name, signs)
    return LoadedScorer(scorer, texts)


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
        loaded = load_scorer(config, class_prompts, heartbeat)
        self.scorer = loaded.scorer
        self.texts = loaded.texts
        self.sources: OrderedDict[str, Floats] = OrderedDict()
        """Unit vectors of real images by sample_id, those used last at the end."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        """The packed shard with its scores; rows without an image have none."""
        row, table = unpack(batch)
        ok = equal(table["status"], "ok")
        columns = self._score(table.filter(ok), Shard.of(row).sources)
        scores = pa.table(columns, schema=SCORES)
        made = as_numpy(ok)
        # of each row, its place among those with an image; null without one
        counted = np.cumsum(made) - 1
        places = pa.array(counted, mask=~made)
        for name in SCORES.names:
            column = scores[name].take(places)
            table = table.append_column(SCORES.field(name), column)
        return pack(row, table.cast(SCORED))

    def _score(self, made: pa.Table, place: Slice | None) -> Columns:
        """SCORES of rows with an image; `place` is where their shard's real images lie.

        Products of one image with all prompts, so that a score's bits depend on no other image of
        the shard.
        """
        ids = made["sample_id"].to_pylist()
        prompts = made["filter_prompt"].to_pylist()
        owns = [self.place[prompt] for prompt in prompts]
        hashes = made["source_sha256"].to_pylist()
        real = self._embed_sources(dict(zip(ids, hashes, strict=True)), place)
        pairs = set(zip(ids, owns, strict=True))
        ranks = self._source_ranks(pairs, real)
        scores = _blank_scores(len(ids))
        images = self._embed_made(made["image"])
        for i, image in enumerate(images):
            own = owns[i]
            similarities = self.texts @ image
            source = real[ids[i]]
            scores["text_sim"][i] = similarities[own]
            scores["text_rank"][i] = rank_of(own, similarities)
            scores["image_sim"][i] = source @ image
            scores["source_text_sim"][i] = self.texts[own] @ source
            scores["source_text_rank"][i] = ranks[ids[i], own]
        return scores

    def _source_ranks(self, pairs: Iterable[Pair], real: Vectors) -> dict[Pair, int]:
        """The rank of each pair's prompt for the real image."""
        ranks: dict[Pair, int] = {}
        for sample_id, prompt in pairs:
            similarities = self.texts @ real[sample_id]
            ranks[sample_id, prompt] = rank_of(prompt, similarities)
        return ranks

    def _embed_made(self, images: pa.ChunkedArray) -> Iterator[Floats]:
        """Unit vectors of stored images, shape (D,) each; pixels of one batch at a time."""
        for begin in range(0, len(images), self.batch):
            part = images.slice(begin, self.batch)
            pixels = [decode_image(image["bytes"]) for image in part.to_pylist()]
            yield from self.scorer.embed_images(pixels)

    def _embed_sources(self, wanted: Mapping[str, str | None], place: Slice | None) -> Vectors:
        """Unit vectors of real images, shape (D,) each; those not in the cache are read.

        `wanted` maps sample ids to the hashes that `read_sources` compares.
        """
        new = {
            sample_id: wanted[sample_id] for sample_id in wanted if sample_id not in self.sources
        }
        if new:
            self._read_sources(new, place)
        real: Vectors = {}
        for sample_id in wanted:
            self.sources.move_to_end(sample_id)
            real[sample_id] = self.sources[sample_id]
        # only now: a shard may have more sources than are kept
        while len(self.sources) > CACHED_SOURCES:
            self.sources.popitem(last=False)
        return real

    def _read_sources(self, wanted: Mapping[str, str | None], place: Slice | None) -> None:
        """Embeds real images into the cache."""
        sources, broken = read_sources(self.run, wanted, place)
        if broken:
            name, reason = min(broken.items())
            raise DataError(
                f"{name}: its image was read before and cannot be read now ({reason}); bring it "
                f"back and {AGAIN}"
            )
        for sample_id, source in sources.items():
            # alone, so that its bits depend neither on its shard nor on the cache
            vectors = self.scorer.embed_images([source])
            self.sources[sample_id] = vectors[0]


def _blank_scores(rows: int) -> Columns:
    """SCORES of zeros."""
    columns: Columns = {}
    for field in SCORES:
        dtype = field.type.to_pandas_dtype()
        columns[field.name] = np.zeros(rows, dtype)
    return columns
