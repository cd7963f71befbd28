"""Arithmetic from measured stage times: what saturates first with 8, 1,000 and 10,000 GPUs."""

from __future__ import annotations


def saturation() -> str:
    """The table as markdown."""
    return ""
