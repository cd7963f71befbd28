"""The places of `digits_wild`: what a camera that does not move sees, and a digit in front of it.

A place is a pure function of its number, an image of the place, a scan and a random generator.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from scipy import ndimage

from discl_ray.embedded.digits import (
    SIDE,
    Floats,
    Image,
    Rng,
    Vector,
    blend,
    blurred,
    finish,
    for_channels,
    ramp,
    stroke,
    varied,
)

PLACES = {"train": range(24), "val": range(24, 32), "test": range(32, 44)}
"""Numbers of the places: those that are trained at, and others that val and test add."""

Canvas = Floats
"""Shape (SIDE, SIDE)."""
T = TypeVar("T")


class _Surroundings(NamedTuple):
    """What the ground of a place can look like."""

    grounds: tuple[Vector, ...]
    """Colours."""
    grains: tuple[str, ...]
    """Structures, by name."""


_HOME = _Surroundings(
    grounds=(
        (0.34, 0.27, 0.17),  # soil
        (0.30, 0.38, 0.17),  # grass
        (0.66, 0.57, 0.41),  # sand
        (0.40, 0.33, 0.27),  # bark
    ),
    grains=("litter", "tufts", "ripples"),
)
"""Of the places that are trained at."""
_AWAY = _Surroundings(
    grounds=(
        (0.78, 0.80, 0.84),  # snow
        (0.54, 0.28, 0.19),  # clay
        (0.31, 0.34, 0.38),  # rock
        (0.50, 0.48, 0.22),  # reeds
    ),
    grains=("stones", "stems", "cracks"),
)
"""Of the other places."""

_GRAIN_SIZES = {
    "litter": (0.9, 0.9),
    "tufts": (2.6, 0.7),
    "ripples": (0.8, 3.5),
    "stones": (2.0, 2.0),
    "stems": (9.0, 0.9),
    "cracks": (1.8, 1.8),
}
"""Standard deviations of the noise's smoothing, down and across, in pixels."""

_COVERS = ("none", "leaves", "blades", "bars", "branch")
_LEAVES: tuple[Vector, ...] = (
    (0.16, 0.26, 0.10),  # green
    (0.30, 0.23, 0.12),  # brown
    (0.20, 0.18, 0.16),  # grey
)
"""Colours of what hides a place."""


class _Hour(NamedTuple):
    """A time of day."""

    tint: Vector
    """Factor by channel."""
    light: tuple[float, float]
    """Range of the brightness."""


_HOURS = (
    _Hour((1.05, 1.0, 0.90), (0.65, 1.0)),  # day
    _Hour((0.78, 0.90, 1.15), (0.42, 0.70)),  # dusk
    _Hour((0.80, 1.0, 0.86), (0.34, 0.58)),  # night
)
_DAY, _NIGHT = 0, 2

_PALE_COAT = (0.93, 0.88, 0.76)
"""Colour of a digit on dark ground."""
_DARK_COAT = (0.13, 0.10, 0.09)
"""Colour of a digit on bright ground."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """What a camera that does not move sees, and how well. All in [0, 1] unless said otherwise."""

    scene: Floats
    """The background by itself, shape (SIDE, SIDE, 3)."""
    coat: Vector
    """Colour of what is written there."""
    cover: Canvas
    """How much of each pixel is hidden by what is before the camera, shape (SIDE, SIDE)."""
    leaf: Vector
    """Colour of what hides."""
    light: Canvas
    """Factor of brightness, shape (SIDE, SIDE); may exceed 1 a little."""
    tint: Vector
    """Factor by channel."""
    night: bool
    """Without colour but for the tint, like infrared."""
    blur: float
    """Standard deviation in pixels."""
    noise: float
    """Standard deviation."""


@functools.cache
def place(number: int) -> Place:
    """A place by its number, which alone decides how it looks.

    The places that nothing is trained at have other grounds and are a little darker, more hidden,
    more blurred and noisier. Raises ValueError for a number that PLACES does not have.
    """
    if not any(number in numbers for numbers in PLACES.values()):
        last = PLACES["test"][-1]
        raise ValueError(f"place {number}: there is none; places are 0 to {last}")
    away = number not in PLACES["train"]
    # the order of the draws below is part of every image's identity
    rng = np.random.default_rng([number, 0x91ACE])
    surroundings = _AWAY if away else _HOME
    colour = _pick(surroundings.grounds, rng)
    ground = varied(colour, 0.03, rng)
    structure = _pick(surroundings.grains, rng)
    grain = _grain(structure, rng)
    shade = rng.uniform(0.5, 1.2, 3)
    contrast = rng.uniform(0.04, 0.11)
    scene = ground + for_channels(grain) * contrast * shade
    covers = _COVERS[1:] if away else _COVERS  # away something always hides the place
    kind = _pick(covers, rng)
    share = rng.uniform(0.05, 0.14) + 0.02 * away
    cover = _cover(kind, rng, share=share)
    hour = int(rng.integers(len(_HOURS)))
    tint, brightness = _HOURS[hour]
    level = rng.uniform(*brightness) - 0.025 * away
    uneven = _unevenness(hour, rng)
    leaf = _pick(_LEAVES, rng)
    light = 1 + uneven * rng.uniform(0.15, 0.50)
    return Place(
        scene=np.clip(scene, 0, 1),
        coat=_PALE_COAT if ground.mean() < 0.46 else _DARK_COAT,
        cover=cover,
        leaf=leaf,
        light=level * np.clip(light, 0.45, 1.3),
        tint=tint,
        night=hour == _NIGHT,
        blur=rng.uniform(0.4, 0.9) + 0.08 * away,
        noise=rng.uniform(0.02, 0.05) + 0.005 * away,
    )


def _unevenness(hour: int, rng: Rng) -> Canvas:
    """Deviation of the light: by day the sun from one side, else the camera's own lamp."""
    middle = rng.uniform(8, 24, 2)
    if hour == _DAY:
        return ramp(rng)
    pixels = np.indices((SIDE, SIDE))
    down, across = pixels - middle[:, None, None]
    spot = np.hypot(down, across) / SIDE
    return 0.5 - 1.3 * spot


def place_look(pixels: Floats | None, where: Place, rng: Rng) -> Image:
    """A scan's ink, shape (8, 8), at a place; None shows the place without a digit.

    A place hardly changes between images: the camera shakes by a pixel, and the light varies.
    """
    shake = rng.integers(-1, 2, size=2)
    scene = np.roll(where.scene, shake, (0, 1))
    cover = np.roll(where.cover, shake, (0, 1))
    mask = np.zeros((SIDE, SIDE))
    if pixels is not None:
        ink = stroke(pixels, rng)
        mask = ink * rng.uniform(0.8, 1.0)
    coat = varied(where.coat, 0.03, rng)
    written = blend(scene, coat, for_channels(mask))
    leaf = np.array(where.leaf)
    hidden = blend(written, leaf, for_channels(cover))
    blur = where.blur * rng.uniform(0.85, 1.15)
    seen = blurred(hidden, blur)
    if where.night:
        seen = seen.mean(2, keepdims=True)
    light = where.light * rng.uniform(0.9, 1.1)
    tint = np.array(where.tint)
    image = seen * for_channels(light) * tint
    noise = where.noise * rng.uniform(0.8, 1.2)
    return finish(image, rng, noise)


def _pick(choices: Sequence[T], rng: Rng) -> T:
    """One of the choices, at random."""
    number = rng.integers(len(choices))
    return choices[int(number)]


def _grain(kind: str, rng: Rng) -> Canvas:
    """Structure of a ground around 0, of about unit amplitude; none of the web's textures."""
    noise = rng.standard_normal((SIDE, SIDE))
    sizes = _GRAIN_SIZES[kind]
    field = ndimage.gaussian_filter(noise, sizes, mode="wrap")
    field /= field.std()
    if kind in ("stones", "stems"):
        return np.tanh(4 * field)
    if kind == "cracks":
        crack = np.exp(-8 * field**2)  # where the field is near 0
        return 1 - 2.5 * crack
    return field


def _cover(kind: str, rng: Rng, *, share: float) -> Canvas:
    """Opacity of what is before the camera: pieces are added until they hide about `share`."""
    cover = np.zeros((SIDE, SIDE))
    if kind == "none":
        return cover
    while cover.mean() < share:
        inside = 0.5 - _distance(kind, rng)
        piece = np.clip(inside, 0, 1)
        cover = np.maximum(cover, piece)
    return cover


def _distance(kind: str, rng: Rng) -> Canvas:
    """Distance of each pixel from the edge of a random piece, negative inside, in pixels."""
    pixels = np.indices((SIDE, SIDE))
    y, x = pixels + 0.5
    if kind == "bars":
        middle = rng.uniform(2, 30)
        return np.abs(x - middle) - 0.9
    if kind == "blades":  # grass that grows from below and leans
        foot = rng.uniform(0, 32)
        lean = rng.uniform(-0.5, 0.5)
        top = rng.uniform(4, 18)
        leaning = lean * (SIDE - y)
        aside = x - foot - leaning
        beside = np.abs(aside) - 0.8
        above = top - y
        return np.maximum(beside, above)
    angle = rng.uniform(0, np.pi)
    center = rng.uniform(3, 29, 2)
    down = y - center[0]
    right = x - center[1]
    cosine = np.cos(angle)
    sine = np.sin(angle)
    along = right * cosine + down * sine
    across = -right * sine + down * cosine
    if kind == "leaves":  # ellipses
        radius = np.hypot(along / 4.0, across / 1.7)
        return radius * 1.7 - 1.7
    return np.abs(across) - 0.9
