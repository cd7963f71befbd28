# pyright: reportAttributeAccessIssue=false, reportReturnType=false
# (scikit-learn's and scipy's annotations name every type they might return)
"""The real images inside the package: scikit-learn's handwritten digits, split by who wrote them.

Everything the embedded default knows starts here. The 1,797 scans (8x8, 16 grey levels) lie in 14 contiguous blocks, one
block a group of writers; a writer never has two roles. Seven blocks are *the web*: the generator, the scorer and the judge
learn from them, under many random looks, each with a caption. One block is *dev* and six are *the task*, always in one narrow
look that the web does not hold: brown strokes on ochre paper, low contrast, uneven light. So a generator trained on the web
knows what a seven is, but not what the task's sevens look like. Two other looks of the task are the same experiment with a
smaller gap: `sepia` something over half of it, `web` none.

Rendering is a pure function of (scan, look, random generator); this module imports neither torch nor Ray.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
"""Class names by label; the words of the captions and of the prompts."""

SIDE = 32
"""Height and width of every rendered image, in pixels."""

BLOCK_STARTS = (0, 130, 256, 386, 516, 646, 776, 915, 1029, 1157, 1287, 1415, 1545, 1667)
"""First scan of each block of writers; the last block ends with the data set."""

WEB_BLOCKS = tuple(range(7))
DEV_BLOCK = 7
TASK_BLOCKS = tuple(range(8, 14))

WEB_PROFILE = (1.0, 0.9, 0.5, 0.7, 0.35, 0.6, 0.45, 1.0, 0.4, 0.3)
"""How often the web shows each digit, relative to the commonest: uneven, as the web is."""

PALETTE: dict[str, tuple[float, float, float]] = {
    "red": (0.86, 0.15, 0.16),
    "orange": (0.97, 0.55, 0.10),
    "yellow": (0.97, 0.90, 0.20),
    "green": (0.15, 0.65, 0.25),
    "cyan": (0.20, 0.80, 0.85),
    "blue": (0.15, 0.30, 0.85),
    "purple": (0.55, 0.20, 0.75),
    "pink": (0.97, 0.55, 0.75),
    "black": (0.06, 0.06, 0.07),
    "white": (0.95, 0.95, 0.95),
    "grey": (0.52, 0.52, 0.54),
}
"""Named colours of the web's strokes and backgrounds, linear in [0, 1]."""

Image = NDArray[np.uint8]
"""An RGB image, shape (SIDE, SIDE, 3)."""


@dataclass(frozen=True, kw_only=True)
class Scan:
    """One handwritten digit as it was scanned."""

    index: int
    """Position in scikit-learn's data set: the scan's identity."""
    block: int
    """Which block of writers it comes from, 0...13."""
    label: int
    """The digit, 0...9."""
    pixels: NDArray[np.float64]
    """Ink in [0, 1], shape (8, 8)."""


@functools.cache
def scans() -> tuple[Scan, ...]:
    """All 1,797 scans in the data set's own order."""
    from sklearn.datasets import load_digits

    data = load_digits()
    blocks = np.searchsorted(BLOCK_STARTS, np.arange(len(data.target)), side="right") - 1
    return tuple(
        Scan(index=i, block=int(blocks[i]), label=int(label), pixels=image / 16.0)
        for i, (image, label) in enumerate(zip(data.images, data.target, strict=True))
    )


def scans_of(blocks: tuple[int, ...]) -> list[Scan]:
    """The scans written by the writers of `blocks`, in order."""
    return [scan for scan in scans() if scan.block in blocks]


def stroke(
    pixels: NDArray[np.float64], rng: np.random.Generator, *, wobble: float = 1.0
) -> NDArray[np.float64]:
    """Ink coverage of a scan on the SIDE x SIDE canvas, in [0, 1], placed with a random affine map.

    `wobble` scales the spread of rotation, size, shear and shift; 0 places every scan alike.
    """
    angle = np.deg2rad(rng.uniform(-14, 14) * wobble)
    shear = rng.uniform(-0.15, 0.15) * wobble
    zoom = np.exp(rng.uniform(-0.14, 0.10, size=2) * wobble)
    shift = rng.uniform(-0.45, 0.45, size=2) * wobble
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    inverse = rotation @ np.array([[1.0, shear], [0.0, 1.0]]) / zoom
    axis = (
        np.arange(SIDE) + 0.5
    ) / SIDE * 10.0 - 5.0  # the 8-pixel scan with a margin of one pixel on each side
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij")).reshape(2, -1)
    source = inverse @ grid + shift[:, None] + 3.5
    ink = ndimage.map_coordinates(pixels, source, order=3, mode="constant").reshape(SIDE, SIDE)
    threshold, sharpness = rng.uniform(0.34, 0.52), rng.uniform(8.0, 16.0)
    return 1.0 / (1.0 + np.exp(-(ink - threshold) * sharpness))


def _smooth_noise(rng: np.random.Generator, cells: int) -> NDArray[np.float64]:
    """Low-frequency noise of about unit amplitude on the canvas: `cells` x `cells` random values, interpolated."""
    return ndimage.zoom(rng.standard_normal((cells, cells)), SIDE / cells, order=1)


def _ramp(rng: np.random.Generator) -> NDArray[np.float64]:
    """A linear ramp from -1 to 1 across the canvas in a random direction."""
    direction = rng.uniform(0, 2 * np.pi)
    axis = np.linspace(-1, 1, SIDE)
    return np.cos(direction) * axis[:, None] + np.sin(direction) * axis[None, :]


def _texture(rng: np.random.Generator) -> NDArray[np.float64]:
    """One of the web's backgrounds as a deviation around 0: flat, ramp, stripes, checks, clouds."""
    kind = rng.integers(5)
    if kind == 0:
        return np.zeros((SIDE, SIDE))
    if kind == 1:
        return _ramp(rng)
    if kind == 2:
        return np.sign(np.sin(_ramp(rng) * rng.uniform(6, 14)))
    if kind == 3:
        return np.kron(rng.choice([-1.0, 1.0], size=(4, 4)), np.ones((SIDE // 4, SIDE // 4)))
    return _smooth_noise(rng, int(rng.integers(3, 9)))


def _finish(image: NDArray[np.float64], rng: np.random.Generator, noise: float) -> Image:
    noisy = image + rng.standard_normal(image.shape) * noise
    return (np.clip(noisy, 0, 1) * 255).round().astype(np.uint8)


def web_look(pixels: NDArray[np.float64], rng: np.random.Generator) -> tuple[Image, dict[str, str]]:
    """A scan in one of the web's many looks, and the words true of it: `ink` and `ground` colour names."""
    names = list(PALETTE)
    while True:
        ink_name, ground_name = (names[i] for i in rng.choice(len(names), size=2, replace=False))
        ink = np.clip(np.array(PALETTE[ink_name]) + rng.normal(0, 0.05, 3), 0, 1)
        ground = np.clip(np.array(PALETTE[ground_name]) + rng.normal(0, 0.05, 3), 0, 1)
        if np.linalg.norm(ink - ground) > 0.45:
            break
    mask = stroke(pixels, rng)[..., None]
    background = ground + _texture(rng)[..., None] * rng.uniform(0.0, 0.16) * rng.uniform(
        0.5, 1.0, 3
    )
    foreground = ink + _texture(rng)[..., None] * rng.uniform(0.0, 0.08)
    image = background * (1 - mask) + foreground * mask
    return _finish(image, rng, noise=rng.uniform(0.0, 0.05)), {
        "ink": ink_name,
        "ground": ground_name,
    }


@dataclass(frozen=True, kw_only=True)
class Paper:
    """How badly a narrow look shows brown strokes on ochre paper. All in [0, 1] unless said otherwise."""

    faintness: tuple[float, float]
    """How much of the paper the ink covers."""
    slope: tuple[float, float]
    """Fall of the light from the middle to an edge."""
    clouds: float
    """Unevenness of the light besides."""
    blur: float
    """Standard deviation in pixels."""
    noise: float
    """Standard deviation."""


def _on_paper(
    pixels: NDArray[np.float64], rng: np.random.Generator, how: Paper
) -> tuple[Image, dict[str, str]]:
    paper = np.array([0.72, 0.55, 0.32]) + rng.normal(0, 0.02, 3)
    brown = np.array([0.42, 0.27, 0.14]) + rng.normal(0, 0.02, 3)
    faintness = rng.uniform(*how.faintness)
    mask = stroke(pixels, rng)[..., None] * faintness
    light = 1.0 + _ramp(rng) * rng.uniform(*how.slope) + _smooth_noise(rng, 4) * how.clouds
    image = (paper * (1 - mask) + brown * mask) * light[..., None]
    blurred = ndimage.gaussian_filter(image, sigma=(how.blur, how.blur, 0))
    return _finish(blurred, rng, noise=how.noise), {}


def ochre_look(
    pixels: NDArray[np.float64], rng: np.random.Generator
) -> tuple[Image, dict[str, str]]:
    """A scan in the task's one narrow look: brown on ochre paper, faint, unevenly lit, grainy, a little blurred."""
    return _on_paper(
        pixels,
        rng,
        Paper(faintness=(0.40, 0.80), slope=(0.10, 0.30), clouds=0.06, blur=0.6, noise=0.05),
    )


def sepia_look(
    pixels: NDArray[np.float64], rng: np.random.Generator
) -> tuple[Image, dict[str, str]]:
    """A narrow look nearer to the web than `ochre`: the same paper and ink, better written, lit and photographed."""
    return _on_paper(
        pixels,
        rng,
        Paper(faintness=(0.70, 0.95), slope=(0.03, 0.12), clouds=0.03, blur=0.4, noise=0.025),
    )


LOOKS: dict[
    str, Callable[[NDArray[np.float64], np.random.Generator], tuple[Image, dict[str, str]]]
] = {"web": web_look, "ochre": ochre_look, "sepia": sepia_look}
"""How a scan can be shown; each returns the image and the words true of it."""


def render(scan: Scan, look: str, *seed: int) -> Image:
    """One image of `scan` in `look`; the same arguments give the same pixels.

    Raises KeyError for an unknown look.
    """
    return LOOKS[look](scan.pixels, np.random.default_rng([scan.index, *seed]))[0]


CAPTIONS = (
    ("a photo of the digit {name}", ()),
    ("a photo of the digit {name}", ()),
    ("the digit {name}", ()),
    ("a handwritten {name}", ()),
    ("a {ink} {name}", ("ink",)),
    ("a photo of the digit {name} in {ink}", ("ink",)),
    ("a {ink} {name} on {ground}", ("ink", "ground")),
    ("a {name} on a {ground} background", ("ground",)),
)
"""Caption templates with the words each one states besides the digit; the plain ones come more often."""


@dataclass(frozen=True, kw_only=True)
class WebImages:
    """Images of the web half with what a caption may say about each."""

    images: NDArray[np.uint8]
    """Shape (N, SIDE, SIDE, 3)."""
    labels: NDArray[np.int64]
    """Digit, shape (N,)."""
    words: list[dict[str, str]]
    """Colour names of ink and ground."""


def web_images(count: int, seed: int) -> WebImages:
    """`count` web images: scans of the web's writers drawn by WEB_PROFILE, each in a look of its own."""
    pool = scans_of(WEB_BLOCKS)
    rng = np.random.default_rng([seed, 0])
    per_class = np.bincount([s.label for s in pool], minlength=10)
    weights = np.array([WEB_PROFILE[s.label] / per_class[s.label] for s in pool])
    picks = rng.choice(len(pool), size=count, p=weights / weights.sum())
    rendered = [
        web_look(pool[p].pixels, np.random.default_rng([seed, 1, i])) for i, p in enumerate(picks)
    ]
    return WebImages(
        images=np.stack([image for image, _ in rendered]),
        labels=np.array([pool[p].label for p in picks]),
        words=[words for _, words in rendered],
    )


def caption(template: int, label: int, words: dict[str, str]) -> str:
    """The caption that template number `template` makes for a digit and the words true of its look."""
    return CAPTIONS[template][0].format(name=NAMES[label], **words)


PLACES = {"train": range(24), "val": range(24, 32), "test": range(32, 44)}
"""Numbers of the places of `digits_wild`: where it is trained, and the others where val and test are drawn, too."""

Vector = tuple[float, float, float]
T = TypeVar("T")

_GROUNDS: dict[bool, tuple[Vector, ...]] = {
    False: (
        (0.34, 0.27, 0.17),
        (0.30, 0.38, 0.17),
        (0.66, 0.57, 0.41),
        (0.40, 0.33, 0.27),
    ),  # soil, grass, sand, bark
    True: (
        (0.78, 0.80, 0.84),
        (0.54, 0.28, 0.19),
        (0.31, 0.34, 0.38),
        (0.50, 0.48, 0.22),
    ),  # snow, clay, rock, reeds
}
_GRAINS: dict[bool, tuple[str, ...]] = {
    False: ("litter", "tufts", "ripples"),
    True: ("stones", "stems", "cracks"),
}
_COVERS = ("none", "leaves", "blades", "bars", "branch")
_TINTS: tuple[Vector, ...] = (
    (1.05, 1.0, 0.90),
    (0.78, 0.90, 1.15),
    (0.80, 1.0, 0.86),
)  # day, dusk, night


@dataclass(frozen=True, kw_only=True)
class Place:
    """What a camera that does not move sees, and how well. All in [0, 1] unless said otherwise."""

    scene: NDArray[np.float64]
    """The background by itself, shape (SIDE, SIDE, 3)."""
    coat: Vector
    """Colour of what is written there."""
    cover: NDArray[np.float64]
    """How much of each pixel is hidden by what stands before the camera, shape (SIDE, SIDE)."""
    leaf: Vector
    """Colour of what hides."""
    light: NDArray[np.float64]
    """Factor of brightness, shape (SIDE, SIDE); may exceed 1 by a little."""
    tint: Vector
    """Factor by channel."""
    night: bool
    """Without colour but for the tint, as infrared is."""
    blur: float
    """Standard deviation in pixels."""
    noise: float
    """Standard deviation."""


@functools.cache
def place(number: int) -> Place:
    """A place by its number, which alone decides how it looks.

    The places that nothing is trained in have other grounds and are darker, more hidden, more blurred and noisier by a little.
    Raises ValueError for a number that PLACES does not have.
    """
    if not any(number in numbers for numbers in PLACES.values()):
        raise ValueError(f"place {number}: there is none; places are 0 to {PLACES['test'][-1]}")
    away = number not in PLACES["train"]
    rng = np.random.default_rng([number, 0x91ACE])
    ground = np.array(_pick(_GROUNDS[away], rng)) + rng.normal(0, 0.03, 3)
    grain = _grain(_pick(_GRAINS[away], rng), rng)
    shade = rng.uniform(0.5, 1.2, 3)
    scene = np.clip(ground + grain[..., None] * rng.uniform(0.04, 0.11) * shade, 0, 1)
    coat = (0.93, 0.88, 0.76) if ground.mean() < 0.46 else (0.13, 0.10, 0.09)
    kind = _pick(_COVERS[1:] if away else _COVERS, rng)
    cover = _cover(kind, rng, share=rng.uniform(0.05, 0.14) + 0.02 * away)
    time = int(rng.integers(3))
    level = rng.uniform(*((0.65, 1.0), (0.42, 0.70), (0.34, 0.58))[time]) - 0.025 * away
    spot = np.hypot(*(np.indices((SIDE, SIDE)) - rng.uniform(8, 24, 2)[:, None, None])) / SIDE
    uneven = (
        _ramp(rng) if time == 0 else 0.5 - 1.3 * spot
    )  # sun from one side, or the camera's own lamp
    return Place(
        scene=scene,
        coat=coat,
        cover=cover,
        leaf=_pick(((0.16, 0.26, 0.10), (0.30, 0.23, 0.12), (0.20, 0.18, 0.16)), rng),
        light=level * np.clip(1 + uneven * rng.uniform(0.15, 0.50), 0.45, 1.3),
        tint=_TINTS[time],
        night=time == 2,
        blur=rng.uniform(0.4, 0.9) + 0.08 * away,
        noise=rng.uniform(0.02, 0.05) + 0.005 * away,
    )


def place_look(pixels: NDArray[np.float64] | None, where: Place, rng: np.random.Generator) -> Image:
    """A scan's ink, shape (8, 8), at a place; None shows the place without a digit. A place hardly changes between images."""
    shake = rng.integers(-1, 2, size=2)
    scene, cover = (
        np.roll(layer, shake, (0, 1)) for layer in (where.scene, where.cover[..., None])
    )
    mask = (
        np.zeros((SIDE, SIDE, 1))
        if pixels is None
        else stroke(pixels, rng)[..., None] * rng.uniform(0.8, 1.0)
    )
    image = scene * (1 - mask) + (np.array(where.coat) + rng.normal(0, 0.03, 3)) * mask
    image = image * (1 - cover) + np.array(where.leaf) * cover
    image = ndimage.gaussian_filter(image, sigma=(where.blur * rng.uniform(0.85, 1.15),) * 2 + (0,))
    if where.night:
        image = image.mean(2, keepdims=True)
    image = image * (where.light * rng.uniform(0.9, 1.1))[..., None] * np.array(where.tint)
    return _finish(image, rng, noise=where.noise * rng.uniform(0.8, 1.2))


def _pick(choices: Sequence[T], rng: np.random.Generator) -> T:
    return choices[int(rng.integers(len(choices)))]


def _grain(kind: str, rng: np.random.Generator) -> NDArray[np.float64]:
    """Structure of a ground around 0, of about unit amplitude; none of the web's textures."""
    sigma = {
        "litter": (0.9, 0.9),
        "tufts": (2.6, 0.7),
        "ripples": (0.8, 3.5),
        "stones": (2.0, 2.0),
        "stems": (9.0, 0.9),
        "cracks": (1.8, 1.8),
    }[kind]
    field = ndimage.gaussian_filter(rng.standard_normal((SIDE, SIDE)), sigma, mode="wrap")
    field /= field.std()
    if kind in ("stones", "stems"):
        return np.tanh(4 * field)
    return 1 - 2.5 * np.exp(-8 * field**2) if kind == "cracks" else field


def _cover(kind: str, rng: np.random.Generator, *, share: float) -> NDArray[np.float64]:
    """What stands before the camera, as opacity; pieces are added until they hide about `share` of the canvas."""
    y, x = np.indices((SIDE, SIDE)) + 0.5
    cover = np.zeros((SIDE, SIDE))
    while kind != "none" and cover.mean() < share:
        if kind == "bars":
            distance = np.abs(x - rng.uniform(2, 30)) - 0.9
        elif kind == "blades":  # grass that grows from below and leans
            foot, lean, top = rng.uniform(0, 32), rng.uniform(-0.5, 0.5), rng.uniform(4, 18)
            distance = np.maximum(np.abs(x - foot - lean * (SIDE - y)) - 0.8, top - y)
        else:
            angle, cy, cx = rng.uniform(0, np.pi), *rng.uniform(3, 29, 2)
            along = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
            across = -(x - cx) * np.sin(angle) + (y - cy) * np.cos(angle)
            distance = (
                np.hypot(along / 4.0, across / 1.7) * 1.7 - 1.7
                if kind == "leaves"
                else np.abs(across) - 0.9
            )
        cover = np.maximum(cover, np.clip(0.5 - distance, 0, 1))
    return cover
