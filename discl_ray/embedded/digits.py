"""The real images inside the package: scikit-learn's handwritten digits, split by who wrote them.

The 1,797 scans (8x8, 16 grey levels) are in 14 contiguous blocks, each of a group of writers; a
writer never has two roles. Seven blocks are *the web*: the generator, the scorer and the judge
learn from them, in many random looks, each with a caption. One block is *dev* and six are *the
task*, always in one narrow look that the web does not have: brown strokes on ochre paper, low
contrast, uneven light. So a generator trained on the web knows what a seven is, but not what the
task's sevens look like. Two other looks of the task make the same experiment with a smaller gap: a
little over half of it for `sepia`, none for `web`.

Rendering is a pure function of (scan, look, random generator); torch and Ray are not imported.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
"""Class names by label, as captions and prompts call them."""

SIDE = 32
"""Height and width of every rendered image, in pixels."""

BLOCK_STARTS = (0, 130, 256, 386, 516, 646, 776, 915, 1029, 1157, 1287, 1415, 1545, 1667)
"""First scan of each block of writers; the last block ends with the data set."""

WEB_BLOCKS = tuple(range(7))
DEV_BLOCK = 7
TASK_BLOCKS = tuple(range(8, 14))

WEB_PROFILE = (1.0, 0.9, 0.5, 0.7, 0.35, 0.6, 0.45, 1.0, 0.4, 0.3)
"""How often the web shows each digit, relative to the most frequent one: uneven, like the web."""

Vector = tuple[float, float, float]
"""A value per channel: red, green and blue."""

PALETTE: dict[str, Vector] = {
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
Floats = NDArray[np.float64]
Rng = np.random.Generator
Words = dict[str, str]
"""Names of colours by `ink` and `ground`, for captions; empty for narrow looks."""


@dataclass(frozen=True, kw_only=True)
class Scan:
    """One handwritten digit as it was scanned."""

    index: int
    """Position in scikit-learn's data set: the scan's identity."""
    block: int
    """Which block of writers it comes from, 0...13."""
    label: int
    """The digit, 0...9."""
    pixels: Floats
    """Ink in [0, 1], shape (8, 8)."""


@functools.cache
def scans() -> tuple[Scan, ...]:
    """All 1,797 scans in the data set's own order."""
    from sklearn.datasets import load_digits

    data: Any = load_digits()  # its annotation is a union of all it can return
    indices = np.arange(len(data.target))
    blocks_begun = np.searchsorted(BLOCK_STARTS, indices, side="right")
    blocks = blocks_begun - 1
    found: list[Scan] = []
    for index in indices.tolist():
        scan = Scan(
            index=index,
            block=int(blocks[index]),
            label=int(data.target[index]),
            pixels=data.images[index] / 16.0,  # 16 grey levels
        )
        found.append(scan)
    return tuple(found)


def scans_of(blocks: Collection[int]) -> list[Scan]:
    """The scans written by the writers of `blocks`, in order."""
    return [scan for scan in scans() if scan.block in blocks]


def stroke(pixels: Floats, rng: Rng, *, wobble: float = 1.0) -> Floats:
    """Ink coverage of a scan on the SIDE x SIDE canvas, in [0, 1], placed with a random affine map.

    `wobble` scales the spread of rotation, size, shear and shift; 0 places every scan alike.
    """
    # the order of the draws is part of every image's identity
    degrees = rng.uniform(-14, 14) * wobble
    shear = rng.uniform(-0.15, 0.15) * wobble
    log_zoom = rng.uniform(-0.14, 0.10, size=2) * wobble
    shift = rng.uniform(-0.45, 0.45, size=2) * wobble
    turned = _rotation(degrees) @ _shear(shear)
    inverse = turned / np.exp(log_zoom)
    grid = _canvas_grid()
    around_middle = inverse @ grid + shift[:, None]
    source = around_middle + 3.5  # the scan's own coordinates have their middle there
    ink = ndimage.map_coordinates(pixels, source, order=3, mode="constant")
    threshold = rng.uniform(0.34, 0.52)
    sharpness = rng.uniform(8.0, 16.0)
    excess = ink.reshape(SIDE, SIDE) - threshold
    odds_against_ink = np.exp(-excess * sharpness)
    return 1.0 / (1.0 + odds_against_ink)


def _rotation(degrees: float) -> Floats:
    """A matrix that turns (row, column), shape (2, 2)."""
    angle = np.deg2rad(degrees)
    cosine = np.cos(angle)
    sine = np.sin(angle)
    row = [cosine, -sine]
    column = [sine, cosine]
    return np.array([row, column])


def _shear(amount: float) -> Floats:
    """A matrix that moves each row by a share of its column, shape (2, 2)."""
    return np.array([[1.0, amount], [0.0, 1.0]])


def _canvas_grid() -> Floats:
    """The canvas's pixels in pixels of a scan around its middle, shape (2, SIDE * SIDE)."""
    # the 8-pixel scan with a margin of one pixel on each side
    centers = np.arange(SIDE) + 0.5
    axis = centers / SIDE * 10.0 - 5.0
    rows_and_columns = np.meshgrid(axis, axis, indexing="ij")
    grid = np.stack(rows_and_columns)
    return grid.reshape(2, -1)


def _smooth_noise(rng: Rng, cells: int) -> Floats:
    """Low-frequency noise of about unit amplitude: `cells` x `cells` random values, interpolated.

    Shape (SIDE, SIDE).
    """
    values = rng.standard_normal((cells, cells))
    factor = SIDE / cells
    noise: Any = ndimage.zoom(values, factor, order=1)  # annotated as array or None
    return noise


def ramp(rng: Rng) -> Floats:
    """A linear ramp from -1 to 1 in a random direction, shape (SIDE, SIDE)."""
    direction = rng.uniform(0, 2 * np.pi)
    axis = np.linspace(-1, 1, SIDE)
    down = np.cos(direction) * axis
    across = np.sin(direction) * axis
    return down[:, None] + across[None, :]


def _texture(rng: Rng) -> Floats:
    """One of the web's backgrounds as a deviation around 0, shape (SIDE, SIDE).

    Flat, a ramp, stripes, checks or clouds.
    """
    kind = rng.integers(5)
    if kind == 0:
        return np.zeros((SIDE, SIDE))
    if kind == 1:
        return ramp(rng)
    if kind == 2:
        rising = ramp(rng)
        phase = rising * rng.uniform(6, 14)
        wave = np.sin(phase)
        return np.sign(wave)
    if kind == 3:
        checks = rng.choice([-1.0, 1.0], size=(4, 4))
        side = SIDE // 4
        rows = checks.repeat(side, axis=0)
        return rows.repeat(side, axis=1)
    cells = int(rng.integers(3, 9))
    return _smooth_noise(rng, cells)


def _faint_texture(rng: Rng, strongest: float) -> Floats:
    """A texture of a random strength, the same for all channels, shape (SIDE, SIDE, 1)."""
    texture = _texture(rng)
    strength = rng.uniform(0.0, strongest)
    return for_channels(texture) * strength


def for_channels(values: Floats) -> Floats:
    """Values of shape (SIDE, SIDE) with an axis for the channels: shape (SIDE, SIDE, 1)."""
    return values[..., None]


def finish(image: Floats, rng: Rng, noise: float) -> Image:
    """An image in [0, 1] as uint8, with noise of a standard deviation added."""
    deviation = rng.standard_normal(image.shape) * noise
    clipped = np.clip(image + deviation, 0, 1)
    levels = clipped * 255
    return levels.round().astype(np.uint8)


class Shown(NamedTuple):
    """A scan in a look."""

    image: Image
    words: Words


def web_look(pixels: Floats, rng: Rng) -> Shown:
    """A scan's ink, shape (8, 8), in one of the web's many looks."""
    names = list(PALETTE)
    while True:  # until ink and ground can be told apart
        first, second = rng.choice(len(names), size=2, replace=False)
        ink_name = names[first]
        ground_name = names[second]
        ink = _tinted(ink_name, rng)
        ground = _tinted(ground_name, rng)
        distance = np.linalg.norm(ink - ground)
        if distance > 0.45:
            break
    # the order of the draws is part of every image's identity
    mask = stroke(pixels, rng)
    texture = _faint_texture(rng, strongest=0.16)
    by_channel = rng.uniform(0.5, 1.0, 3)
    background = ground + texture * by_channel
    grain = _faint_texture(rng, strongest=0.08)
    foreground = ink + grain
    written = blend(background, foreground, for_channels(mask))
    noise = rng.uniform(0.0, 0.05)
    image = finish(written, rng, noise)
    words = {"ink": ink_name, "ground": ground_name}
    return Shown(image, words)


def blend(below: Floats, above: Floats, opacity: Floats) -> Floats:
    """What is seen of two layers if the upper one has an opacity in [0, 1]; shapes broadcast."""
    seen_through = below * (1 - opacity)
    covering = above * opacity
    return seen_through + covering


def _tinted(name: str, rng: Rng) -> Floats:
    """A colour of the PALETTE, slightly changed."""
    colour = varied(PALETTE[name], 0.05, rng)
    return np.clip(colour, 0, 1)


def varied(colour: Vector, spread: float, rng: Rng) -> Floats:
    """A colour with a normal deviation in each channel, shape (3,); it may leave [0, 1]."""
    deviation = rng.normal(0, spread, 3)
    return np.array(colour) + deviation


@dataclass(frozen=True, kw_only=True)
class Paper:
    """How a narrow look shows brown strokes on ochre paper. All in [0, 1] unless said otherwise."""

    faintness: tuple[float, float]
    """Range of how much of the paper the ink covers."""
    slope: tuple[float, float]
    """Range of how much the light falls from the middle to an edge."""
    clouds: float
    """Other unevenness of the light."""
    blur: float
    """Standard deviation in pixels."""
    noise: float
    """Standard deviation."""


OCHRE = Paper(faintness=(0.40, 0.80), slope=(0.10, 0.30), clouds=0.06, blur=0.6, noise=0.05)
SEPIA = Paper(faintness=(0.70, 0.95), slope=(0.03, 0.12), clouds=0.03, blur=0.4, noise=0.025)


def _on_paper(pixels: Floats, rng: Rng, how: Paper) -> Shown:
    """A scan's ink, shape (8, 8), on paper."""
    paper = varied((0.72, 0.55, 0.32), 0.02, rng)
    brown = varied((0.42, 0.27, 0.14), 0.02, rng)
    faintness = rng.uniform(*how.faintness)
    mask = stroke(pixels, rng) * faintness
    falling = ramp(rng)
    slope = falling * rng.uniform(*how.slope)
    clouds = _smooth_noise(rng, 4) * how.clouds
    light = 1.0 + slope + clouds
    written = blend(paper, brown, for_channels(mask))
    lit = written * for_channels(light)
    soft = blurred(lit, how.blur)
    image = finish(soft, rng, how.noise)
    return Shown(image, words={})


def blurred(image: Floats, width: float) -> Floats:
    """An image, shape (SIDE, SIDE, channels), smoothed by a standard deviation in pixels."""
    return ndimage.gaussian_filter(image, sigma=(width, width, 0))


def ochre_look(pixels: Floats, rng: Rng) -> Shown:
    """A scan's ink in the task's narrow look: faint on ochre paper, unevenly lit, blurred."""
    return _on_paper(pixels, rng, OCHRE)


def sepia_look(pixels: Floats, rng: Rng) -> Shown:
    """A scan's ink in a narrow look nearer to the web: as `ochre`, better written and lit."""
    return _on_paper(pixels, rng, SEPIA)


Look = Callable[[Floats, Rng], Shown]

LOOKS: dict[str, Look] = {"web": web_look, "ochre": ochre_look, "sepia": sepia_look}
"""How a scan can be shown, by name."""


def render(scan: Scan, look: str, *seed: int) -> Image:
    """One image of `scan` in `look`; the same arguments give the same pixels.

    Raises KeyError for an unknown look.
    """
    entropy = [scan.index, *seed]
    rng = np.random.default_rng(entropy)
    shown = LOOKS[look](scan.pixels, rng)
    return shown.image


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
"""Caption templates, and the words each states besides the digit; plain ones are more frequent."""


@dataclass(frozen=True, kw_only=True)
class WebImages:
    """Images of the web, with what a caption may say of each."""

    images: NDArray[np.uint8]
    """Shape (N, SIDE, SIDE, 3)."""
    labels: NDArray[np.int64]
    """Digit, shape (N,)."""
    words: list[Words]
    """Of each image."""


def web_images(count: int, seed: int) -> WebImages:
    """`count` scans of the web's writers, drawn by WEB_PROFILE, each in a look of its own."""
    pool = scans_of(WEB_BLOCKS)
    rng = np.random.default_rng([seed, 0])
    labels = np.array([scan.label for scan in pool])
    per_class = np.bincount(labels, minlength=10)
    profile = np.array(WEB_PROFILE)
    weight_of_class = profile / per_class
    weights = weight_of_class[labels]
    shares = weights / weights.sum()
    picks = rng.choice(len(pool), size=count, p=shares)
    shown: list[Shown] = []
    for number, pick in enumerate(picks):
        scan = pool[pick]
        rng_of_image = np.random.default_rng([seed, 1, number])
        in_a_look = web_look(scan.pixels, rng_of_image)
        shown.append(in_a_look)
    return WebImages(
        images=np.stack([one.image for one in shown]),
        labels=labels[picks],
        words=[one.words for one in shown],
    )


def caption(template: int, label: int, words: Words) -> str:
    """The caption of template number `template` for a digit and the words true of its look."""
    text, _ = CAPTIONS[template]
    name = NAMES[label]
    return text.format(name=name, **words)
