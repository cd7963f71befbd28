from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torchvision.transforms.v2 import functional as V

from discl_ray.embedded import digits
from discl_ray.train.augment.augment import (
    APPLY,
    CROP,
    FLIP,
    KINDS,
    PARAMETERS,
    AugmentConfig,
    augment,
    crop_positions,
    draw_parameters,
    to_tensor,
)
from discl_ray.train.augment.operations import COLOUR_OPS, sample

IMAGES = np.stack(
    [digits.web_look(s.pixels, np.random.default_rng(s.index))[0] for s in digits.scans()[:12]]
)
CENTRE = np.full((12, PARAMETERS), 0.5)
"""No shift, no change of gain or offset."""
STRENGTHS = np.arange(12) % 11

configs = st.builds(
    AugmentConfig,
    kind=st.sampled_from(["standard", "strong", "cuda"]),
    shift=st.integers(0, 4),
    jitter=st.floats(0, 0.5),
    flip=st.booleans(),
    crop=st.sampled_from([1.0, 0.6, 0.2]),
    strong_ops=st.integers(0, 10),
    cuda_max=st.integers(1, 10),
)


def as_batch(images: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()


def before(
    x: torch.Tensor, parameters: NDArray[np.float64], shift: int, jitter: float
) -> torch.Tensor:
    """What augmentation was when it was shift and jitter alone."""
    height, width = x.shape[2:]
    padded = F.pad(x, (shift,) * 4, mode="replicate")
    offset = (parameters[:, :2] * (2 * shift + 1)).astype(np.int64)
    moved = torch.stack(
        [padded[i, :, a : a + height, b : b + width] for i, (a, b) in enumerate(offset)]
    )
    gain, bias = (
        torch.from_numpy((2 * parameters[:, i] - 1) * jitter).float().view(-1, 1, 1, 1)
        for i in (2, 3)
    )
    return moved * (1 + gain) + bias


@settings(max_examples=30)
@given(
    config=configs,
    seed=st.integers(0, 2**31),
    epoch=st.integers(0, 1000),
    order=st.permutations(range(12)),
)
def test_an_image_comes_out_the_same_alone_and_in_any_batch(
    config: AugmentConfig, seed: int, epoch: int, order: list[int]
) -> None:
    parameters, original = draw_parameters(12, seed=seed, epoch=epoch), IMAGES.copy()
    whole = augment(IMAGES, parameters, STRENGTHS, config)
    assert whole.dtype == torch.float32
    assert whole.shape == (12, 3, 32, 32)
    assert bool(whole.isfinite().all())
    assert np.array_equal(IMAGES, original)
    for part in ([order[0]], order[:5], order):
        assert torch.equal(
            augment(IMAGES[part], parameters[part], STRENGTHS[part], config), whole[part]
        )


@settings(max_examples=20)
@given(
    seed=st.integers(0, 2**31),
    epoch=st.integers(0, 1000),
    count=st.integers(0, 40),
    stream=st.integers(0, 3),
)
def test_parameters_belong_to_a_place_whatever_the_length_of_the_epoch(
    seed: int, epoch: int, count: int, stream: int
) -> None:
    longest = draw_parameters(40, seed=seed, epoch=epoch, stream=stream)
    assert np.array_equal(
        draw_parameters(count, seed=seed, epoch=epoch, stream=stream), longest[:count]
    )
    assert longest.shape == (40, PARAMETERS)
    assert (longest >= 0).all()
    assert (longest < 1).all()
    assert len(np.unique(longest)) == longest.size
    for other in (
        draw_parameters(40, seed=seed + 1, epoch=epoch, stream=stream),
        draw_parameters(40, seed=seed, epoch=epoch + 1, stream=stream),
        draw_parameters(40, seed=seed, epoch=epoch, stream=stream + 1),
    ):
        assert not np.intersect1d(longest, other).size


@settings(max_examples=20)
@given(
    seed=st.integers(0, 2**31),
    epoch=st.integers(0, 1000),
    shift=st.integers(0, 4),
    jitter=st.floats(0, 0.5),
)
def test_without_crop_flip_and_operations_only_shift_and_jitter_are_left(
    seed: int, epoch: int, shift: int, jitter: float
) -> None:
    parameters = draw_parameters(12, seed=seed, epoch=epoch)
    assert np.array_equal(
        parameters[:, :4], np.random.default_rng([seed, epoch, 0xA6]).random((12, 4))
    )  # as before, too
    expected = before(to_tensor(IMAGES), parameters, shift, jitter)
    options: list[dict[str, Any]] = [{}, {"kind": "strong", "strong_ops": 0}]
    for kwargs in options:
        config = AugmentConfig(shift=shift, jitter=jitter, **kwargs)
        assert torch.equal(augment(IMAGES, parameters, STRENGTHS, config), expected)
    none = augment(
        IMAGES,
        parameters,
        np.zeros(12, dtype=int),
        AugmentConfig(kind="cuda", shift=shift, jitter=jitter),
    )
    assert torch.equal(none, expected)


def test_a_shift_moves_pixels_exactly() -> None:
    config, x = AugmentConfig(shift=2, jitter=0.0), to_tensor(IMAGES)
    assert torch.equal(augment(IMAGES, CENTRE, STRENGTHS, config), x)
    up = CENTRE.copy()
    up[:, 0] = 0.999
    moved = augment(IMAGES, up, STRENGTHS, config)
    assert torch.equal(moved[:, :, :-2], x[:, :, 2:])
    assert torch.equal(moved[:, :, -2:], x[:, :, -1:].expand(-1, -1, 2, -1))


def test_a_flip_mirrors_left_to_right_and_half_the_images() -> None:
    config, parameters = AugmentConfig(shift=0, jitter=0.0, flip=True), CENTRE.copy()
    parameters[::2, FLIP] = 0.4
    flipped = augment(IMAGES, parameters, STRENGTHS, config)
    mirrored = to_tensor(IMAGES[:, :, ::-1])
    assert torch.equal(flipped[::2], mirrored[::2])
    assert torch.equal(flipped[1::2], to_tensor(IMAGES)[1::2])
    share = (draw_parameters(4000, seed=0, epoch=0)[:, FLIP] < 0.5).mean()
    assert share == pytest.approx(0.5, abs=0.03)


@settings(max_examples=50)
@given(
    uniform=st.lists(st.floats(0, 1, exclude_max=True), min_size=4, max_size=4),
    least=st.floats(0.1, 1),
    size=st.tuples(st.integers(12, 40), st.integers(12, 40)),
)
def test_a_crop_is_torchvisions_resized_crop_of_a_box_of_the_asked_area(
    uniform: list[float], least: float, size: tuple[int, int]
) -> None:
    height, width = size
    x = V.resize(as_batch(IMAGES[:1]), list(size))
    down, across = crop_positions(np.array([uniform]), least, height, width)
    down, across = np.broadcast_arrays(down[:, :, None], across[:, None, :])
    got = sample(x, down, across)
    # every pixel's own position, through the same crop, says which box was taken
    top, left, h, w = box_of(np.array([uniform]), least, height, width)
    assert 0 <= top <= top + h <= height
    assert 0 <= left <= left + w <= width
    area = least + (1 - least) * uniform[0]
    assert h * w == pytest.approx(area * height * width, abs=0.5 * (h + w) + 0.25)
    expected = V.resized_crop(x, top, left, h, w, list(size), antialias=False)
    assert int((got.int() - expected.int()).abs().max()) <= 1


def box_of(
    uniform: NDArray[np.float64], least: float, height: int, width: int
) -> tuple[int, int, int, int]:
    """The crop's box: where its outermost samples lie."""
    positions = crop_positions(uniform, least, height, width)
    ends = []
    for places, side in zip(positions, (height, width), strict=True):
        step = np.diff(places[0]).max()  # size / side: samples lie that far apart
        size = round(float(step * side))
        ends.append((round(float(places[0, 0] - max(0.5 * step - 0.5, 0))), size))
    return ends[0][0], ends[1][0], ends[0][1], ends[1][1]


def test_crops_show_the_whole_range_of_areas() -> None:
    parameters = draw_parameters(500, seed=1, epoch=1)[:, CROP]
    areas = [h * w / 32**2 for _, _, h, w in (box_of(p[None], 0.3, 32, 32) for p in parameters)]
    assert np.percentile(areas, [2, 50, 98]) == pytest.approx([0.314, 0.65, 0.986], abs=0.05)


def test_strong_moves_nothing_and_cuda_leaves_half_the_images() -> None:
    assert not set(COLOUR_OPS) & {
        "rotate",
        "shear_down",
        "shear_across",
        "move_down",
        "move_across",
        "zoom",
    }
    flat = np.zeros((12, 32, 32, 3), dtype=np.uint8)
    flat[:, 16:] = [200, 120, 40]
    for epoch in range(
        20
    ):  # operations on colour keep equal columns equal; blur and light by direction, noise aside
        parameters = draw_parameters(12, seed=0, epoch=epoch)
        y = KINDS["strong"](as_batch(flat), parameters, STRENGTHS, AugmentConfig(kind="strong"))
        names = (parameters[:, [10, 14]] * len(COLOUR_OPS)).astype(int)
        clean = ~np.isin(
            names, [COLOUR_OPS.index(n) for n in ("noise", "shade", "blur", "sharpness")]
        ).any(1)
        assert (y[clean] == y[clean][..., :1]).all()
    config, strength = AugmentConfig(kind="cuda"), np.full(2000, 5)
    parameters = draw_parameters(2000, seed=3, epoch=0)
    x = as_batch(np.tile(IMAGES[:1], (2000, 1, 1, 1)))
    same = (KINDS["cuda"](x, parameters, strength, config) == x).flatten(1).all(1).numpy()
    assert same[parameters[:, APPLY] >= 0.5].all()
    assert same[parameters[:, APPLY] < 0.5].mean() < 0.01
    assert (parameters[:, APPLY] < 0.5).mean() == pytest.approx(0.5, abs=0.04)
