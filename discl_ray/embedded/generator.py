# pyright: reportPrivateImportUsage=false, reportArgumentType=false
# pyright: reportAttributeAccessIssue=false
# (diffusers' annotations are wider or narrower than what it takes and returns)
"""Trains the embedded generator: a KL-VAE, then a UNet with its text encoder, on the web's images.

The result is an ordinary `StableDiffusionPipeline` folder: AutoencoderKL (32x32 -> 8x8x4),
UNet2DConditionModel with cross-attention, CLIPTextModel, CLIPTokenizer, and DDIMScheduler with
Stable Diffusion's own settings.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from discl_ray.embedded.digits import CAPTIONS, SIDE, WebImages, caption
from discl_ray.embedded.tokenizer import CONTEXT
from discl_ray.embedded.training_loop import Log, channels_first, fit, random_rows

UNCONDITIONAL = 0.1
"""Share of captions replaced by the empty one: guidance needs the unconditional score, too."""


def as_tensor(images: np.ndarray) -> Tensor:
    """uint8 (N, H, W, 3) to float32 (N, 3, H, W) in [-1, 1], the range of the VAE."""
    levels = channels_first(images).float()
    return levels / 127.5 - 1


def draw_captions(web: WebImages, index: Tensor, generator: torch.Generator) -> list[str]:
    """A random true caption for each image in `index`."""
    templates = random_rows(len(CAPTIONS), len(index), generator)
    return captions_of(web, index, templates.tolist())


def captions_of(web: WebImages, index: Tensor, templates: list[int]) -> list[str]:
    """The caption of each image in `index` by its template."""
    captions: list[str] = []
    for template, image in zip(templates, index.tolist(), strict=True):
        label = int(web.labels[image])
        text = caption(template, label, web.words[image])
        captions.append(text)
    return captions


def tokenize(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    """Token ids, shape (N, CONTEXT)."""
    return tokenizer(
        captions, padding="max_length", truncation=True, max_length=CONTEXT, return_tensors="pt"
    ).input_ids


def new_vae() -> AutoencoderKL:
    """A KL-VAE that takes 32x32 to 8x8x4."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 48),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=SIDE,
    )


def new_unet() -> UNet2DConditionModel:
    """A UNet on 8x8 latents with cross-attention at both resolutions."""
    return UNet2DConditionModel(
        sample_size=SIDE // 4,
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(48, 96),
        layers_per_block=1,
        cross_attention_dim=64,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """A two-layer CLIP text encoder for the small vocabulary."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            projection_dim=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=CONTEXT,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def new_scheduler() -> DDIMScheduler:
    """Stable Diffusion 1.x's own noise schedule and spacing."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def train_vae(
    web: WebImages, *, steps: int, seed: int, work: Path, log: Log, batch: int = 64
) -> AutoencoderKL:
    """Trains by reconstruction (L1 + L2) with a light KL term.

    Sets `scaling_factor` so that latents have unit variance.
    """
    torch.manual_seed(seed)
    vae = new_vae()
    images = as_tensor(web.images)

    def loss_of(generator: torch.Generator) -> Tensor:
        """Loss of a random batch."""
        index = random_rows(len(images), batch, generator)
        x = images[index]
        posterior = vae.encode(x).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator)
        latents = posterior.mean + posterior.std * noise
        y = vae.decode(latents).sample
        absolute = F.l1_loss(y, x)
        squared = F.mse_loss(y, x)
        divergence = posterior.kl().mean()
        return absolute + squared + 1e-5 * divergence

    fit("vae", vae, loss_of, steps=steps, learning_rate=2e-3, seed=seed, work=work, log=log)
    with torch.no_grad():
        some = images[:2048]
        means = [vae.encode(part).latent_dist.mean for part in some.split(256)]
        spread = torch.cat(means).std()
    scaling = 1.0 / float(spread)
    vae.register_to_config(scaling_factor=round(scaling, 5))
    return vae


class Conditional(nn.Module):
    """The UNet and its text encoder, trained as one."""

    def __init__(self, unet: UNet2DConditionModel, text_encoder: CLIPTextModel) -> None:
        super().__init__()
        self.unet = unet
        self.text_encoder = text_encoder

    def forward(self, noisy: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
        """The noise in `noisy`, as the UNet predicts it from the captions' tokens."""
        hidden = self.text_encoder(tokens).last_hidden_state
        return self.unet(noisy, timesteps, encoder_hidden_states=hidden).sample


@torch.no_grad()
def moments_of(vae: AutoencoderKL, images: Tensor) -> tuple[Tensor, Tensor]:
    """Posterior mean and standard deviation of every image, already scaled."""
    factor = vae.config["scaling_factor"]
    parts = [vae.encode(part).latent_dist for part in images.split(256)]
    mean = torch.cat([part.mean for part in parts])
    std = torch.cat([part.std for part in parts])
    return mean * factor, std * factor


def train_unet(
    web: WebImages,
    vae: AutoencoderKL,
    tokenizer: CLIPTokenizer,
    *,
    steps: int,
    seed: int,
    work: Path,
    log: Log,
    batch: int = 64,
) -> Conditional:
    """Trains by epsilon-prediction on the VAE's latents; drops captions with UNCONDITIONAL."""
    torch.manual_seed(seed + 1)
    model = Conditional(new_unet(), new_text_encoder(tokenizer))
    scheduler = new_scheduler()
    images = as_tensor(web.images)
    mean, std = moments_of(vae, images)

    def loss_of(generator: torch.Generator) -> Tensor:
        """Loss of a random batch at random timesteps."""
        index = random_rows(len(mean), batch, generator)
        dropped = torch.rand(batch, generator=generator) < UNCONDITIONAL
        texts = draw_captions(web, index, generator)
        for number in dropped.nonzero().flatten().tolist():
            texts[number] = ""
        tokens = tokenize(tokenizer, texts)
        means = mean[index]
        sampled = torch.randn(means.shape, generator=generator)
        latents = means + std[index] * sampled
        noise = torch.randn(latents.shape, generator=generator)
        timesteps = torch.randint(
            scheduler.config["num_train_timesteps"], (batch,), generator=generator
        )
        noisy = scheduler.add_noise(latents, noise, timesteps)
        predicted = model(noisy, timesteps, tokens)
        return F.mse_loss(predicted, noise)

    fit(
        "unet", model, loss_of, steps=steps, learning_rate=1.5e-3, seed=seed + 1, work=work, log=log
    )
    return model


def save_generator(
    vae: AutoencoderKL, model: Conditional, tokenizer: CLIPTokenizer, folder: Path
) -> None:
    """Writes a `StableDiffusionPipeline` folder; weights are stored in half precision."""
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=model.text_encoder,
        tokenizer=tokenizer,
        unet=model.unet,
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    stored = pipeline.to(torch.float16)
    stored.save_pretrained(folder, safe_serialization=True)
