import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from discl_ray.core.lam import REAL
from discl_ray.curriculum.config import CurriculumConfig
from discl_ray.curriculum.controller import LocalController
from discl_ray.curriculum.progress import from_metrics, most_progressed
from discl_ray.curriculum.strategies import STRATEGIES
from discl_ray.errors import DisclError, IntegrityError
from discl_ray.train import loop as loop_module
from discl_ray.train.batches import Batches
from discl_ray.train.checkpoint import kept_weights, load_checkpoint, save_checkpoint
from discl_ray.train.config import TrainConfig
from discl_ray.train.images.table import ImageTable
from discl_ray.train.learners.classifier import Classifier
from discl_ray.train.learners.learner import TrainJob
from discl_ray.train.loop import Report, loop

LEVELS = (0, 50, 100)


def make_table(noise: int = 0) -> ImageTable:
    rng = np.random.default_rng(noise)
    rows = [(c, REAL, "train") for c in range(3) for _ in range(2 if c == 0 else 8)]
    rows += [(0, lam, "train") for lam in (0, 50) for _ in range(4)]
    rows += [(0, lam, "probe") for lam in (0, 50) for _ in range(4)] + [
        (c, REAL, "val") for c in range(3) for _ in range(2)
    ]
    return ImageTable(
        images=rng.integers(0, 256, (len(rows), 8, 8, 3), dtype=np.uint8),
        label=np.array([r[0] for r in rows]),
        lam_pct=np.array([r[1] for r in rows]),
        role=np.array([r[2] for r in rows]),
        hard=np.array([r[0] == 0 and r[1] == REAL for r in rows]),
        sample_id=np.array([f"{r[2]}-{r[0]}-{i % 2}" for i, r in enumerate(rows)]),
    )


def make_job(
    strategy: str = "diverse_to_specific",
    *,
    explore_extra: bool = False,
    apply: str = "same",
    **train: object,
) -> TrainJob:
    config = TrainConfig.model_validate(
        {"width": 4, "epochs": 4, "batch": 8, "eval_every": 1, "image_size": 8} | train
    )
    curriculum = CurriculumConfig.model_validate(
        {"strategy": strategy, "epochs": 3, "explore_extra": explore_extra, "apply": apply}
    )
    groups = {0: "few", 1: "many", 2: "many"}
    names = ("zero", "one", "two")
    return TrainJob(
        seed=1,
        train=config,
        curriculum=curriculum,
        names=names,
        groups=groups,
        counts=(2, 8, 8),
        levels=LEVELS,
    )


def controller(job: TrainJob) -> LocalController:
    return LocalController(job.curriculum, job.levels, job.seed)


def run(
    job: TrainJob, table: ImageTable | None = None, **options
) -> tuple[dict[str, torch.Tensor], list[Report], LocalController]:
    reports: list[Report] = []
    curriculum = controller(job)
    # a report holds the live tensors; copy them as a checkpoint would
    keep = lambda r: reports.append(replace(r, state=copy.deepcopy(r.state)))  # noqa: E731
    weights = loop(job, table or make_table(), curriculum, keep, **options)
    return weights, reports, curriculum


RESUMED = [
    {},
    {"strategy": "adaptive"},
    {"strategy": "adaptive", "apply": "next", "explore_extra": True, "learning_rate": 0.03},
    {"strategy": "fixed", "precision": "bf16"},
    {"strategy": "random", "augment": {"kind": "cuda"}, "optimizer": "adamw"},
    {
        "strategy": "all_level",
        "augment": {"mix": "mixup", "kind": "strong"},
        "keep": "best",
        "warmup": 0.3,
    },
    {
        "strategy": "text_only",
        "augment": {"mix": "cutmix"},
        "loss": "balanced_softmax",
        "prior": "effective",
    },
]


@pytest.mark.parametrize("stopped_after", [1, 2, 3])
@pytest.mark.parametrize("settings", RESUMED)
def test_resumed_equals_never_stopped_bit_for_bit(
    settings: dict, stopped_after: int, tmp_path
) -> None:
    job = make_job(**settings)
    weights, reports, curriculum = run(job)
    save_checkpoint(tmp_path, reports[stopped_after - 1].state)
    again, _, resumed = run(job, resume=load_checkpoint(tmp_path))
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    assert resumed.history == curriculum.history


def losses_of(trained: tuple[dict, list, LocalController]) -> list[float]:
    return [row["loss"] for row in trained[2].history.values()]


def losses(**settings: object) -> list[float]:
    return losses_of(run(make_job("all_level", norm="group", **settings)))


def test_in_bf16_it_learns_the_same_to_its_precision_and_keeps_its_weights_in_fp32() -> None:
    whole, half = losses(), losses(precision="bf16")
    assert whole != half
    assert half == pytest.approx(whole, rel=2e-2)
    weights = run(make_job(precision="bf16"))[0]
    assert {w.dtype for w in weights.values() if w.is_floating_point()} == {torch.float32}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_compiled_it_learns_the_same_and_its_weights_have_the_names_of_the_plain_model() -> None:
    plain, compiled = (
        run(make_job("all_level", norm="group", compile=compile)) for compile in (False, True)
    )
    assert losses_of(compiled) == pytest.approx(losses_of(plain), rel=1e-4)
    assert compiled[0].keys() == plain[0].keys()


def test_the_curriculum_is_followed_and_recorded() -> None:
    _, _, curriculum = run(make_job())
    assert [curriculum.history[e]["lam"] for e in (1, 2, 3, 4)] == [0.0, 0.5, 1.0, 1.0]
    assert [curriculum.history[e]["synthetic"] for e in (1, 2, 3, 4)] == [6, 6, 0, 0]


@pytest.mark.parametrize("explore_extra", [False, True])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_takes_the_same_number_of_images_and_steps(
    strategy: str, explore_extra: bool, monkeypatch
) -> None:
    steps = []
    real = torch.optim.Adam.step
    monkeypatch.setattr(
        torch.optim.Adam, "step", lambda self, *a: (steps.append(1), real(self, *a))[1]
    )
    _, _, curriculum = run(make_job(strategy, explore_extra=explore_extra))
    base = run(make_job("real_only", explore_extra=explore_extra))[2]
    images = [int(m["images"]) for m in base.history.values()]
    assert [m["images"] for m in curriculum.history.values()] == images
    assert len(steps) == 2 * sum(-(-count // 8) for count in images)


def test_adaptive_takes_the_level_that_progressed_most_and_says_how_sure_it_is() -> None:
    job = make_job("adaptive", learning_rate=0.03)
    job = replace(job, curriculum=job.curriculum.model_copy(update={"rule": "strict"}))
    history = run(job)[2].history
    for epoch in (1, 2, 3):
        progress = from_metrics(history[epoch])
        assert set(progress) == set(LEVELS)
        assert all(p.se >= 0 for p in progress.values())
        best = max(LEVELS, key=lambda level: (progress[level].mean, -level))
        assert history[epoch]["lam"] == best / 100
    assert from_metrics(history[4]) == {}
    assert history[4]["lam"] == 1.0


def test_a_checkpoint_without_progress_by_source_goes_on_unpaired_and_says_so_once(
    tmp_path, caplog
) -> None:
    job = make_job("adaptive", apply="next", learning_rate=0.03)
    _, reports, _ = run(job)
    assert caplog.text == ""
    state = copy.deepcopy(reports[1].state)
    for record in state.history.values():
        for name in [n for n in record if n.startswith("progress_sources_")]:
            del record[name]
    save_checkpoint(tmp_path, state)
    _, _, curriculum = run(job, resume=load_checkpoint(tmp_path))
    assert caplog.text.count("not paired") == 1
    assert caplog.messages[0].startswith("2 epochs of this run were recorded")
    assert not from_metrics(curriculum.history[2])[50].by_source
    assert from_metrics(curriculum.history[3])[50].by_source


def test_what_is_reported_are_numbers_and_what_is_recorded_gives_the_leads_again() -> None:
    _, reports, curriculum = run(make_job("adaptive", learning_rate=0.03))
    assert all(
        isinstance(value, int | float) for report in reports for value in report.metrics.values()
    )
    for epoch in (1, 2, 3):
        progress = from_metrics(curriculum.history[epoch])
        assert {len(found.by_source) for found in progress.values()} == {4}
        assert most_progressed(progress)[1] == curriculum.history[epoch]["lead_in_se"]


def test_the_papers_exploration_comes_on_top() -> None:
    history = run(make_job("adaptive", explore_extra=True))[2].history
    assert history[1]["images"] == history[4]["images"] + 8


def test_probes_change_nothing_but_the_choice(monkeypatch) -> None:
    """Eval mode, no augmentation, no running statistics.

    Weights are those of a run that takes the same levels unmeasured.
    """
    job = make_job("adaptive")
    weights, _, curriculum = run(job)
    chosen = {epoch: metrics["lam"] for epoch, metrics in curriculum.history.items()}

    class Twice(Classifier):
        def predictor(self):
            predict = super().predictor()

            def twice(images):
                predict(images)
                return predict(images)

            return twice

    monkeypatch.setitem(loop_module.LEARNERS, "resnet10", Twice)
    again, _, second = run(job)
    assert {epoch: metrics["lam"] for epoch, metrics in second.history.items()} == chosen
    assert all(torch.equal(weights[name], again[name]) for name in weights)


def test_the_best_weights_are_kept_and_of_equals_the_first(tmp_path) -> None:
    job = make_job(keep="best", learning_rate=0.02)
    weights, reports, _ = run(job)
    values = [r.metrics["val_top1_overall"] for r in reports]
    first = values.index(max(values))
    kept = reports[first].state.model
    assert all(torch.equal(weights[name], kept[name]) for name in weights)
    save_checkpoint(tmp_path, reports[-1].state)
    assert kept_weights(tmp_path).name == "best.safetensors"
    assert load_checkpoint(tmp_path).best.epoch == first + 1


def test_a_probe_row_cannot_reach_a_batch_even_if_the_sampler_is_wrong(monkeypatch) -> None:
    table = make_table()
    real = loop_module.epoch_order

    def leaky(*args, **kwargs):
        order = real(*args, **kwargs)
        order.rows[0] = np.flatnonzero(table.role == "probe")[0]
        return order

    monkeypatch.setattr(loop_module, "epoch_order", leaky)
    with pytest.raises(IntegrityError, match="role is not train"):
        run(make_job(), table)


def test_a_loss_that_is_not_finite_ends_the_run_and_names_step_level_and_images() -> None:
    start = {
        k: v * float("nan") if v.is_floating_point() else v for k, v in run(make_job())[0].items()
    }
    with pytest.raises(
        DisclError,
        match=(
            r"epoch 1, step 1 of 3, stage λ 0: the loss is nan; lower train.learning_rate.*train-"
        ),
    ):
        run(make_job(), start=start)


def test_running_out_of_memory_says_what_to_lower(monkeypatch) -> None:
    def full(self, batch, world):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Classifier, "backward", full)
    with pytest.raises(
        DisclError, match=r"out of memory on 8 images of 8 pixels; raise train\.accumulate = 1"
    ):
        run(make_job())


def test_the_effective_prior_is_what_the_stage_trains_on(monkeypatch) -> None:
    seen: list[list[float]] = []
    job = make_job(loss="balanced_softmax", prior="effective")
    real = Batches.share
    monkeypatch.setattr(
        Batches,
        "share",
        lambda self, number: (seen.append(self.counts.tolist()), real(self, number))[1],
    )
    run(job)
    assert seen[0] == [8.0, *seen[0][1:]]  # 6 synthetic and 2 real images of class 0
    assert sum(seen[0]) == 24
