"""An open_clip folder or name, checked without loading it."""

from __future__ import annotations

from pathlib import Path

from discl_ray.embedded import SCORER
from discl_ray.errors import ModelError
from discl_ray.score.config import ScorerConfig


def open_clip_name(config: ScorerConfig) -> str:
    """What open_clip calls the configured model.

    Raises ModelError for a folder without an open_clip config or without safetensors.
    """
    folder = SCORER if config.model == "embedded" else Path(config.model)
    if not folder.is_dir():
        if config.model.startswith((".", "/", "~")):
            raise ModelError(f"scorer.model = '{config.model}': no such folder")
        return config.model
    if not (folder / "open_clip_config.json").is_file():
        raise ModelError(f"{folder}: no open_clip_config.json; an open_clip folder has one")
    if not list(folder.glob("*.safetensors")):
        raise ModelError(f"{folder}: no *.safetensors file; pickled weights are not loaded, convert them first")
    return f"local-dir:{folder}"
