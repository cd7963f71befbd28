"""What holds for every listing: names are compared in NFC, and no link leads out of the root.

Two classes whose names are the same in NFC and without blanks at their ends become one, and a note
says so; another note names classes that differ by case alone. Files keep the path under which they
are found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import pyarrow as pa

from discl_ray.core.columns import (
    all_true,
    any_true,
    choose,
    composed,
    duplicates,
    is_ascii,
    is_in,
    negate,
    places_in,
)
from discl_ray.data.listing import Listing, refused_files, set_column
from discl_ray.data.paths import leading_out
from discl_ray.data.root import LINK_OUT, same_name
from discl_ray.data.wording import first_few, shown

NAMED = 5
"""Classes that a note names."""


def settled(listing: Listing, *, links: bool) -> Listing:
    """The listing with comparable names; `links` allows files that are links out of the root."""
    listing = _with_nfc_ids(listing)
    listing = _with_one_name_each(listing)
    listing = _with_note_on_case(listing)
    if links or not listing.in_files:
        return listing
    return _without_links(listing)


def _with_nfc_ids(listing: Listing) -> Listing:
    """sample_id in NFC; those that would become equal stay as they are."""
    ids = listing.table["sample_id"]
    if all_true(is_ascii(ids)):
        return listing
    in_nfc = composed(ids)
    repeated = duplicates(in_nfc)
    clashing = is_in(in_nfc, repeated)
    chosen = choose(clashing, ids, in_nfc)
    table = set_column(listing.table, "sample_id", chosen)
    return replace(listing, table=table)


def _with_one_name_each(listing: Listing) -> Listing:
    """Classes by `same_name`, in the order in which the listing has them."""
    keys = listing.table["class_key"]
    found = listing.classes or keys.unique().to_pylist()
    name_of = {key: same_name(key) for key in (*found, *listing.names)}
    names: dict[str, str] = {}
    for key, name in listing.names.items():
        settled_key = name_of[key]
        names[settled_key] = same_name(name)
    if all(key == name for key, name in name_of.items()):
        return replace(listing, names=names)
    places = places_in(keys, list(name_of))
    by_place = list(name_of.values())
    settled_names = pa.array(by_place, pa.string())
    renamed = settled_names.take(places)
    classes = listing.classes
    if classes:
        one_each = dict.fromkeys(name_of[key] for key in classes)
        classes = list(one_each)
    return replace(
        listing,
        table=set_column(listing.table, "class_key", renamed),
        classes=classes,
        names=names,
        notes=(*listing.notes, *_notes_on_names(name_of)),
    )


def _notes_on_names(name_of: Mapping[str, str]) -> Iterator[str]:
    """Sentences on the keys that are another name than they are spelt; by key."""
    spellings: dict[str, list[str]] = {}
    for key, name in name_of.items():
        keys = spellings.setdefault(name, [])
        keys.append(key)
    merged: list[str] = []
    trimmed: list[str] = []
    for name, keys in spellings.items():
        if len(keys) > 1:
            words = " and ".join(ascii(key) for key in keys)
            merged.append(f"{words} are '{shown(name)}'")
            continue
        (key,) = keys
        if key != key.strip():
            trimmed.append(key)
    if merged:
        why = "they differ by blanks or the encoding of accents alone"
        yield f"one class each, because {why}: {_listed(merged)}"
    if trimmed:
        lost = first_few(trimmed, NAMED, quote="'")
        yield f"blanks at the ends of a class are no part of its name: {lost}"


def _listed(phrases: Sequence[str]) -> str:
    """The first phrases, which are ready to be shown."""
    more = ", …" if len(phrases) > NAMED else ""
    return ", ".join(phrases[:NAMED]) + more


def _with_note_on_case(listing: Listing) -> Listing:
    """Names classes that differ by case alone: they stay apart, but CLIP reads them as one."""
    names = [listing.names.get(key, key) for key in listing.keys]
    folded = Counter(name.casefold() for name in names)
    alike: dict[str, list[str]] = {}
    for name in names:
        key = name.casefold()
        if folded[key] > 1:
            group = alike.setdefault(key, [])
            group.append(f"'{shown(name, 60)}'")
    if not alike:
        return listing
    groups = [" and ".join(group) for group in alike.values()]
    several = _listed(groups)
    note = f"classes that differ by case alone: {several}; if they are one, give them one name"
    return replace(listing, notes=(*listing.notes, note))


def _without_links(listing: Listing) -> Listing:
    """Files that are links out of the root are refused."""
    out = pa.array(leading_out(listing.root, listing.table["path"]))
    if not any_true(out):
        return listing
    links = listing.table.filter(out)
    ids = links["sample_id"].to_pylist()
    splits = links["split"].to_pylist()
    refused = refused_files(ids, splits, LINK_OUT)
    return replace(
        listing,
        table=listing.table.filter(negate(out)),
        refused=pa.concat_tables([listing.refused, refused]),
    )
