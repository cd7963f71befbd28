"""A folder of class folders: `root/<class>/**/<image>`, or the same below `train`, `val` and `test`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow as pa

from discl_ray.core.storage import Store
from discl_ray.data.config import ImageFolderConfig
from discl_ray.data.files import SPLIT_WORDS, LeftOut, folders_in, pick_images, split_of, stamp_of
from discl_ray.data.listing import LISTING, Listing, read_files, refused_files
from discl_ray.data.root import LINK_OUT, open_root
from discl_ray.data.wording import shown
from discl_ray.errors import DataError

LAYOUT = "root/<class>/<image> or root/{train,val,test}/<class>/<image>"


def imagefolder(config: ImageFolderConfig, _seed: int) -> Listing:
    """Every image under a class folder; classes by sorted name, as torchvision's ImageFolder has them.

    The folders at the top are splits if all of them that hold images are called so. Folders without an image are no classes.
    Files are images by their suffix, or by their first bytes if they have none; what is left out is in the notes.

    Raises DataError if there is no image, if one lies in no class folder, or if only some folders at the top are splits.
    """
    root = open_root(config.root)
    left = LeftOut()
    images, closed = pick_images(
        root, f"images as {LAYOUT}", links=config.allow_links_outside, left=left
    )
    parts = [f.path.split("/") for f in images]
    tops = sorted({part[0] for part in parts if len(part) > 1})
    splits = {top: split for top in tops if (split := split_of(top.strip()))}
    depth = 1 if splits else 0
    where = f"data.root = '{shown(config.root)}'"
    if splits and len(splits) < len(tops):
        raise DataError(
            f"{where}: of the folders at the top, {_some(list(splits))} are splits and "
            f"{_some([top for top in tops if top not in splits])} are not; needed: {LAYOUT}. Take away what is no split, "
            "or rename what is a class"
        )
    if loose := [f.path for f in images if f.path.count("/") <= depth]:
        raise DataError(
            f"{where}: {len(loose)} images lie in no class folder: {_some(loose)}; needed: {LAYOUT}{_words(depth)}"
        )
    classes = {part[depth] for part in parts}
    if (
        len(classes) == 1
        and not splits
        and len(inner := {part[1] for part in parts if len(part) > 2}) > 1
    ):
        raise DataError(
            f"{where}: all images lie in one folder, '{shown(tops[0])}', and there in {_some(sorted(inner))}; "
            f"if these are the classes or splits, the root is '{shown(config.root.rstrip('/'))}/{shown(tops[0])}'"
        )
    paths = pa.array([f.path for f in images], pa.string())
    blank = pa.nulls(len(images), pa.string())
    table = pa.table(
        {
            "sample_id": paths,
            "path": paths,
            "row": pa.nulls(len(images), pa.int64()),
            "class_key": pa.array([part[depth] for part in parts], pa.string()),
            "split": pa.array([splits[part[0]] for part in parts], pa.string())
            if splits
            else blank,
            "domain": blank,
            "group": blank,
        },
        schema=LISTING,
    )
    empty = sorted(
        _class_folders(root, splits) - classes - {path.rsplit("/", 1)[-1] for path in closed}
    )
    notes = [f"no class, for no image in it is read: {_some(empty)}"] if empty else []
    return Listing(
        table=table,
        root=root,
        read=read_files,
        stamp=stamp_of(images, *closed),
        refused=refused_files(closed, [None] * len(closed), LINK_OUT),
        notes=(*left.sentences(), *notes),
    )


def _class_folders(root: Store, splits: Iterable[str]) -> set[str]:
    """Names of all folders at the place of classes."""
    return {name for top in list(splits) or [""] for name in folders_in(root, top)}


def _some(names: Sequence[str], limit: int = 5) -> str:
    return ", ".join(f"'{shown(name, 60)}'" for name in names[:limit]) + (
        ", …" if len(names) > limit else ""
    )


def _words(depth: int) -> str:
    """Why a folder was taken for a split."""
    return (
        f" ({', '.join(word for words in SPLIT_WORDS.values() for word in words)} are splits)"
        if depth
        else ""
    )
