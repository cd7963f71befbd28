# pyright: reportPrivateImportUsage=false, reportArgumentType=false, reportAttributeAccessIssue=false
# (the library's own annotations are wider or narrower than what it takes and returns)
"""The only place in the generator that imports diffusers: a folder becomes four functions on tensors.

The engine sees `encode_source`, `encode_prompts`, `denoise` and `decode`; which family is behind them it does not know.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from discl_ray.core.weights import read_json
from discl_ray.errors import ModelError
from discl_ray.generate.config import GeneratorConfig
from discl_ray.generate.model_folder import scheduler_config, working_size
from discl_ray.generate.parts import FAMILIES, SDXL, text_parts
from discl_ray.models.finite import check_finite

Conditioning = tuple[Tensor, ...]
"""What the UNet is told besides latent and timestep; in every tensor first for the negative prompt, then for the prompt."""

PARTS: dict[str, Any] = {
    "unet": UNet2DConditionModel,
    "vae": AutoencoderKL,
    "text_encoder": CLIPTextModel,
    "text_encoder_2": CLIPTextModelWithProjection,
}
"""The class each part with weights is loaded as."""

META = torch.device("meta")
"""Where tensors have a shape and a type, and no numbers."""


def empty_part(folder: Path, part: str) -> Any:
    """A part's architecture by its config.json, on the meta device."""
    cls, place = PARTS[part], folder / part
    with META:
        if part in ("unet", "vae"):
            return cls.from_config(cls.load_config(place))
        return cls(cls.config_class.from_pretrained(place))


def load_part(
    folder: Path, part: str, variant: str | None, dtype: torch.dtype, device: torch.device
) -> Any:
    """A part in eval mode; on the meta device its architecture alone.

    Raises ModelError if weights are missing, which the library would leave random, or are no numbers.
    """
    if device == META:
        return nn.Module.to(
            empty_part(folder, part), dtype
        ).eval()  # the class's own `to` warns of nothing
    options = {"low_cpu_mem_usage": False} if part in ("unet", "vae") else {}
    loaded, info = PARTS[part].from_pretrained(
        folder / part,
        dtype=dtype,
        use_safetensors=True,
        variant=variant,
        output_loading_info=True,
        **options,
    )
    if lost := sorted({*info["missing_keys"], *map(str, info["mismatched_keys"])}):
        raise ModelError(
            f"{folder / part}: {len(lost)} weights are missing ({', '.join(lost[:3])})"
        )
    loaded = loaded.to(device).eval()
    try:
        check_finite(loaded)
    except ValueError as error:
        raise ModelError(f"{folder / part}: {error}") from error
    return loaded


class StableDiffusion:
    """Stable Diffusion 1.x and 2.x: one CLIP text encoder, the last hidden state."""

    def __init__(self, folder: Path, config: GeneratorConfig, device: torch.device) -> None:
        """Loads the parts of a folder that `check_generator` found in order; on the meta device their architectures alone."""
        self.device, self.config, self.dtype = device, config, getattr(torch, config.dtype)
        self.index = read_json(folder / "model_index.json")
        self.size = working_size(config, folder)
        self.scheduler = scheduler_config(folder)
        self.unet = load_part(folder, "unet", config.variant, self.dtype, device)
        self.vae = load_part(folder, "vae", config.variant, torch.float32, device)
        self._decoder_to(getattr(torch, config.vae_dtype))
        if device.type == "cuda":
            for module in (self.unet, self.vae):
                module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self._unet, self._decode = self.unet, self.vae.decode
        if config.compile != "none":
            mode = None if config.compile == "default" else "max-autotune-no-cudagraphs"
            self._unet = torch.compile(self.unet, mode=mode, dynamic=False)
            self._decode = torch.compile(self.vae.decode, mode=mode, dynamic=False)
        self.scaling: float = self.vae.config["scaling_factor"]
        factor = 2 ** (len(self.vae.config["block_out_channels"]) - 1)
        self.latent_shape = (
            self.unet.config["in_channels"],
            self.size[0] // factor,
            self.size[1] // factor,
        )
        self._load_text(folder, config.variant)

    def _load_text(self, folder: Path, variant: str | None) -> None:
        self.tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
        self.text_encoder = load_part(folder, "text_encoder", variant, torch.float32, self.device)

    def _decoder_to(self, dtype: torch.dtype) -> None:
        """The encoder stays in float32: it runs once per source, and SDXL's overflows in float16."""
        self.vae.decoder.to(dtype)
        if self.vae.post_quant_conv is not None:
            self.vae.post_quant_conv.to(dtype)
        self.vae_dtype = dtype

    @torch.no_grad()
    def encode_source(self, pixels: np.ndarray) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the VAE posterior of RGB uint8 (*size, 3), each of `latent_shape`, unscaled."""
        x = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].to(self.device).float() / 255
        posterior = self.vae.encode(2 * x - 1).latent_dist
        return posterior.mean[0], posterior.std[0]

    def _tokens(self, tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
        """Ids, shape (len(texts), length); longer texts are cut as diffusers does."""
        limit = tokenizer.model_max_length
        ids = tokenizer(
            texts, padding="max_length", max_length=limit, truncation=True, return_tensors="pt"
        ).input_ids
        return ids.to(self.device)

    @torch.no_grad()
    def encode_prompts(self, negative: str, prompt: str) -> Conditioning:
        """Hidden states, shape (2, tokens, width)."""
        hidden = [
            self.text_encoder(self._tokens(self.tokenizer, [text])).last_hidden_state
            for text in (negative, prompt)
        ]
        return (torch.cat(hidden).to(self.dtype),)

    @torch.no_grad()
    def denoise(self, latents: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """The UNet's output for a batch whose rows stand at timesteps of their own; float32."""
        return self._unet(
            latents.to(self.dtype), timesteps, encoder_hidden_states=conditioning[0]
        ).sample.float()

    @torch.no_grad()
    def decode(self, latents: Tensor, *, safe: bool = False) -> tuple[Tensor, Tensor]:
        """Scaled latents (N, *latent_shape) as RGB uint8 (N, *size, 3), and which of them are black or not finite.

        `safe` decodes in float32, eagerly, whatever is configured.
        """
        usual = self.vae_dtype
        if safe:
            self._decoder_to(torch.float32)
        decode = self.vae.decode if safe else self._decode
        x = decode((latents / self.scaling).to(self.vae_dtype)).sample.float()
        if safe:
            self._decoder_to(usual)
        pixels = ((x / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
        bad = ~x.flatten(1).isfinite().all(1) | (pixels == 0).flatten(1).all(1)
        return pixels, bad


class StableDiffusionXL(StableDiffusion):
    """SDXL base and refiner: penultimate hidden states, a pooled embedding, and numbers about size and aesthetics."""

    def _load_text(self, folder: Path, variant: str | None) -> None:
        self.text = []
        for part, tokenizer in zip(*text_parts(self.index), strict=True):
            encoder = load_part(folder, part, variant, torch.float32, self.device)
            self.text.append((CLIPTokenizer.from_pretrained(folder / tokenizer), encoder))

    def _encode(self, text: str) -> tuple[Tensor, Tensor]:
        outputs = [
            encoder(self._tokens(tokenizer, [text]), output_hidden_states=True)
            for tokenizer, encoder in self.text
        ]
        return torch.cat([out.hidden_states[-2] for out in outputs], dim=-1), outputs[
            -1
        ].text_embeds

    @torch.no_grad()
    def encode_prompts(self, negative: str, prompt: str) -> Conditioning:
        """Hidden states (2, tokens, width), pooled (2, D), time ids (2, 6; the refiner's 5).

        An empty negative prompt means none, which the base model encodes as zeros (`force_zeros_for_empty_prompt`).
        """
        hidden, pooled = self._encode(prompt)
        if negative == "" and self.index.get("force_zeros_for_empty_prompt", True):
            other, other_pooled = torch.zeros_like(hidden), torch.zeros_like(pooled)
        else:
            other, other_pooled = self._encode(negative)
        height, width = self.size
        if self.index.get("requires_aesthetics_score", False):
            ids = [
                [height, width, 0, 0, score]
                for score in (self.config.negative_aesthetic_score, self.config.aesthetic_score)
            ]
        else:
            ids = [[height, width, 0, 0, height, width]] * 2
        numbers = torch.tensor(ids, dtype=torch.float32, device=self.device)
        return (
            torch.cat([other, hidden]).to(self.dtype),
            torch.cat([other_pooled, pooled]).to(self.dtype),
            numbers,
        )

    @torch.no_grad()
    def denoise(self, latents: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """The UNet's output for a batch whose rows stand at timesteps of their own; float32."""
        hidden, pooled, ids = conditioning
        added = {"text_embeds": pooled, "time_ids": ids}
        x = latents.to(self.dtype)
        return self._unet(
            x, timesteps, encoder_hidden_states=hidden, added_cond_kwargs=added
        ).sample.float()


def load_model(folder: Path, config: GeneratorConfig, device: torch.device) -> StableDiffusion:
    """The folder's model by its family."""
    family = FAMILIES[read_json(folder / "model_index.json")["_class_name"]]
    return (StableDiffusionXL if family == SDXL else StableDiffusion)(folder, config, device)
