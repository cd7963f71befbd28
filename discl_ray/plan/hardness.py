# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions at import; pyright cannot see them)
"""Which real samples deserve a spectrum.

    class_count   every training image of a class with few of them (paper §3.2, long-tail tasks)
    confidence    the training images whose own class a classifier finds least likely (paper §3.2, low-quality tasks)

The same rule picks, from the val split, the sources of the probe spectra by which a curriculum
judges its progress; test rows are never sources. A confident classifier that says something else
may be right: such an image is a suspect, shown and not used.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

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
    """A rule's word on some rows, in their order."""

    hard: NDArray[np.bool_]
    suspect: NDArray[np.bool_]
    rank: NDArray[np.int64]
    """0 is the hardest; a permutation."""
    guesses: pa.Table
    """GUESSES; null where the rule needs none."""


def class_counts(samples: pa.Table) -> dict[int, int]:
    """Training images by label."""
    labels = samples.filter(pc.equal(samples["split"], "train"))["label"]
    return {pair["values"]: pair["counts"] for pair in pc.value_counts(labels).to_pylist()}


def by_class_count(rows: pa.Table, config: HardConfig, _predictions: pa.Table | None) -> Verdicts:
    """Hard is what belongs to a class with fewer than `below` training images."""
    label = rows["label"].to_numpy()
    size = np.zeros(int(label.max(initial=0)) + 1, np.int64)
    for c, count in class_counts(rows).items():
        size[c] = count
    return Verdicts(
        hard=(size[label] > 0) & (size[label] < config.below) & ~_excluded(rows, config),
        suspect=np.zeros(len(label), bool),
        rank=_rank(np.argsort(size[label], kind="stable")),
        guesses=pa.table(
            {name: pa.nulls(len(label), GUESSES.field(name).type) for name in GUESSES.names}
        ),
    )


def by_confidence(rows: pa.Table, config: HardConfig, predictions: pa.Table | None) -> Verdicts:
    """Hard is what its classifier finds least likely to be what it is; ties are broken by
    `sample_id`.

    The cut is found on train, after suspects, excluded classes and images without a prediction are
    left out; val takes it over.

    Raises DataError if predictions are missing or belong to other samples.
    """
    if predictions is None:
        raise DataError(
            f"hard.rule = confidence needs the predictions of a classifier; {advice('identify')}"
        )
    guesses = _guesses(rows, predictions)
    own, sure = (
        guesses[name].to_numpy(zero_copy_only=False) for name in ("prob_true", "prob_pred")
    )
    wrong = pc.fill_null(pc.not_equal(guesses["pred"], rows["label"]), False).to_numpy(
        zero_copy_only=False
    )
    wanted = ~_excluded(rows, config)
    suspect = wrong & wanted & (sure >= np.float32(config.suspect_above))
    usable = wanted & ~np.isnan(own) & (~suspect | config.include_suspects)
    train = pc.equal(rows["split"], "train").to_numpy(zero_copy_only=False)
    keys = pa.table({"prob_true": guesses["prob_true"], "sample_id": rows["sample_id"]})
    order = pc.sort_indices(
        keys, sort_keys=[(name, "ascending") for name in keys.column_names]
    ).to_numpy()
    pool = order[(usable & train)[order]]
    if not len(pool):
        raise DataError(
            "no training image is left to be hard: all are suspects, of hard.exclude_classes, or "
            "without a prediction; "
            f"to see them, {advice('identify')}"
        )
    if config.threshold is not None:
        hard = usable & (own < np.float32(config.threshold))
    else:
        chosen = pool[
            : config.top_n or max(1, round((config.quantile or PAPER_QUANTILE) * len(pool)))
        ]
        hard = usable & ~train & (own <= own[chosen[-1]])
        hard[chosen] = True
    return Verdicts(hard=hard, suspect=suspect, rank=_rank(order), guesses=guesses)


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
    """The sources of the spectrum as SAMPLES rows, in their order: hard training images, and hard
    val images for the probes.

    Of a class's hard val images the hardest `probe_sources` are taken; images are not looked at.

    Raises DataError like `hardness`, and if no training image is hard.
    """
    judged = hardness(samples, config, predictions)
    hard, label, rank = (
        judged[name].to_numpy(zero_copy_only=False) for name in ("hard", "label", "rank")
    )
    train = pc.equal(judged["split"], "train").to_numpy(zero_copy_only=False)
    if not (hard & train).any():
        raise DataError(_nothing_hard(judged, config))
    probes = np.flatnonzero(hard & ~train)
    probes = probes[np.lexsort((rank[probes], label[probes]))]
    ordered = label[probes]
    place = np.arange(len(probes)) - np.searchsorted(ordered, ordered)  # within its class
    keep = hard & train
    keep[probes[place < config.probe_sources]] = True
    return samples.filter(_usable_split(samples)).filter(pa.array(keep))


def describe_rule(judged: pa.Table, config: HardConfig) -> str:
    """The rule, its cut and what it left out, in words, from its HARDNESS."""
    train = judged.filter(pc.equal(judged["split"], "train"))
    excluded = np.count_nonzero(_excluded(train, config))
    left_out = [f"{excluded} of {', '.join(config.exclude_classes)}"] if excluded else []
    if config.rule == "class_count":
        rule = f"classes with fewer than hard.below = {config.below} training images"
    else:
        if not config.include_suspects and (suspects := pc.sum(train["suspect"]).as_py()):
            left_out.append(
                f"{suspects} whose label is suspect (another class with at least "
                f"{config.suspect_above:g})"
            )
        if unread := train["prob_true"].null_count:
            left_out.append(f"{unread} that could not be read")
        highest = pc.max(train.filter(train["hard"])["prob_true"]).as_py()
        cuts = {
            "threshold": f"less than hard.threshold = {config.threshold}",
            "top_n": f"the lowest hard.top_n = {config.top_n}",
            "quantile": f"the lowest hard.quantile = {config.quantile}",
        }
        cut = next(words for name, words in cuts.items() if getattr(config, name) is not None)
        reach = "none" if highest is None else f"up to {highest:.3g}"
        rule = f"probability of the own class by {config.method.replace('_', '-')}, {cut}: {reach}"
    return f"{config.rule} · {rule}" + (f"; left out: {', '.join(left_out)}" if left_out else "")


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
    decides = (
        [scorer, list(prompts)] if config.method == "zero_shot" else [classifier, config.folds]
    )
    return f"predictions-{stable_id(config.method, samples, *decides)[:8]}"


def read_predictions(store: Store) -> pa.Table:
    """PREDICTIONS of a folder.

    Raises DataError if they are not there, or not complete.
    """
    if not store.exists(MANIFEST):
        raise DataError(f"{store.base}: no predictions for these images; {advice('identify')}")
    return store.read_table(PREDICTIONS_FILE, remedy=f"{advice('identify')}, which predicts again")


def _usable_split(samples: pa.Table) -> pa.ChunkedArray:
    return pc.is_in(samples["split"], pa.array(["train", "val"]))


def _rank(order: NDArray[np.int64]) -> NDArray[np.int64]:
    """From the rows, hardest first, to each row's place."""
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank


def _excluded(rows: pa.Table, config: HardConfig) -> NDArray[np.bool_]:
    return pc.is_in(rows["class_name"], pa.array(config.excluded, pa.string())).to_numpy(
        zero_copy_only=False
    )


def _check_excluded(samples: pa.Table, config: HardConfig) -> None:
    known = samples["class_name"].unique().to_pylist()
    for name in config.excluded:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = (
                f"did you mean '{near[0]}'?"
                if near
                else f"classes are {', '.join(sorted(known)[:5])}, …"
            )
            raise DataError(f"hard.exclude_classes = '{name}': no image is of this class; {hint}")


def _guesses(rows: pa.Table, predictions: pa.Table) -> pa.Table:
    """GUESSES for `rows`, in their order.

    Raises DataError for rows without a prediction, predictions for another set of classes, and
    numbers that are no probabilities.
    """
    again = advice("identify")
    place = pc.index_in(rows["sample_id"], predictions["sample_id"].combine_chunks())
    if place.null_count:
        lacking = rows.filter(pc.is_null(place))["sample_id"][0].as_py()
        raise DataError(
            f"{place.null_count} of {rows.num_rows} images have no prediction, e.g. {lacking}; "
            f"{again}"
        )
    found = predictions.take(place)
    other = pc.fill_null(pc.not_equal(found["label"], rows["label"]), True)
    if pc.any(other).as_py():
        first = rows.filter(other).select(["sample_id", "label"]).to_pylist()[0]
        raise DataError(
            f"the predictions are for other classes: {first['sample_id']} has label "
            f"{first['label']} now; {again}"
        )
    for name in ("prob_true", "prob_pred"):
        inside = pc.and_(
            pc.greater_equal(found[name], 0), pc.less_equal(found[name], 1)
        )  # false for NaN
        if not pc.all(inside, min_count=0).as_py():
            broken = found.filter(pc.invert(inside)).select(["sample_id", name]).to_pylist()[0]
            raise DataError(
                f"{broken['sample_id']}: {name} = {broken[name]} is no probability; delete the "
                f"predictions' folder and {again}"
            )
    return found.select(GUESSES.names)


def _nothing_hard(judged: pa.Table, config: HardConfig) -> str:
    otherwise = "or train without a spectrum (curriculum.strategy=real_only)"
    train = judged.filter(pc.equal(judged["split"], "train"))
    if config.rule == "confidence":
        lowest = pc.min(train["prob_true"]).as_py()
        return (
            f"hard.threshold = {config.threshold:g}: no training image has a lower probability of "
            "its class "
            f"(the lowest is {lowest:.3g}); raise hard.threshold, {otherwise}"
        )
    smallest = min(
        class_counts(train.filter(pa.array(~_excluded(train, config)))).values(), default=0
    )
    return (
        f"hard.below = {config.below}: no class has fewer training images (the smallest has "
        f"{smallest}); "
        f"raise hard.below, {otherwise}"
    )
