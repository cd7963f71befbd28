"""A reader, a strategy and a filter of your own."""

import io

import numpy as np
import pyarrow as pa
from PIL import Image

from discl_ray import Choice, Listing, Situation
from discl_ray.core.storage import Store
from discl_ray.data.config import OutsideConfig
from discl_ray.data.files import stamp_of, walk
from discl_ray.data.listing import inline, listing_table, read_files
from discl_ray.spectrum.config import FilterConfig

SHAPES = ("square", "bar", "dot")
SIZES = {"square": (12, 12), "bar": (24, 4), "dot": (4, 4)}


def read(config: OutsideConfig, seed: int) -> Listing:
    """Squares, bars and dots; `data.options.count` of the first class, half as many of the next."""
    rng = np.random.default_rng(seed)
    count, side = config.options.get("count", 16), config.options.get("side", 32)
    rows = []
    for number, name in enumerate(SHAPES):
        for i in range(max(4, count >> number)):
            split = ("train", "train", "val", "test")[i % 4]
            row = {"sample_id": f"{name}/{i}", "class_key": name, "split": split}
            rows.append({**row, "bytes": _drawn(name, side, rng)})
    return inline(rows, Store.at(config.root), SHAPES)


def _drawn(name: str, side: int, rng: np.random.Generator) -> bytes:
    """A PNG with one white shape on a dark ground."""
    pixels = rng.integers(0, 60, (side, side, 3), dtype=np.uint8)
    width, height = SIZES[name]
    top, left = rng.integers(0, side - height), rng.integers(0, side - width)
    pixels[top : top + height, left : left + width] = 220
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def read_named(config: OutsideConfig, _seed: int) -> Listing:
    """PNG files under `data.root` that are called `<class>-<anything>.png`."""
    root = Store.at(config.root)
    files = [file for file in walk(root) if file.path.endswith(".png")]
    rows = []
    for file in files:
        name = file.path.rpartition("/")[2]
        key, _, _ = name.partition("-")
        rows.append({"sample_id": file.path, "path": file.path, "class_key": key})
    return Listing(table=listing_table(rows), root=root, read=read_files, stamp=stamp_of(files))


def back_and_forth(at: Situation) -> Choice:
    """λ rises for `options.period` epochs, then begins anew."""
    if at.over:
        return Choice(levels=())
    period = at.config.options.get("period", len(at.levels))
    place = (at.epoch - 1) % period * len(at.levels) // period
    return Choice(levels=(at.levels[place],))


def near_its_source(rows: pa.Table, config: FilterConfig) -> np.ndarray:
    """Keeps an image that looks like its source: image_sim of at least `options.least`."""
    least = config.options.get("least", 0.5)
    return rows["image_sim"].to_numpy(zero_copy_only=False) >= least
