"""Trains the embedded scorer: a small open_clip model, contrastively, on the web's captions.

In a batch of about a hundred images of ten digits many captions are true of several images ("a
photo of the digit seven" fits every seven), so the target is not the diagonal: caption j is a
positive of image i if everything it says is true of it. The loss is the symmetric cross-entropy of
CLIP against that normalised truth table.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from open_clip.model import CLIP
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTokenizer

from discl_ray.embedded.digits import CAPTIONS, SIDE, WebImages
from discl_ray.embedded.generator import captions_of, tokenize
from discl_ray.embedded.tokenizer import CONTEXT
from discl_ray.embedded.training_loop import Log, channels_first, fit, random_rows

MEAN = (0.5, 0.5, 0.5)
STD = (0.25, 0.25, 0.25)
"""With MEAN the pixel normalisation of the scorer's preprocessing."""

PREPROCESS = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest"}
"""The `preprocess_cfg` of open_clip's configuration file."""


def model_config(tokenizer: CLIPTokenizer) -> dict[str, Any]:
    """The `model_cfg` of open_clip's configuration file."""
    return {
        "embed_dim": 64,
        "vision_cfg": {"image_size": SIDE, "layers": [1, 1, 1, 1], "width": 16, "head_width": 32},
        "text_cfg": {
            "context_length": CONTEXT,
            "vocab_size": len(tokenizer),
            "hf_tokenizer_name": "tokenizer.json of this folder",
            "width": 64,
            "heads": 4,
            "layers": 2,
        },
    }


def truth(web: WebImages, index: Tensor, templates: list[int]) -> Tensor:
    """Whether the caption of image j, by its template, is true of image i; float, shape (B, B)."""
    picks = index.tolist()
    labels = web.labels[picks]
    true = _equal_pairs(labels)
    stated = [CAPTIONS[template][1] for template in templates]
    words = [web.words[pick] for pick in picks]
    for word in ("ink", "ground"):
        values = [of_image[word] for of_image in words]
        same = _equal_pairs(np.array(values))
        # a caption that does not state the word is true of any value
        unstated = [word not in of_caption for of_caption in stated]
        true &= same | np.array(unstated)
    return torch.from_numpy(true).float()


def _equal_pairs(values: np.ndarray) -> np.ndarray:
    """Whether values i and j are equal, shape (B, B)."""
    return values[:, None] == values[None, :]


def contrastive_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Symmetric cross-entropy of similarities of images and texts; both of shape (B, B).

    `target` is 1 where a text is true of an image; each row and column is normalised to sum 1.
    """
    by_image = _cross_entropy(logits, target, dim=1)
    by_text = _cross_entropy(logits, target, dim=0)
    return (by_image + by_text) / 2


def _cross_entropy(logits: Tensor, target: Tensor, *, dim: int) -> Tensor:
    """Mean cross-entropy along a dimension, in which the targets are normalised to sum 1."""
    probabilities = target / target.sum(dim, keepdim=True)
    log_probabilities = logits.log_softmax(dim)
    losses = -(probabilities * log_probabilities).sum(dim)
    return losses.mean()


def _faded(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Copies of images (float, shape (N, 3, H, W)) with less contrast, and noisy.

    The scorer is to read shapes, not saturated colour alone. Words about colour stay true.
    """
    contrast = torch.empty(len(pixels), 1, 1, 1)
    contrast.uniform_(0.35, 1.0, generator=generator)
    grey = pixels.mean((1, 2, 3), keepdim=True)
    faded = (pixels - grey) * contrast + grey
    noise = torch.randn(pixels.shape, generator=generator)
    return faded + noise * 0.04


def _of_channels(values: tuple[float, ...]) -> Tensor:
    """A value per channel that broadcasts over images (N, 3, H, W); shape (3, 1, 1)."""
    return torch.tensor(values).view(3, 1, 1)


def train_scorer(
    web: WebImages,
    tokenizer: CLIPTokenizer,
    *,
    steps: int,
    seed: int,
    work: Path,
    log: Log,
    batch: int = 96,
    name: str = "scorer",
) -> CLIP:
    """Trains a scorer; `name` names its state on disk and its lines in the log."""
    torch.manual_seed(seed)
    config = model_config(tokenizer)
    model = CLIP(**config)
    mean = _of_channels(MEAN)
    std = _of_channels(STD)
    images = channels_first(web.images)

    def loss_of(generator: torch.Generator) -> Tensor:
        """Loss of a random batch, each image with a random caption of its own."""
        index = random_rows(len(images), batch, generator)
        templates = random_rows(len(CAPTIONS), batch, generator).tolist()
        texts = captions_of(web, index, templates)
        tokens = tokenize(tokenizer, texts)
        clean = images[index].float() / 255
        pixels = _faded(clean, generator)
        normalised = (pixels - mean) / std
        image = model.encode_image(normalised, normalize=True)
        text = model.encode_text(tokens, normalize=True)
        # CLIP's own limit of the temperature
        scale = model.logit_scale.exp().clamp(max=100)
        logits = scale * image @ text.T
        target = truth(web, index, templates)
        return contrastive_loss(logits, target)

    fit(name, model, loss_of, steps=steps, learning_rate=2e-3, seed=seed, work=work, log=log)
    return model


def save_scorer(model: CLIP, tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Writes an open_clip folder: configuration, weights in half precision, tokenizer files."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    state: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():  # in half precision; loading makes it float32
        stored = value.half() if value.is_floating_point() else value
        state[name] = stored.contiguous()
    save_file(state, folder / "open_clip_model.safetensors")
    config = {"model_cfg": model_config(tokenizer), "preprocess_cfg": PREPROCESS}
    text = json.dumps(config, indent=2)
    (folder / "open_clip_config.json").write_text(f"{text}\n")
