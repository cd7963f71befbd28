"""From a choice of levels to the order of an epoch: how many of what, and which rows. Pure numpy.

With scale k and share p (SCIENCE: mixing): n_syn = k |D_h|, n_nonhard = min(|D_nh|, round((1+k) |D_h| (1-p) / p)), drawn
afresh each epoch without replacement. Epochs without synthetic images repeat D_h to the same total, and epochs without D_h draw
as many synthetic images more, so that every strategy takes the same number of steps.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    def of(
        cls,
        *,
        label: Index,
        lam_pct: Index,
        role: NDArray[np.str_],
        hard: NDArray[np.bool_],
        num_classes: int,
    ) -> Pools:
        """Sorts the rows of an image table; rows whose role is not `train` are in no pool. `hard` marks real rows."""
        train = role == "train"
        real = train & (lam_pct == REAL)
        made = np.flatnonzero(train & (lam_pct != REAL))
        hard_rows = np.flatnonzero(real & hard)
        by_class = _groups(hard_rows, label[hard_rows])
        levels = np.unique(lam_pct[made]).tolist()
        cells = _groups(made, label[made] * (REAL + 1) + lam_pct[made])
        none = made[:0]
        return cls(
            nonhard=np.flatnonzero(real & ~hard),
            hard=hard_rows,
            synthetic={
                (c, level): cells.get(c * (REAL + 1) + level, none)
                for c in by_class
                for level in levels
            },
            hard_by_class=by_class,
            num_classes=num_classes,
        )


def _groups(rows: Index, key: Index) -> dict[int, Index]:
    """Rows by key, ascending, each in their order."""
    order = np.argsort(key, kind="stable")
    values, first = np.unique(key[order], return_index=True)
    return (
        dict(zip(values.tolist(), np.split(rows[order], first[1:]), strict=True))
        if len(rows)
        else {}
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
    real: int = 0
    """Of them, those that came from the real images."""

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


def _slots(pools: Pools, config: CurriculumConfig, images: int | None) -> tuple[int, int]:
    """(What hard classes get, real or not; n_nonhard) of an epoch, in its proportions where it has another number of images."""
    n_syn, n_nonhard = sizes(pools, config)
    slot = n_syn + len(pools.hard)
    if images is None or images == slot + n_nonhard:
        return slot, n_nonhard
    part = round(slot * images / (slot + n_nonhard))
    return part, images - part


def _draw(pool: Index, count: int, rng: np.random.Generator) -> Index:
    """`count` rows: whole permutations first, so that none is drawn twice before all are drawn once."""
    if count == 0 or len(pool) == 0:
        return np.empty(0, np.int64)
    rounds = [rng.permutation(pool) for _ in range(-(-count // len(pool)))]
    return np.concatenate(rounds)[:count]


def _cell(pools: Pools, label: int, levels: Sequence[int], min_keep: int) -> tuple[Index, int]:
    """The kept images of a class at the first of some ascending levels that has enough, in the end the real ones; and which."""
    for level in levels:
        if len(pools.synthetic[label, level]) >= min_keep:
            return pools.synthetic[label, level], level
    return pools.hard_by_class[label], REAL


@dataclass(frozen=True)
class _Part:
    """The synthetic images of one class and level in an epoch."""

    level: int
    count: int
    pool: Index
    """What they are drawn from."""
    source: int
    """Its level; REAL where the real images stand in."""


def _parts(pools: Pools, choice: Choice, config: CurriculumConfig, n_syn: int) -> list[_Part]:
    """`n_syn` synthetic images by class and level."""
    cells = [(label, level) for label in pools.hard_by_class for level in choice.synthetic]
    weights = [
        1.0 if config.class_balanced else len(pools.hard_by_class[label]) for label, _ in cells
    ]
    quota = _apportion(n_syn, np.array(weights, np.float64))
    there = sorted({level for _, level in pools.synthetic})
    at_least = {level: [lv for lv in there if lv >= level] for level in choice.synthetic}
    parts = []
    for (label, level), count in zip(cells, quota.tolist(), strict=True):
        pool, source = _cell(pools, label, at_least[level], config.min_keep)
        parts.append(_Part(level, count, pool, source))
    return parts


@dataclass(frozen=True, kw_only=True)
class Supply:
    """What a stage asks for in an epoch, and what there is."""

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
        """Whether some are drawn twice in an epoch, or are not what they are called."""
        return self.kept < self.asked or self.borrowed + self.real > 0


def supply(
    pools: Pools, choice: Choice, config: CurriculumConfig, images: int | None = None
) -> Supply:
    """What a stage with synthetic images asks for in an epoch, of `images` images if not of its own number, and what there is."""
    slot, _ = _slots(pools, config, images)
    asked = slot - (min(slot, len(pools.hard)) if choice.hard else 0)
    parts = _parts(pools, choice, config, asked)
    kept = [len(rows) for (_, level), rows in pools.synthetic.items() if level in choice.synthetic]
    return Supply(
        levels=choice.synthetic,
        asked=asked,
        kept=sum(kept),
        borrowed=sum(part.count for part in parts if part.source not in (part.level, REAL)),
        real=sum(part.count for part in parts if part.source == REAL),
    )


def epoch_images(pools: Pools, config: CurriculumConfig) -> int:
    """Images of an epoch, whatever its strategy: (1 + k) |D_h| + n_nonhard."""
    n_syn, n_nonhard = sizes(pools, config)
    return n_syn + len(pools.hard) + n_nonhard


def budget(pools: Pools, config: CurriculumConfig, batch: int, epoch: int) -> int:
    """Images that any strategy takes in an epoch: with `explore_extra` |D| more while the curriculum lasts."""
    on_top = config.explore_extra and epoch <= config.epochs
    return epoch_images(pools, config) + (explored_images(pools, config, batch) if on_top else 0)


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
    return EpochOrder(
        rows=rng.permutation(rows), synthetic=0, hard=hard, nonhard=len(rows) - hard, borrowed=0
    )


def epoch_order(
    pools: Pools,
    choice: Choice,
    config: CurriculumConfig,
    *,
    seed: int,
    epoch: int,
    images: int | None = None,
) -> EpochOrder:
    """The rows of one epoch, shuffled; a function of its arguments alone. `images` makes it shorter or longer, in its proportions."""
    rng = np.random.default_rng([seed, epoch, 0xE0])
    slot, n_nonhard = _slots(pools, config, images)
    if not choice.levels:
        return _everything(pools, slot + n_nonhard, rng)
    nonhard = _draw(pools.nonhard, n_nonhard, rng)
    if not choice.synthetic:
        hard = _draw(pools.hard, slot, rng)
        rows = np.concatenate([nonhard, hard])
        return EpochOrder(
            rows=rng.permutation(rows),
            synthetic=0,
            hard=len(hard),
            nonhard=len(nonhard),
            borrowed=0,
        )
    real = _draw(pools.hard, min(slot, len(pools.hard)), rng) if choice.hard else pools.hard[:0]
    n_syn = slot - len(real)
    parts = _parts(pools, choice, config, n_syn)
    rows = np.concatenate([nonhard, real, *(_draw(part.pool, part.count, rng) for part in parts)])
    return EpochOrder(
        rows=rng.permutation(rows),
        synthetic=n_syn,
        hard=len(real),
        nonhard=len(nonhard),
        borrowed=sum(part.count for part in parts if part.source != part.level),
        real=sum(part.count for part in parts if part.source == REAL),
    )


def _apportion(total: int, weights: NDArray[np.float64]) -> Index:
    """Whole numbers in proportion to `weights` that add up to `total` (largest remainders)."""
    exact = total * weights / weights.sum()
    whole = np.floor(exact).astype(np.int64)
    whole[np.argsort(whole - exact, kind="stable")[: total - whole.sum()]] += 1
    return whole
