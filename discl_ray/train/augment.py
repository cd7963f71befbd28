"""Augmentation on the batch, drawn per image from (seed, epoch, place in the epoch): the same for any number of workers."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor


def to_tensor(images: NDArray[np.uint8]) -> Tensor:
    """uint8 (N, H, W, 3) -> float32 (N, 3, H, W), each image with zero mean and unit variance over its pixels."""
    x = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255
    return (x - x.mean((1, 2, 3), keepdim=True)) / (x.std((1, 2, 3), keepdim=True) + 1e-2)


def draw_parameters(count: int, *, seed: int, epoch: int) -> NDArray[np.float64]:
    """Four uniform numbers in [0, 1) for every place of an epoch: vertical and horizontal shift, gain, offset."""
    return np.random.default_rng([seed, epoch, 0xA6]).random((count, 4))


def augment(x: Tensor, parameters: NDArray[np.float64], *, shift: int, jitter: float) -> Tensor:
    """Shifts each image by up to `shift` pixels (edges repeated) and changes its gain and offset by up to `jitter`."""
    n, _, height, width = x.shape
    padded = F.pad(x, (shift,) * 4, mode="replicate")
    offset = (parameters[:, :2] * (2 * shift + 1)).astype(np.int64)
    rows = torch.from_numpy(offset[:, :1] + np.arange(height)).view(n, 1, height, 1)
    columns = torch.from_numpy(offset[:, 1:2] + np.arange(width)).view(n, 1, 1, width)
    channel, image = torch.arange(x.shape[1]).view(1, -1, 1, 1), torch.arange(n).view(-1, 1, 1, 1)
    moved = padded[image, channel, rows, columns]
    gain, bias = (torch.from_numpy((2 * parameters[:, i] - 1) * jitter).float().view(-1, 1, 1, 1) for i in (2, 3))
    return moved * (1 + gain) + bias
