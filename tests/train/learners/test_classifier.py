import numpy as np
import pytest
import torch
import torch.nn.functional as F

from discl_ray.train.augment.augment import augment, draw_parameters, to_tensor
from discl_ray.train.augment.mixup import Mix
from discl_ray.train.learners.classifier import LEAST_CHANNELS, Classifier
from discl_ray.train.learners.learner import ALONE, Batch
from tests.train.tiny import COUNTS, SIDE, make_job, make_pixels

CPU = torch.device("cpu")
LABELS = np.arange(8) % len(COUNTS)


def make_batch(partner: Batch | None = None, mix: Mix | None = None, seed: int = 0) -> Batch:
    return Batch(
        images=make_pixels(8, LABELS, seed),
        labels=LABELS,
        parameters=draw_parameters(8, seed=seed, epoch=1),
        strength=np.zeros(8, np.int64),
        partner=partner,
        mix=mix,
        counts=torch.ones(len(COUNTS)),
        size=8,
    )


def gradients(learner: Classifier, batch: Batch) -> tuple[float, list[torch.Tensor]]:
    learner.model.zero_grad()
    loss = learner.backward(batch, ALONE)
    return float(loss), [p.grad.clone() for p in learner.model.parameters() if p.grad is not None]


def test_the_loss_is_that_of_the_augmented_images() -> None:
    job, batch = make_job(), make_batch()
    learner = Classifier(job, CPU)
    loss, found = gradients(learner, batch)
    x = augment(batch.images, batch.parameters, batch.strength, job.train.augment)
    expected = F.cross_entropy(learner.model(x), torch.from_numpy(LABELS))
    assert loss == pytest.approx(8 * float(expected.detach()), rel=1e-5)
    wanted = torch.autograd.grad(expected, list(learner.model.parameters()))
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(found, wanted, strict=True))


def test_parts_of_a_batch_add_up() -> None:
    batch = make_batch()
    whole = gradients(Classifier(make_job(), CPU), batch)
    parts = gradients(Classifier(make_job(accumulate=3), CPU), batch)
    assert parts[0] == pytest.approx(whole[0], rel=1e-5)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(parts[1], whole[1], strict=True))


def test_a_share_of_one_or_none_is_the_loss_of_one_of_both_images() -> None:
    job = make_job(augment={"mix": "mixup"})
    learner, other = Classifier(job, CPU), make_batch(seed=1)
    alone = [learner.backward(batch, ALONE).item() for batch in (make_batch(), other)]
    for share, expected in zip((1.0, 0.0), alone, strict=True):
        mixed = make_batch(other, Mix(partner=np.arange(8), share=share))
        assert learner.backward(mixed, ALONE).item() == pytest.approx(expected, rel=1e-6)


def test_predictions_are_probabilities_without_augmentation() -> None:
    learner = Classifier(make_job(), CPU)
    images = make_pixels(300, np.zeros(300))
    found = learner.predictor()(images)
    assert found.shape == (300, len(COUNTS))
    with torch.no_grad():
        expected = learner.model(to_tensor(images)).softmax(1)
    assert torch.allclose(found, expected, atol=1e-5)
    assert learner.predictor()(np.zeros((0, SIDE, SIDE, 3), np.uint8)).shape == (0, len(COUNTS))


def test_a_narrow_network_keeps_channels_first_on_the_cpu() -> None:
    for width, last in ((LEAST_CHANNELS // 2, False), (LEAST_CHANNELS, True)):
        learner = Classifier(make_job(width=width), CPU)
        weights = next(learner.model.parameters())
        assert weights.is_contiguous(memory_format=torch.channels_last) is last
