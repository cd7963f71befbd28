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
    prob_true = probabilities[places, label]
    prob_pred = probabilities[places, pred]
    # One number stands for all rows; pyarrow needs them written out.
    fold_by_row = np.broadcast_to(np.asarray(fold, np.int32), len(label)).copy()
    unread = ~read
    columns: dict[str, Any] = {
        "sample_id": rows["sample_id"],
        "label": rows["label"],
        "prob_true": pa.array(prob_true, pa.float32(), mask=unread),
        "pred": pa.array(pred.astype(np.int32), pa.int32(), mask=unread),
        "prob_pred": pa.array(prob_pred, pa.float32(), mask=unread),
        "fold": pa.array(fold_by_row),
        "scorer": [scorer] * rows.num_rows,
    }
    return pa.table(columns).cast(PREDICTIONS)
