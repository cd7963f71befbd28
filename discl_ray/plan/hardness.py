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
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from discl_ray.core.columns import (
    Mask,
    as_numpy,
    counts,
    equal,
    fill_null,
    is_in,
    largest,
    not_equal,
    rows_where,
    smallest,
    sort_indices,
    total,
)
from discl_ray.core.schema import SAMPLES
from discl_ray.errors import DataError
from discl_ray.plan.config import PAPER_QUANTILE, HardConfig
from discl_ray.plan.guesses import GUESSES, guesses_of, no_guesses
from discl_ray.process.calls import advice

Flags = NDArray[np.bool_]

Ranks = NDArray[np.int64]

Floats = NDArray[np.float32]

ROW_COLUMNS = ["sample_id", "label", "class_name", "split"]
"""What a rule looks at of SAMPLES."""

HARDNESS = pa.schema(
    [
        *(SAMPLES.field(name) for name in ROW_COLUMNS),
        ("hard", pa.bool_()),
        ("suspect", pa.bool_()),  # the classifier is sure of another class
        ("rank", pa.int64()),  # 0 is the hardest
        *GUESSES,
    ]
)
"""What a rule says of every train and val row."""


class Verdicts(NamedTuple):
    """What a rule says of some rows, in their order; shape (rows,) each."""

    hard: Flags
    suspect: Flags
    """The classifier is sure of another class."""
    rank: Ranks
    """0 is the hardest; a permutation."""
    guesses: pa.Table
    """GUESSES; null where the rule needs none."""


def class_counts(samples: pa.Table) -> dict[int, int]:
    """Training images by label."""
    train = rows_where(samples, split="train")
    return counts(train["label"])


def by_class_count(rows: pa.Table, config: HardConfig, _predictions: pa.Table | None) -> Verdicts:
    """Hard are the images of classes with fewer than `below` training images."""
    label = rows["label"].to_numpy()
    highest = int(label.max(initial=0))
    size = np.zeros(highest + 1, np.int64)
    for c, count in class_counts(rows).items():
        size[c] = count
    images = size[label]  # training images of each row's class
    # a class of val images alone has none: nothing would be trained on its spectra
    few = (images > 0) & (images < config.below)
    # rows of equal counts stay in the order of SAMPLES
    order = np.argsort(images, kind="stable")
    return Verdicts(
        hard=few & ~_excluded(rows, config),
        suspect=np.zeros(len(label), bool),
        rank=_rank(order),
        guesses=no_guesses(len(label)),
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
    guesses = guesses_of(rows, predictions)
    prob_true = _floats(guesses["prob_true"])
    prob_pred = _floats(guesses["prob_pred"])
    other = not_equal(guesses["pred"], rows["label"])
    # without a prediction there is nothing to be wrong
    wrong = as_numpy(fill_null(other, False))
    wanted = ~_excluded(rows, config)
    # PREDICTIONS are float32, and so are the numbers they are compared with
    sure = prob_pred >= np.float32(config.suspect_above)
    suspect = wrong & wanted & sure
    usable = wanted & ~np.isnan(prob_true)
    if not config.include_suspects:
        usable &= ~suspect
    order = _by_probability(rows, guesses)
    hard = _least_likely(rows, prob_true, usable, order, config)
    return Verdicts(hard, suspect, _rank(order), guesses)


def _by_probability(rows: pa.Table, guesses: pa.Table) -> NDArray[np.uint64]:
    """The rows, those first whose own class is least likely, and those without a prediction last.

    Shape (rows,).
    """
    keys = rows.select(["sample_id"])
    keys = keys.append_column("prob_true", guesses["prob_true"])
    least_likely = ("prob_true", "ascending")
    by_id = ("sample_id", "ascending")
    return sort_indices(keys, least_likely, by_id).to_numpy()


def _least_likely(
    rows: pa.Table, prob_true: Floats, usable: Flags, order: NDArray[np.uint64], config: HardConfig
) -> Flags:
    """The usable rows below the configured cut, by the order of `prob_true`; shape (rows,)."""
    train = _is_train(rows)
    pool = order[(usable & train)[order]]
    if not len(pool):
        raise DataError(
            "no training image is left to be hard: all are suspects, of hard.exclude_classes, or "
            f"without a prediction; to see them, {advice('identify')}"
        )
    if config.threshold is not None:
        below = prob_true < np.float32(config.threshold)
        return usable & below
    quantile = config.quantile or PAPER_QUANTILE
    share = round(quantile * len(pool))
    share = max(1, share)
    chosen = pool[: config.top_n or share]
    cut = prob_true[chosen[-1]]
    # val is cut at the same value, so that its images are hard by the same measure
    hard = usable & ~train & (prob_true <= cut)
    hard[chosen] = True  # of ties at the cut, no more than asked for
    return hard


def _floats(column: pa.ChunkedArray) -> Floats:
    """The numbers of a column, shape (rows,); NaN where it is null."""
    return column.to_numpy(zero_copy_only=False)


Rule = Callable[[pa.Table, HardConfig, pa.Table | None], Verdicts]

RULES: dict[str, Rule] = {"class_count": by_class_count, "confidence": by_confidence}
"""Rules for hardness: (SAMPLES rows of train and val, config, PREDICTIONS of the same) ->
Verdicts."""


def hardness(
    samples: pa.Table, config: HardConfig, predictions: pa.Table | None = None
) -> pa.Table:
    """HARDNESS of all train and val rows of SAMPLES, in their order; images are not looked at.

    Raises DataError if a rule lacks its predictions, or a class to exclude is not there.
    """
    _check_excluded(samples, config)
    usable = _usable_split(samples)
    rows = samples.select(ROW_COLUMNS).filter(usable)
    rule = RULES[config.rule]
    found = rule(rows, config, predictions)
    arrays: list[Any] = [
        *rows.columns,
        found.hard,
        found.suspect,
        found.rank,
        *found.guesses.columns,
    ]
    judged = pa.table(arrays, names=HARDNESS.names)
    return judged.cast(HARDNESS)


def hard_samples(
    samples: pa.Table, config: HardConfig, predictions: pa.Table | None = None
) -> pa.Table:
    """The sources of the spectrum as SAMPLES rows, in their order; images are not looked at.

    They are the hard training images, and the hardest `probe_sources` val images of each class.

    Raises DataError like `hardness`, and if no training image is hard.
    """
    judged = hardness(samples, config, predictions)
    hard = as_numpy(judged["hard"])
    train = _is_train(judged)
    if not (hard & train).any():
        raise DataError(_nothing_hard(judged, config))
    probes = _hardest_of_each_class(judged, hard & ~train, config.probe_sources)
    keep = hard & train
    keep[probes] = True
    rows = samples.filter(_usable_split(samples))
    return rows.filter(pa.array(keep))


def _hardest_of_each_class(judged: pa.Table, among: Flags, count: int) -> Ranks:
    """Positions in HARDNESS of the `count` hardest rows of each class."""
    label = judged["label"].to_numpy()
    rank = judged["rank"].to_numpy()
    rows = np.flatnonzero(among)
    # by class, and by rank in a class: lexsort's last key is the first
    order = np.lexsort((rank[rows], label[rows]))
    rows = rows[order]
    classes = label[rows]
    first = np.searchsorted(classes, classes)  # where the class of each row begins
    place = np.arange(len(rows)) - first
    return rows[place < count]


def describe_rule(judged: pa.Table, config: HardConfig) -> str:
    """The rule, its cut and what it left out, in words, from its HARDNESS."""
    train = rows_where(judged, split="train")
    left_out: list[str] = []
    excluded = np.count_nonzero(_excluded(train, config))
    if excluded:
        names = ", ".join(config.exclude_classes)
        left_out.append(f"{excluded} of {names}")
    if config.rule == "class_count":
        rule = f"classes with fewer than hard.below = {config.below} training images"
    else:
        rule = _describe_confidence(train, config)
        left_out += _left_out(train, config)
    described = f"{config.rule} · {rule}"
    if not left_out:
        return described
    reasons = ", ".join(left_out)
    return f"{described}; left out: {reasons}"


def _describe_confidence(train: pa.Table, config: HardConfig) -> str:
    """Whose confidence, the cut, and the highest probability of a hard image."""
    cut = f"the lowest hard.quantile = {config.quantile}"
    if config.threshold is not None:
        cut = f"less than hard.threshold = {config.threshold}"
    elif config.top_n is not None:
        cut = f"the lowest hard.top_n = {config.top_n}"
    hard = rows_where(train, hard=True)
    highest = largest(hard["prob_true"])
    reach = "none"
    if highest is not None:
        reach = f"up to {highest:.3g}"
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


def _is_train(rows: pa.Table) -> Flags:
    """Which rows are of the training split."""
    train = equal(rows["split"], "train")
    return as_numpy(train)


def _usable_split(samples: pa.Table) -> Mask:
    """Which rows may be sources: not those of the test split."""
    return is_in(samples["split"], ["train", "val"])


def _rank(order: NDArray[np.integer]) -> Ranks:
    """From the rows, hardest first, to each row's place."""
    count = len(order)
    rank = np.empty(count, np.int64)
    rank[order] = np.arange(count)
    return rank


def _excluded(rows: pa.Table, config: HardConfig) -> Flags:
    """Which rows are of a class that never gets a spectrum."""
    excluded = is_in(rows["class_name"], config.excluded)
    return as_numpy(excluded)


def _check_excluded(samples: pa.Table, config: HardConfig) -> None:
    """Raises DataError for an excluded class that no image is of."""
    names = samples["class_name"].unique()
    classes = sorted(names.to_pylist())
    for name in config.excluded:
        if name in classes:
            continue
        hint = _nearest(name, classes)
        raise DataError(f"hard.exclude_classes = '{name}': no image is of this class; {hint}")


def _nearest(name: str, classes: Sequence[str]) -> str:
    """The class that an unknown name may mean, or what classes there are."""
    near = difflib.get_close_matches(name, classes, n=1)
    if near:
        return f"did you mean '{near[0]}'?"
    some = ", ".join(classes[:5])
    return f"classes are {some}, …"


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
    included = pa.array(~_excluded(train, config))
    images = class_counts(train.filter(included))
    fewest = min(images.values(), default=0)
    return (
        f"hard.below = {config.below}: no class has fewer training images (the smallest has "
        f"{fewest}); raise hard.below, {otherwise}"
    )
