"""From a choice of levels to the order of an epoch: how many of what, and which rows. Pure numpy.

With scale k and share p: n_syn = k |D_h|, n_nonhard = min(|D_nh|, round((1+k) |D_h| (1-p) / p)),
drawn again each epoch without replacement. Epochs without synthetic images repeat D_h to the same
total, and epochs without D_h draw as many synthetic images more, so that every strategy takes the
same number of steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from discl_ray.core.lam import REAL
from discl_ray.curriculum.config import CurriculumConfig
from discl_ray.curriculum.strategies import Choice

Index = NDArray[np.int64]
"""Row numbers of the image table, shape (n,)."""

CELLS = REAL + 1
"""Levels that a class may have."""


@dataclass(frozen=True, kw_only=True)
class Pools:
    """Row numbers of the image table by what they are."""

    nonhard: Index
    hard: Index
    """Real images of hard classes."""
    synthetic: dict[tuple[int, int], Index]
    """(label, λ in percent) -> kept synthetic images of role train."""
    hard_by_class: dict[int, Index]
    num_classes: int

    @classmethod
    def of(
        cls,
        *,
        label: Index,
        lam_pct: Index,
        role: NDArray[np.str_],
        hard: NDArray[np.bool_],
        num_classes: int,
    ) -> Pools:
        """Sorts the rows of an image table; rows whose role is not `train` are in no pool.

        All arrays have shape (N,). `hard` marks real rows.
        """
        train = role == "train"
        is_real = lam_pct == REAL
        real = train & is_real
        hard_rows = np.flatnonzero(real & hard)
        hard_by_class = rows_by_key(hard_rows, label[hard_rows])
        made = np.flatnonzero(train & ~is_real)
        levels = np.unique(lam_pct[made]).tolist()
        # a class and a level as one number, so that one sort groups by both
        cells = rows_by_key(made, label[made] * CELLS + lam_pct[made])
        none = made[:0]
        synthetic: dict[tuple[int, int], Index] = {}
        for class_, level in product(hard_by_class, levels):
            number = class_ * CELLS + level
            synthetic[class_, level] = cells.get(number, none)
        return cls(
            nonhard=np.flatnonzero(real & ~hard),
            hard=hard_rows,
            synthetic=synthetic,
            hard_by_class=hard_by_class,
            num_classes=num_classes,
        )


def rows_by_key(rows: Index, key: Index) -> dict[int, Index]:
    """Rows by key, ascending, each group in the order of `rows`."""
    if not len(rows):
        return {}
    order = np.argsort(key, kind="stable")
    ascending = key[order]
    values, first = np.unique(ascending, return_index=True)
    groups = np.split(rows[order], first[1:])
    return dict(zip(values.tolist(), groups, strict=True))


@dataclass(frozen=True, kw_only=True)
class EpochOrder:
    """An epoch's rows in order, and how many there are of each kind."""

    rows: Index
    hard: int
    nonhard: int
    synthetic: int = 0
    borrowed: int = 0
    """Synthetic draws taken from another level or the real images, because a cell had too few."""
    real: int = 0
    """Of those, the ones taken from the real images."""

    @property
    def share(self) -> float:
        """Realised share of hard and synthetic images."""
        total = max(1, len(self.rows))
        return (self.synthetic + self.hard) / total


def sizes(pools: Pools, config: CurriculumConfig) -> tuple[int, int]:
    """(n_syn, n_nonhard) of every epoch."""
    hard = len(pools.hard)
    n_syn = round(config.scale * hard)
    share = config.share
    if share == "auto":
        share = len(pools.hard_by_class) / pools.num_classes
    if not share or not hard:
        return n_syn, len(pools.nonhard)
    wanted = round((n_syn + hard) * (1 - share) / share)
    return n_syn, min(len(pools.nonhard), wanted)


def _slots(pools: Pools, config: CurriculumConfig, images: int | None) -> tuple[int, int]:
    """(images of hard classes, real or synthetic; n_nonhard) of an epoch.

    In the same proportions where the epoch has another number of `images`.
    """
    n_syn, n_nonhard = sizes(pools, config)
    slot = n_syn + len(pools.hard)
    usual = slot + n_nonhard
    if images is None or images == usual:
        return slot, n_nonhard
    part = round(slot * images / usual)
    return part, images - part


def _draw(pool: Index, count: int, rng: np.random.Generator) -> Index:
    """`count` rows: whole permutations first, so none is drawn twice before all are drawn once."""
    if count == 0 or len(pool) == 0:
        return np.empty(0, np.int64)
    rounds = math.ceil(count / len(pool))
    permutations = [rng.permutation(pool) for _ in range(rounds)]
    return np.concatenate(permutations)[:count]


@dataclass(frozen=True)
class _Part:
    """The synthetic images of one class and level in an epoch."""

    level: int
    count: int
    pool: Index
    """The rows they are drawn from."""
    source: int
    """The level of `pool`; REAL where the real images are used instead."""


def _parts(pools: Pools, choice: Choice, config: CurriculumConfig, n_syn: int) -> list[_Part]:
    """`n_syn` synthetic images by class and level."""
    cells = list(product(pools.hard_by_class, choice.synthetic))
    weights = [_weight(pools, config, label) for label, _ in cells]
    quota = _apportion(n_syn, np.array(weights)).tolist()
    made = sorted({level for _, level in pools.synthetic})
    parts: list[_Part] = []
    for (label, level), count in zip(cells, quota, strict=True):
        at_least = [other for other in made if other >= level]
        source = _source(pools, label, at_least, config.min_keep)
        pool = pools.hard_by_class[label] if source == REAL else pools.synthetic[label, source]
        parts.append(_Part(level, count, pool, source))
    return parts


def _source(pools: Pools, label: int, levels: Sequence[int], min_keep: int) -> int:
    """The first of some ascending levels that has enough images of a class; REAL if none has."""
    for level in levels:
        if len(pools.synthetic[label, level]) >= min_keep:
            return level
    return REAL


def _weight(pools: Pools, config: CurriculumConfig, label: int) -> float:
    """A class's share of the synthetic images, relative to the others."""
    if config.class_balanced:
        return 1.0
    return float(len(pools.hard_by_class[label]))


def _drawn_from_real(parts: Sequence[_Part]) -> int:
    return sum(part.count for part in parts if part.source == REAL)


def _drawn_from_elsewhere(parts: Sequence[_Part]) -> int:
    """Images drawn from another level than their own, real ones among them."""
    return sum(part.count for part in parts if part.source != part.level)


@dataclass(frozen=True, kw_only=True)
class Supply:
    """How many synthetic images a stage needs in an epoch, and how many there are."""

    levels: tuple[int, ...]
    """The stage's synthetic levels."""
    asked: int
    """Synthetic images an epoch draws."""
    kept: int
    """Different ones that the filter kept at these levels."""
    borrowed: int
    """Draws that come from a higher level."""
    real: int
    """Draws that come from the real images."""

    @property
    def short(self) -> bool:
        """Whether some are drawn twice in an epoch, or come from another level."""
        replaced = self.borrowed + self.real
        return self.kept < self.asked or replaced > 0


def supply(
    pools: Pools, choice: Choice, config: CurriculumConfig, images: int | None = None
) -> Supply:
    """The supply of a stage with synthetic images, for an epoch of `images` if not the usual."""
    slot, _ = _slots(pools, config, images)
    hard = min(slot, len(pools.hard)) if choice.hard else 0
    asked = slot - hard
    parts = _parts(pools, choice, config, asked)
    real = _drawn_from_real(parts)
    return Supply(
        levels=choice.synthetic,
        asked=asked,
        kept=_kept_at(pools.synthetic, choice.synthetic),
        borrowed=_drawn_from_elsewhere(parts) - real,
        real=real,
    )


def _kept_at(synthetic: Mapping[tuple[int, int], Index], levels: Sequence[int]) -> int:
    kept = 0
    for (_, level), rows in synthetic.items():
        if level in levels:
            kept += len(rows)
    return kept


def epoch_images(pools: Pools, config: CurriculumConfig) -> int:
    """Images of an epoch, whatever its strategy: (1 + k) |D_h| + n_nonhard."""
    n_syn, n_nonhard = sizes(pools, config)
    return n_syn + len(pools.hard) + n_nonhard


def budget(pools: Pools, config: CurriculumConfig, batch: int, epoch: int) -> int:
    """Images of an epoch under any strategy.

    With `explore_extra` it is |D| more while the curriculum lasts.
    """
    images = epoch_images(pools, config)
    if config.explore_extra and epoch <= config.epochs:
        images += explored_images(pools, config, batch)
    return images


def explored_images(pools: Pools, config: CurriculumConfig, batch: int) -> int:
    """|D| of Algorithm 2: a share of D_all in whole batches.

    At least one batch, and less than an epoch has.
    """
    real = len(pools.hard) + len(pools.nonhard)
    wanted = round(config.explore * real / batch)
    whole = (epoch_images(pools, config) - 1) // batch
    batches = max(1, min(wanted, whole))
    return batches * batch


def explore_order(pools: Pools, images: int, *, seed: int, epoch: int) -> EpochOrder:
    """D of Algorithm 2: a random part of D_all, drawn again each epoch."""
    rng = np.random.default_rng([seed, epoch, 0xD0])
    return _everything(pools, images, rng)


def _everything(pools: Pools, images: int, rng: np.random.Generator) -> EpochOrder:
    """`images` of D_all."""
    real = np.concatenate([pools.nonhard, pools.hard])
    rows = _draw(np.sort(real), images, rng)
    hard = int(np.isin(rows, pools.hard).sum())
    return EpochOrder(rows=rng.permutation(rows), hard=hard, nonhard=len(rows) - hard)


def epoch_order(
    pools: Pools,
    choice: Choice,
    config: CurriculumConfig,
    *,
    seed: int,
    epoch: int,
    images: int | None = None,
) -> EpochOrder:
    """The rows of one epoch, shuffled; a function of its arguments alone.

    `images` makes it shorter or longer, in the same proportions.
    """
    rng = np.random.default_rng([seed, epoch, 0xE0])
    slot, n_nonhard = _slots(pools, config, images)
    if not choice.levels:
        return _everything(pools, slot + n_nonhard, rng)
    # the order of the draws decides their random numbers: non-hard, hard, synthetic, shuffle
    nonhard = _draw(pools.nonhard, n_nonhard, rng)
    if not choice.synthetic:
        hard = _draw(pools.hard, slot, rng)
        parts: list[_Part] = []
    else:
        wanted = min(slot, len(pools.hard)) if choice.hard else 0
        hard = _draw(pools.hard, wanted, rng)
        parts = _parts(pools, choice, config, slot - len(hard))
    synthetic = [_draw(part.pool, part.count, rng) for part in parts]
    rows = np.concatenate([nonhard, hard, *synthetic])
    return EpochOrder(
        rows=rng.permutation(rows),
        synthetic=sum(part.count for part in parts),
        hard=len(hard),
        nonhard=len(nonhard),
        borrowed=_drawn_from_elsewhere(parts),
        real=_drawn_from_real(parts),
    )


def _apportion(total: int, weights: NDArray[np.float64]) -> Index:
    """Whole numbers in proportion to `weights` that add up to `total` (largest remainders)."""
    exact = total * weights / weights.sum()
    whole = np.floor(exact).astype(np.int64)
    left = total - whole.sum()
    largest_remainders = np.argsort(whole - exact, kind="stable")[:left]
    whole[largest_remainders] += 1
    return whole
