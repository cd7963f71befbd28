"""Scores agree with the definitions they cite."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from discl_ray.core.metrics import adjusted, group_of, macro_f1, main_metric, scores, top1_by_group

RNG = np.random.default_rng(0)
LABEL, PREDICTED = RNG.integers(0, 4, 200), RNG.integers(0, 4, 200)
GROUPS = {0: "many", 1: "many", 2: "medium", 3: "few"}


def test_groups_have_closed_bounds():
    found = [group_of(n, few_below=20, many_above=100) for n in (19, 20, 100, 101)]
    assert found == ["few", "medium", "medium", "many"]


def test_accuracy_of_a_group_is_over_its_images():
    found = top1_by_group(LABEL, PREDICTED, GROUPS)
    for group, labels in {"many": (0, 1), "medium": (2,), "few": (3,), "overall": range(4)}.items():
        inside = np.isin(LABEL, list(labels))
        expected = 100 * np.mean(LABEL[inside] == PREDICTED[inside])
        assert found[group] == (pytest.approx(expected), inside.sum())
    value, count = top1_by_group(LABEL[:0], PREDICTED[:0], GROUPS)["few"]
    assert np.isnan(value)
    assert count == 0


def test_macro_f1_is_over_the_classes_of_the_truth():
    """As WILDS computes it: a class that is only predicted does not count."""
    label, predicted = np.array([0, 0, 1, 1]), np.array([0, 2, 1, 1])
    assert macro_f1(label, predicted) == pytest.approx(100 * (2 / 3 + 1) / 2)
    expected = f1_score(LABEL, PREDICTED, average="macro", labels=range(4), zero_division=0)
    assert macro_f1(LABEL, PREDICTED) == pytest.approx(100 * expected)
    assert np.isnan(macro_f1(label[:0], predicted[:0]))


def test_domains_are_scored_where_both_have_images():
    domain = np.where(np.arange(200) < 80, "id", "ood")
    found = scores(LABEL, PREDICTED, GROUPS, domain)
    assert found["top1", "overall"] == top1_by_group(LABEL, PREDICTED, GROUPS)["overall"]
    assert found["macro_f1", "ood"] == (macro_f1(LABEL[80:], PREDICTED[80:]), 120)
    assert found["top1", "id"][0] == pytest.approx(100 * np.mean((LABEL == PREDICTED)[:80]))
    assert main_metric(found) == ("macro_f1", "ood")
    one = scores(LABEL, PREDICTED, GROUPS, np.full(200, "id"))
    assert {metric for metric, _ in one} == {"top1"}
    assert main_metric(one) == ("top1", "overall")


def test_logit_adjustment_divides_by_the_prior():
    probabilities, counts = RNG.dirichlet(np.ones(4), 50), np.array([100, 10, 1, 0])
    prior = np.maximum(counts, 1) / np.maximum(counts, 1).sum()
    np.testing.assert_array_equal(
        adjusted(probabilities, counts, 1.0), (probabilities / prior).argmax(1)
    )
    np.testing.assert_array_equal(adjusted(probabilities, counts, 0.0), probabilities.argmax(1))
    assert adjusted(np.array([[1.0, 0.0, 0.0, 0.0]]), counts, 1.0).tolist() == [0]
