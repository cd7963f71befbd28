"""The diffusers adapter, the only place in the generator that imports diffusers.

The engine uses `encode_source`, `encode_prompts`, `denoise` and `decode`, and does not know which
family of models is behind them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from discl_ray.core.weights import read_json
from discl_ray.errors import ModelError
from discl_ray.generate.config import GeneratorConfig
from discl_ray.generate.model_settings import scheduler_config, vae_factor, working_size
from discl_ray.generate.parts import SDXL, family_of, text_parts
from discl_ray.models.finite import check_finite

Conditioning = tuple[Tensor, ...]
"""The UNet's inputs besides latent and timestep; in each tensor the negative prompt is first."""

PARTS: dict[str, Any] = {
    "unet": UNet2DConditionModel,
    "vae": AutoencoderKL,
    "text_encoder": CLIPTextModel,
    "text_encoder_2": CLIPTextModelWithProjection,
}
"""The class each part with weights is loaded as."""

DIFFUSERS_PARTS = ("unet", "vae")
"""Loaded by diffusers; the others by transformers."""

META = torch.device("meta")
"""The device on which tensors have a shape and a type only."""


def empty_part(folder: Path, part: str) -> Any:
    """A part's architecture by its config.json, on the meta device."""
    cls = PARTS[part]
    place = folder / part
    with META:
        if part in DIFFUSERS_PARTS:
            return cls.from_config(cls.load_config(place))
        return cls(cls.config_class.from_pretrained(place))


def load_part(
    folder: Path, part: str, variant: str | None, dtype: torch.dtype, device: torch.device
) -> Any:
    """A part in eval mode; on the meta device its architecture alone.

    Raises ModelError if weights are missing, which diffusers would leave random, or not finite.
    """
    if device == META:
        architecture = empty_part(folder, part)
        # not the class's own `to`, which warns about the meta device
        typed = nn.Module.to(architecture, dtype)
        return typed.eval()
    place = folder / part
    options = {"low_cpu_mem_usage": False} if part in DIFFUSERS_PARTS else {}
    loaded, info = PARTS[part].from_pretrained(
        place,
        dtype=dtype,
        use_safetensors=True,
        variant=variant,
        output_loading_info=True,
        **options,
    )
    mismatched = map(str, info["mismatched_keys"])
    not_loaded = {*info["missing_keys"], *mismatched}
    if not_loaded:
        missing = sorted(not_loaded)
        count = len(missing)
        some = ", ".join(missing[:3])
        raise ModelError(f"{place}: {count} weights are missing ({some})")
    loaded = loaded.to(device).eval()
    try:
        check_finite(loaded)
    except ValueError as error:
        raise ModelError(f"{place}: {error}") from error
    return loaded


class StableDiffusion:
    """Stable Diffusion 1.x and 2.x: one CLIP text encoder, the last hidden state."""

    def __init__(self, folder: Path, config: GeneratorConfig, device: torch.device) -> None:
        """Loads a folder that passed `check_generator`; on the meta device, architectures alone."""
        self.device = device
        self.config = config
        self.dtype = getattr(torch, config.dtype)
        self.index = read_json(folder / "model_index.json")
        self.size = working_size(config, folder)
        self.scheduler = scheduler_config(folder)
        variant = config.variant
        self.unet = load_part(folder, "unet", variant, self.dtype, device)
        self.vae = load_part(folder, "vae", variant, torch.float32, device)
        vae_dtype = getattr(torch, config.vae_dtype)
        self._decoder_to(vae_dtype)
        if device.type == "cuda":
            # what cuDNN's convolutions are fastest with
            for module in (self.unet, self.vae):
                module.to(memory_format=torch.channels_last)
        self._unet = self._compiled(self.unet)
        self._decode = self._compiled(self.vae.decode)
        self.scaling: float = self.vae.config["scaling_factor"]
        factor = vae_factor(folder)
        height, width = self.size
        channels: int = self.unet.config["in_channels"]
        latent_height = height // factor
        latent_width = width // factor
        self.latent_shape = (channels, latent_height, latent_width)
        self._load_text(folder, variant)

    def _compiled(self, function: Any) -> Any:
        """A module or function as the configuration has it: compiled, or as it is."""
        if self.config.compile == "none":
            return function
        default = self.config.compile == "default"
        # without CUDA graphs, whose outputs are overwritten by the next run
        mode = None if default else "max-autotune-no-cudagraphs"
        # the engine's batches never change their shapes
        return torch.compile(function, mode=mode, dynamic=False)

    def _load_text(self, folder: Path, variant: str | None) -> None:
        """Loads tokenizers and text encoders."""
        place = folder / "tokenizer"
        self.tokenizer = CLIPTokenizer.from_pretrained(place)
        self.text_encoder = load_part(folder, "text_encoder", variant, torch.float32, self.device)

    def _decoder_to(self, dtype: torch.dtype) -> None:
        """Sets the decoder's precision.

        The encoder stays in float32: it runs once per source, and SDXL's overflows in float16.
        """
        self.vae.decoder.to(dtype)
        if self.vae.post_quant_conv is not None:
            self.vae.post_quant_conv.to(dtype)
        self.vae_dtype = dtype

    @torch.no_grad()
    def encode_source(self, pixels: np.ndarray) -> tuple[Tensor, Tensor]:
        """The VAE posterior of RGB uint8 (*size, 3): mean and std of `latent_shape`, unscaled."""
        rgb = torch.from_numpy(pixels.copy())
        levels = rgb.permute(2, 0, 1)[None]
        on_device = levels.to(self.device)
        x = on_device.float() / 255
        centred = 2 * x - 1
        encoded = self.vae.encode(centred)
        posterior = encoded.latent_dist
        return posterior.mean[0], posterior.std[0]

    def _tokens(self, tokenizer: CLIPTokenizer, text: str) -> Tensor:
        """Token ids, shape (1, length); a longer text is cut as diffusers does."""
        length = tokenizer.model_max_length
        tokens = tokenizer(
            [text], padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        )
        return tokens.input_ids.to(self.device)

    @torch.no_grad()
    def encode_prompts(self, negative: str, prompt: str) -> Conditioning:
        """Hidden states, shape (2, tokens, width)."""
        hidden: list[Tensor] = []
        for text in (negative, prompt):
            tokens = self._tokens(self.tokenizer, text)
            output = self.text_encoder(tokens)
            hidden.append(output.last_hidden_state)
        both = torch.cat(hidden)
        typed = both.to(self.dtype)
        return (typed,)

    @torch.no_grad()
    def denoise(self, latents: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """The UNet's output, float32, for a batch whose rows are at timesteps of their own."""
        hidden = conditioning[0]
        x = latents.to(self.dtype)
        out = self._unet(x, timesteps, encoder_hidden_states=hidden)
        return out.sample.float()

    @torch.no_grad()
    def decode(self, latents: Tensor, *, safe: bool = False) -> tuple[Tensor, Tensor]:
        """RGB uint8 (N, *size, 3) of scaled latents (N, *latent_shape), and which images are bad.

        Bad is black or not finite, bool (N,). `safe` decodes in float32 and eagerly, whatever is
        configured.
        """
        dtype = self.vae_dtype
        if safe:
            self._decoder_to(torch.float32)
        decode = self.vae.decode if safe else self._decode
        unscaled = latents / self.scaling
        decoded = decode(unscaled.to(self.vae_dtype))
        x = decoded.sample.float()
        if safe:
            self._decoder_to(dtype)
        share = (x / 2 + 0.5).clamp(0, 1)
        levels = (share * 255).round()
        channels_first = levels.to(torch.uint8)
        pixels = channels_first.permute(0, 2, 3, 1)
        finite = x.flatten(1).isfinite().all(1)
        black = (pixels == 0).flatten(1).all(1)
        return pixels, ~finite | black


class StableDiffusionXL(StableDiffusion):
    """SDXL base and refiner: penultimate hidden states, a pooled embedding, size and aesthetics."""

    def _load_text(self, folder: Path, variant: str | None) -> None:
        """Loads tokenizers and text encoders in the order of the UNet's text input."""
        self.text: list[tuple[CLIPTokenizer, Any]] = []
        encoders, tokenizers = text_parts(self.index)
        for part, name in zip(encoders, tokenizers, strict=True):
            encoder = load_part(folder, part, variant, torch.float32, self.device)
            place = folder / name
            tokenizer = CLIPTokenizer.from_pretrained(place)
            self.text.append((tokenizer, encoder))

    def _encode(self, text: str) -> tuple[Tensor, Tensor]:
        """Hidden states (1, tokens, width) of all encoders, and the last one's pooled (1, D)."""
        outputs: list[Any] = []
        for tokenizer, encoder in self.text:
            tokens = self._tokens(tokenizer, text)
            output = encoder(tokens, output_hidden_states=True)
            outputs.append(output)
        # SDXL's UNet was trained on the states before the last layer (Podell et al. 2023)
        penultimate = [output.hidden_states[-2] for output in outputs]
        hidden = torch.cat(penultimate, dim=-1)
        pooled = outputs[-1].text_embeds
        return hidden, pooled

    @torch.no_grad()
    def encode_prompts(self, negative: str, prompt: str) -> Conditioning:
        """Hidden states (2, tokens, width), pooled (2, D), time ids (2, 6; the refiner's 5).

        An empty negative prompt means none, which the base model encodes as zeros
        (`force_zeros_for_empty_prompt`).
        """
        hidden, pooled = self._encode(prompt)
        empty_is_zeros = self.index.get("force_zeros_for_empty_prompt", True)
        if negative == "" and empty_is_zeros:
            negative_hidden = torch.zeros_like(hidden)
            negative_pooled = torch.zeros_like(pooled)
        else:
            negative_hidden, negative_pooled = self._encode(negative)
        all_hidden = torch.cat([negative_hidden, hidden])
        all_pooled = torch.cat([negative_pooled, pooled])
        hidden_input = all_hidden.to(self.dtype)
        pooled_input = all_pooled.to(self.dtype)
        time_ids = self._time_ids()
        return (hidden_input, pooled_input, time_ids)

    def _time_ids(self) -> Tensor:
        """Original size, crop corner, and target size (the refiner's: aesthetic score)."""
        height, width = self.size
        original = [height, width, 0, 0]
        if self.index.get("requires_aesthetics_score", False):
            negative = [*original, self.config.negative_aesthetic_score]
            positive = [*original, self.config.aesthetic_score]
        else:
            negative = positive = [*original, height, width]
        ids = [negative, positive]
        return torch.tensor(ids, dtype=torch.float32, device=self.device)

    @torch.no_grad()
    def denoise(self, latents: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """The UNet's output, float32, for a batch whose rows are at timesteps of their own."""
        hidden, pooled, ids = conditioning
        added = {"text_embeds": pooled, "time_ids": ids}
        x = latents.to(self.dtype)
        out = self._unet(x, timesteps, encoder_hidden_states=hidden, added_cond_kwargs=added)
        return out.sample.float()


def load_model(folder: Path, config: GeneratorConfig, device: torch.device) -> StableDiffusion:
    """The folder's model by its family."""
    index = read_json(folder / "model_index.json")
    kind = StableDiffusionXL if family_of(index) == SDXL else StableDiffusion
    return kind(folder, config, device)
