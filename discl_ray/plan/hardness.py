"""Which real samples deserve a spectrum.

    class_count   every training image of a class with few of them
                  (paper §3.2, long-tail tasks)
    confidence    the training images whose own class a classifier finds least likely
                  (paper §3.2, low-quality tasks)

The same rule chooses, from the val split, the sources of the probe spectra by which a curriculum
measures its progress; test rows are never sources. A confident classifier that predicts another
class may be right: such an image is a suspect, shown and not used.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from discl_ray.core.columns import (
    Mask,
    all_true,
    any_true,
    as_numpy,
    between,
    counts,
    equal,
    fill_null,
    is_in,
    is_null,
    largest,
    negate,
    not_equal,
    places_in,
    rows_where,
    smallest,
    sort_indices,
    total,
)
from discl_ray.core.ids import stable_id
from discl_ray.core.run_directory import MANIFEST
from discl_ray.core.schema import PREDICTIONS, SAMPLES
from discl_ray.core.storage import Store
from discl_ray.errors import DataError
from discl_ray.plan.config import PAPER_QUANTILE, HardConfig
from discl_ray.process.calls import advice

PREDICTIONS_FILE = "predictions.parquet"


GUESSES = pa.schema([PREDICTIONS.field(name) for name in ("prob_true", "pred", "prob_pred")])


HARDNESS = pa.schema(
    [
        *(SAMPLES.field(name) for name in ("sample_id", "label", "class_name", "split")),
        ("hard", pa.bool_()),
        ("suspect", pa.bool_()),  # the classifier is sure of another class
        ("rank", pa.int64()),  # 0 is the hardest
        *GUESSES,
    ]
)
"""What a rule says of every train and val row."""


class Verdicts(NamedTuple):
    """What a rule says of some rows, in their order; shape (rows,) each."""

    hard: NDArray[np.bool_]
    suspect: NDArray[np.bool_]
    rank: NDArray[np.int64]
    """0 is the hardest; a permutation."""
    guesses: pa.Table
    """GUESSES; null where the rule needs none."""


def class_counts(samples: pa.Table) -> dict[int, int]:
    """Training images by label."""
    return counts(rows_where(samples, split="train")["label"])


def by_class_count(rows: pa.Table, config: HardConfig, _predictions: pa.Table | None) -> Verdicts:
    """Hard are the images of classes with fewer than `below` training images."""
    label = rows["label"].to_numpy()
    size = np.zeros(int(label.max(initial=0)) + 1, np.int64)
    for c, count in class_counts(rows).items():
        size[c] = count
    images = size[label]
    blank = {name: pa.nulls(len(label), GUESSES.field(name).type) for name in GUESSES.names}
    return Verdicts(
        hard=(images > 0) & (images < config.below) & ~_excluded(rows, config),
        suspect=np.zeros(len(label), bool),
        rank=_rank(np.argsort(images, kind="stable")),
        guesses=pa.table(blank),
    )


def by_confidence(rows: pa.Table, config: HardConfig, predictions: pa.Table | None) -> Verdicts:
    """Hard are the images whose own class is least likely; ties are broken by `sample_id`.

    The threshold is found on train, without suspects, excluded classes and images that have no
    prediction; val uses the same.

    Raises DataError if predictions are missing or belong to other samples.
    """
    if predictions is None:
        raise DataError(
            f"hard.rule = confidence needs the predictions of a classifier; {advice('identify')}"
        )
    guesses = _guesses(rows, predictions)
    prob_true = _floats(guesses["prob_true"])
    prob_pred = _floats(guesses["prob_pred"])
    wrong = as_numpy(fill_null(not_equal(guesses["pred"], rows["label"]), False))
    wanted = ~_excluded(rows, config)
    # PREDICTIONS are float32, and so are the numbers they are compared with
    suspect = wrong & wanted & (prob_pred >= np.float32(config.suspect_above))
    usable = wanted & ~np.isnan(prob_true) & (~suspect | config.include_suspects)
    keys = pa.table({"prob_true": guesses["prob_true"], "sample_id": rows["sample_id"]})
    order = sort_indices(keys, ("prob_true", "ascending"), ("sample_id", "ascending")).to_numpy()
    hard = _least_likely(rows, prob_true, usable, order, config)
    return Verdicts(hard=hard, suspect=suspect, rank=_rank(order), guesses=guesses)


def _least_likely(
    rows: pa.Table,
    prob_true: NDArray[np.float32],
    usable: NDArray[np.bool_],
    order: NDArray[np.uint64],
    config: HardConfig,
) -> NDArray[np.bool_]:
    """The usable rows below the configured cut, by the order of `prob_true`; shape (rows,)."""
    train = as_numpy(equal(rows["split"], "train"))
    pool = order[(usable & train)[order]]
    if not len(pool):
        raise DataError(
            "no training image is left to be hard: all are suspects, of hard.exclude_classes, or "
            f"without a prediction; to see them, {advice('identify')}"
        )
    if config.threshold is not None:
        return usable & (prob_true < np.float32(config.threshold))
    quantile = config.quantile or PAPER_QUANTILE
    chosen = pool[: config.top_n or max(1, round(quantile * len(pool)))]
    hard = usable & ~train & (prob_true <= prob_true[chosen[-1]])
    hard[chosen] = True  # of ties at the cut, no more than asked for
    return hard


def _floats(column: pa.ChunkedArray) -> NDArray[np.float32]:
    """The numbers of a column, shape (rows,); NaN where it is null."""
    return column.to_numpy(zero_copy_only=False)


RULES: dict[str, Callable[[pa.Table, HardConfig, pa.Table | None], Verdicts]] = {
    "class_count": by_class_count,
    "confidence": by_confidence,
}
"""Rules for hardness: (SAMPLES rows of train and val, config, PREDICTIONS of the same) ->
Verdicts."""


def hardness(
    samples: pa.Table, config: HardConfig, predictions: pa.Table | None = None
) -> pa.Table:
    """HARDNESS of all train and val rows of SAMPLES, in their order; images are not looked at.

    Raises DataError if a rule lacks its predictions, or a class to exclude is not there.
    """
    _check_excluded(samples, config)
    columns = ["sample_id", "label", "class_name", "split"]
    rows = samples.select(columns).filter(_usable_split(samples))
    found = RULES[config.rule](rows, config, predictions)
    arrays: list[Any] = [
        *(rows[name] for name in columns),
        found.hard,
        found.suspect,
        found.rank,
        *found.guesses.columns,
    ]
    return pa.table(arrays, names=HARDNESS.names).cast(HARDNESS)


def hard_samples(
    samples: pa.Table, config: HardConfig, predictions: pa.Table | None = None
) -> pa.Table:
    """The sources of the spectrum as SAMPLES rows, in their order; images are not looked at.

    They are the hard training images, and the hardest `probe_sources` val images of each class.

    Raises DataError like `hardness`, and if no training image is hard.
    """
    judged = hardness(samples, config, predictions)
    hard = as_numpy(judged["hard"])
    train = as_numpy(equal(judged["split"], "train"))
    if not (hard & train).any():
        raise DataError(_nothing_hard(judged, config))
    label = judged["label"].to_numpy()
    rank = judged["rank"].to_numpy()
    probes = np.flatnonzero(hard & ~train)
    probes = probes[np.lexsort((rank[probes], label[probes]))]
    ordered = label[probes]
    place = np.arange(len(probes)) - np.searchsorted(ordered, ordered)  # within its class
    keep = hard & train
    keep[probes[place < config.probe_sources]] = True
    return samples.filter(_usable_split(samples)).filter(pa.array(keep))


def describe_rule(judged: pa.Table, config: HardConfig) -> str:
    """The rule, its cut and what it left out, in words, from its HARDNESS."""
    train = rows_where(judged, split="train")
    left_out: list[str] = []
    if excluded := np.count_nonzero(_excluded(train, config)):
        left_out.append(f"{excluded} of {', '.join(config.exclude_classes)}")
    if config.rule == "class_count":
        rule = f"classes with fewer than hard.below = {config.below} training images"
    else:
        rule = _describe_confidence(train, config)
        left_out += _left_out(train, config)
    note = f"; left out: {', '.join(left_out)}" if left_out else ""
    return f"{config.rule} · {rule}{note}"


def _describe_confidence(train: pa.Table, config: HardConfig) -> str:
    """Whose confidence, the cut, and the highest probability of a hard image."""
    cut = f"the lowest hard.quantile = {config.quantile}"
    if config.threshold is not None:
        cut = f"less than hard.threshold = {config.threshold}"
    elif config.top_n is not None:
        cut = f"the lowest hard.top_n = {config.top_n}"
    highest = largest(rows_where(train, hard=True)["prob_true"])
    reach = "none" if highest is None else f"up to {highest:.3g}"
    method = config.method.replace("_", "-")
    return f"probability of the own class by {method}, {cut}: {reach}"


def _left_out(train: pa.Table, config: HardConfig) -> list[str]:
    """Training images that the rule cannot use, by the reason."""
    reasons: list[str] = []
    suspects = total(train["suspect"])
    if suspects and not config.include_suspects:
        limit = f"{config.suspect_above:g}"
        reasons.append(f"{suspects} whose label is suspect (another class with at least {limit})")
    if unread := train["prob_true"].null_count:
        reasons.append(f"{unread} that could not be read")
    return reasons


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
    if config.method == "zero_shot":
        identity = stable_id(config.method, samples, scorer, list(prompts))
    else:
        identity = stable_id(config.method, samples, classifier, config.folds)
    return f"predictions-{identity[:8]}"


def read_predictions(store: Store) -> pa.Table:
    """PREDICTIONS of a folder.

    Raises DataError if they are not there, or not complete.
    """
    if not store.exists(MANIFEST):
        raise DataError(f"{store.base}: no predictions for these images; {advice('identify')}")
    return store.read_table(PREDICTIONS_FILE, remedy=f"{advice('identify')}, which predicts again")


def _usable_split(samples: pa.Table) -> Mask:
    return is_in(samples["split"], ["train", "val"])


def _rank(order: NDArray[np.int64]) -> NDArray[np.int64]:
    """From the rows, hardest first, to each row's place."""
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank


def _excluded(rows: pa.Table, config: HardConfig) -> NDArray[np.bool_]:
    return as_numpy(is_in(rows["class_name"], config.excluded))


def _check_excluded(samples: pa.Table, config: HardConfig) -> None:
    """Raises DataError for an excluded class that no image is of."""
    classes = samples["class_name"].unique().to_pylist()
    for name in config.excluded:
        if name in classes:
            continue
        near = difflib.get_close_matches(name, classes, n=1)
        some = ", ".join(sorted(classes)[:5])
        hint = f"did you mean '{near[0]}'?" if near else f"classes are {some}, …"
        raise DataError(f"hard.exclude_classes = '{name}': no image is of this class; {hint}")


def _guesses(rows: pa.Table, predictions: pa.Table) -> pa.Table:
    """GUESSES for `rows`, in their order.

    Raises DataError for rows without a prediction, predictions for another set of classes, and
    numbers that are not probabilities.
    """
    again = advice("identify")
    place = places_in(rows["sample_id"], predictions["sample_id"].combine_chunks())
    if place.null_count:
        missing = rows.filter(is_null(place))["sample_id"][0].as_py()
        raise DataError(
            f"{place.null_count} of {rows.num_rows} images have no prediction, e.g. {missing}; "
            f"{again}"
        )
    found = predictions.take(place)
    other = fill_null(not_equal(found["label"], rows["label"]), True)
    if any_true(other):
        first = rows.filter(other).select(["sample_id", "label"]).to_pylist()[0]
        raise DataError(
            f"the predictions are for other classes: {first['sample_id']} has label "
            f"{first['label']} now; {again}"
        )
    for name in ("prob_true", "prob_pred"):
        _check_probabilities(found, name)
    return found.select(GUESSES.names)


def _check_probabilities(predictions: pa.Table, name: str) -> None:
    """Raises DataError if a number of a column is not in [0, 1]; nulls pass."""
    inside = between(predictions[name], 0, 1)
    if all_true(inside):
        return
    outside = predictions.filter(negate(inside)).select(["sample_id", name])
    first = outside.to_pylist()[0]
    raise DataError(
        f"{first['sample_id']}: {name} = {first[name]} is no probability; delete the predictions' "
        f"folder and {advice('identify')}"
    )


def _nothing_hard(judged: pa.Table, config: HardConfig) -> str:
    """Why no training image is hard, and what to change."""
    otherwise = "or train without a spectrum (curriculum.strategy=real_only)"
    train = rows_where(judged, split="train")
    if config.rule == "confidence":
        lowest = smallest(train["prob_true"])
        return (
            f"hard.threshold = {config.threshold:g}: no training image has a lower probability of "
            f"its class (the lowest is {lowest:.3g}); raise hard.threshold, {otherwise}"
        )
    included = train.filter(pa.array(~_excluded(train, config)))
    fewest = min(class_counts(included).values(), default=0)
    return (
        f"hard.below = {config.below}: no class has fewer training images (the smallest has "
        f"{fewest}); raise hard.below, {otherwise}"
    )
