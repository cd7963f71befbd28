"""How the embedded scorer was made: a small open_clip model, trained contrastively on the web half's captions.

A batch of about a hundred images of ten digits holds many captions that are true of more than one image ("a photo of the digit seven"
fits every seven), so the target is not the diagonal: caption j is a positive of image i whenever everything it says is true
of it. The loss is the symmetric cross-entropy of CLIP against that normalised truth table.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTokenizer

from discl_ray.embedded.digits import CAPTIONS, SIDE, WebImages, caption
from discl_ray.embedded.generator import tokenize
from discl_ray.embedded.tokenizer import CONTEXT
from discl_ray.embedded.training_loop import Log, fit

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
"""Pixel normalisation of the scorer's preprocessing."""


def model_config(tokenizer: CLIPTokenizer) -> dict[str, object]:
    """The `model_cfg` of open_clip's own config file."""
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
    """truth[i, j] = caption j, made for image j with its template, is true of image i. Shape (B, B), float."""
    picks = index.tolist()
    labels = web.labels[picks]
    true = labels[:, None] == labels[None, :]
    for word in ("ink", "ground"):
        value = np.array([web.words[i][word] for i in picks])
        said = np.array([word in CAPTIONS[t][1] for t in templates])
        true &= ~said[None, :] | (value[:, None] == value[None, :])
    return torch.from_numpy(true).float()


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
    """Symmetric contrastive loss with many positives (see the module's text); `name` is that of the state and in the log."""
    torch.manual_seed(seed)
    config = model_config(tokenizer)
    model = CLIP(config["embed_dim"], config["vision_cfg"], config["text_cfg"])  # pyright: ignore[reportArgumentType]
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    images = torch.from_numpy(web.images).permute(0, 3, 1, 2)

    def loss_of(generator: torch.Generator) -> Tensor:
        index = torch.randint(len(images), (batch,), generator=generator)
        templates = torch.randint(len(CAPTIONS), (batch,), generator=generator).tolist()
        texts = [
            caption(t, int(web.labels[i]), web.words[i])
            for t, i in zip(templates, index.tolist(), strict=True)
        ]
        pixels = images[index].float() / 255
        # Faint, unevenly tinted copies: the scorer shall read shapes, not only saturated colour. Colour words stay true.
        contrast = torch.empty(batch, 1, 1, 1).uniform_(0.35, 1.0, generator=generator)
        grey = pixels.mean((1, 2, 3), keepdim=True)
        pixels = (pixels - grey) * contrast + grey
        pixels = pixels + torch.randn(pixels.shape, generator=generator) * 0.04
        image = F.normalize(model.encode_image((pixels - mean) / std), dim=-1)
        text = F.normalize(model.encode_text(tokenize(tokenizer, texts)), dim=-1)
        logits = model.logit_scale.exp().clamp(max=100) * image @ text.T
        target = truth(web, index, templates)
        by_image = -(target / target.sum(1, keepdim=True) * logits.log_softmax(1)).sum(1).mean()
        by_text = -(target / target.sum(0, keepdim=True) * logits.log_softmax(0)).sum(0).mean()
        return (by_image + by_text) / 2

    fit(name, model, loss_of, steps=steps, learning_rate=2e-3, seed=seed, work=work, log=log)
    return model


def save_scorer(model: CLIP, tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Writes an open_clip folder: `open_clip_config.json`, `open_clip_model.safetensors`, tokenizer files."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    state = {
        k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()
    }  # loaded into float32
    save_file({k: v.contiguous() for k, v in state.items()}, folder / "open_clip_model.safetensors")
    preprocess = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest"}
    config = {"model_cfg": model_config(tokenizer), "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
