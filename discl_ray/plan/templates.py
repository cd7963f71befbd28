"""Rules for a prompt's template: text whose only placeholder is `{name}`."""

from __future__ import annotations

import string
import unicodedata

CONTROL = ("Cc", "Cs", "Zl", "Zp")
"""Unicode's categories of control characters, surrogates, and breaks of lines and paragraphs."""

LONGEST = 400
"""Characters of a scene description: several times what the 77 tokens of a CLIP text encoder
hold."""


def broken_rule(template: str) -> str | None:
    """What is wrong with a template; None if nothing is.

    Attributes of `name` are rejected, too: `{name.__class__}` would show the program.
    """
    if not template.strip():
        return "is empty"
    if has_control(template):
        return "holds a control character"
    try:
        plain = all(placeholder == ("name", "", None) for placeholder in placeholders(template))
    except ValueError:  # a brace that is not closed
        plain = False
    if not plain:
        return "the only placeholder is {name}; a brace that is meant is written twice"
    return None


def placeholders(template: str) -> list[tuple[str | None, ...]]:
    """(name, format, conversion) of each placeholder; raises ValueError."""
    found: list[tuple[str | None, ...]] = []
    for _, *placeholder in string.Formatter().parse(template):
        # the text after the last placeholder has none
        if placeholder[0] is not None:
            found.append(tuple(placeholder))
    return found


def has_control(text: str) -> bool:
    """Whether text holds control characters, line breaks, or surrogates, which no file can hold."""
    categories = map(unicodedata.category, text)
    return any(category in CONTROL for category in categories)
