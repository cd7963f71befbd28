"""Whether the scorer knows the classes: real images of each, ranked among the prompts of all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np

from discl_ray.score.clip import Floats, Pixels, rank_of

LabelledImage = tuple[str, Pixels]
"""Class and RGB uint8 (H, W, 3)."""


class Scorer(Protocol):
    """What is needed of `ClipScorer`."""

    def embed_texts(self, texts: Sequence[str]) -> Floats:
        """Unit vectors, shape (len(texts), D)."""
        ...

    def embed_images(self, images: Sequence[Pixels]) -> Floats:
        """Unit vectors of RGB (H, W, 3) images, shape (len(images), D)."""
        ...


def class_ranks(
    images: Iterable[LabelledImage], prompts: Mapping[str, str], scorer: Scorer
) -> dict[str, float]:
    """Class -> the median rank of its own prompt among all `prompts`, over its images; 1 is best.

    `prompts` are by class, `images` are (class, RGB uint8 (H, W, 3)) in any order; they are taken
    one at a time, because hundreds of decoded photographs would fill the memory. Ties count in the
    class's favour. The result has the order of `prompts`, without classes that have no image.

    Raises KeyError for an image whose class has no prompt.
    """
    texts = scorer.embed_texts(list(prompts.values()))
    position = {name: i for i, name in enumerate(prompts)}
    ranks: dict[str, list[int]] = {}
    for name, image in images:
        vector = scorer.embed_images([image])[0]
        similarities = texts @ vector
        rank = rank_of(position[name], similarities)
        ranks.setdefault(name, []).append(rank)
    medians: dict[str, float] = {}
    for name in prompts:
        if name not in ranks:
            continue
        median = np.median(ranks[name])
        medians[name] = float(median)
    return medians


def unknown_classes(ranks: Mapping[str, float], count: int) -> dict[str, float]:
    """Classes ranked too low among `count` prompts for a scorer that knows them, worst first.

    Too low is beyond the third and beyond the best quarter; by chance the median of three images
    is there five times in six.
    """
    limit = max(3.0, count / 4)
    low = [name for name in ranks if ranks[name] > limit]
    # the sort is stable: classes of one rank stay in the order of `ranks`
    low.sort(key=lambda name: -ranks[name])
    return {name: ranks[name] for name in low}
