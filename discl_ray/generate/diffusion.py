# pyright: reportPrivateImportUsage=false, reportArgumentType=false, reportAttributeAccessIssue=false
# (the library's own annotations are wider or narrower than what it takes and returns)
"""The only place in the generator that imports diffusers: a folder becomes four functions on tensors.

The engine sees `encode_source`, `encode_text`, `denoise` and `decode`; which family is behind them it does not know.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image, ImageOps
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from discl_ray.generate.folder import check_folder, scheduler_config


class StableDiffusion:
    """Stable Diffusion 1.x: one CLIP text encoder, epsilon- or v-prediction, 8- or 4-fold VAE."""

    def __init__(self, folder: Path, *, dtype: torch.dtype, device: torch.device) -> None:
        """Loads the parts; raises ModelError if one is missing."""
        check_folder(folder)
        options = {"use_safetensors": True, "low_cpu_mem_usage": False}
        self.device, self.dtype = device, dtype
        self.unet = UNet2DConditionModel.from_pretrained(folder / "unet", dtype=dtype, **options).to(device).eval()
        self.vae = AutoencoderKL.from_pretrained(folder / "vae", dtype=torch.float32, **options).to(device).eval()
        text = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32, use_safetensors=True)
        self.text_encoder = text.to(device).eval()
        self.tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
        self.scheduler = scheduler_config(folder)
        self.scaling: float = self.vae.config["scaling_factor"]
        self.factor = 2 ** (len(self.vae.config["block_out_channels"]) - 1)
        self.side: int = self.unet.config["sample_size"] * self.factor
        self.latent_shape = (self.unet.config["in_channels"], self.side // self.factor, self.side // self.factor)

    @torch.no_grad()
    def encode_source(self, pixels: np.ndarray) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the VAE posterior of an RGB uint8 image, each of `latent_shape`, unscaled.

        An image of another size is cropped at the centre to a square and resized to the model's native side.
        """
        if pixels.shape[:2] != (self.side, self.side):
            fitted = ImageOps.fit(Image.fromarray(pixels), (self.side, self.side), Image.Resampling.LANCZOS)
            pixels = np.asarray(fitted)
        x = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].to(self.device).float() / 255
        posterior = self.vae.encode(2 * x - 1).latent_dist
        return posterior.mean[0], posterior.std[0]

    @torch.no_grad()
    def encode_text(self, prompt: str) -> Tensor:
        """Hidden states of one prompt, shape (tokens, width); longer prompts are cut as diffusers does."""
        limit = self.tokenizer.model_max_length
        ids = self.tokenizer(prompt, padding="max_length", max_length=limit, truncation=True, return_tensors="pt").input_ids
        return self.text_encoder(ids.to(self.device)).last_hidden_state[0]

    @torch.no_grad()
    def denoise(self, latents: Tensor, timesteps: Tensor, text: Tensor) -> Tensor:
        """The UNet's output for a batch whose rows stand at timesteps of their own; float32."""
        return self.unet(latents.to(self.dtype), timesteps, encoder_hidden_states=text.to(self.dtype)).sample.float()

    @torch.no_grad()
    def decode(self, latents: Tensor) -> np.ndarray:
        """Scaled latents (N, *latent_shape) as RGB uint8 (N, side, side, 3)."""
        x = self.vae.decode(latents / self.scaling).sample
        return ((x / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
