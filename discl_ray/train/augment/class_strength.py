"""CUDA's state: how strongly each class is augmented, by what the model still recognises (Ahn et al., ICLR 2023, section 3.2).

Before each epoch every class is probed at each level up to its own; where the model recognises enough at all of them, the class
goes up one, else down one. Pure functions: the strengths are the whole state. `augment.cuda` applies them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from discl_ray.train.augment.augment import APPLY, draw_parameters
from discl_ray.train.augment.config import AugmentConfig


def probe(
    strengths: NDArray[np.integer],
    rows_by_class: Mapping[int, NDArray[np.integer]],
    config: AugmentConfig,
    *,
    seed: int,
    epoch: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Which images to probe with: (rows, level of each, class of each), all of shape (M,).

    Of class c and for every level l = 0 ... L_c, T * (l + 1) of its training rows, drawn with replacement as in the paper's
    released code. A class without rows has no probes.
    """
    rows, levels, classes = [], [], []
    for label in sorted(rows_by_class):
        own = np.asarray(rows_by_class[label], dtype=np.int64)
        if not len(own):
            continue
        level = np.concatenate(
            [np.full(config.cuda_probes * (k + 1), k) for k in range(int(strengths[label]) + 1)]
        )
        rng = np.random.default_rng([seed, epoch, 0xCDA, label])
        rows.append(own[rng.integers(len(own), size=len(level))])
        levels.append(level)
        classes.append(np.full(len(level), label))
    empty = [np.zeros(0, dtype=np.int64)]
    joined = (np.concatenate(empty + part).astype(np.int64) for part in (rows, levels, classes))
    return next(joined), next(joined), next(joined)


def probe_parameters(count: int, *, seed: int, epoch: int) -> NDArray[np.float64]:
    """Random numbers for `augment` on the probes, shape (count, PARAMETERS): other than training's, and all of them applied."""
    parameters = draw_parameters(count, seed=seed, epoch=epoch, stream=1)
    parameters[:, APPLY] = 0.0
    return parameters


def advance(
    strengths: NDArray[np.integer],
    class_of_row: NDArray[np.integer],
    strength_of_row: NDArray[np.integer],
    correct: NDArray[np.bool_],
    config: AugmentConfig,
) -> NDArray[np.int64]:
    """The next strengths, shape (C,), from which probes (M,) were recognised.

    V_LoL of the paper: L_c + 1 if at every level l = 0 ... L_c at least gamma * T * (l + 1) probes are right (the released code
    asks for more than that), else L_c - 1, kept within 0 ... cuda_max. A class without probes stays where it is.
    """
    new = np.array(strengths, dtype=np.int64)
    for label in np.unique(class_of_row):
        own = class_of_row == label
        right = np.bincount(
            strength_of_row[own], weights=correct[own], minlength=int(strengths[label]) + 1
        )
        asked = config.cuda_gamma * config.cuda_probes * (np.arange(len(right)) + 1)
        up = (
            right >= asked - 1e-9
        ).all()  # gamma * T * (l + 1) is a whole number that floats may miss
        new[label] = np.clip(strengths[label] + (1 if up else -1), 0, config.cuda_max)
    return new
