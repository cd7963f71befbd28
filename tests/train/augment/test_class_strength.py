import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discl_ray.train.augment.augment import APPLY, AugmentConfig, draw_parameters
from discl_ray.train.augment.class_strength import advance, probe, probe_parameters

ROWS = {0: np.array([3, 5, 8]), 1: np.array([11]), 2: np.arange(20, 60), 3: np.array([], dtype=int)}


@settings(max_examples=50)
@given(
    strengths=st.lists(st.integers(0, 10), min_size=4, max_size=4),
    probes=st.integers(1, 12),
    seed=st.integers(0, 2**31),
    epoch=st.integers(0, 500),
)
def test_every_level_of_a_class_gets_its_probes_from_the_classs_rows(
    strengths: list[int], probes: int, seed: int, epoch: int
) -> None:
    config, state = AugmentConfig(cuda_probes=probes), np.array(strengths)
    rows, level, label = probe(state, ROWS, config, seed=seed, epoch=epoch)
    assert rows.shape == level.shape == label.shape
    for c in range(4):
        counts = np.bincount(level[label == c])
        assert counts.tolist() == (
            [probes * (k + 1) for k in range(strengths[c] + 1)] if len(ROWS[c]) else []
        )
        assert np.isin(rows[label == c], ROWS[c]).all()
    again = probe(state, dict(reversed(ROWS.items())), config, seed=seed, epoch=epoch)
    assert all(np.array_equal(a, b) for a, b in zip((rows, level, label), again, strict=True))
    other = np.array(
        [0, strengths[1], 10, 0]
    )  # what a class is probed with does not depend on the others
    assert np.array_equal(
        rows[label == 1],
        (lambda r, _, c: r[c == 1])(*probe(other, ROWS, config, seed=seed, epoch=epoch)),
    )


def outcome(
    right: dict[int, list[int]], config: AugmentConfig
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probes of which right[class][level] are correct."""
    parts = [
        (c, k, i < n)
        for c, by_level in right.items()
        for k, n in enumerate(by_level)
        for i in range(config.cuda_probes * (k + 1))
    ]
    label, level, correct = (np.array(column) for column in zip(*parts, strict=True))
    return label, level, correct


@pytest.mark.parametrize(
    ("strength", "right", "then"),
    [
        (0, [6], 1),
        (0, [5], 0),
        (2, [6, 12, 18], 3),
        (2, [6, 12, 17], 1),
        (2, [5, 20, 30], 1),
        (10, [10 * (k + 1) for k in range(11)], 10),
        (1, [10, 0], 0),
    ],
)
def test_a_class_goes_up_where_it_is_right_at_every_level(
    strength: int, right: list[int], then: int
) -> None:
    config = AugmentConfig(cuda_gamma=0.6, cuda_probes=10, cuda_max=10)
    state = np.array([4, strength, 7])
    new = advance(state, *outcome({1: right}, config), config)
    assert new.tolist() == [4, then, 7]
    assert state.tolist() == [4, strength, 7]


def test_classes_move_by_themselves_and_thresholds_are_exact() -> None:
    config = AugmentConfig(cuda_gamma=0.7, cuda_probes=10, cuda_max=3)
    new = advance(
        np.array([0, 1, 2, 3]),
        *outcome({0: [7], 1: [7, 14], 2: [7, 14, 20], 3: [7, 14, 21, 28]}, config),
        config,
    )
    assert new.tolist() == [1, 2, 1, 3]
    shuffled = np.random.default_rng(0).permutation(200)
    parts = outcome({0: [7], 1: [7, 14], 2: [7, 14, 20], 3: [7, 14, 21, 28]}, config)
    assert (
        advance(np.array([0, 1, 2, 3]), *(p[shuffled] for p in parts), config).tolist()
        == new.tolist()
    )


def test_probes_have_numbers_of_their_own_and_are_always_changed() -> None:
    probes, training = probe_parameters(50, seed=1, epoch=2), draw_parameters(50, seed=1, epoch=2)
    assert (probes[:, APPLY] == 0).all()
    assert not np.intersect1d(np.delete(probes, APPLY, 1), training).size
