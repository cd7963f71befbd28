"""Small randomly initialised models of the real classes, as diffusers-format folders."""

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionXLImg2ImgPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from discl_ray.embedded import GENERATOR

FAMILIES = ("sd1", "sd2", "sdxl", "sdxl-refiner")
STOCK = {
    "ddim": (DDIMScheduler, {}),
    "ddpm_large": (DDPMScheduler, {"variance_type": "fixed_large"}),
    "ddpm_small": (DDPMScheduler, {"variance_type": "fixed_small"}),
    "euler": (EulerDiscreteScheduler, {}),
    "dpm++2m": (DPMSolverMultistepScheduler, {}),
}
"""Our samplers' names -> what diffusers calls them."""
SCHEDULE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "timestep_spacing": "leading",
    "steps_offset": 1,
}


def text_config(tokenizer, width, **more):
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        **more,
    )


def make_folder(family: str, folder: Path, *, sample_size: int = 8) -> Path:
    """Saves a model of a family.

    Its VAE has a factor of 4 and its weights are random but the same every time.
    """
    torch.manual_seed(sum(map(ord, family)))
    tokenizer = CLIPTokenizer.from_pretrained(GENERATOR / "tokenizer")
    xl = family.startswith("sdxl")
    refiner = family == "sdxl-refiner"
    width = 24 if family == "sdxl" else 16
    ids = 5 if refiner else 6
    unet = UNet2DConditionModel(
        sample_size=sample_size,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(8, 16),
        cross_attention_dim=width,
        attention_head_dim=(2, 4) if family != "sd1" else 2,
        use_linear_projection=family != "sd1",
        **(
            {
                "addition_embed_type": "text_time",
                "addition_time_embed_dim": 4,
                "projection_class_embeddings_input_dim": 16 + 4 * ids,
            }
            if xl
            else {}
        ),
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 16),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=32,
        scaling_factor=0.13025 if xl else 0.18215,
    )
    scheduler = EulerDiscreteScheduler(**SCHEDULE)
    if xl:
        pipe = StableDiffusionXLImg2ImgPipeline(
            vae=vae,
            unet=unet,
            scheduler=scheduler,
            tokenizer_2=tokenizer,
            text_encoder_2=CLIPTextModelWithProjection(
                text_config(tokenizer, 16, projection_dim=16)
            ),
            text_encoder=None if refiner else CLIPTextModel(text_config(tokenizer, 8)),
            tokenizer=None if refiner else tokenizer,
            requires_aesthetics_score=refiner,
            force_zeros_for_empty_prompt=not refiner,
            add_watermarker=False,
        )
    else:
        pipe = StableDiffusionImg2ImgPipeline(
            vae=vae,
            unet=unet,
            scheduler=scheduler,
            tokenizer=tokenizer,
            text_encoder=CLIPTextModel(text_config(tokenizer, 16)),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder


def stock_pipeline(folder: Path):
    """The folder as diffusers loads it."""
    cls = (
        StableDiffusionXLImg2ImgPipeline
        if (folder / "text_encoder_2").is_dir()
        else StableDiffusionImg2ImgPipeline
    )
    more = (
        {"add_watermarker": False}
        if cls is StableDiffusionXLImg2ImgPipeline
        else {"safety_checker": None}
    )
    pipe = cls.from_pretrained(folder, dtype=torch.float32, **more)
    pipe.set_progress_bar_config(disable=True)
    return pipe
