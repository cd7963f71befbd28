"""ResNet-10 for small images: torchvision's BasicBlock, one per stage, a 3x3 stem without pooling, any width."""

from __future__ import annotations

import torch
from torch import nn
from torchvision.models.resnet import BasicBlock


def resnet10(*, num_classes: int, width: int, seed: int) -> nn.Sequential:
    """ResNet `[1, 1, 1, 1]` whose stages have width, 2, 4 and 8 times width channels; initialised from `seed` alone.

    Takes (N, 3, H, W), returns logits (N, num_classes).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        channels = [width * 2**i for i in range(4)]
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        before = width
        for stage, after in enumerate(channels):
            stride = 1 if stage == 0 else 2
            change = before != after or stride != 1
            shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)) if change else None
            layers.append(BasicBlock(before, after, stride, shortcut))
            before = after
        model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, num_classes))
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model
