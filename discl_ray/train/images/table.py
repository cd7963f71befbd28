"""The image table: everything that training on a spectrum reads, made once for all runs.

    runs/<name>/table-<hash8>/segments/<sha16>.arrow   images, in files named by their content
    runs/<name>/table-<hash8>/TABLE.json               which segments, in order; written last
    runs/<name>/table-<hash8>/TABLE-<hash8>.json       the same and appended ones

The folder is named by the spectrum, the filter and the images' size. The curriculum is a sampler
over the table: a new λ is a new list of row numbers, never a new loader. Rows carry a role; only
rows of role `train` can enter a training batch, and the test split is not read here, nor anywhere
in training.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from discl_ray.core.arrays import Bools, Ints, Texts
from discl_ray.core.columns import both, either, equal, fill_null, is_in, places_in
from discl_ray.core.ids import stable_id
from discl_ray.core.lam import REAL
from discl_ray.core.run_directory import locked
from discl_ray.core.settings import identity
from discl_ray.core.storage import Store
from discl_ray.errors import IntegrityError
from discl_ray.spectrum.config import FilterConfig
from discl_ray.spectrum.files import content_of
from discl_ray.spectrum.filter import best_attempts
from discl_ray.spectrum.open import Spectrum
from discl_ray.spectrum.samples import content_of_samples, read_part
from discl_ray.train.images.node_cache import make_local
from discl_ray.train.images.segments import (
    READERS,
    ROWS,
    Images,
    Mode,
    Segment,
    map_segment,
    rows_of_segment,
    write_segment,
)
from discl_ray.train.images.writer import WANTED, SegmentWriter, cut, values_of, write_segments

INDEX = "TABLE.json"

MAX_DECODED_GB = 64.0
"""Pixels up to which mode `auto` stores them decoded, in 10^9 bytes."""

Role = Literal["train", "probe", "val"]

FORMAT = 2
"""Part of a table's name, raised whenever what is written changes. 1: probes were filtered."""


def _unknown() -> Texts:
    """A column that is not given, which the table fills with empty texts."""
    return np.empty(0, np.str_)


@dataclass(frozen=True)
class ImageTable:
    """Images and their columns, arrays of shape (N,); those of an opened table are read-only."""

    images: Images
    """`images[rows]` are pixels, uint8, shape (len(rows), side, side, 3)."""
    label: Ints
    lam_pct: Ints
    """100 for real images."""
    role: Texts
    """train: may be trained on; probe: synthetic from val, only to measure progress; val: real,
    only to evaluate."""
    hard: Bools
    """Real images that have a spectrum: of role train, and of role val as sources of probes."""
    domain: Texts = field(default_factory=_unknown)
    """Where the real image, or a synthetic one's source, was taken; empty if nothing is known."""
    sample_id: Texts = field(default_factory=_unknown)
    """The real image, a synthetic one's source."""

    def __post_init__(self) -> None:
        """Fills columns that are not given."""
        for name in ("domain", "sample_id"):
            given = getattr(self, name)
            if not len(given):
                empty = np.full(len(self.label), "")
                object.__setattr__(self, name, empty)


@dataclass(frozen=True, kw_only=True)
class TableRef:
    """A table that has been written; small, and can be sent to any process."""

    store: Store
    """Its folder."""
    name: str
    """Its index in the folder."""
    side: int
    mode: Mode
    segments: tuple[Segment, ...]

    @classmethod
    def read(cls, store: Store, name: str = INDEX) -> TableRef:
        """The table of an index."""
        with store.reading(name):
            index = store.read_json(name)
            segments = tuple(Segment(**segment) for segment in index["segments"])
            return cls(
                store=store, name=name, side=index["side"], mode=index["mode"], segments=segments
            )

    def write(self, counts: Mapping[str, int]) -> TableRef:
        """Writes the index; `counts` are there for people who read it."""
        index = {
            "side": self.side,
            "mode": self.mode,
            "segments": [asdict(segment) for segment in self.segments],
            "counts": dict(counts),
        }
        self.store.write_json(self.name, index)
        return self

    def __len__(self) -> int:
        return sum(segment.rows for segment in self.segments)


# -- opening


def open_table(ref: TableRef) -> ImageTable:
    """Maps a table into memory, after its segments have been brought to this node.

    Raises IntegrityError if a segment is gone or damaged, SetupError without room for a copy.
    """
    paths = make_local(ref.store, ref.segments)
    batches = [map_segment(path) for path in paths]
    contents = [batch.column("content") for batch in batches]
    without_images = [batch.select(ROWS.names) for batch in batches]
    rows = pa.Table.from_batches(without_images)
    hard = np.array(rows["hard"].to_pylist(), bool)
    return ImageTable(
        images=READERS[ref.mode](contents, ref.side),
        label=_integers(rows["label"]),
        lam_pct=_integers(rows["lam_pct"]),
        role=_texts(rows["role"]),
        hard=_read_only(hard),
        domain=_texts(rows["domain"]),
        sample_id=_texts(rows["sample_id"]),
    )


def _integers(column: pa.ChunkedArray) -> Ints:
    """A column of any integers."""
    integers = column.to_numpy()
    return _read_only(integers.astype(np.int64))


def _texts(column: pa.ChunkedArray) -> Texts:
    """A column of texts, in numpy's own kind."""
    texts = column.to_pylist()
    return _read_only(np.array(texts))


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    """The same array, which cannot be written to any more."""
    array.setflags(write=False)
    return array


# -- building


def build_table(
    spectrum: Spectrum,
    filter_config: FilterConfig,
    side: int,
    *,
    beside: Store | None = None,
    mode: Literal["auto"] | Mode = "auto",
    max_decoded_gb: float = MAX_DECODED_GB,
    num_cpus: int | None = None,
) -> TableRef:
    """The table of a complete spectrum.

    It holds real training images, kept synthetic ones, all probes, and val images. It is made once:
    of several processes on one disk that need it, one makes it and the others wait. `auto` stores
    it decoded unless it is larger than `max_decoded_gb`. Raises DataError for an image that is gone
    or broken.
    """
    limit = max_decoded_gb if mode == "auto" else None
    made_from = [content_of(spectrum.store), content_of_samples(spectrum.samples)]
    filtered = identity(filter_config)
    name = stable_id(FORMAT, spectrum.name, *made_from, filtered, side, mode, limit)[:8]
    runs = beside or spectrum.store.parent
    store = runs.within(f"table-{name}")
    existing = _existing(store, side)
    if existing is not None:
        return existing
    with locked(store, wait=True):
        existing = _existing(store, side)
        if existing is not None:
            return existing
        rows = table_rows(spectrum, filter_config)
        if mode == "auto":
            mode = _mode_of(rows.num_rows, side, max_decoded_gb)
        writer = SegmentWriter(spectrum.samples, spectrum.store, store, side, mode)
        segments = write_segments(rows, writer, num_cpus)
        table = TableRef(store=store, name=INDEX, side=side, mode=mode, segments=segments)
        return table.write(_count(rows))


def _mode_of(rows: int, side: int, max_decoded_gb: float) -> Mode:
    """Decoded, unless the pixels of that many images take more space than allowed."""
    size = rows * side * side * 3
    allowed = max_decoded_gb * 1e9
    return "decoded" if size <= allowed else "encoded"


def _existing(store: Store, side: int) -> TableRef | None:
    """The table of a folder; None without one, or if its index is damaged and is made again."""
    if not store.exists(INDEX):
        return None
    try:
        table = TableRef.read(store)
    except IntegrityError:
        return None
    fits = table.side == side and table.mode in READERS
    return table if fits else None


def append_segment(ref: TableRef, rows: pa.Table) -> TableRef:
    """The table with more rows at its end: ROWS and `image` {bytes, path}, decoded here.

    Another index names the old segments and the new ones, so the old table stays valid, and its row
    numbers are the same in the new one. Raises DataError for an image that is gone or broken,
    ValueError for an unknown role.
    """
    _check_roles(rows)
    segments = list(ref.segments)
    length = rows_of_segment(ref.side, ref.mode)
    for part in cut(rows, length):
        images = enumerate(part["image"].to_pylist())
        segment = write_segment(ref.store, part, images, ref.side, ref.mode)
        segments.append(segment)
    content = stable_id(*(segment.sha256 for segment in segments))
    before = ref.store.read_json(ref.name)["counts"]
    counts = Counter(before) + Counter(_count(rows))
    longer = TableRef(
        store=ref.store,
        name=f"TABLE-{content[:8]}.json",
        side=ref.side,
        mode=ref.mode,
        segments=tuple(segments),
    )
    return longer.write(counts)


def _check_roles(rows: pa.Table) -> None:
    """Raises ValueError for a role that no table holds."""
    roles = get_args(Role)
    unknown = set(rows["role"].to_pylist()) - set(roles)
    if unknown:
        named = min(unknown, key=str)
        known = ", ".join(roles)
        raise ValueError(f"role '{named}': a table holds rows of role {known}")


def table_rows(spectrum: Spectrum, filter_config: FilterConfig) -> pa.Table:
    """ROWS of the whole table, and where each image lies, without pixels.

    Train, val, then synthetic images, source by source.
    """
    sources = spectrum.sources()
    parts = [WANTED.empty_table()]
    for split in ("train", "val"):
        parts.extend(_real_rows(spectrum.samples, split, sources))
    parts.append(_made_rows(spectrum, filter_config, sources))
    return pa.concat_tables(parts)


def _real_rows(samples: Store, split: str, sources: pa.Table) -> Iterator[pa.Table]:
    """Rows of a split's images, file by file; those that have a spectrum are hard."""
    ids = sources["sample_id"].combine_chunks()
    for file in samples.list(split, ".parquet"):
        real = read_part(samples, file, ["sample_id", "label", "domain"])
        key = real["sample_id"]
        columns = {"hard": is_in(key, ids), "key": key}
        same = {"lam_pct": REAL, "role": split, "file": file, "made": False}
        yield _rows(real, columns, same)


def _made_rows(spectrum: Spectrum, filter_config: FilterConfig, sources: pa.Table) -> pa.Table:
    """Rows of the synthetic images, source by source."""
    ids = sources["sample_id"].combine_chunks()
    made = spectrum.table(filter_config, ["file"])
    made = made.filter(_usable(made))
    # the order in which shards are cut: so the images of a segment lie in few files
    places = places_in(made["sample_id"], ids)
    made = made.append_column("place", places)
    keys = ("place", "lam_pct", "replica", "attempt")
    made = made.sort_by([(name, "ascending") for name in keys])
    domains = sources["domain"].combine_chunks()
    columns = {"domain": domains.take(made["place"]), "key": made["gid"]}
    return _rows(made, columns, {"hard": False, "made": True})


def _usable(spectrum: pa.Table) -> pa.ChunkedArray | pa.Array:
    """Kept images to train on, and all probes: then every level's come from the same sources."""
    trains = equal(spectrum["role"], "train")
    to_train_on = both(trains, spectrum["kept"])
    probes = equal(spectrum["role"], "probe")
    best = pa.array(best_attempts(spectrum))
    to_probe_with = both(probes, best)
    return either(to_train_on, to_probe_with)


def _rows(table: pa.Table, columns: Mapping[str, Any], same: Mapping[str, Any]) -> pa.Table:
    """WANTED of a table's own columns, other `columns`, and those of one value in all rows."""
    given: dict[str, Any] = {name: table[name] for name in table.column_names}
    given |= columns
    for name, value in same.items():
        given[name] = pa.repeat(value, table.num_rows)
    domain = given["domain"].cast(pa.string())
    given["domain"] = fill_null(domain, "")
    whole = {name: given[name] for name in WANTED.names}
    return pa.table(whole).cast(WANTED)


def _count(rows: pa.Table) -> dict[str, int]:
    """Numbers of rows: train, synthetic, probe, val, and the hard ones among the real."""
    kinds: Counter[str] = Counter()
    for role, lam_pct in values_of(rows, "role", "lam_pct"):
        synthetic = role == "train" and lam_pct != REAL
        kind = "synthetic" if synthetic else role
        kinds[kind] += 1
    hard = rows["hard"].to_pylist()
    return {**kinds, "hard": sum(hard)}
