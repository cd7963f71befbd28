"""Class probabilities become PREDICTIONS; images that were not read have nulls."""

import numpy as np
import pyarrow as pa
import pytest

from discl_ray.core.predictions import predictions_of
from discl_ray.core.schema import PREDICTIONS

ROWS = pa.table({"sample_id": ["a", "b"], "label": pa.array([1, 0], pa.int32())})
PROBABILITIES = np.array([[0.25, 0.75], [0.125, 0.875]], np.float32)


@pytest.mark.parametrize("fold", [-1, np.array([3, 4], np.int32)])
def test_probabilities_become_rows(fold):
    table = predictions_of(ROWS, PROBABILITIES, np.array([True, True]), fold=fold, scorer="s")
    assert table.schema == PREDICTIONS
    assert table["prob_true"].to_pylist() == [0.75, 0.125]
    assert table["pred"].to_pylist() == [1, 1]
    assert table["prob_pred"].to_pylist() == [0.75, 0.875]
    assert table["fold"].to_pylist() == np.broadcast_to(fold, 2).tolist()
    assert table["scorer"].to_pylist() == ["s", "s"]


def test_what_was_not_read_is_null():
    table = predictions_of(ROWS, PROBABILITIES, np.array([True, False]), fold=0, scorer="s")
    for name in ("prob_true", "pred", "prob_pred"):
        assert table[name].is_valid().to_pylist() == [True, False]
    assert table["sample_id"].to_pylist() == ["a", "b"]
