import pytest
import ray
from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2._internal import constants

from discl_ray.train.trainer import Unguarded, WithoutData, pin_ray_address

GUARD = "PlacementGroupCleanerCallback"
DATA = "DatasetsCallback"
"""The names that this version of Ray gives them."""


def names_of(kind: type[TorchTrainer]) -> list[str]:
    """Of the callbacks that a trainer adds itself."""
    trainer = kind(print, scaling_config=ScalingConfig(num_workers=1))
    return [type(callback).__name__ for callback in trainer._create_default_callbacks()]


def test_only_a_guarded_run_has_ray_trains_guard_and_none_has_ray_data() -> None:
    """Without it every run would end 12 s late again; with Ray Data it would begin later."""
    ray_trains = names_of(TorchTrainer)
    assert {GUARD, DATA} <= set(ray_trains)
    assert names_of(WithoutData) == [name for name in ray_trains if name != DATA]
    assert names_of(Unguarded) == [name for name in ray_trains if name not in (DATA, GUARD)]


def test_the_guard_asks_this_ray_and_no_other(
    ray_local: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "")
    monkeypatch.setattr(constants, "ENV_VARS_TO_PROPAGATE", set(constants.ENV_VARS_TO_PROPAGATE))
    pin_ray_address()
    assert (
        constants.get_env_vars_to_propagate()["RAY_ADDRESS"]
        == ray.get_runtime_context().gcs_address
    )
