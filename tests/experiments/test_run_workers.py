"""By how many workers a run is trained when it is begun, and when it goes on somewhere else."""

import json
from dataclasses import replace

import pytest

from discl_ray.cluster.demand import Cluster, Node, Workers
from discl_ray.config import with_values
from discl_ray.core.run_directory import MANIFEST
from discl_ray.core.storage import Store
from discl_ray.errors import SetupError
from discl_ray.experiments.rows import PlannedRun
from discl_ray.experiments.run_workers import WORKERS, describe_workers, with_workers
from discl_ray.train import workers as workers_module
from tests.support.runs import tiny_config
from tests.train.tiny import make_job

CPU, CPUS = Workers(1, gpu=False), Workers(2, gpu=False)


@pytest.fixture
def start(tmp_path, monkeypatch, capsys):
    """(workers, all starts, what was said) of a start of one run on a cluster of so many GPUs."""
    store = Store.at(tmp_path / "train")
    plain = PlannedRun(
        job=make_job(), store=store, config=tiny_config(tmp_path), config_hash="", epochs=1
    )

    def start(gpus=0, **train):
        monkeypatch.setattr(
            workers_module, "present", lambda run: Cluster((Node(cpus=4, gpus=gpus),))
        )
        config = with_values(plain.config, {f"train.{key}": value for key, value in train.items()})
        found = with_workers(replace(plain, config=config), "CE")
        assert found.job.train == found.config.train
        assert (found.config.train.workers, found.config.train.use_gpu) == found.workers[-1]
        return found.workers[-1], found.workers, capsys.readouterr().out

    start.store = store
    return start


def test_the_first_start_is_recorded_and_the_next_ones_keep_to_it_in_silence(start):
    assert start(workers=2) == (CPUS, (CPUS,), "")
    assert start() == (CPUS, (CPUS,), "")  # one would be taken on the CPU
    assert json.loads(start.store.read(WORKERS)) == {"starts": [{"number": 2, "gpu": False}]}


def test_a_run_begun_by_one_worker_stays_with_one_where_two_gpus_are_and_says_what_is_other(start):
    start(workers=1)
    now, starts, said = start(gpus=2)
    assert (now, starts) == (Workers(1, gpu=True), (CPU, Workers(1, gpu=True)))
    assert (
        said
        == "  CE: goes on with 1 worker on 1 GPU; so far it was trained by 1 worker on the CPU.\n"
    )


def test_another_number_asked_for_by_name_is_taken_and_said_with_what_it_changes(start):
    start(workers=1)
    now, _, said = start(workers=2)
    assert now == CPUS
    assert said.startswith(
        "  CE: goes on with 2 workers on the CPU; so far it was trained by 1 worker on the CPU. "
        "Batch norm"
    )
    assert "the 16 images of a worker" in said
    _, starts, said = start(workers=1, norm="group")
    assert starts == (CPU, CPUS, CPU)
    assert said.endswith(
        "so far it was trained by 1 worker on the CPU, then 2 workers on the CPU.\n"
    )


def test_a_number_that_has_no_room_any_more_is_another_one_or_refused(start):
    start(gpus=4)
    assert start(gpus=2)[1] == (Workers(4, gpu=True), Workers(2, gpu=True))
    with pytest.raises(SetupError, match=r"train\.workers = 8: there are 2 GPUs"):
        start(gpus=2, workers=8)


def test_a_finished_run_has_the_workers_it_had_wherever_it_is_looked_at(start):
    start(gpus=4)
    start.store.write(MANIFEST, b"{}")
    assert start() == (Workers(4, gpu=True), (Workers(4, gpu=True),), "")


def test_a_run_of_before_that_was_recorded_goes_on_by_its_configuration(start):
    start.store.write("config.yaml", b"train: {workers: 2, use_gpu: false}\n")
    assert start() == (CPUS, (CPUS,), "")


def test_a_table_says_by_how_many_its_rows_were_trained_and_where_it_matters(start, tmp_path):
    base = PlannedRun(
        job=make_job(), store=start.store, config=tiny_config(tmp_path), config_hash="", epochs=1
    )
    assert describe_workers([replace(base, workers=(CPU,))] * 2) == "1 worker on the CPU."
    said = describe_workers([replace(base, workers=(CPU,)), replace(base, workers=(CPU, CPUS))])
    assert said.startswith(
        "1 worker on the CPU; 1 worker on the CPU, then 2 workers on the CPU. Batch normalisation "
        "averages over"
    )
