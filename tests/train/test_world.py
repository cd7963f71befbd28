"""One worker against two at the same global batch: without Ray, over torch.distributed."""

import copy
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import open_clip
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import save_file

from discl_ray.curriculum.controller import LocalController
from discl_ray.embedded import STUDENT
from discl_ray.train.augment.augment import CAPTION
from discl_ray.train.images.table import ImageTable
from discl_ray.train.learners.classifier import Classifier
from discl_ray.train.learners.flyp import Flyp
from discl_ray.train.learners.learner import ALONE, Batch, Predictor, TrainJob, World
from discl_ray.train.loop import LEARNERS, Report, loop
from tests.train.tiny import in_memory, make_job

JOBS = {
    "diverse_to_specific": make_job("diverse_to_specific", curriculum={"epochs": 3}),
    "adaptive": make_job("adaptive"),
    "adaptive, margin, explored on top": make_job(
        curriculum={"rule": "margin", "explore_extra": True, "apply": "next"}
    ),
    "a last batch of one": make_job(
        "all_level", batch=15, loss="balanced_softmax", prior="effective"
    ),
    "mixup": make_job("random", augment={"mix": "mixup", "flip": True, "crop": 0.5}),
    "cutmix, a last batch of one": make_job("random", batch=15, augment={"mix": "cutmix"}),
    "cuda": make_job("adaptive", augment={"kind": "cuda", "cuda_gamma": 0.3, "cuda_probes": 3}),
    "strong, adamw, warmup": make_job(
        "easy_to_hard", augment={"kind": "strong"}, optimizer="adamw", warmup=0.3, keep="best"
    ),
    "accumulated": make_job("adaptive", accumulate=2),
}

ROUNDING = 1e-4
"""How far a weight may be off in float32, a tenth of a step.

A unit that is all but dead on its images and Adam, which takes whole steps wherever a gradient is
nothing but rounding, make much of little. In float64 weights have to agree within 1e-12.
"""

Outcome = tuple[dict[str, torch.Tensor], list[dict[str, float]], list[int]]
"""Weights, metrics by epoch, CUDA's strengths at the end."""


def clip_job(folder: Path) -> TrainJob:
    """FLYP on a vision transformer.

    The embedded models normalise over the batch, so theirs depends on who has which image.
    """
    small: dict[str, Any] = {
        "start_steps": 0,
        "optimizer": "adamw",
        "learning_rate": 1e-4,
        "epochs": 2,
    }
    return make_job("adaptive", model="clip", clip=str(folder), **small)


def make_clip(folder: Path) -> None:
    """An open_clip folder with a small vision transformer that has learnt nothing.

    And the student's tokenizer.
    """
    shutil.copytree(STUDENT, folder)
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["vision_cfg"] = {
        "image_size": 32,
        "layers": 2,
        "width": 32,
        "head_width": 16,
        "patch_size": 8,
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    save_file(
        open_clip.CLIP(**config["model_cfg"]).state_dict(), folder / "open_clip_model.safetensors"
    )


class Exact(Classifier):
    """A classifier in float64."""

    def __init__(self, job: TrainJob, device: torch.device) -> None:
        super().__init__(job, device)
        # CUDA's probes go to the model itself
        self.model.double().register_forward_pre_hook(lambda _, inputs: (inputs[0].double(),))

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)

    def predictor(self) -> Predictor:
        predict = super().predictor()
        return lambda images: predict(images).float()


@contextmanager
def in_float64() -> Iterator[None]:
    """ResNets compute in float64, where what is not equal is not rounding."""
    with patch.dict(LEARNERS, resnet10=Exact):
        yield


def train(job: TrainJob, table: ImageTable, world: World = ALONE) -> Outcome:
    torch.set_num_threads(1)
    controller, reports = LocalController(job.curriculum, job.levels, job.seed), list[Report]()
    weights = loop(job, table, controller, lambda r: reports.append(copy.copy(r)), world=world)
    return copy.deepcopy(weights), [r.metrics for r in reports], reports[-1].state.strength


def clip_batch(mine: slice, size: int = 8) -> Batch:
    """A worker's share of one batch of noise for a CLIP."""
    rng = np.random.default_rng(5)
    images, labels = rng.integers(0, 256, (size, 8, 8, 3), dtype=np.uint8), rng.integers(0, 4, size)
    return Batch(
        images=images[mine],
        labels=labels[mine],
        parameters=rng.random((size, 50))[mine],
        strength=np.zeros(size, np.int64)[mine],
        partner=None,
        mix=None,
        counts=torch.ones(4),
        size=size,
    )


def clip_step(job: TrainJob, world: World) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """(loss, gradients of the whole batch) of one batch in single shares."""
    learner = Flyp(job, torch.device("cpu"))
    learner.model.train()
    loss = learner.backward(clip_batch(slice(world.rank, None, world.size)), world) / 8
    gradients = {k: p.grad for k, p in learner.model.named_parameters() if p.grad is not None}
    if world.size > 1:
        dist.all_reduce(loss)
        for gradient in gradients.values():
            dist.all_reduce(gradient)
    return loss, gradients


def worker(rank: int, size: int, root: str) -> None:
    """One of two processes: all the jobs, one after the other."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{root}/meeting", rank=rank, world_size=size
    )
    world, table = World(rank=rank, size=size), in_memory(Path(root) / f"table-{rank}")
    clip = clip_job(Path(root) / "clip")
    outcomes = {name: train(job, table, world) for name, job in {**JOBS, "clip": clip}.items()}
    with in_float64():
        exact = {name: train(job, table, world)[0] for name, job in JOBS.items()}
    torch.save(
        {"outcomes": outcomes, "exact": exact, "clip": clip_step(clip, world)},
        f"{root}/rank-{rank}.pt",
    )
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    make_clip(root / "clip")
    return root


@pytest.fixture(scope="module")
def two(root: Path) -> list[dict[str, Any]]:
    """What each of two workers came to."""
    mp.spawn(worker, (2, str(root)), nprocs=2)  # type: ignore[attr-defined]
    return [torch.load(root / f"rank-{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.fixture(scope="module")
def table(root: Path) -> ImageTable:
    return in_memory(root / "table")


@pytest.mark.parametrize("name", [*JOBS, "clip"])
def test_two_workers_train_as_one_does(
    name: str, root: Path, two: list[dict[str, Any]], table: ImageTable
) -> None:
    weights, metrics, strength = train(
        JOBS[name] if name in JOBS else clip_job(root / "clip"), table
    )
    for outcome in two:
        weights_of_two, metrics_of_two, strength_of_two = outcome["outcomes"][name]
        assert strength_of_two == strength
        for one, other in zip(metrics, metrics_of_two, strict=True):
            assert other == {k: pytest.approx(v, abs=within(k)) for k, v in one.items()}
        for key, value in weights.items():
            difference = (value - weights_of_two[key]).abs()
            if key.endswith(
                "in_proj_bias"
            ):  # attention does not depend on its keys' bias: Adam goes where rounding says
                difference = difference.view(3, -1)[[0, 2]]
            assert difference.max() <= ROUNDING, key


@pytest.mark.parametrize("name", JOBS)
def test_in_float64_two_workers_end_with_the_weights_of_one(
    name: str, two: list[dict[str, Any]], table: ImageTable
) -> None:
    with in_float64():
        weights, _, _ = train(JOBS[name], table)
    for outcome in two:
        for key, value in weights.items():
            assert value.dtype == torch.float64
            assert (value - outcome["exact"][name][key]).abs().max() <= 1e-12, key


def within(metric: str) -> float:
    """How far a metric may be off.

    Val metrics, sizes and levels are exact; means of floats, and the ratio of two of them, round.
    """
    return (
        1e-5 if metric.startswith(("loss", "progress")) else 1e-3 if metric == "lead_in_se" else 0.0
    )


def test_both_workers_end_with_the_same_bits(two: list[dict[str, Any]]) -> None:
    for name in (*JOBS, "clip"):
        (one, metrics, _), (other, others, _) = (outcome["outcomes"][name] for outcome in two)
        assert metrics == others
        assert all(torch.equal(one[key], other[key]) for key in one), name


def test_levels_and_strengths_move_in_these_jobs(table: ImageTable) -> None:
    assert len({m["lam"] for m in train(JOBS["adaptive"], table)[1]}) > 1
    assert max(train(JOBS["cuda"], table)[2]) > 0


def test_accumulated_gradients_are_those_of_the_whole_batch(table: ImageTable) -> None:
    whole, metrics, _ = train(JOBS["adaptive"], table)
    parts, others, _ = train(JOBS["accumulated"], table)
    assert [m["loss"] for m in others] == pytest.approx([m["loss"] for m in metrics], abs=1e-5)
    assert [m["lam"] for m in others] == [m["lam"] for m in metrics]
    assert all(torch.allclose(whole[key], parts[key], rtol=0, atol=1e-5) for key in whole)


def test_clips_loss_is_that_of_the_whole_batch(root: Path, two: list[dict[str, Any]]) -> None:
    loss, gradients = clip_step(clip_job(root / "clip"), ALONE)
    for outcome in two:
        loss_of_two, gradients_of_two = outcome["clip"]
        assert float(loss_of_two) == pytest.approx(float(loss), abs=1e-6)
        assert gradients_of_two.keys() == gradients.keys()
        for key, gradient in gradients.items():
            assert torch.allclose(gradients_of_two[key], gradient, rtol=1e-4, atol=1e-6), key


@pytest.mark.parametrize("name", ["transformer", "embedded"])
def test_on_one_process_it_is_open_clips_own(name: str, root: Path) -> None:
    job = (
        clip_job(root / "clip") if name == "transformer" else make_job(model="clip", start_steps=0)
    )
    learner, batch = Flyp(job, torch.device("cpu")), clip_batch(slice(None))
    captions = learner.templates
    said = [captions[int(u * len(captions))] for u in batch.parameters[:, CAPTION]]
    texts = [
        caption.format(name=job.names[label])
        for caption, label in zip(said, batch.labels, strict=True)
    ]
    learner.model.train()
    image, text, scale = learner.model(learner.pixels(batch), learner.clip.tokenizer(texts))[:3]
    expected = open_clip.ClipLoss()(image, text, scale)
    loss, gradients = clip_step(job, ALONE)
    assert float(loss) == pytest.approx(float(expected.detach()), abs=1e-6)
    parameters = dict(learner.model.named_parameters())
    for key, gradient in zip(
        parameters, torch.autograd.grad(expected, list(parameters.values())), strict=True
    ):
        assert torch.allclose(gradients[key], gradient, rtol=1e-4, atol=1e-6), key
