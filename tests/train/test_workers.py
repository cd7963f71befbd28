import pytest

from discl_ray.config import Config, with_values
from discl_ray.errors import SetupError
from discl_ray.train.workers import check_training, each_alone, training

CPU = with_values(Config(), {"train.use_gpu": False, "run.num_cpus": 3})


@pytest.mark.model
def test_on_the_cpu_auto_is_one_worker() -> None:
    found = training(CPU.train, CPU.run)
    assert (found.number, found.gpu) == (1, False)
    assert check_training(CPU) == str(found)


@pytest.mark.model
def test_more_workers_than_cpus_do_not_fit() -> None:
    with pytest.raises(SetupError):
        training(with_values(CPU, {"train.workers": 8}).train, CPU.run)


@pytest.mark.model
def test_a_run_among_many_has_its_workers_and_devices_decided() -> None:
    alone = each_alone(with_values(CPU, {"train.use_gpu": "auto", "train.workers": "auto"}))
    assert alone.train.workers == 1
    assert alone.train.use_gpu in (True, False)
    assert each_alone(CPU, 2).train.workers == 2
