"""An open_clip folder, name or checkpoint, checked without loading it."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from discl_ray.core.ids import file_hash, stable_id
from discl_ray.embedded import SCORER
from discl_ray.errors import ModelError
from discl_ray.score.config import ScorerConfig

FIRST = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")
"""What open_clip takes from a folder before it looks at pickled weights."""


def open_clip_name(config: ScorerConfig) -> str:
    """What open_clip calls the configured model.

    Raises ModelError for a folder without an open_clip config or without safetensors, and for a checkpoint that is not there or
    of another kind.
    """
    folder = SCORER if config.model == "embedded" else Path(config.model)
    if not folder.is_dir():
        if config.model.startswith((".", "/", "~")):
            raise ModelError(f"scorer.model = '{config.model}': no such folder")
        _check_checkpoint(config.pretrained)
        return config.model
    if not (folder / "open_clip_config.json").is_file():
        raise ModelError(f"{folder}: no open_clip_config.json; an open_clip folder has one")
    if not list(folder.glob("*.safetensors")):
        raise ModelError(f"{folder}: no *.safetensors file; pickled weights are not loaded, convert them first")
    pickles = sorted(path.name for kind in ("*.bin", "*.pth") for path in folder.glob(kind))
    if pickles and not any((folder / name).is_file() for name in FIRST):
        raise ModelError(
            f"{folder}: open_clip might load {pickles[0]}, which is pickled; remove it or name the weights {FIRST[0]}"
        )
    return f"local-dir:{folder}"


def scorer_fingerprint(config: ScorerConfig) -> str:
    """Everything that decides a score: the weights if they are here, else the name they are loaded under.

    Raises ModelError like `open_clip_name`.
    """
    name = open_clip_name(config)
    files = sorted(Path(name.removeprefix("local-dir:")).iterdir()) if name.startswith("local-dir:") else []
    files += [Path(config.pretrained)] if config.pretrained and Path(config.pretrained).is_file() else []
    contents = {file.name: file_hash(file) for file in files if file.is_file()}
    version = importlib.metadata.version("open_clip_torch")
    return stable_id(contents or [name, config.pretrained], version)


def _check_checkpoint(pretrained: str | None) -> None:
    """Lets pass open_clip's tags, which are plain words, and *.safetensors files that are there."""
    path = Path(pretrained or "")
    if pretrained is None or (path.name == pretrained and not path.suffix and not path.is_file()):
        return
    if path.suffix != ".safetensors":
        raise ModelError(
            f"scorer.pretrained = '{pretrained}': neither a tag of open_clip nor a *.safetensors file; "
            "pickled weights are not loaded, convert them first"
        )
    if not path.is_file():
        raise ModelError(f"scorer.pretrained = '{pretrained}': no such file")
