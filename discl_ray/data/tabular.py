# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions at import; pyright cannot see them)
"""Tables with images in them: what Parquet and other formats of columns share.

An image is a cell of bytes, of {bytes, path} as Hugging Face has it, or the path of a file under the root. Labels are text or
whole numbers. Listing reads every column but the bytes; these are read by row group and in small batches, so that a file may be
larger than memory. Columns of extension types are refused by their name alone: some hold pickled objects, which are programs.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.types as pat

from discl_ray.core.storage import Store
from discl_ray.data.files import (
    SPLIT_WORDS,
    File,
    Problems,
    choose_columns,
    split_of,
    stamp_of,
    stat_files,
)
from discl_ray.data.listing import LISTING, Listing, read_files
from discl_ray.data.root import guard
from discl_ray.data.wording import shown
from discl_ray.errors import DataError, ImageError

OPTIONAL = ("split", "sample_id", "domain", "group")


BATCH = 16
"""Images decoded from a file at once."""


BROKEN = (pa.ArrowException, OSError, ValueError)
"""What pyarrow raises at bytes that are not what they should be."""


Kind = Literal["bytes", "struct", "path"]


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file with a row an image."""

    path: str
    schema: pa.Schema
    split: str | None
    """Of all rows, where no column says it."""
    read: Callable[[list[str]], pa.Table]
    """Some of the columns, of all rows."""


def is_parquet(path: str) -> bool:
    """Whether a file is Parquet by its name."""
    return path.lower().endswith(".parquet")


def open_parquet(root: Store, path: str) -> Source:
    """A Parquet file by its footer; raises DataError if that is broken."""
    try:
        with _file(root, path) as file:
            schema = file.schema_arrow
    except BROKEN as error:
        raise unreadable(path, "a Parquet file", error) from error
    return Source(
        path=path, schema=schema, split=split_of_path(path), read=partial(_read_columns, root, path)
    )


def unreadable(path: str, what: str, error: Exception) -> DataError:
    """The error of a file that is broken as a whole."""
    return DataError(
        f"{shown(path)}: cannot be read as {what}: {shown(str(error))}; take it away or get it again"
    )


def list_sources(
    root: Store,
    sources: Iterable[Source],
    given: Mapping[str, str],
    *,
    optional: Sequence[str],
    files: Sequence[File],
    read: Callable[..., Iterator[bytes | ImageError]],
    links: bool,
    names: Sequence[str] | None = None,
    mend: str = "data.columns",
) -> Listing:
    """A listing of files with a row an image.

    `given` names columns that are not called as ours, by the keys `mend` of the configuration; `optional` are those that may
    lack, `names` are what whole numbers stand for. A split none of whose rows has a label (null, or -1 where numbers have
    names) is of no use here and left out.
    """
    tables: list[pa.Table] = []
    kinds: dict[tuple[Kind, bool, str], str] = {}
    for source in sources:
        columns = choose_columns(
            given,
            source.schema.names,
            required=("image", "label"),
            optional=optional,
            where=shown(source.path),
            mend=mend,
        )
        fields = {ours: source.schema.field(theirs) for ours, theirs in columns.items()}
        for field in fields.values():
            _check_plain(source.path, field)
        kind = image_kind(fields["image"].type)
        if kind is None:
            raise DataError(
                f"{shown(source.path)}: image column '{shown(columns['image'])}' is of type {shown(str(fields['image'].type))}; "
                "needed: encoded images (binary), {bytes, path}, or paths (string)"
            )
        kinds.setdefault((kind, _numbered(fields["label"].type), columns["image"]), source.path)
        if len(kinds) > 1:
            one, other = kinds.values()
            raise DataError(
                f"{shown(one)} and {shown(other)} have images or labels of different types; make them the same"
            )
        table = _columns(source, columns, kind, names)
        tables.append(_with_files(root, source.path, table) if kind == "path" else table)
    table = _labelled(pa.concat_tables(tables).combine_chunks(), [file.path for file in files])
    _check_unique(table["sample_id"])
    (kind, numbered, image), *_ = kinds
    in_files = kind == "path"
    images = stat_files(root, table["path"].to_pylist()) if in_files else []
    if in_files:
        spelt = pa.array([image.path for image in images], pa.string())
        table = table.set_column(table.column_names.index("path"), LISTING.field("path"), spelt)
    return Listing(
        table=table,
        root=root,
        read=read_files if in_files else partial(read, column=image, links=links),
        stamp=stamp_of([*files, *images]),
        in_files=in_files,
        classes=names
        or (sorted(set(table["class_key"].to_pylist()), key=int) if numbered else None),
    )


def image_kind(dtype: pa.DataType) -> Kind | None:
    """How a column of this type holds images, or null if it does not."""
    if pat.is_dictionary(dtype):
        dtype = dtype.value_type
    if pat.is_struct(dtype):
        cells = {dtype.field(i).name: dtype.field(i) for i in range(dtype.num_fields)}
        held = (
            "bytes" in cells and _is_bytes(cells["bytes"].type) and not _extension(cells["bytes"])
        )
        # a column of nulls, as Python's own lists give it, is no path either
        path = cells["path"].type if "path" in cells else pa.null()
        return "struct" if held and (pat.is_null(path) or _is_string(path)) else None
    if _is_bytes(dtype):
        return "bytes"
    return "path" if _is_string(dtype) else None


def _is_bytes(dtype: pa.DataType) -> bool:
    return pat.is_binary(dtype) or pat.is_large_binary(dtype) or pat.is_binary_view(dtype)


def _is_string(dtype: pa.DataType) -> bool:
    return pat.is_string(dtype) or pat.is_large_string(dtype) or pat.is_string_view(dtype)


def _extension(field: pa.Field) -> str | None:
    """The name of a field's extension type, whether this process knows it or not."""
    if isinstance(field.type, pa.BaseExtensionType):
        return field.type.extension_name
    name = (field.metadata or {}).get(b"ARROW:extension:name")
    return None if name is None else name.decode("utf-8", "replace")


def _check_plain(file: str, field: pa.Field) -> None:
    if name := _extension(field):
        raise DataError(
            f"{shown(file)}: column '{shown(field.name)}' is of the extension type {shown(name)}, which is not loaded: such "
            "columns may hold pickled objects. Write encoded images (PNG, JPEG) as binary, labels as text or whole numbers"
        )


def _numbered(dtype: pa.DataType) -> bool:
    return pat.is_integer(dtype.value_type if pat.is_dictionary(dtype) else dtype)


def _columns(
    source: Source, columns: Mapping[str, str], kind: Kind, names: Sequence[str] | None
) -> pa.Table:
    """LISTING of a file; where images are paths, `path` is what the file says."""
    wanted = [theirs for ours, theirs in columns.items() if ours != "image" or kind == "path"]
    try:
        table = source.read(list(dict.fromkeys(wanted)))
    except BROKEN as error:
        raise unreadable(source.path, "a table", error) from error
    count, where = table.num_rows, shown(source.path)
    found = {
        ours: table[theirs].combine_chunks()
        for ours, theirs in columns.items()
        if theirs in table.column_names
    }
    texts = {
        ours: _texts(where, ours, column)
        for ours, column in found.items()
        if ours not in ("image", "label")
    }
    numbers = pa.array(range(count), pa.int64())
    own = pc.binary_join_element_wise(pa.scalar(source.path), pc.cast(numbers, pa.string()), "#")
    if "sample_id" in texts and texts["sample_id"].null_count:
        raise DataError(
            f"{where}: row {_first(texts['sample_id'].is_null())} has no '{shown(columns['sample_id'])}'"
        )
    blank = pa.nulls(count, pa.string())
    in_files = kind == "path"
    return pa.table(
        {
            "sample_id": texts.get("sample_id", own),
            "path": _texts(where, "image", found["image"])
            if in_files
            else pa.array([source.path] * count, pa.string()),
            "row": pa.nulls(count, pa.int64()) if in_files else numbers,
            "class_key": _keys(where, found["label"], names),
            "split": _splits(where, texts["split"])
            if "split" in texts
            else pa.array([source.split] * count, pa.string()),
            "domain": texts.get("domain", blank),
            "group": texts.get("group", blank),
        },
        schema=LISTING,
    )


def _first(mask: Any) -> int:
    return pc.index(mask, pa.scalar(True)).as_py()


def _texts(where: str, name: str, column: pa.Array) -> pa.Array:
    """A column of text or of whole numbers as text."""
    if pat.is_dictionary(column.type):
        column = column.dictionary_decode()
    if not (_is_string(column.type) or pat.is_integer(column.type) or pat.is_null(column.type)):
        raise DataError(
            f"{where}: the column for {name} is of type {shown(str(column.type))}; needed: text or whole numbers"
        )
    try:
        texts = pc.cast(column, pa.string())
        texts.validate(full=True)  # Parquet says it is text; nobody has looked
    except pa.ArrowException as error:
        raise DataError(f"{where}: the column for {name} holds text that is not UTF-8") from error
    return texts


def _keys(where: str, column: pa.Array, names: Sequence[str] | None) -> pa.Array:
    """Labels as class keys; null where there is none."""
    texts = _texts(where, "label", column)
    if names is not None and _numbered(column.type):
        known = {str(i): name for i, name in enumerate(names)} | {"-1": None}
        if unknown := [
            key for key in texts.unique().to_pylist() if key is not None and key not in known
        ]:
            raise DataError(
                f"{where}: label {unknown[0]} has no name; the {len(names)} names are of labels 0 to {len(names) - 1}"
            )
        return pa.array([known.get(key) for key in texts.to_pylist()], pa.string())
    empty = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(texts), ""), False)
    if (at := _first(empty)) >= 0:
        raise DataError(f"{where}: row {at}: label '{shown(texts[at].as_py())}' is empty")
    return texts


def _splits(where: str, words: pa.Array) -> pa.Array:
    known = {word: split_of(word) if word else None for word in words.unique().to_pylist()}
    if unknown := [word for word, split in known.items() if word and split is None]:
        allowed = ", ".join(word for words in SPLIT_WORDS.values() for word in words)
        raise DataError(f"{where}: split '{shown(unknown[0])}' is none of {allowed}")
    return pa.array([known[word] for word in words.to_pylist()], pa.string())


def _with_files(root: Store, file: str, table: pa.Table) -> pa.Table:
    """A listing whose paths are guarded."""
    problems = Problems(shown(file))
    paths: list[str] = []
    for row, path in enumerate(table["path"].to_pylist()):
        try:
            paths.append(guard(root, path or "", links=True))
        except ValueError as error:
            problems.add(f"row {row}", f"path '{shown(path or '')}' {error}")
    problems.check()
    return table.set_column(
        table.column_names.index("path"), LISTING.field("path"), pa.array(paths, pa.string())
    )


def _labelled(table: pa.Table, files: Sequence[str]) -> pa.Table:
    """A listing without splits that have no labels at all, as published test splits have not."""
    if not table.num_rows:
        raise DataError(f"{shown(', '.join(files))}: no row in {len(files)} files")
    blank = table["class_key"].is_null()
    for split in table["split"].unique().to_pylist():
        inside = (
            table["split"].is_null()
            if split is None
            else pc.fill_null(pc.equal(table["split"], split), False)
        )
        lacking = pc.and_(inside, blank)
        if (at := _first(lacking)) >= 0 and pc.sum(lacking).as_py() < pc.sum(inside).as_py():
            raise DataError(
                f"'{shown(table['sample_id'][at].as_py())}' has no label, but others of its split have; take it away"
            )
    if pc.all(blank).as_py():
        raise DataError(f"{shown(', '.join(files))}: no row has a label")
    return table.filter(pc.invert(blank)).combine_chunks()


def _check_unique(ids: pa.ChunkedArray) -> None:
    counts = pc.value_counts(ids)
    if len(counts) < len(ids):
        twice = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
        raise DataError(
            f"sample_id '{shown(twice[0].as_py())}' stands in several rows; each row needs one of its own"
        )


def read_parquet(
    root: Store, rows: pa.Table, *, column: str, links: bool
) -> Iterator[bytes | ImageError]:
    """The images of LISTING rows from Parquet files: only the row groups they lie in, and of these only the image column."""
    for path, wanted in runs(rows):
        done = 0
        try:
            with _file(root, path) as file:
                start = 0
                for number in range(file.num_row_groups):
                    size = file.metadata.row_group(number).num_rows
                    here = wanted[bisect_left(wanted, start) : bisect_left(wanted, start + size)]
                    if here:
                        batches = file.iter_batches(BATCH, row_groups=[number], columns=[column])
                        for item in cells(root, batches, start, here, links=links):
                            yield item
                            done += 1
                    start += size
            error = ImageError("missing", f"{path} has no such row")
        except BROKEN as broken:
            error = ImageError("unreadable", f"{path}: {broken}")
        yield from [error] * (len(wanted) - done)


def runs(rows: pa.Table) -> Iterator[tuple[str, list[int]]]:
    """Files and ascending row numbers, in the order of a listing's rows."""
    path: str | None = None
    wanted: list[int] = []
    for at, row in zip(rows["path"].to_pylist(), rows["row"].to_pylist(), strict=True):
        if path is not None and (at != path or row <= wanted[-1]):
            yield path, wanted
            wanted = []
        path = at
        wanted.append(row)
    if path is not None:
        yield path, wanted


def cells(
    root: Store,
    batches: Iterator[pa.RecordBatch],
    start: int,
    wanted: Sequence[int],
    *,
    links: bool,
) -> Iterator[bytes | ImageError]:
    """The images of some rows, ascending, from record batches that begin at row `start`; one for each, whatever is broken."""
    done = 0
    try:
        while done < len(wanted):
            batch = next(batches)
            if _extension(batch.schema.field(0)) or image_kind(batch.schema.field(0).type) is None:
                raise ValueError("the column is no longer what it was when it was listed")
            column, end = batch.column(0), start + batch.num_rows
            while done < len(wanted) and wanted[done] < end:
                # counted before it is handed out: what the reader of this does is no fault of the batch
                value, done = column[wanted[done] - start].as_py(), done + 1
                yield _image(root, value, links)
            start = end
        return
    except StopIteration:
        error = ImageError("missing", "the file has fewer rows than when it was listed")
    except BROKEN as broken:
        error = ImageError("unreadable", str(broken))
    yield from [error] * (len(wanted) - done)


def _image(root: Store, value: Any, links: bool) -> bytes | ImageError:
    if isinstance(value, Mapping):
        if value["bytes"] is None and value.get("path"):
            return _linked(root, value["path"], links)
        value = value["bytes"]
    return ImageError("missing", "the cell is empty") if value is None else value


def _linked(root: Store, path: str, links: bool) -> bytes | ImageError:
    """A file that a cell names instead of holding it."""
    try:
        plain = guard(root, path, links=links)
    except ValueError as error:
        return ImageError("refused", f"path '{shown(path)}' {error}")
    return next(read_files(root, pa.table({"path": pa.array([plain])})))


def _file(root: Store, path: str) -> pq.ParquetFile:
    # buffered, or a row group's whole column would be read to see its first images
    return pq.ParquetFile(
        root.path(path), filesystem=root.filesystem, buffer_size=2**20, pre_buffer=False
    )


def _read_columns(root: Store, path: str, columns: list[str]) -> pa.Table:
    with _file(root, path) as file:
        return file.read(columns)


def split_of_path(path: str) -> str | None:
    """The split a file's name begins with, else that of the innermost folder that is called like one."""
    *folders, name = path.split("/")
    first = re.match(r"[A-Za-z]+", name)
    words = [first[0] if first else "", *reversed(folders)]
    return next((split for word in words if (split := split_of(word))), None)
