"""A complete spectrum as a value: all that training takes from phase 1.

    spectrum = Spectrum.open("runs/digits_lt/generate-1a2b3c4d")
    spectrum.table(FilterConfig(), [])   every row with scores, `kept` and `reason`, no image

Nothing but the folder and the folder of its samples beside it is needed: no prompts, no weights, no
raw data, none of the libraries that made the images. A folder that another tool wrote is opened as
well if it holds the same tables:

    spectrum/*.parquet                   SPECTRUM, at least INDISPENSABLE and `image`
    samples/{train,val,test}/*.parquet   SAMPLES, the real images with their labels and class names
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal

import pyarrow as pa
import pyarrow.fs as pafs
import yaml
from pydantic import ValidationError

from discl_ray.config import Config, recorded_config
from discl_ray.core.columns import rows_in
from discl_ray.core.ids import stable_id
from discl_ray.core.run_directory import (
    CONFIG,
    MANIFEST,
    PLAN_FILE,
    SHARDS_FILE,
    SOURCES,
    SOURCES_FILE,
)
from discl_ray.core.splits import no_image
from discl_ray.core.storage import UNOPENED, Store
from discl_ray.errors import TO_READ, DataError, IntegrityError, SetupError, trouble_of_store
from discl_ray.spectrum.config import FilterConfig
from discl_ray.spectrum.files import Ledger, check_sizes, content_of, read_ledger
from discl_ray.spectrum.of_another_tool import check_spectrum
from discl_ray.spectrum.read import grid_of, open_spectrum
from discl_ray.spectrum.records import committed, each_of
from discl_ray.spectrum.remedies import COMMITS, DATA, PREFIX, again, is_of_another_tool, remake
from discl_ray.spectrum.samples import class_names, content_of_samples, read_split, samples_of


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
        store = spectrum_at(place) if isinstance(place, str) else place
        check_complete(store)
        samples = samples_of(store)
        spectrum = cls(store=store, samples=samples, classes=class_names(samples))
        if spectrum.of_another_tool:
            check_spectrum(store, spectrum.files, samples, spectrum.classes)
        return spectrum

    @cached_property
    def of_another_tool(self) -> bool:
        """Whether it was not made by this package; asked once, since it is complete."""
        return is_of_another_tool(self.store)

    @cached_property
    def ledger(self) -> Ledger:
        """Its files; listed once, since it is complete.

        Raises IntegrityError if one is gone or cut short.
        """
        ledger = read_ledger(self.store)
        check_sizes(self.store, ledger)
        return ledger

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files with the rows, sorted."""
        return tuple(self.ledger.names)

    @cached_property
    def name(self) -> str:
        """What training runs on it are named by: the folder's name, or a hash of its bytes.

        The name of a folder of ours is a hash of what made it.
        """
        if self.store.name.startswith(PREFIX) and not self.of_another_tool:
            return self.store.name
        made = content_of(self.store)
        real = content_of_samples(self.samples)
        return f"spectrum-{stable_id(made, real)[:8]}"

    @cached_property
    def recorded(self) -> Config | None:
        """The configuration it was made with; None if there is none that this version can read.

        Another tool's `config.yaml` is none.
        """
        return None if self.of_another_tool else read_recorded(self.store)

    @cached_property
    def grid(self) -> tuple[int, ...]:
        """λ in ascending integer percents at which there are images to train on."""
        return grid_of(self.store, self.ledger)

    def table(self, filter_config: FilterConfig, columns: list[str] | None = None) -> pa.Table:
        """Every row with `kept` and `reason`.

        `columns` (default: all, images too) limits what is read besides what the filter needs.
        """
        return open_spectrum(self.store, filter_config, columns, self.ledger)

    def split(self, split: str, columns: list[str] | None = None) -> pa.Table:
        """SAMPLES rows of one split, images in files as paths.

        `test` is for `discl_ray.evaluate` alone.
        """
        return read_split(self.samples, split, columns)

    def check_judged(self, split: Literal["val", "test"] = "test") -> None:
        """Raises DataError if the split has no image: every figure of a table would be a dash."""
        if not self.split(split, ["label"]).num_rows:
            raise DataError(no_image(split))

    def sources(self) -> pa.Table:
        """The real images that have a spectrum, in the order of the plan.

        Columns: `sample_id`, `split`, `domain`.
        """
        columns = ["sample_id", "split", "domain"]
        remedy = partial(again, self.store)
        parts = self.store.list(SOURCES, ".parquet")
        if parts:
            read = partial(self.store.read_table, columns=columns, remedy=remedy)
            return pa.concat_tables(each_of(read, parts))
        if self.store.exists(SOURCES_FILE) or not self.of_another_tool:
            return self.store.read_table(SOURCES_FILE, columns, remedy)
        made = self.table(FilterConfig(), [])["sample_id"].unique()
        real = pa.concat_tables([self.split(split, columns) for split in ("train", "val")])
        return rows_in(real, "sample_id", made)


def spectrum_at(place: str) -> Store:
    """The folder at a path or URI; links are followed, for the samples are beside their target.

    Raises SetupError if it cannot be opened.
    """
    try:
        local = "://" not in place
        path = os.path.realpath(os.path.expanduser(place), strict=True) if local else place
        store = Store.at(path)
        is_file = store.kind() == pafs.FileType.File
    except UNOPENED as error:
        trouble = trouble_of_store(str(error), TO_READ)
        if trouble is not None:
            why, todo = trouble
            raise SetupError(
                f"spectrum.path = '{place}': cannot be read ({why}); {todo}"
            ) from error
        strerror = error.strerror if isinstance(error, OSError) else None
        why = strerror or " ".join(str(error).split())[:200]
        raise SetupError(
            f"spectrum.path = '{place}': {why}; name the folder or URI that generate wrote"
        ) from error
    if is_file:
        raise SetupError(f"spectrum.path = '{place}': a file; name the folder that generate wrote")
    return store


def read_recorded(store: Store) -> Config | None:
    """The configuration a spectrum is made with; None if there is none this version can read."""
    if not store.exists(CONFIG):
        return None
    try:
        with store.reading(CONFIG):
            return recorded_config(store.read(CONFIG).decode())
    except (IntegrityError, ValidationError, yaml.YAMLError, UnicodeDecodeError):
        return None


def check_complete(store: Store) -> None:
    """Raises SetupError unless every shard is committed, IntegrityError for a damaged manifest."""
    if is_of_another_tool(store):
        return
    if not store.exists(MANIFEST) or not _is_spectrum(store):
        raise SetupError(_what_lies_there(store))
    if lost := lost_commits(store):
        raise SetupError(f"{lost}; {remake(store)}, which makes their images again")


def lost_commits(store: Store) -> str:
    """Says how many shards of a complete spectrum have no commit record; empty if all have one.

    Raises IntegrityError if the manifest is damaged.
    """

    def remedy() -> str:
        return f"{again(store)}, without making an image again"

    with store.reading(MANIFEST, remedy):
        shards = int(store.read_json(MANIFEST, remedy)["shards"])
    lost = shards - len(store.list(COMMITS, ".json"))
    if lost <= 0:
        return ""
    return f"{store.location(COMMITS)}: {lost} of {shards} shards have no commit record any more"


def _is_spectrum(store: Store) -> bool:
    """Whether a folder of ours is a spectrum's: it has a plan, or a part of what was made of it."""
    planned = store.exists(SHARDS_FILE) or store.exists(PLAN_FILE)
    return planned or not {COMMITS, DATA}.isdisjoint(store.folders())


def _what_lies_there(store: Store) -> str:
    """Why a folder is no complete spectrum."""
    place = store.location()
    if store.list(COMMITS, ".json"):
        count = len(committed(store))
        shards = "1 shard is" if count == 1 else f"{count} shards are"
        state = f"{shards} committed, and more are missing"
        return f"{place}: {state}; {remake(store)}, which goes on"
    folders = store.folders()
    inner = [folder for folder in folders if folder.startswith(PREFIX)]
    if inner:
        names = ", ".join(inner)
        return f"{place}: the folder of a run; a spectrum lies in one of its folders {names}"
    if store.name == DATA and store.list("", ".parquet"):
        above = store.parent.location()
        return f"{place}: the images of a spectrum; name the folder above, {above}"
    return (
        f"{place}: no spectrum lies there ({DATA}/*.parquet is missing); "
        "name the folder that generate wrote"
    )
