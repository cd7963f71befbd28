"""From a choice of levels to the order of an epoch: how many of what, and which rows. Pure numpy.

With scale k and share p (SCIENCE: mixing): n_syn = k |D_h|, n_nonhard = min(|D_nh|, round((1+k) |D_h| (1-p) / p)), drawn
afresh each epoch without replacement. Epochs without synthetic images repeat D_h to the same total, and epochs without D_h draw
as many synthetic images more, so that every strategy takes the same number of steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from discl_ray.core.lam import REAL
from discl_ray.curriculum.config import CurriculumConfig
from discl_ray.curriculum.strategies import Choice

Index = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Pools:
    """Row numbers of the image table by what they are."""

    nonhard: Index
    hard: Index
    """Real images of hard classes."""
    synthetic: dict[tuple[int, int], Index]
    """(label, lam_pct) -> kept synthetic images of role train."""
    hard_by_class: dict[int, Index]
    num_classes: int

    @classmethod
    def of(cls, *, label: Index, lam_pct: Index, role: NDArray[np.str_], hard: NDArray[np.bool_], num_classes: int) -> Pools:
        """Sorts the rows of an image table; rows whose role is not `train` are in no pool. `hard` marks real rows."""
        train = role == "train"
        real = train & (lam_pct == REAL)
        levels = sorted(set(lam_pct[train & (lam_pct != REAL)].tolist()))
        labels = sorted(set(label[real & hard].tolist()))
        return cls(
            nonhard=np.flatnonzero(real & ~hard),
            hard=np.flatnonzero(real & hard),
            synthetic={
                (c, level): np.flatnonzero(train & (lam_pct == level) & (label == c)) for c in labels for level in levels
            },
            hard_by_class={c: np.flatnonzero(real & hard & (label == c)) for c in labels},
            num_classes=num_classes,
        )


@dataclass(frozen=True, kw_only=True)
class EpochOrder:
    """An epoch's rows in order, and what they came to."""

    rows: Index
    synthetic: int
    hard: int
    nonhard: int
    borrowed: int
    """Synthetic draws that came from another level or the real images because a cell held too few."""

    @property
    def share(self) -> float:
        """Realised share of hard and synthetic images."""
        return (self.synthetic + self.hard) / max(1, len(self.rows))


def sizes(pools: Pools, config: CurriculumConfig) -> tuple[int, int]:
    """(n_syn, n_nonhard) of every epoch."""
    hard = len(pools.hard)
    n_syn = round(config.scale * hard)
    share = len(pools.hard_by_class) / pools.num_classes if config.share == "auto" else config.share
    if not share or not hard:
        return n_syn, len(pools.nonhard)
    return n_syn, min(len(pools.nonhard), round((n_syn + hard) * (1 - share) / share))


def _draw(pool: Index, count: int, rng: np.random.Generator) -> Index:
    """`count` rows: whole permutations first, so that none is drawn twice before all are drawn once."""
    if count == 0 or len(pool) == 0:
        return np.empty(0, np.int64)
    rounds = [rng.permutation(pool) for _ in range(-(-count // len(pool)))]
    return np.concatenate(rounds)[:count]


def _cell(pools: Pools, label: int, level: int, min_keep: int) -> tuple[Index, bool]:
    """The kept images of a class at a level, or of the nearest higher level that has enough, in the end the real ones."""
    levels = sorted({lv for c, lv in pools.synthetic if c == label and lv >= level})
    for candidate in levels:
        if len(pools.synthetic[label, candidate]) >= min_keep:
            return pools.synthetic[label, candidate], candidate != level
    return pools.hard_by_class[label], True


def epoch_images(pools: Pools, config: CurriculumConfig) -> int:
    """Images of every epoch, whatever its strategy: (1 + k) |D_h| + n_nonhard."""
    n_syn, n_nonhard = sizes(pools, config)
    return n_syn + len(pools.hard) + n_nonhard


def explored_images(pools: Pools, config: CurriculumConfig, batch: int) -> int:
    """|D| of Algorithm 2: a share of D_all in whole batches, at least one, and less than an epoch has."""
    wanted = max(1, round(config.explore * (len(pools.hard) + len(pools.nonhard)) / batch))
    whole = (epoch_images(pools, config) - 1) // batch
    return batch * max(1, min(wanted, whole))


def explore_order(pools: Pools, images: int, *, seed: int, epoch: int) -> EpochOrder:
    """D of Algorithm 2: a random part of D_all, drawn afresh each epoch."""
    rng = np.random.default_rng([seed, epoch, 0xD0])
    return _everything(pools, images, rng)


def _everything(pools: Pools, images: int, rng: np.random.Generator) -> EpochOrder:
    rows = _draw(np.sort(np.concatenate([pools.nonhard, pools.hard])), images, rng)
    hard = int(np.isin(rows, pools.hard).sum())
    return EpochOrder(rows=rng.permutation(rows), synthetic=0, hard=hard, nonhard=len(rows) - hard, borrowed=0)


def epoch_order(
    pools: Pools, choice: Choice, config: CurriculumConfig, *, seed: int, epoch: int, images: int | None = None
) -> EpochOrder:
    """The rows of one epoch, shuffled; a function of its arguments alone. `images` shrinks an epoch, in its proportions."""
    rng = np.random.default_rng([seed, epoch, 0xE0])
    n_syn, n_nonhard = sizes(pools, config)
    slot = n_syn + len(pools.hard)  # what hard classes get, real or not
    if images is not None:
        slot = round(slot * images / (slot + n_nonhard))
        n_nonhard = images - slot
    if not choice.levels:
        return _everything(pools, slot + n_nonhard, rng)
    nonhard = _draw(pools.nonhard, n_nonhard, rng)
    if not choice.synthetic:
        hard = _draw(pools.hard, slot, rng)
        rows = np.concatenate([nonhard, hard])
        return EpochOrder(rows=rng.permutation(rows), synthetic=0, hard=len(hard), nonhard=len(nonhard), borrowed=0)
    real = _draw(pools.hard, min(slot, len(pools.hard)), rng) if choice.hard else pools.hard[:0]
    n_syn = slot - len(real)
    classes = list(pools.hard_by_class)
    weights = np.array([1.0 if config.class_balanced else len(pools.hard_by_class[c]) for c in classes])
    quota = _apportion(n_syn, np.repeat(weights, len(choice.synthetic)))
    parts, borrowed = [], 0
    for (label, level), count in zip([(c, lv) for c in classes for lv in choice.synthetic], quota.tolist(), strict=True):
        pool, elsewhere = _cell(pools, label, level, config.min_keep)
        parts.append(_draw(pool, count, rng))
        borrowed += count * elsewhere
    rows = np.concatenate([nonhard, real, *parts])
    return EpochOrder(rows=rng.permutation(rows), synthetic=n_syn, hard=len(real), nonhard=len(nonhard), borrowed=borrowed)


def _apportion(total: int, weights: NDArray[np.float64]) -> Index:
    """Whole numbers in proportion to `weights` that add up to `total` (largest remainders)."""
    exact = total * weights / weights.sum()
    whole = np.floor(exact).astype(np.int64)
    whole[np.argsort(whole - exact, kind="stable")[: total - whole.sum()]] += 1
    return whole
