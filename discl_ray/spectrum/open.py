"""A complete spectrum as a value: all that training takes from phase 1.

    spectrum = Spectrum.open("runs/digits_lt/generate-1a2b3c4d")
    spectrum.table(FilterConfig())       every row with scores, `kept` and `reason`, without an image

Nothing but the folder and the folder of its samples beside it is needed: no prompts, no weights, no raw data, none of the libraries
that made the images. A folder that another tool wrote is opened as well if it holds the same tables:

    spectrum/*.parquet                   SPECTRUM, at least INDISPENSABLE and `image`
    samples/{train,val,test}/*.parquet   SAMPLES, the real images with their labels and class names
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import yaml
from pydantic import ValidationError

from discl_ray.config import Config, recorded_config
from discl_ray.core.ids import stable_id
from discl_ray.core.run_directory import CONFIG, MANIFEST
from discl_ray.core.splits import no_image
from discl_ray.core.storage import Store
from discl_ray.errors import DataError, IntegrityError, SetupError
from discl_ray.spectrum.commit import (
    COMMITS,
    DATA,
    committed,
    committed_files,
    content_of,
    is_of_another_tool,
)
from discl_ray.spectrum.config import FilterConfig
from discl_ray.spectrum.of_another_tool import check_spectrum
from discl_ray.spectrum.read import grid_of, open_spectrum
from discl_ray.spectrum.remedies import again, remake
from discl_ray.spectrum.samples import class_names, content_of_samples, read_split, samples_of

SOURCES = "sources.parquet"

PREFIX = "generate-"
"""How the name of a run's spectrum begins; a hash of all that decides it follows."""


@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """A complete spectrum; small, and can be sent to any process."""

    store: Store
    """Its folder."""
    samples: Store
    """The folder of the real images it was made from."""
    classes: tuple[str, ...]
    """Class names by label."""

    @classmethod
    def open(cls, place: Store | str) -> Spectrum:
        """The spectrum in a folder, given by path or URI.

        Raises SetupError if it is not there or not complete, IntegrityError if it is damaged.
        """
        store = _at(place) if isinstance(place, str) else place
        check_complete(store)
        samples = samples_of(store)
        spectrum = cls(store=store, samples=samples, classes=class_names(samples))
        if is_of_another_tool(store):
            check_spectrum(store, committed_files(store), samples, spectrum.classes)
        return spectrum

    @cached_property
    def name(self) -> str:
        """What training runs on it are named by: the folder's name, which is a hash of what made it, or else of its bytes."""
        if self.store.name.startswith(PREFIX) and not is_of_another_tool(self.store):
            return self.store.name
        return f"spectrum-{stable_id(content_of(self.store), content_of_samples(self.samples))[:8]}"

    @cached_property
    def recorded(self) -> Config | None:
        """The configuration it was made with; None if another tool made it, or this version cannot read it."""
        return read_recorded(self.store)

    @cached_property
    def grid(self) -> tuple[int, ...]:
        """λ in ascending integer percents at which there are images to train on."""
        return grid_of(self.store)

    def table(self, filter_config: FilterConfig, columns: list[str] | None = None) -> pa.Table:
        """Every row with `kept` and `reason`; `columns` (default: all) limits what is read besides what the filter needs."""
        return open_spectrum(self.store, filter_config, columns)

    def split(self, split: str, columns: list[str] | None = None) -> pa.Table:
        """SAMPLES rows of one split, images in files as paths. `test` is for `discl_ray.evaluate` alone."""
        return read_split(self.samples, split, columns)

    def check_judged(self, split: Literal["val", "test"] = "test") -> None:
        """Raises DataError if there is no image of the split: every figure of a table would be a dash."""
        if not self.split(split, ["label"]).num_rows:
            raise DataError(no_image(split))

    def sources(self) -> pa.Table:
        """The real images that have a spectrum: `sample_id`, `split` and `domain`, in the order in which they were planned."""
        columns = ["sample_id", "split", "domain"]
        if self.store.exists(SOURCES) or not is_of_another_tool(self.store):
            return self.store.read_table(SOURCES, columns, again(self.store))
        made = open_spectrum(self.store, FilterConfig(), [])["sample_id"].unique()
        real = pa.concat_tables([self.split(split, columns) for split in ("train", "val")])
        return real.filter(
            np.isin(
                real["sample_id"].to_numpy(zero_copy_only=False),
                made.to_numpy(zero_copy_only=False),
            )
        )


def _at(place: str) -> Store:
    """The folder at a path or URI; links are followed, for the samples lie beside what they lead to.

    Raises SetupError if it cannot be looked at.
    """
    local = "://" not in place
    try:
        store = Store.at(
            os.path.realpath(os.path.expanduser(place), strict=True) if local else place
        )
        is_file = store.filesystem.get_file_info(store.base).type == pafs.FileType.File
    except (OSError, ValueError, pa.ArrowException) as error:
        why = (
            error.strerror
            if isinstance(error, OSError) and error.strerror
            else " ".join(str(error).split())[:200]
        )
        raise SetupError(
            f"spectrum.path = '{place}': {why}; name the folder or URI that generate wrote"
        ) from error
    if is_file:
        raise SetupError(f"spectrum.path = '{place}': a file; name the folder that generate wrote")
    return store


def read_recorded(store: Store) -> Config | None:
    """The configuration a spectrum is made with; None if there is none, or one that this version cannot read."""
    if not store.exists(CONFIG):
        return None
    try:
        with store.reading(CONFIG):
            return recorded_config(store.read(CONFIG).decode())
    except (IntegrityError, ValidationError, yaml.YAMLError, UnicodeDecodeError):
        return None


def check_complete(store: Store) -> None:
    """Raises SetupError unless every shard of a spectrum is committed, IntegrityError if its manifest is damaged."""
    if is_of_another_tool(store):
        return
    if not store.exists(MANIFEST):
        raise SetupError(_what_lies_there(store))
    remedy = f"{again(store)}, without making an image again"
    with store.reading(MANIFEST, remedy):
        shards = int(store.read_json(MANIFEST, remedy)["shards"])
    there = len(store.list(COMMITS, ".json"))
    if there < shards:
        raise SetupError(
            f"{store.path(COMMITS)}: {shards - there} of {shards} shards have no commit record any more; "
            f"{remake(store)}, which makes their images again"
        )


def _what_lies_there(store: Store) -> str:
    """Why a folder is no complete spectrum."""
    if store.list(COMMITS, ".json"):
        return f"{store.base}: {len(committed(store))} shards are committed, and more are missing; {remake(store)}, which goes on"
    inner = [folder for folder in store.folders() if folder.startswith(PREFIX)]
    if inner:
        return f"{store.base}: the folder of a run; a spectrum lies in one of its folders {', '.join(inner)}"
    if store.name == DATA and store.list("", ".parquet"):
        return f"{store.base}: the images of a spectrum; name the folder above, {store.parent.base}"
    return f"{store.base}: no spectrum lies there ({DATA}/*.parquet is missing); name the folder that generate wrote"
