"""A folder of class folders: `root/<class>/**/<image>`, or the same below train, val and test."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from discl_ray.core.storage import Store
from discl_ray.data.config import ImageFolderConfig
from discl_ray.data.files import ALL_SPLIT_WORDS, File, folders_in, pick_images, split_of, stamp_of
from discl_ray.data.left_out import LeftOut
from discl_ray.data.listing import LISTING, Listing, read_files, refused_files
from discl_ray.data.root import LINK_OUT, open_root
from discl_ray.data.wording import counted, first_few, shown
from discl_ray.errors import DataError

QUOTE = "'"
"""Around names of folders and files, which may have blanks."""

LAYOUT = "root/<class>/<image> or root/{train,val,test}/<class>/<image>"
"""What errors say is needed."""


@dataclass(frozen=True)
class _Layout:
    """Which parts of the images' paths are splits and classes."""

    splits: Mapping[str, str]
    """Folder at the top -> split; empty if the folders at the top are the classes."""

    @property
    def depth(self) -> int:
        """Folders above the class folder."""
        return 1 if self.splits else 0

    def class_of(self, path: str) -> str:
        """The class folder of an image."""
        parts = path.split("/")
        return parts[self.depth]

    def split_of(self, path: str) -> str | None:
        """The split of an image; None where it is to be drawn."""
        top, *_ = path.split("/")
        return self.splits.get(top)

    def class_folders(self, root: Store) -> set[str]:
        """Names of all folders in the place of classes, with images or without."""
        names: set[str] = set()
        for top in self.splits or ("",):
            folders = folders_in(root, top)
            names.update(folders)
        return names


def imagefolder(config: ImageFolderConfig, _seed: int) -> Listing:
    """Every image under a class folder; classes by sorted name, as in torchvision's ImageFolder.

    The folders at the top are splits if all of them that hold images are called so. Folders without
    an image are not classes. Files are images by their suffix, or by their first bytes if they have
    none; the notes say what is left out.

    Raises DataError if there is no image, if one is in no class folder, or if only some folders at
    the top are splits.
    """
    root = open_root(config.root)
    left = LeftOut()
    images, closed = pick_images(
        root, f"images as {LAYOUT}", links=config.allow_links_outside, left=left
    )
    layout = _layout(config, images)
    classes = {layout.class_of(file.path) for file in images}
    linked = {posixpath.basename(path) for path in closed}
    unused = layout.class_folders(root) - classes - linked
    empty = sorted(unused)
    notes = left.sentences()
    if empty:
        names = first_few(empty, quote=QUOTE)
        notes.append(f"folders without a readable image are not classes: {names}")
    return Listing(
        table=_table(images, layout),
        root=root,
        read=read_files,
        stamp=stamp_of(images, *closed),
        refused=refused_files(closed, [None] * len(closed), LINK_OUT),
        notes=tuple(notes),
    )


def _layout(config: ImageFolderConfig, images: Sequence[File]) -> _Layout:
    """Where splits and classes are.

    Raises DataError if the images' paths do not fit either layout.
    """
    where = f"data.root = '{shown(config.root)}'"
    tops = _tops(images)
    splits: dict[str, str] = {}
    for top in tops:
        split = split_of(top.strip())
        if split is not None:
            splits[top] = split
    others = [top for top in tops if top not in splits]
    if splits and others:
        known = first_few(list(splits), quote=QUOTE)
        unknown = first_few(others, quote=QUOTE)
        raise DataError(
            f"{where}: of the folders at the top, {known} are splits and {unknown} are not; "
            f"needed: {LAYOUT}. Remove what is not a split, or rename what is a class"
        )
    layout = _Layout(splits)
    _check_class_folders(config, layout, images)
    if len(tops) == 1 and not splits:
        _check_one_class(config, where, tops[0], images)
    return layout


def _tops(images: Sequence[File]) -> list[str]:
    """Names of the folders at the top that hold images, sorted."""
    tops: set[str] = set()
    for file in images:
        top, below, _ = file.path.partition("/")
        if below:
            tops.add(top)
    return sorted(tops)


def _check_class_folders(
    config: ImageFolderConfig, layout: _Layout, images: Sequence[File]
) -> None:
    """Raises DataError if images lie above the class folders."""
    loose: list[str] = []
    for file in images:
        folders = file.path.count("/")
        if folders <= layout.depth:
            loose.append(file.path)
    if not loose:
        return
    why = ""
    if layout.splits:
        words = ", ".join(ALL_SPLIT_WORDS)
        why = f" ({words} are splits)"
    number = counted(len(loose), "image lies", "images lie")
    names = first_few(loose, quote=QUOTE)
    found = f"{number} in no class folder: {names}"
    if not layout.splits and len(loose) == len(images):
        why = f". If this folder is one of the classes, set data.root={_parent(config.root)}"
    raise DataError(f"data.root = '{shown(config.root)}': {found}; needed: {LAYOUT}{why}")


def _parent(root: str) -> str:
    """The folder or URI that a root lies in."""
    if "://" in root:
        return shown(posixpath.dirname(root.rstrip("/")))
    return shown(posixpath.normpath(posixpath.join(root, "..")))


def _check_one_class(
    config: ImageFolderConfig, where: str, only: str, images: Sequence[File]
) -> None:
    """Raises DataError if the only class folder holds several, so that it seems to be the root."""
    inner: set[str] = set()
    for file in images:
        _, *folders, _ = file.path.split("/")
        inner.update(folders[:1])
    if len(inner) < 2:
        return
    folder = shown(only)
    root = shown(config.root.rstrip("/"))
    names = first_few(sorted(inner), quote=QUOTE)
    raise DataError(
        f"{where}: all images lie in one folder, '{folder}', and there in {names}; "
        f"if these are the classes or splits, the root is '{root}/{folder}'"
    )


def _table(images: Sequence[File], layout: _Layout) -> pa.Table:
    """LISTING of images, whose ids are their paths."""
    own = [file.path for file in images]
    paths = pa.array(own, pa.string())
    classes = [layout.class_of(file.path) for file in images]
    splits = [layout.split_of(file.path) for file in images]
    blank = pa.nulls(len(images), pa.string())
    columns = {
        "sample_id": paths,
        "path": paths,
        "row": pa.nulls(len(images), pa.int64()),
        "class_key": pa.array(classes, pa.string()),
        "split": pa.array(splits, pa.string()),
        "domain": blank,
        "group": blank,
    }
    return pa.table(columns, schema=LISTING)
