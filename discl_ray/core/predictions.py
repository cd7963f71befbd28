"""Class probabilities become PREDICTIONS."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from discl_ray.core.schema import PREDICTIONS


def predictions_of(
    rows: pa.Table,
    probabilities: NDArray[np.float32],
    read: NDArray[np.bool_],
    *,
    fold: NDArray[np.int32] | int,
    scorer: str,
) -> pa.Table:
    """PREDICTIONS of rows with `sample_id` and `label`.

    `probabilities` has shape (N, classes). Rows that were not `read`, shape (N,), get nulls. `fold`
    is one number, or one for each row.
    """
    label = rows["label"].to_numpy()
    pred = probabilities.argmax(1)
    places = np.arange(len(probabilities))
    columns: dict[str, Any] = {
        "sample_id": rows["sample_id"],
        "label": rows["label"],
        "prob_true": pa.array(probabilities[places, label], pa.float32(), mask=~read),
        "pred": pa.array(pred.astype(np.int32), pa.int32(), mask=~read),
        "prob_pred": pa.array(probabilities[places, pred], pa.float32(), mask=~read),
        "fold": pa.array(np.broadcast_to(np.asarray(fold, np.int32), len(label)).copy()),
        "scorer": [scorer] * rows.num_rows,
    }
    return pa.table(columns).cast(PREDICTIONS)
