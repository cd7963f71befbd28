"""An independent classifier of digits that tells whether generated images show the right digit.

It shares nothing with the generator or the scorer but the web's writers: it is trained on other
renderings, with another architecture and other seeds.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from discl_ray.embedded import WEIGHTS
from discl_ray.embedded.digits import WebImages
from discl_ray.embedded.training_loop import Log, channels_first, fit, random_rows

JUDGE = WEIGHTS / "judge.safetensors"

WIDTHS_AND_STRIDES = ((24, 1), (32, 2), (64, 2), (96, 2))
"""Output channels and stride of each convolution."""


def new_judge() -> nn.Sequential:
    """Four strided convolutions with batch normalisation; 32x32x3 in, ten logits out."""
    layers: list[nn.Module] = []
    channels = 3
    for out, stride in WIDTHS_AND_STRIDES:
        # without a bias: the normalisation's own would do the same
        convolution = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        layers.append(convolution)
        layers.append(nn.BatchNorm2d(out))
        layers.append(nn.ReLU())
        channels = out
    layers.append(nn.AdaptiveAvgPool2d(1))
    layers.append(nn.Flatten())
    layers.append(nn.Linear(channels, 10))
    return nn.Sequential(*layers)


def _standard(images: np.ndarray) -> Tensor:
    """uint8 (N, H, W, 3) -> float32 (N, 3, H, W), each image with zero mean and unit variance."""
    x = channels_first(images).float()
    mean = x.mean((1, 2, 3), keepdim=True)
    std = x.std((1, 2, 3), keepdim=True)
    return (x - mean) / (std + 1e-3)


def train_judge(
    web: WebImages, *, steps: int, seed: int, work: Path, log: Log, batch: int = 64
) -> nn.Sequential:
    """Trains a judge by cross-entropy on web images."""
    torch.manual_seed(seed)
    judge = new_judge()
    images = _standard(web.images)
    labels = torch.from_numpy(web.labels)

    def loss_of(generator: torch.Generator) -> Tensor:
        """Loss of a random batch."""
        index = random_rows(len(images), batch, generator)
        logits = judge(images[index])
        return F.cross_entropy(logits, labels[index])

    fit("judge", judge, loss_of, steps=steps, learning_rate=3e-3, seed=seed, work=work, log=log)
    return judge


def load_judge() -> nn.Sequential:
    """The committed judge, in eval mode."""
    judge = new_judge()
    weights = load_file(JUDGE)
    judge.load_state_dict(weights)
    return judge.eval()


@torch.no_grad()
def read(judge: nn.Sequential, images: np.ndarray) -> np.ndarray:
    """The digit the judge sees in each of `images` (uint8, shape (N, 32, 32, 3)); shape (N,)."""
    parts = max(1, len(images) // 256)
    labels: list[Tensor] = []
    for part in np.array_split(images, parts):
        pixels = _standard(part)
        logits = judge(pixels)
        labels.append(logits.argmax(1))
    return torch.cat(labels).numpy()
