"""Measured speeds are kept for the next estimate."""

from types import SimpleNamespace

from discl_ray.cluster.demand import Demand, Part
from discl_ray.cluster.heartbeat import GeneratorSigns
from discl_ray.core.storage import Store
from discl_ray.synthesize.rates import RATES, note_rate, rate_key, read_rates
from tests.support.runs import tiny_config

TWO = Demand((Part(actors=2, num_gpus=0.0), Part(actors=1, num_gpus=0.0)))


def signs(steps: int, seconds: float) -> GeneratorSigns:
    return GeneratorSigns(phase="idle", steps=steps, seconds=seconds, micro_batch=8, peak_bytes=1)


def run_of(config, fingerprint="f" * 64):
    return SimpleNamespace(config=config, fingerprint=fingerprint)


def test_generators_add_up_and_others_are_kept(tmp_path):
    run = run_of(tiny_config(tmp_path))
    assert read_rates(run.config) == {}
    note_rate(run, TWO, [signs(100, 10.0), signs(50, 2.0), signs(7, 0.0)])
    note_rate(run_of(run.config, "e" * 64), TWO, [signs(10, 1.0)])
    assert read_rates(run.config)[rate_key(run, TWO)] == 35.0
    assert len(read_rates(run.config)) == 2


def test_nothing_measured_writes_nothing(tmp_path):
    run = run_of(tiny_config(tmp_path))
    note_rate(run, TWO, [])
    note_rate(run, TWO, [signs(5, 0.0)])
    assert not Store.at(tmp_path).exists(RATES)


def test_a_rate_is_of_weights_batch_and_number(tmp_path):
    run = run_of(tiny_config(tmp_path))
    other_batch = run_of(tiny_config(tmp_path, "generator.micro_batch=3"))
    one = Demand((Part(actors=1, num_gpus=0.0), Part(actors=1, num_gpus=0.0)))
    keys = {rate_key(run, TWO), rate_key(run, one), rate_key(other_batch, TWO)}
    assert len(keys | {rate_key(run_of(run.config, "e" * 64), TWO)}) == 4


def test_a_damaged_record_counts_as_empty(tmp_path):
    config = tiny_config(tmp_path)
    for damaged in (b"{", b"[1]", b'{"a": "fast"}'):
        Store.at(tmp_path).write(RATES, damaged)
        assert read_rates(config) == {}
