import pytest
import torch

from discl_ray.errors import ModelError
from discl_ray.models.device import CPU_ONLY, check_bf16, device_of, training_device


@pytest.fixture
def gpu(monkeypatch):
    """Sets which GPU torch reports: none, one without bfloat16, or one with it."""

    def set_gpu(*, available, bf16=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla V100")
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: bf16)

    return set_gpu


@pytest.mark.parametrize("available", [True, False])
def test_a_process_without_a_reserved_gpu_uses_the_cpu(gpu, available):
    gpu(available=available)
    assert device_of(False, CPU_ONLY) == "cpu"
    assert training_device(False, "bf16") == "cpu"


def test_a_reserved_gpu_is_used(gpu):
    gpu(available=True, bf16=True)
    assert device_of(True, CPU_ONLY) == "cuda"
    assert training_device(True, "bf16") == "cuda"


def test_a_reserved_gpu_that_is_not_available_is_an_error_with_the_settings_for_the_cpu(gpu):
    gpu(available=False)
    with pytest.raises(ModelError, match=r"CUDA is not available .* generator.num_gpus=0"):
        device_of(True, CPU_ONLY)
    with pytest.raises(ModelError, match=r"train.use_gpu=false"):
        training_device(True, "fp32")


def test_a_gpu_without_bfloat16_is_refused_only_where_bfloat16_is_asked_for(gpu):
    gpu(available=True, bf16=False)
    assert training_device(True, "fp32") == "cuda"
    with pytest.raises(ModelError, match=r"Tesla V100 .* set train.precision=fp32"):
        training_device(True, "bf16")
    with pytest.raises(ModelError, match=r"set generator.dtype=float16"):
        check_bf16("generator.dtype=float16")
