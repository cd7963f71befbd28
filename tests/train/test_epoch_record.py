import math

import numpy as np

from discl_ray.curriculum.epoch_order import EpochOrder
from discl_ray.curriculum.strategies import Choice
from discl_ray.train.batches import Pass
from discl_ray.train.epoch_record import stage_record, val_record, warn_of_unpaired


def stage(lead: float | None) -> Pass:
    order = EpochOrder(rows=np.arange(10), hard=2, nonhard=5, synthetic=3, borrowed=1)
    choice = Choice(levels=(50,), lead=lead)
    return Pass(epoch=4, choice=choice, order=order, before=6, total=16)


def test_a_stage_is_recorded_with_its_level_and_share() -> None:
    record = stage_record(stage(2.5), 0.25)
    assert record["loss"] == 0.25
    assert record["lam"] == 0.5
    assert record["lam_pct"] == 50
    assert record["share"] == 0.5
    assert record["images"] == 16
    assert record["lead_in_se"] == 2.5


def test_a_lead_that_json_has_no_number_for_is_left_out() -> None:
    assert "lead_in_se" not in stage_record(stage(math.inf), 0.0)
    assert "lead_in_se" not in stage_record(stage(None), 0.0)


def test_scores_of_no_images_are_not_recorded() -> None:
    found = {("top1", "overall"): (75.0, 4), ("top1", "few"): (math.nan, 0)}
    assert val_record(found) == {"val_top1_overall": 75.0}


def test_epochs_without_progress_by_source_are_warned_of_once(caplog) -> None:
    paired = {"progress_50": 0.5, "progress_se_50": 0.1, "progress_sources_50": [0.4, 0.6]}
    warn_of_unpaired({"1": paired, "2": {"loss": 1.0}})
    assert caplog.text == ""
    unpaired = {name: value for name, value in paired.items() if "sources" not in name}
    warn_of_unpaired({"1": unpaired, "2": paired})
    assert caplog.text.count("1 epoch of this run was recorded without progress") == 1
