"""Data sets become SAMPLES here: one reader a data set, one signature, one dict.

A reader lists images and opens none. What follows is the same for all: `scan` reads, hashes and
decodes each image once, `verdicts` decides which are used and in which split, `samples` writes the
tables. Only `discl_ray.evaluate` opens the images of the test split.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from discl_ray.core.storage import Store
from discl_ray.data.cifar100_lt import cifar100_lt
from discl_ray.data.config import AnyDataConfig, FilesConfig
from discl_ray.data.digits_lt import digits_lt
from discl_ray.data.digits_wild import digits_wild
from discl_ray.data.huggingface import huggingface
from discl_ray.data.imagefolder import imagefolder
from discl_ray.data.imagenet_lt import imagenet_lt
from discl_ray.data.inaturalist import inaturalist
from discl_ray.data.iwildcam import iwildcam
from discl_ray.data.listing import Listing
from discl_ray.data.manifest import manifest
from discl_ray.data.outside import list_outside
from discl_ray.data.parquet import parquet
from discl_ray.data.sample_images import read_images
from discl_ray.data.samples import Samples, folder_name
from discl_ray.data.samples import read_samples as _read_samples
from discl_ray.data.settle import settled
from discl_ray.data.summary import summarize_samples

READERS: dict[str, Callable[[Any, int], Listing]] = {
    "digits_lt": digits_lt,
    "digits_wild": digits_wild,
    "imagefolder": imagefolder,
    "manifest": manifest,
    "parquet": parquet,
    "huggingface": huggingface,
    "imagenet_lt": imagenet_lt,
    "cifar100_lt": cifar100_lt,
    "inaturalist": inaturalist,
    "iwildcam": iwildcam,
}
"""Data sets by the name the configuration uses: (its config, seed) -> Listing."""


def list_dataset(config: AnyDataConfig, seed: int) -> Listing:
    """All images of the configured data set; opens none.

    Raises DataError if there is nothing, or not what the layout says.
    """
    read = READERS.get(config.name)
    listing = list_outside(config, seed) if read is None else read(config, seed)
    return settled(listing, links=not isinstance(config, FilesConfig) or config.allow_links_outside)


def name_of_samples(config: AnyDataConfig, seed: int) -> str:
    """The name of the folder that the data set as it lies there today is read into; opens no image.

    Raises DataError if it is not there.
    """
    return folder_name(config, list_dataset(config, seed), seed)


def read_samples(
    config: AnyDataConfig, seed: int, run: Store, *, num_cpus: int | None = None
) -> Samples:
    """The configured data set as SAMPLES in a folder under `run`; nothing is read twice.

    Raises DataError if it is not there or cannot be trained on.
    """
    return _read_samples(config, list_dataset(config, seed), seed=seed, run=run, num_cpus=num_cpus)


__all__ = [
    "READERS",
    "Samples",
    "list_dataset",
    "name_of_samples",
    "read_images",
    "read_samples",
    "summarize_samples",
]
