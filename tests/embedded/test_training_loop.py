"""A run that was killed and started again ends with the weights of one that never stopped."""

import json

import pytest
import torch
from torch import nn

from discl_ray.embedded.training_loop import Average, fit, log_to, one_cycle


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))


def trained(work, steps, *, records=None, stop_at=None):
    """A model fitted to sums of random numbers; `stop_at` raises before that step."""
    module, calls = model(), []

    def loss_of(generator):
        if stop_at is not None and len(calls) == stop_at:
            raise KeyboardInterrupt
        calls.append(1)
        x = torch.randn(16, 3, generator=generator)
        return (module(x)[:, 0] - x.sum(1)).square().mean()

    fit(
        "m",
        module,
        loss_of,
        steps=steps,
        learning_rate=1e-2,
        seed=1,
        work=work,
        log=lambda record: None if records is None else records.append(record),
        every=5,
    )
    return module.state_dict()


def test_a_killed_run_goes_on_where_it_was_and_ends_with_the_same_weights(tmp_path):
    for folder in ("whole", "killed"):
        (tmp_path / folder).mkdir()
    whole = trained(tmp_path / "whole", 12)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "killed", 12, stop_at=8)
    resumed = trained(tmp_path / "killed", 12)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert not list(tmp_path.rglob("*.tmp"))


def test_it_learns_and_says_how_far_it_is(tmp_path):
    records = []
    trained(tmp_path, 200, records=records)
    assert [record["step"] for record in records] == list(range(5, 201, 5))
    assert {record["part"] for record in records} == {"m"}
    assert records[-1]["loss"] < records[0]["loss"] / 2


def test_the_learning_rate_warms_up_and_falls_to_two_percent():
    rates = [one_cycle(step, 1000) for step in range(1000)]
    assert rates[:3] == pytest.approx([0.01, 0.02, 0.03])
    assert max(rates) == pytest.approx(1.0)
    assert rates[100:] == sorted(rates[100:], reverse=True)
    assert one_cycle(1000, 1000) == pytest.approx(0.02)


def test_the_average_follows_floats_and_copies_counters():
    module = model()
    average = Average(module, decay=0.5)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with torch.no_grad():
        module[0].weight.add_(1.0)
    module[1].num_batches_tracked.add_(3)
    average.update(module, step=100)
    assert torch.allclose(average.values["0.weight"], before["0.weight"] + 0.5)
    assert average.values["1.num_batches_tracked"] == 3
    young = Average(model(), decay=0.999)
    with torch.no_grad():
        module[0].weight.copy_(before["0.weight"] + 1.0)
    young.update(module, step=0)  # a decay of 0.1
    assert torch.allclose(young.values["0.weight"], before["0.weight"] + 0.9)


def test_records_are_logged_and_appended_as_json(tmp_path, caplog):
    caplog.set_level("INFO", logger="discl_ray")
    write = log_to(tmp_path / "log.jsonl")
    write({"step": 1})
    write({"step": 2})
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"step": 1}, {"step": 2}]
    assert [record.getMessage() for record in caplog.records] == lines
