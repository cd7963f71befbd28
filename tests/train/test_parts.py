import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from sklearn.metrics import accuracy_score

from discl_ray.evaluate.metrics import group_of, top1_by_group
from discl_ray.train.augment import augment, draw_parameters, to_tensor
from discl_ray.train.losses import LOSSES
from discl_ray.train.models import resnet10


def test_losses_are_their_formulas_in_float64() -> None:
    rng = np.random.default_rng(0)
    logits, labels, counts = rng.normal(size=(7, 4)), rng.integers(4, size=7), np.array([50.0, 20, 3, 1])
    expected = {
        "ce": -log_softmax(logits, axis=1)[range(7), labels].sum(),
        "balanced_softmax": -log_softmax(logits + np.log(counts / counts.sum()), axis=1)[range(7), labels].sum(),
    }
    for name, loss in LOSSES.items():
        got = loss(torch.from_numpy(logits), torch.from_numpy(labels), torch.from_numpy(counts))
        assert float(got) == pytest.approx(expected[name], abs=1e-10)


def test_top1_by_group_is_scikit_learns_accuracy_within_the_group() -> None:
    rng = np.random.default_rng(1)
    label, predicted = rng.integers(4, size=200), rng.integers(4, size=200)
    groups = {0: "many", 1: "medium", 2: "medium", 3: "many"}
    result = top1_by_group(label, predicted, groups)
    for group in ("many", "medium"):
        mask = np.isin(label, [c for c, g in groups.items() if g == group])
        assert result[group] == (pytest.approx(100 * accuracy_score(label[mask], predicted[mask])), mask.sum())
    assert result["overall"] == (pytest.approx(100 * accuracy_score(label, predicted)), 200)
    assert np.isnan(result["few"][0])
    assert result["few"][1] == 0


def test_group_bounds() -> None:
    assert [group_of(n, few_below=6, many_above=15) for n in (5, 6, 15, 16)] == ["few", "medium", "medium", "many"]


def test_augmentation_moves_pixels_exactly_and_does_not_depend_on_the_batch() -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    x, parameters = to_tensor(images), draw_parameters(6, seed=3, epoch=2)
    whole = augment(x, parameters, shift=2, jitter=0.2)
    alone = torch.cat([augment(x[i : i + 1], parameters[i : i + 1], shift=2, jitter=0.2) for i in range(6)])
    assert torch.equal(whole, alone)
    centre = np.full((6, 4), 0.5)
    assert torch.equal(augment(x, centre, shift=2, jitter=0.0), x)
    up = centre.copy()
    up[:, 0] = 0.999
    assert torch.equal(augment(x, up, shift=2, jitter=0.0)[:, :, :-2], x[:, :, 2:])


def test_resnet10_is_torchvisions_and_is_initialised_from_its_seed_alone() -> None:
    from torchvision.models.resnet import BasicBlock, ResNet

    reference = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=10)
    stem = 3 * 64 * 49 - 3 * 64 * 9  # 7x7 against 3x3
    ours = resnet10(num_classes=10, width=64, seed=0)
    size = lambda m: sum(p.numel() for p in m.parameters())  # noqa: E731
    assert size(ours) == size(reference) - stem
    torch.manual_seed(99)
    again = resnet10(num_classes=10, width=64, seed=0)
    assert all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), again.state_dict().values(), strict=True))
