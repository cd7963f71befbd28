"""The device of a worker process: a GPU that was reserved is used, or the job ends with a sentence; never the CPU in silence."""

from __future__ import annotations

from typing import Literal

import torch

from discl_ray.errors import ModelError

Device = Literal["cuda", "cpu"]

CPU_ONLY = "generator.num_gpus=0 scorer.num_gpus=0"
"""What makes a spectrum without a GPU."""


def device_of(gpu: bool, keys: str) -> Device:
    """`cuda` for a process that has reserved a GPU, else `cpu`; `keys` are those that make do without.

    Raises ModelError if there is no CUDA in a process that has reserved a GPU.
    """
    if gpu and not torch.cuda.is_available():
        build = (
            "a build of PyTorch without CUDA"
            if torch.version.cuda is None
            else f"PyTorch for CUDA {torch.version.cuda}"
        )
        raise ModelError(
            f"a GPU is reserved, and no CUDA is to be had in the worker ({build}; driver, container or CUDA_VISIBLE_DEVICES): "
            f"mend that, or run on the CPU with {keys}"
        )
    return "cuda" if gpu else "cpu"


def training_device(gpu: bool, precision: str) -> Device:
    """The device of a process that trains or evaluates; raises ModelError if it is not what was reserved, or cannot compute as asked."""
    device = device_of(gpu, "train.use_gpu=false")
    if device == "cuda" and precision == "bf16":
        check_bf16("train.precision=fp32")
    return device


def check_bf16(keys: str) -> None:
    """Raises ModelError if this process's card does not compute in bfloat16; `keys` are those that make do without."""
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ModelError(f"{torch.cuda.get_device_name()} computes in no bfloat16: set {keys}")
