import numpy as np
import pytest
import torch

from discl_ray.core.lam import REAL
from discl_ray.curriculum.config import CurriculumConfig
from discl_ray.curriculum.controller import LocalController
from discl_ray.errors import DisclError, IntegrityError
from discl_ray.train import loop as loop_module
from discl_ray.train.config import TrainConfig
from discl_ray.train.loop import Report, TrainJob, loop
from discl_ray.train.table import ImageTable
from discl_ray.train.trainer import load_checkpoint, save_checkpoint


def make_table() -> ImageTable:
    rng = np.random.default_rng(0)
    rows = [(c, REAL, "train") for c in range(3) for _ in range(2 if c == 0 else 8)]
    rows += [(0, lam, "train") for lam in (0, 50) for _ in range(4)]
    rows += [(0, 0, "probe")] * 3 + [(c, REAL, "val") for c in range(3) for _ in range(2)]
    return ImageTable(
        images=rng.integers(0, 256, (len(rows), 8, 8, 3), dtype=np.uint8),
        label=np.array([r[0] for r in rows]),
        lam_pct=np.array([r[1] for r in rows]),
        role=np.array([r[2] for r in rows]),
    )


def make_job(**train: object) -> TrainJob:
    config = TrainConfig.model_validate({"width": 4, "epochs": 4, "batch": 8, "eval_every": 1} | train)
    return TrainJob(
        seed=1,
        train=config,
        curriculum=CurriculumConfig(epochs=3),
        hard_labels=frozenset({0}),
        groups={0: "few", 1: "many", 2: "many"},
        counts=(2, 8, 8),
    )


def controller() -> LocalController:
    return LocalController("diverse_to_specific", (0, 50, 100), 3)


def run(**options: object) -> tuple[dict[str, torch.Tensor], list[Report], LocalController]:
    reports: list[Report] = []
    curriculum = controller()
    # a report holds the live tensors; copy them as a checkpoint would
    model = loop(make_job(), make_table(), curriculum, lambda r: reports.append(_frozen(r)), **options)  # type: ignore[arg-type]
    return model.state_dict(), reports, curriculum


def _frozen(report: Report) -> Report:
    import copy

    return Report(epoch=report.epoch, metrics=report.metrics, state=copy.deepcopy(report.state))


@pytest.mark.parametrize("stopped_after", [1, 2, 3])
def test_resumed_equals_never_stopped_bit_for_bit(stopped_after: int, tmp_path) -> None:
    weights, reports, curriculum = run()
    save_checkpoint(tmp_path, reports[stopped_after - 1].state)
    again, _, resumed = run(resume=load_checkpoint(tmp_path))
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    assert resumed.history == curriculum.history


def test_the_curriculum_is_followed_and_recorded() -> None:
    _, _, curriculum = run()
    assert [curriculum.history[e]["lam"] for e in (1, 2, 3, 4)] == [0.0, 0.5, 1.0, 1.0]
    assert [curriculum.history[e]["synthetic"] for e in (1, 2, 3, 4)] == [6, 6, 0, 0]
    assert len({curriculum.history[e]["images"] for e in (1, 2, 3, 4)}) == 1


def test_a_probe_row_cannot_reach_a_batch_even_if_the_sampler_is_wrong(monkeypatch) -> None:
    table = make_table()
    real = loop_module.epoch_order

    def leaky(*args, **kwargs):
        order = real(*args, **kwargs)
        order.rows[0] = np.flatnonzero(table.role == "probe")[0]
        return order

    monkeypatch.setattr(loop_module, "epoch_order", leaky)
    with pytest.raises(IntegrityError, match="role is not train"):
        loop(make_job(), table, controller(), lambda r: None)


def test_a_loss_that_is_not_finite_ends_the_run() -> None:
    start = {k: v * float("nan") if v.is_floating_point() else v for k, v in run()[0].items()}
    with pytest.raises(DisclError, match="learning_rate"):
        loop(make_job(), make_table(), controller(), lambda r: None, start=start)
