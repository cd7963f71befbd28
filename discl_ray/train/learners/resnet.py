"""ResNets of torchvision's BasicBlock, of any width.

`[1, 1, 1, 1]` blocks are ResNet-10, `[3, 4, 6, 3]` ResNet-34.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torchvision.models.resnet import BasicBlock

BLOCKS = {"resnet10": (1, 1, 1, 1), "resnet34": (3, 4, 6, 3)}

GROUPS = 8
"""Groups of a group normalisation, or fewer if they do not divide the channels."""


def _group_norm(channels: int) -> nn.GroupNorm:
    """Group normalisation with the most groups up to GROUPS that divide the channels."""
    groups = min(GROUPS, channels)
    while channels % groups:
        groups -= 1
    return nn.GroupNorm(groups, channels)


Norm = Callable[[int], nn.Module]
"""Makes the normalisation of some channels."""

NORMS: dict[str, Norm] = {"batch": nn.BatchNorm2d, "group": _group_norm}


def resnet(
    name: str, *, num_classes: int, width: int, seed: int, norm: str = "batch", stem: str = "small"
) -> nn.Sequential:
    """A ResNet whose stages have width, 2, 4 and 8 times width channels; initialised from `seed`.

    Takes (N, 3, H, W), returns logits (N, num_classes). The small stem is one 3x3 convolution; the
    other is torchvision's.
    """
    make_norm = NORMS[norm]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = _stem(stem, width, make_norm)
        before = width
        for stage, blocks in enumerate(BLOCKS[name]):
            after = width * 2**stage
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                layers.append(_block(before, after, stride, make_norm))
                before = after
        pool = nn.AdaptiveAvgPool2d(1)
        head = nn.Linear(before, num_classes)
        layers += [pool, nn.Flatten(), head]
        model = nn.Sequential(*layers)
        _initialise(model)
    return model


def _initialise(model: nn.Module) -> None:
    """Draws the weights of all convolutions anew (He et al. 2015), as torchvision's ResNet does."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _stem(stem: str, width: int, make_norm: Norm) -> list[nn.Module]:
    """What comes before the blocks, from 3 channels to `width`."""
    norm = make_norm(width)
    relu = nn.ReLU(inplace=True)
    if stem == "small":
        first = nn.Conv2d(3, width, 3, padding=1, bias=False)
        return [first, norm, relu]
    first = nn.Conv2d(3, width, 7, 2, padding=3, bias=False)
    pool = nn.MaxPool2d(3, 2, padding=1)
    return [first, norm, relu, pool]


def _block(before: int, after: int, stride: int, make_norm: Norm) -> BasicBlock:
    """A block, with a 1x1 convolution as shortcut where the shape changes."""
    shortcut = None
    if before != after or stride != 1:
        convolution = nn.Conv2d(before, after, 1, stride, bias=False)
        norm = make_norm(after)
        shortcut = nn.Sequential(convolution, norm)
    return BasicBlock(before, after, stride, shortcut, norm_layer=make_norm)
