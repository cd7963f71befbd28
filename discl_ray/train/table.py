"""The image table: everything a training run may look at, decoded once, memory-mapped by every worker.

An immutable Arrow file named by its content lies in the run's storage. The curriculum is a sampler over it: a new λ is a new
list of row numbers, never a new loader. Rows carry a role; only rows of role `train` can enter a training batch.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from filelock import FileLock
from numpy.typing import NDArray

from discl_ray.core.filter import FilterConfig
from discl_ray.core.ids import sha256
from discl_ray.core.images import decode_image
from discl_ray.core.lam import REAL
from discl_ray.core.schema import SPECTRUM
from discl_ray.core.storage import Store
from discl_ray.spectrum import open_spectrum


@dataclass(frozen=True)
class ImageTable:
    """Decoded images with what is known of them; arrays share the mapped file's memory and are read-only."""

    images: NDArray[np.uint8]
    """Shape (N, H, W, 3)."""
    label: NDArray[np.int64]
    lam_pct: NDArray[np.int64]
    """100 for real images."""
    role: NDArray[np.str_]
    """train: may be trained on; probe: synthetic from val, only to judge progress; val: real, only to evaluate."""

    @classmethod
    def open(cls, path: str | Path) -> ImageTable:
        """Maps a file written by `build_table`."""
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        side = [int(n) for n in table.schema.metadata[b"shape"].split(b"x")]
        raw = table["raw"].chunk(0)
        pixels = np.frombuffer(raw.buffers()[1], np.uint8)[: len(raw) * side[0] * side[1] * 3]
        return cls(
            images=pixels.reshape(len(raw), *side, 3),
            label=table["label"].to_numpy().astype(np.int64),
            lam_pct=table["lam_pct"].to_numpy().astype(np.int64),
            role=np.asarray(table["role"].to_pylist()),
        )


def build_table(generated: Store, filter_config: FilterConfig, run: Store) -> str:
    """Decodes real training images, kept synthetic ones, probes and val images into one Arrow file; returns its name.

    The test split is not read here, nor anywhere in training.
    """
    spectrum = open_spectrum(generated, filter_config, SPECTRUM.names)
    rows: list[tuple[bytes, int, int, str]] = []
    for split in ("train", "val"):
        samples = generated.read_table(f"samples/{split}.parquet")
        for sample in samples.select(["image", "label"]).to_pylist():
            rows.append((sample["image"]["bytes"], sample["label"], REAL, split))
    for row in spectrum.select(["image", "label", "lam_pct", "role", "kept"]).to_pylist():
        if row["kept"]:
            rows.append((row["image"]["bytes"], row["label"], row["lam_pct"], row["role"]))
    pixels = np.stack([decode_image(data) for data, *_ in rows])
    height, width = pixels.shape[1:3]
    table = pa.table(
        {
            "raw": pa.FixedSizeBinaryArray.from_buffers(pa.binary(height * width * 3), len(rows), [None, pa.py_buffer(pixels)]),
            "label": pa.array([label for _, label, _, _ in rows], pa.int32()),
            "lam_pct": pa.array([lam for _, _, lam, _ in rows], pa.int32()),
            "role": pa.array([role for *_, role in rows]),
        }
    ).replace_schema_metadata({"shape": f"{height}x{width}"})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    data = sink.getvalue().to_pybytes()
    name = f"table/{sha256(data)[:16]}.arrow"
    if not run.exists(name):
        run.write(name, data)
    return name


def local_copy(run: Store, name: str) -> Path:
    """The table as a file on this node; one process fetches it under a lock, the others wait and map the same file."""
    if run.local is not None:
        return run.local / name
    target = Path(os.environ.get("TMPDIR", "/tmp")) / "discl_ray" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if not target.is_file():
            Store.at(target.parent).write(target.name, run.read(name))
    return target
