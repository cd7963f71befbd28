import subprocess
import sys

from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer

from discl_ray.train.trainer import _Unguarded


def test_only_a_guarded_run_has_ray_trains_guard() -> None:
    """Both by the names that this version of Ray gives them: without them every run would end 12 s late again."""
    callbacks = {
        kind: [type(c).__name__ for c in kind(print, scaling_config=ScalingConfig(num_workers=1))._create_default_callbacks()]
        for kind in (TorchTrainer, _Unguarded)
    }
    guard = "PlacementGroupCleanerCallback"
    assert guard in callbacks[TorchTrainer]
    assert callbacks[_Unguarded] == [name for name in callbacks[TorchTrainer] if name != guard]


def test_ray_trains_controller_need_not_import_pytorch_to_end_a_run() -> None:
    script = "import sys, discl_ray.train.failures; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
