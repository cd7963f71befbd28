import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from discl_ray.core.lam import REAL
from discl_ray.curriculum.config import CurriculumConfig
from discl_ray.curriculum.epoch_order import (
    Pools,
    epoch_images,
    epoch_order,
    explore_order,
    explored_images,
    sizes,
)
from discl_ray.curriculum.strategies import AS_IS, REAL_STAGE, Choice


def make_pools(*, kept: int = 6, classes: int = 5) -> tuple[Pools, dict[str, np.ndarray]]:
    """Labels 0 and 1 are hard with 2 and 4 real images; the others have 20.

    Probe and val rows are mixed in.
    """
    rows = [(c, REAL, "train") for c in range(classes) for _ in range((2, 4)[c] if c < 2 else 20)]
    rows += [(c, lam, "train") for c in (0, 1) for lam in (0, 30) for _ in range(kept)]
    rows += [(c, lam, "probe") for c in (0, 1) for lam in (0, 30) for _ in range(3)]
    rows += [(c, REAL, "val") for c in range(classes)]
    rows = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]
    columns = {"label": np.array([r[0] for r in rows]), "lam_pct": np.array([r[1] for r in rows])}
    role = np.array([r[2] for r in rows])
    hard = np.isin(columns["label"], (0, 1)) & (columns["lam_pct"] == REAL)
    pools = Pools.of(**columns, role=role, hard=hard, num_classes=classes)
    return pools, {**columns, "role": role}


def test_sizes_are_the_equation() -> None:
    pools, _ = make_pools()
    assert sizes(pools, CurriculumConfig(scale=3, share="auto")) == (18, 36)  # (1+3)*6*(1-.4)/.4
    assert sizes(pools, CurriculumConfig(scale=3, share=0.1)) == (18, 60)  # 216 wanted, 60 there
    assert sizes(pools, CurriculumConfig(scale=2, share=None)) == (12, 60)


@pytest.mark.parametrize(
    "choice",
    [
        AS_IS,
        REAL_STAGE,
        Choice(levels=(0,)),
        Choice(levels=(0, 30, REAL)),
        Choice(levels=(30,), hard=False),
    ],
)
def test_every_strategy_takes_the_same_number_of_images(choice: Choice) -> None:
    pools, _ = make_pools()
    assert epoch_images(pools, CurriculumConfig()) == 60
    assert len(epoch_order(pools, choice, CurriculumConfig(), seed=0, epoch=1).rows) == 60


def test_a_stage_without_hard_images_draws_as_many_synthetic_ones_more() -> None:
    pools, columns = make_pools()
    order = epoch_order(
        pools, Choice(levels=(30,), hard=False), CurriculumConfig(), seed=0, epoch=1
    )
    assert (order.synthetic, order.hard, order.nonhard) == (24, 0, 36)
    assert (columns["lam_pct"][order.rows] == 30).sum() == 24
    assert not np.isin(order.rows, pools.hard).any()


@given(explore=st.floats(0.01, 0.99), batch=st.integers(1, 20), seed=st.integers(0, 9))
def test_exploration_is_whole_batches_of_real_images_and_the_stage_after_it_fills_the_epoch(
    explore, batch, seed
) -> None:
    pools, columns = make_pools()
    config = CurriculumConfig(explore=explore)
    images = explored_images(pools, config, batch)
    assert images % batch == 0
    assert batch <= images < epoch_images(pools, config)
    assert abs(images - explore * 66) <= batch or images + batch >= epoch_images(pools, config)
    first = explore_order(pools, images, seed=seed, epoch=1)
    assert len(first.rows) == len(set(first.rows)) == images
    assert set(columns["lam_pct"][first.rows]) == {REAL}
    rest = epoch_images(pools, config) - images
    stage = epoch_order(
        pools, Choice(levels=(0,), hard=False), config, seed=seed, epoch=1, images=rest
    )
    assert len(stage.rows) == rest
    assert abs(stage.share - 24 / 60) <= 1 / rest  # the epoch's own proportions


@given(
    seed=st.integers(0, 50),
    epoch=st.integers(1, 50),
    levels=st.sampled_from([(), (REAL,), (0,), (30,), (0, 30, REAL)]),
    kept=st.integers(0, 7),
    scale=st.floats(0.5, 5),
    balanced=st.booleans(),
)
def test_an_epoch_holds_training_rows_of_the_chosen_levels_only(
    seed: int, epoch: int, levels: tuple[int, ...], kept: int, scale: float, balanced: bool
) -> None:
    pools, columns = make_pools(kept=kept)
    config = CurriculumConfig(scale=scale, class_balanced=balanced)
    order = epoch_order(pools, Choice(levels=levels), config, seed=seed, epoch=epoch)
    again = epoch_order(pools, Choice(levels=levels), config, seed=seed, epoch=epoch)
    assert (order.rows == again.rows).all()
    assert set(columns["role"][order.rows]) == {"train"}
    assert order.synthetic + order.hard + order.nonhard == len(order.rows)
    drawn = columns["lam_pct"][order.rows]
    if order.borrowed == 0:
        assert set(drawn[drawn != REAL]) <= set(levels)
        assert (drawn != REAL).sum() == order.synthetic


def test_all_level_draws_evenly_over_levels_and_in_the_classes_proportions() -> None:
    pools, columns = make_pools()
    order = epoch_order(pools, Choice(levels=(0, 30, REAL)), CurriculumConfig(), seed=1, epoch=1)
    synthetic = [
        (int(columns["label"][r]), int(columns["lam_pct"][r]))
        for r in order.rows
        if columns["lam_pct"][r] != REAL
    ]
    assert {cell: synthetic.count(cell) for cell in set(synthetic)} == {
        (0, 0): 3,
        (0, 30): 3,
        (1, 0): 6,
        (1, 30): 6,
    }


def test_an_empty_cell_borrows_from_the_next_higher_level_then_from_the_real_images() -> None:
    pools, columns = make_pools()
    without = {
        cell: (rows[:0] if cell == (0, 0) else rows) for cell, rows in pools.synthetic.items()
    }
    order = epoch_order(
        Pools(**{**pools.__dict__, "synthetic": without}),
        Choice(levels=(0,)),
        CurriculumConfig(),
        seed=0,
        epoch=1,
    )
    assert order.borrowed == 6
    assert ((columns["label"][order.rows] == 0) & (columns["lam_pct"][order.rows] == 30)).sum() == 6
    nothing = {cell: rows[:0] for cell, rows in pools.synthetic.items()}
    order = epoch_order(
        Pools(**{**pools.__dict__, "synthetic": nothing}),
        Choice(levels=(0,)),
        CurriculumConfig(),
        seed=0,
        epoch=1,
    )
    assert order.borrowed == 18
    assert set(columns["lam_pct"][order.rows]) == {REAL}


def test_nonhard_images_are_drawn_afresh_each_epoch_without_replacement() -> None:
    pools, _ = make_pools()
    first, second = (
        epoch_order(pools, Choice(levels=(0,)), CurriculumConfig(), seed=0, epoch=e) for e in (1, 2)
    )
    picks = [set(o.rows) & set(pools.nonhard) for o in (first, second)]
    assert len(picks[0]) == len(picks[1]) == 36
    assert picks[0] != picks[1]
