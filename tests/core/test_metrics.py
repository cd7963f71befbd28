"""Scores agree with the definitions they cite."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax
from sklearn.metrics import accuracy_score, f1_score

from discl_ray.core.metrics import adjusted, group_of, macro_f1, main_metric, scores, top1_by_group
from discl_ray.experiments.statistics import fast_macro_f1

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


def test_top1_by_group_is_scikit_learns_accuracy_within_the_group() -> None:
    rng = np.random.default_rng(1)
    label, predicted = rng.integers(4, size=200), rng.integers(4, size=200)
    groups = {0: "many", 1: "medium", 2: "medium", 3: "many"}
    result = top1_by_group(label, predicted, groups)
    for group in ("many", "medium"):
        mask = np.isin(label, [c for c, g in groups.items() if g == group])
        assert result[group] == (
            pytest.approx(100 * accuracy_score(label[mask], predicted[mask])),
            mask.sum(),
        )
    assert result["overall"] == (pytest.approx(100 * accuracy_score(label, predicted)), 200)
    assert np.isnan(result["few"][0])
    assert result["few"][1] == 0


def test_group_bounds() -> None:
    assert [group_of(n, few_below=6, many_above=15) for n in (5, 6, 15, 16)] == [
        "few",
        "medium",
        "medium",
        "many",
    ]


def macro_f1_by_hand(label: np.ndarray, predicted: np.ndarray) -> float:
    scores = []
    for c in set(label.tolist()):
        hit = ((label == c) & (predicted == c)).sum()
        scores.append(2 * hit / ((label == c).sum() + (predicted == c).sum()))
    return 100 * float(np.mean(scores))


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(st.integers(0, 10), st.integers(0, 10), st.booleans()), min_size=1, max_size=40
    )
)
def test_scores_are_scikit_learns_over_the_classes_that_are_there(rows) -> None:
    label, predicted = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    domain = np.where([r[2] for r in rows], "ood", "id")
    there = np.unique(label)
    wilds = 100 * f1_score(label, predicted, labels=there, average="macro", zero_division=0)
    assert (
        macro_f1(label, predicted)
        == pytest.approx(wilds)
        == pytest.approx(macro_f1_by_hand(label, predicted))
    )
    assert fast_macro_f1(label, predicted) == pytest.approx(wilds)
    groups = {c: ("few", "medium", "many")[c % 3] for c in range(11)}
    found = scores(label, predicted, groups, domain)
    both = set(domain) == {"id", "ood"}
    assert main_metric(found) == (("macro_f1", "ood") if both else ("top1", "overall"))
    assert (("macro_f1", "id") in found) is both
    for name in set(domain) if both else ():
        mine = domain == name
        assert found["macro_f1", name] == (
            pytest.approx(macro_f1(label[mine], predicted[mine])),
            mine.sum(),
        )
    for name in ("few", "medium", "many"):
        mine = np.isin(label, [c for c, g in groups.items() if g == name])
        value, count = found["top1", name]
        assert count == mine.sum()
        assert (
            value == pytest.approx(100 * accuracy_score(label[mine], predicted[mine]))
            if count
            else np.isnan(value)
        )


def test_logit_adjustment_afterwards_is_its_formula() -> None:
    rng = np.random.default_rng(0)
    logits, counts = rng.normal(size=(50, 4)), np.array([80, 15, 4, 1])
    probabilities = np.exp(log_softmax(logits, axis=1))
    assert (adjusted(probabilities, counts, 0.0) == logits.argmax(1)).all()
    assert (
        adjusted(probabilities, counts, 1.3)
        == (logits - 1.3 * np.log(counts / counts.sum())).argmax(1)
    ).all()
