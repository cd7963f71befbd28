"""CUDA's state: how strongly each class is augmented (Ahn et al., ICLR 2023, section 3.2).

Before each epoch every class is probed at each level up to its own; where the model recognises
enough at all of them, the class goes up one, else down one. Pure functions: the strengths are the
whole state. `augment.cuda` applies them. This CUDA is
an augmentation by classes, not the GPU library.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from discl_ray.core.arrays import Bools, Floats, Ints
from discl_ray.train.augment.augment import APPLY, draw_parameters
from discl_ray.train.augment.config import AugmentConfig


class Probes(NamedTuple):
    """Images to probe with, arrays of shape (M,)."""

    rows: Ints
    """Rows of the image table."""
    strength: Ints
    """Level at which each is augmented."""
    label: Ints


def probe(
    strengths: Ints,
    rows_by_class: Mapping[int, Ints],
    config: AugmentConfig,
    *,
    seed: int,
    epoch: int,
) -> Probes:
    """The images to probe with.

    Of class c and for every level l = 0 ... L_c, T * (l + 1) of its training rows, drawn with
    replacement as in the paper's released code. A class without rows has no probes.
    """
    parts = [Probes(*np.zeros((3, 0), np.int64))]
    for label, rows in sorted(rows_by_class.items()):
        if not len(rows):
            continue
        levels = np.arange(strengths[label] + 1)
        counts = config.cuda_probes * (levels + 1)
        strength = np.repeat(levels, counts)
        rng = np.random.default_rng([seed, epoch, 0xCDA, label])
        drawn = rng.integers(len(rows), size=len(strength))
        labels = np.full(len(strength), label)
        parts.append(Probes(rows[drawn], strength, labels))
    columns = zip(*parts, strict=True)
    return Probes(*(np.concatenate(arrays) for arrays in columns))


def probe_parameters(count: int, *, seed: int, epoch: int) -> Floats:
    """Random numbers for `augment` on the probes, shape (count, PARAMETERS).

    They differ from those of training, and every image is augmented.
    """
    parameters = draw_parameters(count, seed=seed, epoch=epoch, stream=1)
    parameters[:, APPLY] = 0.0
    return parameters


def advance(
    strengths: Ints,
    class_of_row: Ints,
    strength_of_row: Ints,
    correct: Bools,
    config: AugmentConfig,
) -> Ints:
    """The next strengths, shape (C,), from which probes (M,) were recognised.

    V_LoL of the paper: L_c + 1 if at every level l = 0 ... L_c at least gamma * T * (l + 1) probes
    are right (the released code asks for more than that), else L_c - 1, within 0 ... cuda_max. A
    class without probes keeps its strength.
    """
    old = np.array(strengths, dtype=np.int64)
    classes = len(old)
    levels = int(old.max(initial=0)) + 1
    # a class and a level as one number, so that one pass counts them all
    cell = class_of_row * levels + strength_of_row
    right = np.bincount(cell, correct, classes * levels).reshape(classes, levels)
    asked = config.cuda_gamma * config.cuda_probes * (np.arange(levels) + 1)
    # gamma * T * (l + 1) is a whole number that floats may miss
    enough = right >= asked - 1e-9
    above = np.arange(levels) > old[:, None]
    step = np.where((enough | above).all(1), 1, -1)
    probed = np.bincount(class_of_row, minlength=classes) > 0
    return np.where(probed, np.clip(old + step, 0, config.cuda_max), old)
