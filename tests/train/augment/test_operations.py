import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torchvision.transforms.v2 import functional as V

from discl_ray.embedded import digits
from discl_ray.train.augment.operations import OPS

IMAGES = np.stack(
    [digits.web_look(s.pixels, np.random.default_rng(s.index))[0] for s in digits.scans()[:12]]
)
WITHOUT_MAGNITUDE = ("equalize", "autocontrast", "invert")


def as_batch(images: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()


@pytest.mark.parametrize("name", OPS)
def test_an_operation_changes_an_image_at_full_magnitude_and_hardly_at_none(name: str) -> None:
    x = as_batch(IMAGES)
    for direction in (0.2, 0.8):
        draw = np.stack([np.full(12, direction), np.linspace(0, 0.99, 12)], axis=1)
        full, none = (OPS[name](x.clone(), np.full(12, m), draw) for m in (1.0, 0.0))
        assert full.dtype == none.dtype == torch.uint8
        assert full.shape == none.shape == x.shape
        change = lambda y: (y.float() - x.float()).abs().mean((1, 2, 3))  # noqa: E731
        assert (
            change(full) > 0.5
        ).float().mean() > 0.8  # a black and white image has no saturation to lose
        if name in WITHOUT_MAGNITUDE:
            assert torch.equal(full, none)
        else:
            assert float(change(none).max()) < 0.5
            assert torch.equal(OPS[name](x.clone(), np.linspace(0, 1, 12), draw)[:1], none[:1])


@settings(max_examples=25)
@given(magnitude=st.floats(0, 1), up=st.booleans())
def test_operations_with_a_counterpart_in_torchvision_are_it(magnitude: float, up: bool) -> None:
    x, m, sign = as_batch(IMAGES), np.full(12, magnitude), 1 if up else -1
    draw = np.tile([0.8 if up else 0.2, 0.5], (12, 1))
    expected = {
        "brightness": V.adjust_brightness(x, 1 + sign * 0.8 * magnitude),
        "contrast": V.adjust_contrast(x, 1 + sign * 0.8 * magnitude),
        "saturation": V.adjust_saturation(x, 1 + sign * 0.9 * magnitude),
        "sharpness": V.adjust_sharpness(x, 1 + sign * 0.9 * magnitude),
        "posterize": V.posterize(x, 8 - round(5 * magnitude)),
        "hue": V.adjust_hue(x, 0.5 * sign * magnitude),
    }
    for name, image in expected.items():
        assert int((OPS[name](x, m, draw).int() - image.int()).abs().max()) <= 1, (
            name
        )  # theirs cut, ours are rounded
    if magnitude > 0.05:
        assert torch.equal(OPS["solarize"](x, m, draw), V.solarize(x, 256 - 192 * magnitude))
        sigma = 0.035 * 32 * magnitude
        reference = V.gaussian_blur(x, [7, 7], [sigma, sigma])
        inner = (
            slice(None),
            slice(None),
            slice(3, -3),
            slice(3, -3),
        )  # edges are repeated here, mirrored there
        assert int((OPS["blur"](x, m, draw)[inner].int() - reference[inner].int()).abs().max()) <= 1


def test_geometry_turns_and_moves_by_what_it_says() -> None:
    x, draw = as_batch(IMAGES), np.tile([0.8, 0.5], (12, 1))
    inner = (slice(None), slice(None), slice(8, -8), slice(8, -8))
    turned = V.rotate(x, -30, interpolation=V.InterpolationMode.BILINEAR)
    assert (
        float(
            (OPS["rotate"](x, np.ones(12), draw)[inner].float() - turned[inner].float())
            .abs()
            .mean()
        )
        < 2
    )
    moved = OPS["move_down"](x, np.full(12, 3 / (0.15 * 32)), draw)
    assert int((moved[:, :, :-3].int() - x[:, :, 3:].int()).abs().max()) <= 1
