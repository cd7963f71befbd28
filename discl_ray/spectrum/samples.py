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
    if is_of_another_tool(run) and not run.exists(SAMPLES_AT):
        samples = run.within(INSIDE)
    else:
        remedy = partial(again, run)
        with run.reading(SAMPLES_AT, remedy):
            samples = run.parent.within(run.read_json(SAMPLES_AT, remedy)["directory"])
    if not samples.list("train", ".parquet"):
        raise IntegrityError(
            f"{samples.path('train')}: no table of the real training images of {run.name}; "
            f"{remake(run)}, which reads the data again and makes no image twice, "
            f"or copy the folder {samples.name} to it"
        )
    return samples


def read_split(samples: Store, split: str, columns: list[str] | None = None) -> pa.Table:
    """SAMPLES rows of one split; images in files as paths.

    `test` is for `discl_ray.evaluate` alone.
    """
    schema = SAMPLES if columns is None else pa.schema([SAMPLES.field(name) for name in columns])
    parts = [read_part(samples, name, schema.names) for name in samples.list(split, ".parquet")]
    rows = pa.concat_tables([schema.empty_table(), *parts], promote_options="default")
    return rows.select(schema.names)


def read_part(samples: Store, name: str, columns: Sequence[str]) -> pa.Table:
    """SAMPLES rows of one file; columns that it lacks are null."""
    table = samples.read_table(name, list(columns), SAMPLES_AGAIN)
    schema = pa.schema([SAMPLES.field(column) for column in columns])
    for field in schema:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return conform(table, schema, samples.path(name))


def class_names(samples: Store) -> tuple[str, ...]:
    """Class names by label, of all splits.

    Raises IntegrityError if another tool's tables give a label no name, or two.
    """
    if samples.exists(MANIFEST):
        with samples.reading(MANIFEST, SAMPLES_AGAIN):
            return tuple(samples.read_json(MANIFEST, SAMPLES_AGAIN)["classes"])
    check_samples(samples)
    columns = ["label", "class_name"]
    every = pa.concat_tables([read_split(samples, split, columns) for split in SPLITS])
    pairs = every.group_by(columns).aggregate([]).sort_by("label")
    labels = pairs["label"].to_pylist()
    if labels != list(range(len(labels))):
        raise IntegrityError(
            f"{samples.base}: labels are {labels[:10]}; 0, 1, 2, … without a gap are needed, "
            "each with one class_name"
        )
    return tuple(pairs["class_name"].to_pylist())


def content_of_samples(samples: Store) -> str:
    """Hash of the samples' content, independent of their place."""
    if samples.exists(MANIFEST):
        with samples.reading(MANIFEST, SAMPLES_AGAIN):
            return samples.read_json(MANIFEST, SAMPLES_AGAIN)["fingerprint"]
    hashes: list[str] = []
    for split in SPLITS:
        hashes.extend(sha256(samples.read(name)) for name in samples.list(split, ".parquet"))
    return sha256("".join(hashes).encode())
