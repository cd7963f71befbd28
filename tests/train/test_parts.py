import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.special import log_softmax
from sklearn.metrics import accuracy_score, f1_score

from discl_ray.core.metrics import adjusted, group_of, macro_f1, main_metric, scores, top1_by_group
from discl_ray.core.settings import identity
from discl_ray.experiments.statistics import fast_macro_f1
from discl_ray.train.config import AUGMENT_OF_START, OF_START, TrainConfig
from discl_ray.train.learners.losses import LOSSES
from discl_ray.train.learners.resnet import resnet


def test_losses_are_their_formulas_in_float64() -> None:
    rng = np.random.default_rng(0)
    logits, labels, counts = (
        rng.normal(size=(7, 4)),
        rng.integers(4, size=7),
        np.array([50.0, 20, 3, 1]),
    )
    expected = {
        "ce": -log_softmax(logits, axis=1)[range(7), labels].sum(),
        "balanced_softmax": -log_softmax(logits + np.log(counts / counts.sum()), axis=1)[
            range(7), labels
        ].sum(),
        "logit_adjusted": -log_softmax(logits + 1.7 * np.log(counts / counts.sum()), axis=1)[
            range(7), labels
        ].sum(),
    }
    assert set(LOSSES) == set(expected)
    for name, loss in LOSSES.items():
        got = loss(
            torch.from_numpy(logits), torch.from_numpy(labels), torch.from_numpy(counts), 1.7
        )
        assert got.shape == (7,)
        assert float(got.sum()) == pytest.approx(expected[name], abs=1e-10)


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


@pytest.mark.parametrize(
    ("name", "blocks"), [("resnet10", [1, 1, 1, 1]), ("resnet34", [3, 4, 6, 3])]
)
def test_resnets_are_torchvisions_and_are_initialised_from_their_seed_alone(name, blocks) -> None:
    from torchvision.models.resnet import BasicBlock, ResNet

    reference = ResNet(BasicBlock, blocks, num_classes=10)
    ours = resnet(name, num_classes=10, width=64, seed=0, stem="imagenet")
    with torch.no_grad():  # the same layers in the same order: the same function
        for mine, theirs in zip(
            ours.state_dict().values(), reference.state_dict().values(), strict=True
        ):
            mine.copy_(theirs)
    x = torch.randn(2, 3, 64, 64)
    assert torch.allclose(ours.eval()(x), reference.eval()(x), atol=1e-5)
    torch.manual_seed(99)
    again = resnet(name, num_classes=10, width=8, seed=0)
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            again.state_dict().values(),
            resnet(name, num_classes=10, width=8, seed=0).state_dict().values(),
            strict=True,
        )
    )


def test_with_group_normalisation_an_image_does_not_depend_on_its_batch() -> None:
    model, x = (
        resnet("resnet10", num_classes=3, width=12, seed=0, norm="group").train(),
        torch.randn(4, 3, 16, 16),
    )
    assert torch.allclose(model(x)[:1], model(x[:1]), atol=1e-5)
    assert not list(model.buffers())


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


@pytest.mark.parametrize(
    ("settings_", "words"),
    [
        ({"batch": 5, "workers": 2}, "cannot be divided"),
        ({"model": "clip"}, "start_steps = 400: a CLIP is trained from its own weights"),
        (
            {"model": "clip", "start_steps": 0, "loss": "balanced_softmax"},
            "loss = balanced_softmax",
        ),
        ({"model": "clip", "start_steps": 0, "augment": {"mix": "mixup"}}, "cropped and no more"),
        ({"captions": ["a photo"]}, "says the same of every class"),
        ({"captions": ["{name} {0}"]}, "only {name} is filled in"),
    ],
)
def test_settings_that_cannot_be_are_refused_with_what_is_allowed(settings_, words) -> None:
    with pytest.raises(ValidationError, match=words):
        TrainConfig.model_validate(settings_)


OTHER = {
    **{
        "model": "resnet34",
        "width": 8,
        "stem": "imagenet",
        "norm": "group",
        "clip": "a/folder",
        "captions": ("a {name}",),
    },
    **{
        "image_size": 64,
        "batch": 64,
        "optimizer": "adamw",
        "weight_decay": 0.1,
        "warmup": 0.2,
        "precision": "bf16",
    },
    **{"compile": True, "start_steps": 7, "start_learning_rate": 0.5},
    **{
        "loss": "balanced_softmax",
        "tau": 2.0,
        "prior": "effective",
        "epochs": 9,
        "keep": "best",
        "eval_every": 1,
    },
    "learning_rate": 0.3,
}
OTHER_AUGMENT = {
    **{"shift": 1, "jitter": 0.2, "flip": True, "crop": 0.5},
    **{"kind": "strong", "mix": "mixup", "mix_alpha": 0.2, "strong_ops": 3},
    **{"cuda_gamma": 0.5, "cuda_probes": 3, "cuda_max": 4},
}


def test_a_start_is_decided_by_the_fields_it_names_and_by_no_others() -> None:
    plain = TrainConfig()
    assert set(OTHER) | {"augment"} == set(
        identity(plain)
    )  # a new field has to be in one list or the other
    assert set(OTHER_AUGMENT) == set(identity(plain.augment))
    for name, value in OTHER.items():
        assert (TrainConfig.model_validate({name: value}).start() != plain.start()) == (
            name in OF_START
        ), name
    for name, value in OTHER_AUGMENT.items():
        changed = TrainConfig.model_validate({"augment": {name: value}})
        assert (changed.start() != plain.start()) == (name in AUGMENT_OF_START), name
    start = TrainConfig(
        loss="balanced_softmax", learning_rate=0.3, start_learning_rate=0.5, batch=64, workers=2
    ).start()
    assert (start.loss, start.learning_rate, start.batch, start.workers) == ("ce", 0.5, 64, 2)
