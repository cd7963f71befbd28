"""Zero-shot prediction as an actor of Ray Data: SAMPLES rows in, PREDICTIONS out.

The classes' filter prompts are the classifier.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from scipy.special import softmax

from discl_ray.cluster.heartbeat import WorkerSigns, report_loading
from discl_ray.core.predictions import predictions_of
from discl_ray.core.sources import image_pixels
from discl_ray.errors import ImageError
from discl_ray.models.device import CPU_ONLY, device_of
from discl_ray.score.clip import ClipScorer
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
        torch.set_num_threads(config.threads)
        self.batch = config.batch
        self.fingerprint = fingerprint
        name = f"scorer {os.getpid()} on {socket.gethostname()}"
        with report_loading(heartbeat, name):
            device = device_of(config.on_gpu, CPU_ONLY)
            self.scorer = ClipScorer(config, device)
            self.texts = self.scorer.embed_texts(class_prompts)
        if heartbeat is not None:
            heartbeat.report.remote(name, WorkerSigns(phase="idle"))
        self.readers = ThreadPoolExecutor(config.threads)

    def __call__(self, rows: pa.Table) -> pa.Table:
        """PREDICTIONS of SAMPLES rows, in their order; nulls for images that cannot be read."""
        images = rows["image"].to_pylist()
        probabilities = np.zeros((len(images), len(self.texts)), np.float32)
        read = np.zeros(len(images), bool)
        for begin in range(0, len(images), self.batch):  # pixels of one batch at a time
            batch = self.readers.map(_pixels, images[begin : begin + self.batch])
            pixels = {i: image for i, image in enumerate(batch, begin) if image is not None}
            if pixels:
                found = list(pixels)
                probabilities[found] = self._predict(list(pixels.values()))
                read[found] = True
        return predictions_of(rows, probabilities, read, fold=-1, scorer=self.fingerprint)

    def _predict(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Class probabilities, shape (len(images), classes)."""
        embedded = self.scorer.embed_images(images)
        return softmax(self.scorer.logit_scale * embedded @ self.texts.T, axis=1)


def _pixels(image: Mapping[str, Any]) -> NDArray[np.uint8] | None:
    """RGB uint8 (H, W, 3), or None."""
    try:
        return image_pixels(image)
    except (OSError, ImageError):
        return None
