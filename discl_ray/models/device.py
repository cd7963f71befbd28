"""The device of a worker process: the GPU it has reserved, or the CPU; never silently the CPU."""

from __future__ import annotations

from typing import Literal

import torch

from discl_ray.errors import ModelError

Device = Literal["cuda", "cpu"]

CPU_ONLY = "generator.num_gpus=0 scorer.num_gpus=0"
"""The settings that make a spectrum without a GPU."""


def device_of(gpu: bool, keys: str) -> Device:
    """`cuda` for a process that has reserved a GPU, else `cpu`; `keys` are settings for the CPU.

    Raises ModelError if CUDA is not available in a process that has reserved a GPU.
    """
    if gpu and not torch.cuda.is_available():
        cuda = torch.version.cuda
        build = f"PyTorch for CUDA {cuda}" if cuda else "a build of PyTorch without CUDA"
        raise ModelError(
            f"a GPU is reserved, and CUDA is not available in the worker ({build}; driver, "
            f"container or CUDA_VISIBLE_DEVICES): mend that, or run on the CPU with {keys}"
        )
    return "cuda" if gpu else "cpu"


def training_device(gpu: bool, precision: str) -> Device:
    """The device of a process that trains or evaluates.

    Raises ModelError if it is not what was reserved, or does not support the precision.
    """
    device = device_of(gpu, "train.use_gpu=false")
    if device == "cuda" and precision == "bf16":
        check_bf16("train.precision=fp32")
    return device


def check_bf16(keys: str) -> None:
    """Raises ModelError if this process's GPU lacks bfloat16; `keys` are settings without it.

    Emulated bfloat16 does not count: it is slower than float16 and rounds differently.
    """
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        name = torch.cuda.get_device_name()
        raise ModelError(f"{name} does not support bfloat16: set {keys}")
