# pyright: reportCallIssue=false
# (the library's own annotations are wider or narrower than what it takes and returns)
"""The only place in phase 1 that imports open_clip: prompts and images become unit vectors, their cosines are the scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from PIL import Image

from discl_ray.errors import ModelError
from discl_ray.score.config import ScorerConfig
from discl_ray.score.folder import open_clip_name


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
