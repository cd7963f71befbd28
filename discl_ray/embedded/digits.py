# pyright: reportAttributeAccessIssue=false, reportReturnType=false
# (scikit-learn's and scipy's annotations name every type they might return)
"""The real images inside the package: scikit-learn's handwritten digits, split by who wrote them.

Everything the embedded default knows starts here. The 1,797 scans (8x8, 16 grey levels) lie in 14 contiguous blocks, one
block a group of writers; a writer never has two roles. Seven blocks are *the web*: the generator, the scorer and the judge
learn from them, under many random looks, each with a caption. One block is *dev* and six are *the task*, always in one narrow
look that the web does not hold: brown strokes on ochre paper, low contrast, uneven light. So a generator trained on the web
knows what a seven is, but not what the task's sevens look like.

Rendering is a pure function of (scan, look, random generator); this module imports neither torch nor Ray.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

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


def stroke(pixels: NDArray[np.float64], rng: np.random.Generator, *, wobble: float = 1.0) -> NDArray[np.float64]:
    """Ink coverage of a scan on the SIDE x SIDE canvas, in [0, 1], placed with a random affine map.

    `wobble` scales the spread of rotation, size, shear and shift; 0 places every scan alike.
    """
    angle = np.deg2rad(rng.uniform(-14, 14) * wobble)
    shear = rng.uniform(-0.15, 0.15) * wobble
    zoom = np.exp(rng.uniform(-0.14, 0.10, size=2) * wobble)
    shift = rng.uniform(-0.45, 0.45, size=2) * wobble
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    inverse = rotation @ np.array([[1.0, shear], [0.0, 1.0]]) / zoom
    axis = (np.arange(SIDE) + 0.5) / SIDE * 10.0 - 5.0  # the 8-pixel scan with a margin of one pixel on each side
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
    background = ground + _texture(rng)[..., None] * rng.uniform(0.0, 0.16) * rng.uniform(0.5, 1.0, 3)
    foreground = ink + _texture(rng)[..., None] * rng.uniform(0.0, 0.08)
    image = background * (1 - mask) + foreground * mask
    return _finish(image, rng, noise=rng.uniform(0.0, 0.05)), {"ink": ink_name, "ground": ground_name}


def ochre_look(pixels: NDArray[np.float64], rng: np.random.Generator) -> tuple[Image, dict[str, str]]:
    """A scan in the task's one narrow look: brown on ochre paper, faint, unevenly lit, grainy, a little blurred."""
    paper = np.array([0.72, 0.55, 0.32]) + rng.normal(0, 0.02, 3)
    brown = np.array([0.42, 0.27, 0.14]) + rng.normal(0, 0.02, 3)
    faintness = rng.uniform(0.40, 0.80)
    mask = stroke(pixels, rng)[..., None] * faintness
    light = 1.0 + _ramp(rng) * rng.uniform(0.10, 0.30) + _smooth_noise(rng, 4) * 0.06
    image = (paper * (1 - mask) + brown * mask) * light[..., None]
    blurred = ndimage.gaussian_filter(image, sigma=(0.6, 0.6, 0))
    return _finish(blurred, rng, noise=0.05), {}


LOOKS: dict[str, Callable[[NDArray[np.float64], np.random.Generator], tuple[Image, dict[str, str]]]] = {
    "web": web_look,
    "ochre": ochre_look,
}
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
    rendered = [web_look(pool[p].pixels, np.random.default_rng([seed, 1, i])) for i, p in enumerate(picks)]
    return WebImages(
        images=np.stack([image for image, _ in rendered]),
        labels=np.array([pool[p].label for p in picks]),
        words=[words for _, words in rendered],
    )


def caption(template: int, label: int, words: dict[str, str]) -> str:
    """The caption that template number `template` makes for a digit and the words true of its look."""
    return CAPTIONS[template][0].format(name=NAMES[label], **words)
