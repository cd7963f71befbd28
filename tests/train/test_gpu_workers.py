from collections.abc import Callable
from typing import Any

import pytest
import torch

from discl_ray.errors import ModelError
from discl_ray.train.gpu_workers import OnGpu


class InProcess:
    """A group of one worker: this process."""

    def execute(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        return [function(*arguments)]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine without CUDA is needed")
def test_workers_that_cannot_use_their_gpu_say_so_before_they_meet() -> None:
    config = OnGpu(precision="bf16")
    with pytest.raises(ModelError, match=r"a GPU is reserved.*train\.use_gpu=false"):
        config.backend_cls().on_start(InProcess(), config)
