import pyarrow as pa
import pytest

from discl_ray.core.run_directory import MANIFEST
from discl_ray.core.storage import Store
from discl_ray.errors import DataError
from discl_ray.plan.guesses import (
    GUESSES,
    PREDICTIONS_FILE,
    guesses_of,
    no_guesses,
    predictions_folder,
    read_predictions,
)
from tests.plan.predicted import OWN, TRAIN, confident, predictions_of, samples_of


def test_guesses_are_in_the_order_of_the_rows():
    predictions = predictions_of(TRAIN, OWN)
    backwards = predictions.take(pa.array(range(9, -1, -1)))
    found = guesses_of(TRAIN, backwards)
    assert found.schema.equals(GUESSES)
    assert found.equals(predictions.select(GUESSES.names))


def test_no_guesses_are_nulls():
    found = no_guesses(3)
    assert found.schema.equals(GUESSES)
    assert [column.null_count for column in found.columns] == [3, 3, 3]


def test_guesses_of_other_rows_or_that_are_no_probabilities_are_refused():
    good = predictions_of(TRAIN, OWN)
    other = predictions_of(samples_of([(s, 1, "train") for s in OWN]), OWN)
    high = predictions_of(TRAIN, {**OWN, "t3": 1.5})
    for predictions, words in (
        (good.slice(0, 8), "2 of 10 images have no prediction, e.g. t8"),
        (other, "t0 has label 0 now"),
        (high, "t3: prob_true = 1.5 is no probability"),
    ):
        with pytest.raises(DataError, match=words):
            guesses_of(TRAIN, predictions)


def test_predictions_are_read_when_they_are_complete(tmp_path):
    store = Store.at(tmp_path).within("predictions-x")
    store.write_table(PREDICTIONS_FILE, predictions_of(TRAIN, OWN))
    with pytest.raises(DataError, match="no predictions for these images; run `make identify`"):
        read_predictions(store)
    store.write_json(MANIFEST, {})
    assert read_predictions(store).equals(predictions_of(TRAIN, OWN))


@pytest.mark.parametrize(
    ("change", "zero_shot", "out_of_fold"),
    [
        ({"samples": "other"}, True, True),
        ({"scorer": "other"}, True, False),
        ({"prompts": ["a", "c"]}, True, False),
        ({"classifier": {"width": 2}}, False, True),
    ],
)
def test_predictions_lie_where_what_decides_them_says(change, zero_shot, out_of_fold):
    base = {"samples": "s", "scorer": "c", "prompts": ["a", "b"], "classifier": {"width": 1}}
    for method, moves in (("zero_shot", zero_shot), ("out_of_fold", out_of_fold)):
        config = confident(method=method)
        same = confident(method=method, top_n=3, suspect_above=0.5, exclude_classes=("ant",))
        assert predictions_folder(config, **base) == predictions_folder(same, **base)
        assert (
            predictions_folder(config, **base) != predictions_folder(config, **base | change)
        ) == moves
    three = confident(method="out_of_fold", folds=3)
    assert predictions_folder(three, **base) != predictions_folder(
        confident(method="out_of_fold"), **base
    )
