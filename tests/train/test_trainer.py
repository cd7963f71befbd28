import pytest
import ray
from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2._internal import constants

from discl_ray.train.trainer import Unguarded, pin_ray_address


def test_only_a_guarded_run_has_ray_trains_guard() -> None:
    """Both by the names that this version of Ray gives them.

    Without them every run would end 12 s late again.
    """
    callbacks = {
        kind: [
            type(c).__name__
            for c in kind(
                print, scaling_config=ScalingConfig(num_workers=1)
            )._create_default_callbacks()
        ]
        for kind in (TorchTrainer, Unguarded)
    }
    guard = "PlacementGroupCleanerCallback"
    assert guard in callbacks[TorchTrainer]
    assert callbacks[Unguarded] == [name for name in callbacks[TorchTrainer] if name != guard]


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
