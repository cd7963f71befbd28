# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions at import; pyright cannot see them)
"""What holds for every listing, whoever made it: names compare in NFC, and no link leads out of the root. Pure but for links.

Two classes whose names are the same in NFC and without blanks at their ends are one, and that is said; so is it if two differ by
case alone. Files keep the path under which they are found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from discl_ray.data.listing import Listing, refused_files
from discl_ray.data.root import LINK_OUT, leads_out, same_name
from discl_ray.data.wording import shown

NAMED = 5
"""Classes that a note names."""


def settled(listing: Listing, *, links: bool) -> Listing:
    """The listing with its names as they are compared; `links` allows files that are links out of the root."""
    listing = _alike(_one_name_each(_composed(listing)))
    return listing if links or not listing.in_files else _without_links(listing)


def _composed(listing: Listing) -> Listing:
    """sample_id in NFC; those that would be the same stay as they are."""
    ids = listing.table["sample_id"]
    if pc.all(pc.string_is_ascii(ids)).as_py() is not False:
        return listing
    composed = pc.utf8_normalize(ids, "NFC").combine_chunks()
    counts = pc.value_counts(composed)
    twice = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    chosen = pc.if_else(pc.is_in(composed, twice), ids.combine_chunks(), composed)
    at = listing.table.column_names.index("sample_id")
    return replace(listing, table=listing.table.set_column(at, "sample_id", chosen))


def _one_name_each(listing: Listing) -> Listing:
    """Classes by `same_name`, in the order in which the listing has them."""
    keys = listing.table["class_key"]
    found = listing.classes or keys.unique().to_pylist()
    names = {key: same_name(key) for key in (*found, *listing.names)}
    if all(key == name for key, name in names.items()):
        return replace(listing, names={key: same_name(name) for key, name in listing.names.items()})
    places = pc.index_in(keys, pa.array(list(names), pa.string()))
    at = listing.table.column_names.index("class_key")
    return replace(
        listing,
        table=listing.table.set_column(
            at, "class_key", pa.array(list(names.values()), pa.string()).take(places)
        ),
        classes=listing.classes and list(dict.fromkeys(names[key] for key in listing.classes)),
        names={names[key]: same_name(name) for key, name in listing.names.items()},
        notes=(*listing.notes, *_merged(names), *_trimmed(names)),
    )


def _merged(names: Mapping[str, str]) -> list[str]:
    """A sentence if several spellings are one class."""
    spellings: dict[str, list[str]] = {}
    for key, name in names.items():
        spellings.setdefault(name, []).append(key)
    several = {name: keys for name, keys in spellings.items() if len(keys) > 1}
    if not several:
        return []
    shown_ = [
        f"{' and '.join(ascii(key) for key in keys)} are '{shown(name)}'"
        for name, keys in several.items()
    ]
    more = ", …" if len(shown_) > NAMED else ""
    return [
        f"one class each, for they differ by blanks or accents' encoding alone: {', '.join(shown_[:NAMED])}{more}"
    ]


def _trimmed(names: Mapping[str, str]) -> list[str]:
    """A sentence if classes lose blanks at their ends, and are no others by it."""
    spellings = Counter(names.values())
    lost = [key for key, name in names.items() if key != key.strip() and spellings[name] == 1]
    more = ", …" if len(lost) > NAMED else ""
    shown_ = ", ".join(f"'{shown(key)}'" for key in lost[:NAMED])
    return (
        [f"blanks at the ends of a class are no part of its name: {shown_}{more}"] if lost else []
    )


def _alike(listing: Listing) -> Listing:
    """Classes that differ by case alone stay apart, and that is said: CLIP reads them as one."""
    keys = listing.classes or sorted(listing.table["class_key"].unique().to_pylist())
    folded: dict[str, list[str]] = {}
    for name in (listing.names.get(key, key) for key in keys):
        folded.setdefault(name.casefold(), []).append(name)
    several = [
        " and ".join(f"'{shown(name, 60)}'" for name in names)
        for names in folded.values()
        if len(names) > 1
    ]
    if not several:
        return listing
    more = ", …" if len(several) > NAMED else ""
    note = f"classes of their own that differ by case alone: {', '.join(several[:NAMED])}{more}; if they are one, give them one name"
    return replace(listing, notes=(*listing.notes, note))


def _without_links(listing: Listing) -> Listing:
    """Files that are links out of the root are refused."""
    known: set[str] = set()
    out = [leads_out(listing.root, path, known) for path in listing.table["path"].to_pylist()]
    if not any(out):
        return listing
    mask = pa.array(out)
    links = listing.table.filter(mask)
    refused = refused_files(links["sample_id"].to_pylist(), links["split"].to_pylist(), LINK_OUT)
    return replace(
        listing,
        table=listing.table.filter(pc.invert(mask)),
        refused=pa.concat_tables([listing.refused, refused]),
    )
