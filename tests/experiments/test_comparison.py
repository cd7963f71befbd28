"""A comparison's tables from its cells.

Every contrast and every mean, for CE and what is set against it.
"""

import numpy as np

from discl_ray.experiments.cells import Cell
from discl_ray.experiments.comparison import contrasts, means, spectrum_of
from discl_ray.experiments.statistics import Predicted
from discl_ray.experiments.tables import SHORT

RIGHT = np.arange(8) % 4


def cells():
    """Two seeds in which CE is wrong on half of the images, and every other row on none."""
    whole = np.ones(8, bool)
    wrong = Predicted(RIGHT, np.where(np.arange(8) < 4, (RIGHT + 1) % 4, RIGHT), whole)
    found = {}
    for spec in SHORT.rows:
        predicted = wrong if spec.label == "CE" else Predicted(RIGHT, RIGHT, whole)
        own = dict.fromkeys(SHORT.columns, predicted)
        found[spec.label] = Cell(own, history=[], openings=1, read={}, device="")
    return {0: found, 1: found}


def test_every_row_has_a_mean_and_every_contrast_its_difference() -> None:
    mean = means(cells(), SHORT)
    assert set(mean) == {(spec.label, column) for spec in SHORT.rows for column in SHORT.columns}
    column = SHORT.columns[0]
    assert mean["CE", column].mean == 50
    assert mean["Balanced Softmax", column].mean == 100
    found = contrasts(cells(), SHORT)
    assert {(label, base) for label, base, _ in found} == set(SHORT.baselines.items())
    for (_, base, _), interval in found.items():
        assert interval.mean == (50 if base == "CE" else 0)


def test_a_seed_with_a_spectrum_does_not_make_another(small) -> None:
    config, spectrum = small
    own, found = spectrum_of(config)
    assert own == config
    assert found.name == spectrum.name
