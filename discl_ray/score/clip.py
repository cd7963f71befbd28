"""The only place in phase 1 that imports open_clip: prompts and images become unit vectors, their cosines are the scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from PIL import Image

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


class ClipScorer:
    """CLIP's two towers with the model's own preprocessing and tokenizer."""

    def __init__(self, config: ScorerConfig, device: torch.device | str = "cpu") -> None:
        """Loads weights; raises ModelError if there are none to be had."""
        name = open_clip_name(config)
        try:
            model, _, self.preprocess = open_clip.create_model_and_transforms(
                name, pretrained=config.pretrained, device=device, require_pretrained=not name.startswith("local-dir:")
            )
            self.tokenizer = open_clip.get_tokenizer(name)
        except (RuntimeError, ValueError, OSError) as error:
            raise ModelError(f"scorer.model = '{config.model}', pretrained = {config.pretrained}: {error}") from error
        self.model, self.device, self.batch = model.eval(), device, config.batch

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors, shape (len(texts), D)."""
        return self.model.encode_text(self.tokenizer(list(texts)).to(self.device), normalize=True).cpu().numpy()

    @torch.no_grad()
    def embed_images(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Unit vectors of RGB uint8 (H, W, 3) images, shape (len(images), D)."""
        pixels = [self.preprocess(Image.fromarray(image)) for image in images]
        parts = [
            self.model.encode_image(torch.stack(pixels[i : i + self.batch]).to(self.device), normalize=True)  # pyright: ignore
            for i in range(0, len(pixels), self.batch)
        ]
        return torch.cat(parts).cpu().numpy()


def rank_of(own: int, similarities: NDArray[np.float32]) -> int:
    """1 + how many of `similarities` exceed the one at position `own`."""
    return 1 + int((similarities > similarities[own]).sum())
