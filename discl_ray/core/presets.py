"""Files that come with the package: the configurations of `conf/` and their prompts.

In a clone they lie at the top of the tree, in an installed package in `discl_ray/conf`.
"""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]

FOLDERS = (PACKAGE / "conf", PACKAGE.parent / "conf")


def folder() -> Path:
    """Where they lie."""
    return next((place for place in FOLDERS if place.is_dir()), FOLDERS[0])


def names() -> list[str]:
    """Configurations by name, such as `digits_lt`."""
    return sorted(file.stem for file in folder().glob("*.yaml"))


def find(name: str | Path) -> Path:
    """The file of a name: the one at that path, else the preset `digits_lt`, `conf/digits_lt.yaml`.

    What is neither stays the path that it is.
    """
    path = Path(name).expanduser()
    if path.exists() or path.is_absolute():
        return path
    within = path.relative_to("conf") if path.parts[:1] == ("conf",) else path
    named = within if within.suffix else within.with_suffix(".yaml")
    preset = folder() / named
    return preset if ".." not in named.parts and preset.is_file() else path
