"""Train, val and test: what each is for."""

from __future__ import annotations

SPLITS = ("train", "val", "test")

USES = {"train": "train on", "val": "tune on", "test": "judge by"}

MIN_IMAGES = 2
"""Images of a class that stay in train, whatever `val_fraction` and `test_fraction` are."""


def no_image(split: str) -> str:
    """What to say where a split has no image at all."""
    return (
        f"no {split} image to {USES[split]}: raise data.{split}_fraction "
        f"(a class of up to {MIN_IMAGES} images gives none), or bring a {split} split"
    )
