"""Zero-shot prediction as an actor of Ray Data: SAMPLES rows in, PREDICTIONS out.

The classes' filter prompts are the classifier.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from scipy.special import softmax

from discl_ray.cluster.ending import end_without_destructors
from discl_ray.core.predictions import predictions_of
from discl_ray.core.sources import image_pixels
from discl_ray.errors import ImageError
from discl_ray.score.actor import load_scorer
from discl_ray.score.clip import Floats, Pixels
from discl_ray.score.config import ScorerConfig


class ZeroShotActor:
    """Probabilities softmax(s · image @ text.T) over all class prompts; s is the logit scale."""

    def __init__(
        self,
        config: ScorerConfig,
        class_prompts: Sequence[str],
        fingerprint: str,
        heartbeat: Any = None,
    ) -> None:
        end_without_destructors()
        torch.set_num_threads(config.threads)
        self.batch = config.batch
        self.fingerprint = fingerprint
        loaded = load_scorer(config, class_prompts, heartbeat)
        self.scorer = loaded.scorer
        self.texts = loaded.texts
        self.readers = ThreadPoolExecutor(config.threads)

    def __call__(self, rows: pa.Table) -> pa.Table:
        """PREDICTIONS of SAMPLES rows, in their order; nulls for images that cannot be read."""
        images = rows["image"].to_pylist()
        shape = (len(images), len(self.texts))
        probabilities = np.zeros(shape, np.float32)
        read = np.zeros(len(images), bool)
        for begin in range(0, len(images), self.batch):  # pixels of one batch at a time
            part = images[begin : begin + self.batch]
            found: list[int] = []
            pixels: list[Pixels] = []
            for i, image in enumerate(self.readers.map(_pixels, part), begin):
                if image is not None:
                    found.append(i)
                    pixels.append(image)
            if found:
                probabilities[found] = self._predict(pixels)
                read[found] = True
        return predictions_of(rows, probabilities, read, fold=-1, scorer=self.fingerprint)

    def _predict(self, images: Sequence[Pixels]) -> Floats:
        """Class probabilities, shape (len(images), classes)."""
        embedded = self.scorer.embed_images(images)
        logits = self.scorer.logit_scale * embedded @ self.texts.T
        return softmax(logits, axis=1)


def _pixels(image: Mapping[str, Any]) -> Pixels | None:
    """RGB uint8 (H, W, 3), or None."""
    try:
        return image_pixels(image)
    except (OSError, ImageError):
        return None
