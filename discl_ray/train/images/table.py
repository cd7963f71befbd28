# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions at import; pyright cannot see them)
"""The image table: everything training on a spectrum may look at, made once and read by every worker of every run.

    runs/<name>/table-<hash8>/segments/<sha16>.arrow   images, in files named by their content
    runs/<name>/table-<hash8>/TABLE.json               which segments, in their order; written last
    runs/<name>/table-<hash8>/TABLE-<hash8>.json       the same and appended ones

The folder is named by the spectrum, the filter and the images' size. The curriculum is a sampler over the table: a new λ is a new
list of row numbers, never a new loader. Rows carry a role; only rows of role `train` can enter a training batch, and the test
split is not read here, nor anywhere in training.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from discl_ray.cluster.map_blocks import map_blocks
from discl_ray.core.ids import stable_id
from discl_ray.core.lam import REAL
from discl_ray.core.run_directory import locked
from discl_ray.core.settings import identity
from discl_ray.core.storage import ROW_GROUP, Store, open_parquet
from discl_ray.errors import DataError, IntegrityError
from discl_ray.spectrum.commit import content_of
from discl_ray.spectrum.config import FilterConfig
from discl_ray.spectrum.filter import best_attempts
from discl_ray.spectrum.open import Spectrum
from discl_ray.spectrum.remedies import images_again
from discl_ray.spectrum.samples import SAMPLES_AGAIN, content_of_samples, read_part
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

INDEX = "TABLE.json"

MAX_DECODED_GB = 64.0
"""Pixels up to which mode `auto` stores them decoded, in 10^9 bytes."""

Role = Literal["train", "probe", "val"]

FORMAT = 2
"""Part of a table's name; another number where what is written changes. 1: probes were filtered."""


def _unknown() -> NDArray[np.str_]:
    return np.empty(0, np.str_)


@dataclass(frozen=True)
class ImageTable:
    """Images with what is known of them. Arrays of an opened table are read-only."""

    images: Images
    """`images[rows]` are pixels, uint8, shape (len(rows), side, side, 3)."""
    label: NDArray[np.int64]
    lam_pct: NDArray[np.int64]
    """100 for real images."""
    role: NDArray[np.str_]
    """train: may be trained on; probe: synthetic from val, only to judge progress; val: real, only to evaluate."""
    hard: NDArray[np.bool_]
    """Real images that have a spectrum: of role train, and, as sources of probes, of role val."""
    domain: NDArray[np.str_] = field(default_factory=_unknown)
    """Where an image was taken, a synthetic one's source; empty where there is no such thing."""
    sample_id: NDArray[np.str_] = field(default_factory=_unknown)
    """The real image, a synthetic one's source."""

    def __post_init__(self) -> None:
        for name in ("domain", "sample_id"):
            if not len(getattr(self, name)):
                object.__setattr__(self, name, np.full(len(self.label), ""))


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
        """Writes the index; `counts` are for those who look into it."""
        segments = [asdict(segment) for segment in self.segments]
        self.store.write_json(
            self.name,
            {"side": self.side, "mode": self.mode, "segments": segments, "counts": dict(counts)},
        )
        return self

    def __len__(self) -> int:
        return sum(segment.rows for segment in self.segments)


# -- opening


def open_table(ref: TableRef) -> ImageTable:
    """Maps a table into memory, after its segments have been brought to this node.

    Raises IntegrityError if a segment is gone or damaged, SetupError if there is no room for a copy.
    """
    batches = [map_segment(path) for path in make_local(ref.store, ref.segments)]
    rows = pa.Table.from_batches([batch.select(ROWS.names) for batch in batches])
    table = ImageTable(
        images=READERS[ref.mode]([batch.column("content") for batch in batches], ref.side),
        label=rows["label"].to_numpy().astype(np.int64),
        lam_pct=rows["lam_pct"].to_numpy().astype(np.int64),
        role=np.array(rows["role"].to_pylist()),
        hard=np.array(rows["hard"].to_pylist(), bool),
        domain=np.array(rows["domain"].to_pylist()),
        sample_id=np.array(rows["sample_id"].to_pylist()),
    )
    for array in (
        table.label,
        table.lam_pct,
        table.role,
        table.hard,
        table.domain,
        table.sample_id,
    ):
        array.setflags(write=False)
    return table


# -- building

_WANTED = pa.schema([*ROWS, ("file", pa.string()), ("made", pa.bool_()), ("key", pa.string())])
"""A row to be, and where its image lies: in which file of the samples or (made) of the spectrum, under which id."""

_WRITTEN = pa.schema(
    [
        ("number", pa.int64()),
        ("sha256", pa.string()),
        ("rows", pa.int64()),
        ("size", pa.int64()),
        ("error", pa.string()),
    ]
)


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
    """The table of a complete spectrum: real training images, kept synthetic ones, all probes, and val images.

    Made once: of several processes on one disk that ask for it, one makes it and the others wait. `auto` decodes it unless it
    comes to more than `max_decoded_gb`. Raises DataError for an image that is gone or broken.
    """
    limit = max_decoded_gb if mode == "auto" else None
    made_from = [content_of(spectrum.store), content_of_samples(spectrum.samples)]
    name = stable_id(FORMAT, spectrum.name, *made_from, identity(filter_config), side, mode, limit)[
        :8
    ]
    store = (beside or spectrum.store.parent).within(f"table-{name}")
    if (known := _known(store, side)) is not None:
        return known
    with locked(store, wait=True):
        if (known := _known(store, side)) is not None:
            return known
        rows = table_rows(spectrum, filter_config)
        size = rows.num_rows * side * side * 3
        kind: Mode = (
            mode if mode != "auto" else "decoded" if size <= max_decoded_gb * 1e9 else "encoded"
        )
        segments = _write_segments(
            rows, _WriteSegment(spectrum.samples, spectrum.store, store, side, kind), num_cpus
        )
        return TableRef(store=store, name=INDEX, side=side, mode=kind, segments=segments).write(
            _count(rows)
        )


def _known(store: Store, side: int) -> TableRef | None:
    """The table of a folder; None if there is none, or its index has been damaged, and it is written again."""
    try:
        known = TableRef.read(store) if store.exists(INDEX) else None
    except IntegrityError:
        return None
    return known if known is not None and known.side == side and known.mode in READERS else None


def append_segment(ref: TableRef, rows: pa.Table) -> TableRef:
    """The table with more rows at its end: ROWS and `image` {bytes, path}, decoded here.

    Another index names the old segments and the new ones, so whoever has the old table goes on with it, and its row numbers hold
    in the new one. Raises DataError for an image that is gone or broken, ValueError for a role that is none.
    """
    if foreign := set(rows["role"].to_pylist()) - set(get_args(Role)):
        raise ValueError(
            f"role '{min(foreign, key=str)}': a table holds rows of role {', '.join(get_args(Role))}"
        )
    added = tuple(
        write_segment(ref.store, part, enumerate(part["image"].to_pylist()), ref.side, ref.mode)
        for part in _cut(rows, rows_of_segment(ref.side, ref.mode))
    )
    segments = (*ref.segments, *added)
    name = f"TABLE-{stable_id(*(segment.sha256 for segment in segments))[:8]}.json"
    counts = Counter(ref.store.read_json(ref.name)["counts"]) + Counter(_count(rows))
    return TableRef(
        store=ref.store, name=name, side=ref.side, mode=ref.mode, segments=segments
    ).write(counts)


def table_rows(spectrum: Spectrum, filter_config: FilterConfig) -> pa.Table:
    """ROWS of the whole table, and where each image lies, without a pixel: train, val, then what was made, source by source."""
    samples, sources = spectrum.samples, spectrum.sources()
    ids = sources["sample_id"].combine_chunks()
    parts = [_WANTED.empty_table()]
    for split in ("train", "val"):
        for file in samples.list(split, ".parquet"):
            real = read_part(samples, file, ["sample_id", "label", "domain"])
            known = {"lam_pct": REAL, "role": split, "file": file, "made": False}
            columns = {"hard": pc.is_in(real["sample_id"], ids), "key": real["sample_id"]}
            parts.append(_rows(real, columns, known))
    made = spectrum.table(filter_config, ["file"])
    made = made.filter(_usable(made))
    # as shards are cut: the images of a segment lie in few files
    made = made.append_column("place", pc.index_in(made["sample_id"], ids))
    order = [(name, "ascending") for name in ("place", "lam_pct", "replica", "attempt")]
    made = made.sort_by(order)
    columns = {"domain": sources["domain"].combine_chunks().take(made["place"]), "key": made["gid"]}
    parts.append(_rows(made, columns, {"hard": False, "made": True}))
    return pa.concat_tables(parts)


def _usable(spectrum: pa.Table) -> pa.ChunkedArray | pa.Array:
    """Kept images to train on, and probes whatever the filter says: then every level's come from the same sources."""
    trains, probes = (pc.equal(spectrum["role"], role) for role in ("train", "probe"))
    return pc.or_(
        pc.and_(trains, spectrum["kept"]), pc.and_(probes, pa.array(best_attempts(spectrum)))
    )


def _rows(table: pa.Table, columns: Mapping[str, Any], known: Mapping[str, Any]) -> pa.Table:
    """_WANTED of a table's own columns, others, and those of one value."""
    given = {**{name: pa.repeat(value, table.num_rows) for name, value in known.items()}, **columns}
    whole = {name: given[name] if name in given else table[name] for name in _WANTED.names}
    return pa.table({**whole, "domain": pc.fill_null(whole["domain"].cast(pa.string()), "")}).cast(
        _WANTED
    )


def _cut(rows: pa.Table, length: int) -> list[pa.Table]:
    return [rows.slice(i, length).combine_chunks() for i in range(0, rows.num_rows, length)]


def _count(rows: pa.Table) -> dict[str, int]:
    """Rows by what they are."""
    kinds = [
        role if lam == REAL or role != "train" else "synthetic"
        for role, lam in _pairs(rows, "role", "lam_pct")
    ]
    return {**Counter(kinds), "hard": sum(rows["hard"].to_pylist())}


def _pairs(rows: pa.Table, *names: str) -> Iterator[tuple[Any, ...]]:
    return zip(*(rows[name].to_pylist() for name in names), strict=True)


def _write_segments(
    rows: pa.Table, work: _WriteSegment, num_cpus: int | None
) -> tuple[Segment, ...]:
    """All segments, in the order of `rows`."""
    blocks = [
        block.append_column("number", pa.repeat(number, block.num_rows))
        for number, block in enumerate(_cut(rows, rows_of_segment(work.side, work.mode)))
    ]
    segments: dict[int, Segment] = {}
    for done in map_blocks(blocks, work, "images into the table", num_cpus, weigh="rows"):
        for row in done.to_pylist():
            if row["error"] is not None:
                raise DataError(row["error"])
            segments[row["number"]] = Segment(row["sha256"], row["rows"], row["size"])
    return tuple(segments[number] for number in range(len(blocks)))


@dataclass(frozen=True)
class _WriteSegment:
    """Rows of one `number` (_WANTED) become a segment, and a row of _WRITTEN; what is wrong with an image is a row, too."""

    samples: Store
    generated: Store
    target: Store
    side: int
    mode: Mode

    def __call__(self, rows: pa.Table) -> pa.Table:
        row: dict[str, Any] = {"number": rows["number"][0].as_py(), "rows": rows.num_rows}
        try:
            row |= asdict(
                write_segment(self.target, rows, self._images(rows), self.side, self.mode)
            )
        except DataError as error:
            row["error"] = str(error)
        return pa.Table.from_pylist([row], schema=_WRITTEN)

    def _images(self, rows: pa.Table) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """(place, image), file by file, few in memory at a time."""
        files: dict[tuple[str, bool], dict[str, int]] = {}
        for place, (file, made, key) in enumerate(_pairs(rows, "file", "made", "key")):
            files.setdefault((file, made), {})[key] = place
        for (file, made), places in files.items():
            store, key = (self.generated, "gid") if made else (self.samples, "sample_id")
            remedy = images_again(self.generated) if made else SAMPLES_AGAIN
            with (
                store.reading(file, remedy),
                store.filesystem.open_input_file(store.path(file)) as source,
            ):
                for batch in open_parquet(source).iter_batches(
                    ROW_GROUP, columns=[key, "image"], use_threads=False
                ):
                    for i, name in enumerate(batch.column(key).to_pylist()):
                        if (place := places.pop(name, None)) is not None:
                            yield place, batch.column("image")[i].as_py()
            if places:
                raise IntegrityError(f"{store.path(file)}: {len(places)} images are gone; {remedy}")
