"""An independent reader of digits, trained on web images the generator has not seen, to tell whether samples are right.

It shares nothing with the generator or the scorer but the web's writers: other renderings, another architecture, other seeds.
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
from discl_ray.embedded.training_loop import Log, fit

JUDGE = WEIGHTS / "judge.safetensors"


def new_judge() -> nn.Sequential:
    """Four strided convolutions with batch normalisation; 32x32x3 in, ten logits out."""
    layers: list[nn.Module] = []
    for c_in, c_out, stride in ((3, 24, 1), (24, 32, 2), (32, 64, 2), (64, 96, 2)):
        layers += [
            nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(c_out),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, 10))


def _standard(images: np.ndarray) -> Tensor:
    """uint8 (N, H, W, 3) -> float32 (N, 3, H, W), each image with zero mean and unit variance."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    return (x - x.mean((1, 2, 3), keepdim=True)) / (x.std((1, 2, 3), keepdim=True) + 1e-3)


def train_judge(
    web: WebImages, *, steps: int, seed: int, work: Path, log: Log, batch: int = 64
) -> nn.Sequential:
    """Cross-entropy on web images of their own."""
    torch.manual_seed(seed)
    judge, images, labels = new_judge(), _standard(web.images), torch.from_numpy(web.labels)

    def loss_of(generator: torch.Generator) -> Tensor:
        index = torch.randint(len(images), (batch,), generator=generator)
        return F.cross_entropy(judge(images[index]), labels[index])

    fit("judge", judge, loss_of, steps=steps, learning_rate=3e-3, seed=seed, work=work, log=log)
    return judge


def load_judge() -> nn.Sequential:
    """The committed judge, in eval mode."""
    judge = new_judge()
    judge.load_state_dict(load_file(JUDGE))
    return judge.eval()


@torch.no_grad()
def read(judge: nn.Sequential, images: np.ndarray) -> np.ndarray:
    """The digit the judge sees in each of `images` (uint8 (N, 32, 32, 3)); shape (N,)."""
    return torch.cat(
        [
            judge(_standard(part)).argmax(1)
            for part in np.array_split(images, max(1, len(images) // 256))
        ]
    ).numpy()
