"""Data sets of small random pictures, read as SAMPLES."""

import numpy as np

from discl_ray.core.storage import Store
from discl_ray.data import list_dataset
from discl_ray.data.config import ImageFolderConfig
from discl_ray.data.files import stamp_of, walk
from discl_ray.data.listing import Listing, listing_table, read_files
from discl_ray.data.root import open_root
from discl_ray.data.samples import read_samples


def picture(seed: int, side: int = 12) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side + seed % 3, 3), dtype=np.uint8)


def listed(root, **overrides) -> Listing:
    store = open_root(str(root))
    files = list(walk(store))
    rows = ({"sample_id": f.path, "path": f.path, "class_key": f.path.split("/")[0]} for f in files)
    return Listing(
        table=listing_table(rows), root=store, read=read_files, stamp=stamp_of(files), **overrides
    )


def read(root, run, seed=0, **config):
    settings = ImageFolderConfig.model_validate(
        {"root": str(root), "max_bad_fraction": 0.2, **config}
    )
    return read_samples(settings, listed(root), seed=seed, run=Store.at(run))


def whole(root, run, **config):
    settings = ImageFolderConfig.model_validate({"root": str(root), **config})
    return read_samples(settings, list_dataset(settings, 0), seed=0, run=Store.at(run))
