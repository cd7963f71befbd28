"""Ray Train's workers on GPUs: each checks its device before the process group is formed.

Without CUDA the process group's error would only say that NCCL needs it. Ray Train's controller
imports this module.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ray.train.torch.config import TorchConfig, _TorchBackend

from discl_ray.models.device import training_device


class _Checked(_TorchBackend):
    """Sets up Ray Train's process group once all devices are checked."""

    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        """Called by Ray Train once the workers run.

        Raises a worker's ModelError if it cannot use its GPU.
        """
        if isinstance(backend_config, OnGpu):
            worker_group.execute(training_device, True, backend_config.precision)
        super().on_start(worker_group, backend_config)


@dataclass
class OnGpu(TorchConfig):
    """Configuration of workers that have reserved a GPU each."""

    precision: str = "fp32"

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        """The class that sets the workers up."""
        return _Checked
