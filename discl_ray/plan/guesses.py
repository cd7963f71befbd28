"""What a classifier predicted of the images, read and checked before a rule uses it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from discl_ray.core.columns import (
    Mask,
    all_true,
    any_true,
    between,
    fill_null,
    is_null,
    negate,
    not_equal,
    places_in,
)
from discl_ray.core.ids import stable_id
from discl_ray.core.run_directory import MANIFEST
from discl_ray.core.schema import PREDICTIONS
from discl_ray.core.storage import Store
from discl_ray.errors import DataError
from discl_ray.plan.config import HardConfig
from discl_ray.process.calls import advice

PREDICTIONS_FILE = "predictions.parquet"

GUESS_COLUMNS = ["prob_true", "pred", "prob_pred"]

GUESSES = pa.schema([PREDICTIONS.field(name) for name in GUESS_COLUMNS])
"""What a rule looks at of PREDICTIONS."""


def predictions_folder(
    config: HardConfig,
    *,
    samples: str,
    scorer: str,
    prompts: Sequence[str],
    classifier: Mapping[str, Any],
) -> str:
    """The folder of PREDICTIONS under a run, `predictions-<hash8>`, named by all that decides them.

    `samples` and `scorer` are fingerprints, `prompts` one a class, `classifier` the seed and the
    identity fields of the start of a training run.
    """
    # neither the cut nor excluded classes: the same predictions serve all of them
    if config.method == "zero_shot":
        identity = stable_id(config.method, samples, scorer, list(prompts))
    else:
        identity = stable_id(config.method, samples, classifier, config.folds)
    return f"predictions-{identity[:8]}"


def read_predictions(store: Store) -> pa.Table:
    """PREDICTIONS of a folder.

    Raises DataError if they are not there, or not complete.
    """
    identify = advice("identify")
    if not store.exists(MANIFEST):
        raise DataError(f"{store.location()}: no predictions for these images; {identify}")
    remedy = f"{identify}, which predicts again"
    return store.read_table(PREDICTIONS_FILE, remedy=remedy)


def guesses_of(rows: pa.Table, predictions: pa.Table) -> pa.Table:
    """GUESSES for `rows`, in their order.

    Raises DataError for rows without a prediction, predictions for another set of classes, and
    numbers that are not probabilities.
    """
    again = advice("identify")
    predicted = predictions["sample_id"].combine_chunks()
    place = places_in(rows["sample_id"], predicted)
    count = place.null_count
    if count:
        first = _first(rows, is_null(place))
        sample_id = first["sample_id"]
        raise DataError(
            f"{count} of {rows.num_rows} images have no prediction, e.g. {sample_id}; {again}"
        )
    found = predictions.take(place)
    other = not_equal(found["label"], rows["label"])
    relabelled = fill_null(other, True)
    if any_true(relabelled):
        first = _first(rows, relabelled)
        sample_id = first["sample_id"]
        label = first["label"]
        raise DataError(
            f"the predictions are for other classes: {sample_id} has label {label} now; {again}"
        )
    for name in ("prob_true", "prob_pred"):
        _check_probabilities(found, name)
    return found.select(GUESSES.names)


def no_guesses(rows: int) -> pa.Table:
    """GUESSES of nulls."""
    columns: list[pa.Array] = []
    for field in GUESSES:
        nulls = pa.nulls(rows, field.type)
        columns.append(nulls)
    return pa.table(columns, schema=GUESSES)


def _check_probabilities(predictions: pa.Table, name: str) -> None:
    """Raises DataError if a number of a column is not in [0, 1]; nulls pass."""
    inside = between(predictions[name], 0, 1)
    if all_true(inside):
        return
    first = _first(predictions, negate(inside))
    sample_id = first["sample_id"]
    identify = advice("identify")
    raise DataError(
        f"{sample_id}: {name} = {first[name]} is no probability; delete the predictions' "
        f"folder and {identify}"
    )


def _first(rows: pa.Table, mask: Mask) -> dict[str, Any]:
    """The first row that a mask holds."""
    chosen = rows.filter(mask)
    first = chosen.slice(0, 1)
    return first.to_pylist()[0]
