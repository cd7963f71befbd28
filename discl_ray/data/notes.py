"""What tables and pictures on a data set say of it beside their figures."""

from __future__ import annotations

from typing import NamedTuple

EMBEDDED = (
    "Ten digits, 14 writers, a small generator that has seen other writers' digits. "
    "Shows the machinery and its controls; no evidence for photographs."
)
"""Stands above every table on an embedded task."""


class Notes(NamedTuple):
    """Sentences about a data set."""

    caveat: str = ""
    """What a reader must know before any figure; empty if there is nothing."""
    redrawn: str = (
        "a seed redraws the splits and subsets that the data set leaves open, initialisation and "
        "generation noise. The generator and the scorer are fixed"
    )
    """What differs between seeds and what does not."""


_WRITERS = (
    "a seed redraws the writers' roles, the mix of classes, the training images, initialisation and"
    " generation noise. The generator, the scorer and how {fixed} look are fixed"
)

NOTES: dict[str, Notes] = {
    "digits_lt": Notes(EMBEDDED, _WRITERS.format(fixed="digits")),
    "digits_wild": Notes(EMBEDDED, _WRITERS.format(fixed="places")),
}
"""By the name of the data set; others have none of their own."""


def notes_on(name: str) -> Notes:
    """The notes on a data set by its `data.name`."""
    return NOTES.get(name, Notes())
