import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from discl_ray.config import load_config
from discl_ray.errors import ConfigError, DataError
from discl_ray.plan.config import HardConfig
from discl_ray.plan.hardness import HARDNESS, RULES, describe_rule, hard_samples, hardness
from tests.plan.predicted import OWN, TRAIN, confident, predictions_of, samples_of


def ids(table):
    return table["sample_id"].to_pylist()


# -- class_count


@settings(max_examples=60)
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from(["train", "val", "test"])),
        min_size=1,
        max_size=40,
    ),
    below=st.integers(1, 8),
    probes=st.integers(0, 4),
)
def test_by_class_count_whole_classes_are_hard_and_nothing_of_test(rows, below, probes):
    samples = samples_of([(f"s{i:02d}", c, split) for i, (c, split) in enumerate(rows)])
    train = {c: sum(r == (c, "train") for r in rows) for c in range(3)}
    hard = {c for c, n in train.items() if 0 < n < below}
    config = HardConfig(below=below, probe_sources=probes)
    if not hard:
        with pytest.raises(DataError, match="no class has fewer training images"):
            hard_samples(samples, config)
        return
    found = hard_samples(samples, config).to_pylist()
    assert [r["sample_id"] for r in found if r["split"] == "train"] == [
        f"s{i:02d}" for i, (c, split) in enumerate(rows) if split == "train" and c in hard
    ]
    assert [r["sample_id"] for r in found] == sorted(
        r["sample_id"] for r in found
    )  # the order of SAMPLES
    for c in range(3):
        val = [f"s{i:02d}" for i, row in enumerate(rows) if row == (c, "val")]
        expected = val[:probes] if c in hard else []
        assert [
            r["sample_id"] for r in found if r["split"] == "val" and r["label"] == c
        ] == expected


def test_an_excluded_class_is_never_hard_and_a_misspelt_one_is_named():
    samples = samples_of([("a", 0, "train"), ("b", 1, "train"), ("c", 2, "train"), ("v", 2, "val")])
    assert ids(hard_samples(samples, HardConfig(below=2, exclude_classes=("empty",)))) == ["a", "b"]
    config = confident(top_n=3, exclude_classes=("empty",))
    predictions = predictions_of(samples, {"a": 0.5, "b": 0.6, "c": (0, 0.99, 0.1), "v": 0.1})
    assert ids(hard_samples(samples, config, predictions)) == ["a", "b"]
    assert not any(
        hardness(samples, config, predictions)["suspect"].to_pylist()
    )  # nor is anything said of its labels
    apart, composed = "cafe\u0301", "caf\u00e9"
    at = samples.column_names.index("class_name")
    names = [composed if name == "empty" else name for name in samples["class_name"].to_pylist()]
    cafes = samples.set_column(at, "class_name", pa.array(names))
    assert ids(hard_samples(cafes, HardConfig(below=2, exclude_classes=(apart,)))) == ["a", "b"]
    with pytest.raises(DataError, match=r"hard\.exclude_classes = 'emtpy'.*did you mean 'empty'"):
        hard_samples(samples, HardConfig(exclude_classes=("emtpy",)))


# -- confidence: the cut


@settings(max_examples=80)
@given(
    own=st.lists(st.integers(0, 6), min_size=1, max_size=30),
    share=st.floats(0.01, 1.0),
    seed=st.integers(0, 9),
)
def test_the_quantile_takes_so_many_with_ties_by_id_whatever_the_order(own, share, seed):
    rows = [(f"t{i:02d}", 0, "train") for i in range(len(own))]
    expected = [s for _, s in sorted((p, s) for p, (s, _, _) in zip(own, rows, strict=True))][
        : max(1, round(share * len(own)))
    ]
    rng = np.random.default_rng(seed)
    samples = samples_of([rows[i] for i in rng.permutation(len(rows))])
    predictions = predictions_of(
        samples, {s: p / 6 for p, (s, _, _) in zip(own, rows, strict=True)}
    )
    predictions = predictions.take(pa.array(rng.permutation(len(rows))))
    assert set(ids(hard_samples(samples, confident(quantile=share), predictions))) == set(expected)
    assert set(ids(hard_samples(samples, confident(top_n=len(expected)), predictions))) == set(
        expected
    )


def test_the_default_is_the_papers_share_of_all_training_images():
    samples = samples_of([(f"t{i:04d}", 0, "train") for i in range(1000)])
    predictions = predictions_of(samples, {f"t{i:04d}": i / 1000 for i in range(1000)})
    assert ids(hard_samples(samples, confident(), predictions)) == [f"t{i:04d}" for i in range(64)]


def test_a_threshold_is_a_bound_that_is_not_reached():
    found = hard_samples(TRAIN, confident(threshold=0.15), predictions_of(TRAIN, OWN))
    assert ids(found) == ["t0", "t1"]
    with pytest.raises(DataError, match=r"hard\.threshold = 0\.01.*the lowest is 0\.05"):
        hard_samples(TRAIN, confident(threshold=0.01), predictions_of(TRAIN, OWN))


def test_suspects_and_the_unread_are_left_out_before_the_cut_is_made():
    guesses = {**OWN, "t0": (1, 0.95, 0.01), "t1": (0, 0.85, 0.02), "t2": None}
    predictions = predictions_of(TRAIN, guesses)
    assert ids(hard_samples(TRAIN, confident(top_n=2), predictions)) == ["t1", "t3"]
    assert ids(hard_samples(TRAIN, confident(top_n=2, include_suspects=True), predictions)) == [
        "t0",
        "t1",
    ]
    assert ids(hard_samples(TRAIN, confident(top_n=2, suspect_above=0.8), predictions)) == [
        "t3",
        "t4",
    ]
    judged = hardness(TRAIN, confident(top_n=2, include_suspects=True), predictions)
    assert judged.filter(judged["suspect"])["sample_id"].to_pylist() == [
        "t0"
    ]  # said of it even where it is used
    words = describe_rule(hardness(TRAIN, confident(top_n=2), predictions), confident(top_n=2))
    assert "lowest hard.top_n = 2: up to 0.2" in words
    assert "1 whose label is suspect" in words
    assert "1 that could not be read" in words


def test_being_right_with_confidence_is_not_suspect():
    judged = hardness(TRAIN, confident(), predictions_of(TRAIN, dict.fromkeys(OWN, 0.99)))
    assert not any(judged["suspect"].to_pylist())


def test_val_is_hard_by_the_value_that_cut_train_and_gives_its_hardest():
    val = {"v0": 0.3, "v1": 0.1, "v2": 0.2, "v3": 0.1, "v4": 0.6, "v5": 0.29}
    labels = {"v0": 0, "v1": 0, "v2": 0, "v3": 0, "v4": 1, "v5": 1}
    samples = pa.concat_tables(
        [TRAIN, samples_of([(s, labels[s], "val") for s in val] + [("x", 0, "test")])]
    )
    predictions = predictions_of(samples.slice(0, 16), {**OWN, **val})
    config = {"top_n": 6, "probe_sources": 3}  # up to 0.3
    assert ids(hard_samples(samples, confident(**config), predictions))[6:] == [
        "v1",
        "v2",
        "v3",
        "v5",
    ]
    assert ids(hard_samples(samples, confident(**config | {"probe_sources": 1}), predictions))[
        6:
    ] == ["v1", "v5"]
    assert ids(hard_samples(samples, confident(threshold=0.3, probe_sources=9), predictions))[
        5:
    ] == ["v1", "v2", "v3", "v5"]


def test_hardness_says_of_every_train_and_val_row_what_it_is():
    samples = pa.concat_tables([TRAIN, samples_of([("v", 0, "val"), ("x", 0, "test")])])
    judged = hardness(samples, confident(top_n=1), predictions_of(samples, {**OWN, "v": 0.9}))
    assert judged.schema.equals(HARDNESS)
    assert ids(judged) == [*OWN, "v"]
    assert judged["rank"].to_pylist() == list(range(11))
    by_count = hardness(samples, HardConfig(below=6))
    assert by_count["prob_true"].null_count == 11
    assert sorted(by_count["rank"].to_pylist()) == list(range(11))


# -- confidence: what is refused


def refused(predictions, config=None):
    with pytest.raises(DataError) as caught:
        hard_samples(TRAIN, config or confident(), predictions)
    assert "make identify" in str(caught.value)
    return str(caught.value)


def test_predictions_that_cannot_be_used_are_named_with_the_next_command():
    good = predictions_of(TRAIN, OWN)
    refused(None)
    assert "2 of 10 images have no prediction, e.g. t8" in refused(good.slice(0, 8))
    other = predictions_of(samples_of([(s, 1, "train") for s in OWN]), OWN)
    assert "t0 has label 0 now" in refused(other)
    for bad in (float("nan"), -0.1, 1.5):
        assert "t3: prob_true" in refused(predictions_of(TRAIN, {**OWN, "t3": bad}))
    assert "no training image is left" in refused(predictions_of(TRAIN, {}))


# -- the configuration


def test_one_thing_cuts_and_every_problem_is_in_one_report(request):
    assert confident().quantile == 0.064
    assert confident(top_n=5).quantile is None
    assert confident(threshold=0.2, quantile=None).quantile is None
    again = confident(top_n=5)
    assert HardConfig.model_validate(again.model_dump()) == again
    conf = request.config.rootpath / "conf" / "digits_lt.yaml"
    wrong = [
        "hard.threshold=0.1",
        "hard.top_n=5",
        "hard.folds=1",
        "hard.exclude_classes=[empty,empty]",
        "seed=-1",
    ]
    with pytest.raises(ConfigError) as caught:
        load_config(conf, wrong)
    for words in (
        "4 problems",
        "threshold = 0.1, top_n = 5: one of them cuts",
        "hard.folds = 1",
        "'empty' is in it twice",
    ):
        assert words in str(caught.value)
    for bad in ({"quantile": 0}, {"threshold": 1.5}, {"top_n": 0}, {"rule": "both"}):
        with pytest.raises(ValidationError):
            confident(**bad)


def test_there_is_a_rule_for_every_name():
    assert set(RULES) == set(HardConfig.model_fields["rule"].annotation.__args__)
