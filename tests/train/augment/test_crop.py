"""Crops resized together are torchvision's, one after the other."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from discl_ray.train.augment.crop import RESIZES, Boxes, draw_boxes, resized_crops


def torchvisions(x: torch.Tensor, boxes: Boxes, size: tuple[int, int], mode: str) -> torch.Tensor:
    how = InterpolationMode(mode)
    each = zip(x, *(side.tolist() for side in boxes), strict=True)
    return torch.stack(
        [
            F.resized_crop(image, *box, size=list(size), interpolation=how, antialias=True)
            for image, *box in each
        ]
    )


@pytest.mark.parametrize("mode", RESIZES)
@pytest.mark.parametrize("size", [(32, 32), (64, 48), (10, 12), (37, 50)])
def test_crops_of_a_batch_are_torchvisions_of_the_same_boxes(
    mode: str, size: tuple[int, int]
) -> None:
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.integers(0, 256, (12, 3, 37, 50), dtype=np.uint8))
    boxes = draw_boxes(rng.random((12, 4)), 0.3, 37, 50)
    off = (
        resized_crops(x, boxes, size, mode).int() - torchvisions(x, boxes, size, mode).int()
    ).abs()
    assert off.max() <= 2  # torchvision's weights have 16 bits, and each direction is rounded
    assert off.float().mean() < 0.1


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**31),
    least=st.floats(0.05, 1),
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    n=st.integers(1, 9),
)
def test_a_box_lies_in_its_image_and_has_the_area_and_the_aspect_that_were_asked_for(
    seed, least, height, width, n
) -> None:
    boxes = draw_boxes(np.random.default_rng(seed).random((n, 4)), least, height, width)
    assert (boxes.top >= 0).all()
    assert (boxes.left >= 0).all()
    assert (boxes.top + boxes.height <= height).all()
    assert (boxes.left + boxes.width <= width).all()
    if min(height, width) > 60 and 0.75 <= width / height <= 4 / 3:
        assert (boxes.height * boxes.width >= (least - 0.04) * height * width).all()
        aspect = boxes.width / boxes.height
        assert (aspect > 0.75 * 0.9).all()
        assert (aspect < 4 / 3 * 1.1).all()


def test_an_image_is_cropped_the_same_alone_and_in_a_batch() -> None:
    rng = np.random.default_rng(1)
    x = torch.from_numpy(rng.integers(0, 256, (5, 3, 32, 32), dtype=np.uint8))
    uniform = rng.random((5, 4))
    whole = resized_crops(x, draw_boxes(uniform, 0.9, 32, 32), (32, 32), "bicubic")
    for i in range(5):
        alone = resized_crops(
            x[i : i + 1], draw_boxes(uniform[i : i + 1], 0.9, 32, 32), (32, 32), "bicubic"
        )
        assert torch.equal(alone[0], whole[i])
