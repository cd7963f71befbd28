"""The real images a spectrum was made from: in the folder that it names, or in its `samples/`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pyarrow as pa

from discl_ray.core.ids import sha256
from discl_ray.core.run_directory import MANIFEST
from discl_ray.core.schema import SAMPLES
from discl_ray.core.splits import SPLITS
from discl_ray.core.storage import DELETE, Store
from discl_ray.errors import IntegrityError
from discl_ray.process.calls import AGAIN
from discl_ray.spectrum.of_another_tool import check_samples, conform
from discl_ray.spectrum.remedies import again, is_of_another_tool, remake

SAMPLES_AT = "samples.json"
"""Names the folder of the samples a spectrum was made from; it lies beside the spectrum's."""

INSIDE = "samples"
"""Where they lie if the spectrum does not name them."""

SAMPLES_AGAIN = f"{DELETE}{AGAIN}, which reads the data again"


def samples_of(run: Store) -> Store:
    """The folder of the samples a spectrum was made from.

    Raises IntegrityError if it has no training image.
    """
    samples = _named_samples(run)
    if not samples.list("train", ".parquet"):
        raise IntegrityError(
            f"{samples.location('train')}: no table of the real training images of {run.name}; "
            f"{remake(run)}, which reads the data again and makes no image twice, "
            f"or copy the folder {samples.name} to it"
        )
    return samples


def _named_samples(run: Store) -> Store:
    """The folder that a spectrum names, whether it is there or not; by default `samples/` in it."""
    if is_of_another_tool(run) and not run.exists(SAMPLES_AT):
        return run.within(INSIDE)
    remedy = partial(again, run)
    with run.reading(SAMPLES_AT, remedy):
        named = run.read_json(SAMPLES_AT, remedy)
        # A folder's name, not a path: a spectrum and its samples can be moved together.
        return run.parent.within(named["directory"])


def read_split(samples: Store, split: str, columns: list[str] | None = None) -> pa.Table:
    """SAMPLES rows of one split; images in files as paths.

    `test` is for `discl_ray.evaluate` alone.
    """
    schema = SAMPLES if columns is None else _schema(columns)
    # The empty table in front is the result where a split has no file.
    parts = [schema.empty_table()]
    for name in samples.list(split, ".parquet"):
        parts.append(read_part(samples, name, schema.names))
    rows = pa.concat_tables(parts, promote_options="default")
    return rows.select(schema.names)


def _schema(columns: Sequence[str]) -> pa.Schema:
    """Some columns of SAMPLES, in the given order."""
    return pa.schema([SAMPLES.field(name) for name in columns])


def read_part(samples: Store, name: str, columns: Sequence[str]) -> pa.Table:
    """SAMPLES rows of one file; columns that it lacks are null."""
    table = samples.read_table(name, list(columns), SAMPLES_AGAIN)
    schema = _schema(columns)
    for field in schema:
        if field.name not in table.column_names:
            absent = pa.nulls(table.num_rows, field.type)
            table = table.append_column(field, absent)
    return conform(table, schema, samples.location(name))


def class_names(samples: Store) -> tuple[str, ...]:
    """Class names by label, of all splits.

    Raises IntegrityError if another tool's tables give a label no name, or two.
    """
    if samples.exists(MANIFEST):
        with samples.reading(MANIFEST, SAMPLES_AGAIN):
            manifest = samples.read_json(MANIFEST, SAMPLES_AGAIN)
            return tuple(manifest["classes"])
    check_samples(samples)
    columns = ["label", "class_name"]
    splits = [read_split(samples, split, columns) for split in SPLITS]
    every = pa.concat_tables(splits)
    # Without an aggregation that is the distinct pairs.
    pairs = every.group_by(columns).aggregate([])
    pairs = pairs.sort_by("label")
    labels = pairs["label"].to_pylist()
    needed = list(range(len(labels)))
    if labels != needed:
        raise IntegrityError(
            f"{samples.location()}: labels are {labels[:10]}; 0, 1, 2, … without a gap are needed, "
            "each with one class_name"
        )
    return tuple(pairs["class_name"].to_pylist())


def content_of_samples(samples: Store) -> str:
    """Hash of the samples' content, independent of their place."""
    if samples.exists(MANIFEST):
        with samples.reading(MANIFEST, SAMPLES_AGAIN):
            manifest = samples.read_json(MANIFEST, SAMPLES_AGAIN)
            return manifest["fingerprint"]
    hashes: list[str] = []
    for split in SPLITS:
        names = samples.list(split, ".parquet")
        hashes.extend(sha256(samples.read(name)) for name in names)
    together = "".join(hashes)
    return sha256(together.encode())
