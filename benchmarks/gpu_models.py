"""Real architectures of SD 1.5, SDXL and the refiner, with random weights made in place.

Nothing is downloaded: the architectures are written out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from discl_ray.embedded import GENERATOR

TOKENS = 77
Config = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Spec:
    """One architecture at one size; configs as in the published folders."""

    title: str
    size: tuple[int, int]
    """Height, width."""
    unet: Config
    vae: Config
    text: tuple[Config | None, Config | None]
    """Of text_encoder and text_encoder_2."""
    sampler: str
    decode_batch: int
    known: tuple[float, float, float] | None = None
    """TFLOP of one UNet row, one decode and one encode, to check the count against."""
    tokens: int = TOKENS

    @property
    def xl(self) -> bool:
        """Whether it is of the SDXL family."""
        return self.text[1] is not None

    @property
    def refiner(self) -> bool:
        """Whether it is told an aesthetic score instead of a size."""
        return self.text[0] is None

    @property
    def latent(self) -> tuple[int, int, int]:
        """Shape of a latent."""
        factor = 2 ** (len(self.vae["block_out_channels"]) - 1)
        return 4, self.size[0] // factor, self.size[1] // factor


def _vae(scaling: float, widths: tuple[int, ...], **more: Any) -> Config:
    kinds = {
        "down_block_types": ["DownEncoderBlock2D"] * len(widths),
        "up_block_types": ["UpDecoderBlock2D"] * len(widths),
    }
    return (
        {
            "block_out_channels": widths,
            "layers_per_block": 2,
            "latent_channels": 4,
            "scaling_factor": scaling,
        }
        | kinds
        | more
    )


def _text(width: int, layers: int, heads: int, **more: Any) -> Config:
    sizes = {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
    }
    tokens = {
        "vocab_size": 49408,
        "max_position_embeddings": TOKENS,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 1,
    }
    return tokens | {"projection_dim": width} | sizes | more


def _unet(
    kinds: str, widths: tuple[int, ...], context: int, heads: int | list[int], **more: Any
) -> Config:
    """`kinds`: from the outside in, C for a block with cross-attention and D for one without."""
    return {
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": widths,
        "layers_per_block": 2,
        "cross_attention_dim": context,
        "attention_head_dim": heads,
        "down_block_types": ["CrossAttnDownBlock2D" if k == "C" else "DownBlock2D" for k in kinds],
        "up_block_types": [
            "CrossAttnUpBlock2D" if k == "C" else "UpBlock2D" for k in reversed(kinds)
        ],
        **more,
    }


def _added(dim: int, ids: int, pooled: int) -> Config:
    embedding = {
        "addition_time_embed_dim": dim,
        "projection_class_embeddings_input_dim": pooled + ids * dim,
    }
    return {"addition_embed_type": "text_time", "use_linear_projection": True} | embedding


def real_specs() -> dict[str, Spec]:
    wide = (128, 256, 512, 512)
    clip_l, clip_g = _text(768, 12, 12), _text(1280, 32, 20, hidden_act="gelu")
    refiner = Spec(
        title="SDXL refiner",
        size=(512, 512),
        unet=_unet(
            "DCCD",
            (384, 768, 1536, 1536),
            1280,
            [6, 12, 24, 24],
            sample_size=128,
            transformer_layers_per_block=4,
        )
        | _added(256, 5, 1280),
        vae=_vae(0.13025, wide, sample_size=1024),
        text=(None, clip_g),
        sampler="euler",
        decode_batch=8,
        known=(1.619, 2.515, 1.117),
    )
    return {
        "sd15": Spec(
            title="SD 1.5",
            size=(512, 512),
            unet=_unet("CCCD", (320, 640, 1280, 1280), 768, 8, sample_size=64),
            vae=_vae(0.18215, wide, sample_size=512),
            text=(clip_l, None),
            sampler="ddim",
            decode_batch=8,
            known=(0.803, 2.515, 1.117),
        ),
        "sdxl": Spec(
            title="SDXL base",
            size=(1024, 1024),
            unet=_unet(
                "DCC",
                (320, 640, 1280),
                2048,
                [5, 10, 20],
                sample_size=128,
                transformer_layers_per_block=[1, 2, 10],
            )
            | _added(256, 6, 1280),
            vae=_vae(0.13025, wide, sample_size=1024),
            text=(clip_l, clip_g),
            sampler="euler",
            # with 8 the decoder's widest activation has 2^31 elements, more than some kernels index
            decode_batch=4,
            known=(6.761, 10.47, 4.879),
        ),
        "refiner": refiner,
        "refiner-wide": replace(refiner, size=(264, 480), known=(0.823, 1.207, 0.531)),
    }


def tiny_specs() -> dict[str, Spec]:
    """The same classes, families and shapes of graph, as small as they get."""
    narrow = (8, 8, 8, 8)
    few = {"layers_per_block": 1, "norm_num_groups": 4, "sample_size": 8}
    vae = {"layers_per_block": 1, "norm_num_groups": 4, "sample_size": 64}
    small = {"tokens": 16, "decode_batch": 2}
    clip_l, clip_g = (
        _text(16, 2, 2, vocab_size=300, max_position_embeddings=16, hidden_act=a)
        for a in ("quick_gelu", "gelu")
    )
    refiner = Spec(
        title="SDXL refiner",
        size=(64, 64),
        unet=_unet("DC", (8, 16), 16, [2, 4], **few) | _added(4, 5, 16),
        vae=_vae(0.13025, narrow, **vae),
        text=(None, clip_g),
        sampler="euler",
        **small,
    )
    unet = _unet("DC", (8, 16), 32, [2, 4], **few, transformer_layers_per_block=[1, 2]) | _added(
        4, 6, 16
    )
    plain = _unet("CD", (8, 16), 16, 2, **few)
    return {
        "sd15": replace(
            refiner,
            title="SD 1.5",
            unet=plain,
            vae=_vae(0.18215, narrow, **vae),
            text=(clip_l, None),
            sampler="ddim",
        ),
        "sdxl": replace(refiner, title="SDXL base", unet=unet, text=(clip_l, clip_g)),
        "refiner": refiner,
        "refiner-wide": replace(
            refiner, size=(40, 64)
        ),  # 5 latent rows: not a multiple of the UNet's factor, as 33 are not
    }


def write_folder(spec: Spec, folder: Path) -> Path:
    """A diffusers-format folder without weights."""
    schedule = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "steps_offset": 1,
    }
    schedule |= {"timestep_spacing": "leading", "num_train_timesteps": 1000}
    schedule |= {"clip_sample": False, "set_alpha_to_one": False} if spec.sampler == "ddim" else {}
    configs = {
        "unet": spec.unet,
        "vae": spec.vae,
        "text_encoder": spec.text[0],
        "text_encoder_2": spec.text[1],
    }
    index: Config = {
        "_class_name": "StableDiffusionXLImg2ImgPipeline"
        if spec.xl
        else "StableDiffusionImg2ImgPipeline"
    }
    index |= {
        "requires_aesthetics_score": spec.refiner,
        "force_zeros_for_empty_prompt": not spec.refiner,
    }
    files = {
        f"{part}/config.json": config for part, config in configs.items() if config is not None
    }
    files |= {"model_index.json": index, "scheduler/scheduler_config.json": schedule}
    for name, value in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(value))
    tokenizer = CLIPTokenizer.from_pretrained(GENERATOR / "tokenizer", model_max_length=spec.tokens)
    for name, config in zip(("tokenizer", "tokenizer_2"), spec.text, strict=True):
        if config is not None:
            tokenizer.save_pretrained(folder / name)
    return folder


@contextmanager
def random_weights(device: torch.device) -> Iterator[None]:
    """`from_pretrained` makes random weights in place, from the folder's config.

    On the device and in the dtype asked for.
    """
    nothing_missing = {"missing_keys": (), "mismatched_keys": ()}

    def maker(cls: Any) -> Callable[..., Any]:
        def from_pretrained(
            folder: Path, *, dtype: torch.dtype, **_: Any
        ) -> tuple[torch.nn.Module, dict[str, Any]]:
            config = json.loads((folder / "config.json").read_text())
            usual = torch.get_default_dtype()
            torch.set_default_dtype(dtype)
            try:
                with device:
                    made = (
                        cls.from_config(config)
                        if hasattr(cls, "from_config")
                        else cls(CLIPTextConfig(**config))
                    )
                return made, nothing_missing
            finally:
                torch.set_default_dtype(usual)

        return from_pretrained

    torch.manual_seed(0)
    with ExitStack() as stack:
        for cls in (
            UNet2DConditionModel,
            AutoencoderKL,
            CLIPTextModel,
            CLIPTextModelWithProjection,
        ):
            stack.enter_context(mock.patch.object(cls, "from_pretrained", maker(cls)))
        yield


@dataclass(frozen=True)
class Flops:
    """TFLOP of one UNet row, one decode and one encode."""

    unet: float
    decode: float
    encode: float

    def image(self, steps: float, images_per_source: float) -> float:
        """What an image needs that takes `steps` steps with guidance."""
        return 2 * steps * self.unet + self.decode + self.encode / images_per_source


@cache
def _counted(
    unet: str, vae: str, size: tuple[int, int], latent: tuple[int, int, int], ids: int, pooled: int
) -> Flops:
    with torch.device("meta"):
        model, coder = (
            UNet2DConditionModel.from_config(json.loads(unet)),
            AutoencoderKL.from_config(json.loads(vae)),
        )
        z, pixels = torch.empty(1, *latent), torch.empty(1, 3, *size)
        told: Config = {
            "encoder_hidden_states": torch.empty(1, TOKENS, model.config["cross_attention_dim"])
        }
        if ids:
            told["added_cond_kwargs"] = {
                "text_embeds": torch.empty(1, pooled),
                "time_ids": torch.empty(1, ids),
            }
        when = torch.empty(1)

    def tera(work: Callable[[], object]) -> float:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            work()
        return counter.get_total_flops() / 1e12

    return Flops(
        tera(lambda: model(z, when, **told)),
        tera(lambda: coder.decode(z)),
        tera(lambda: coder.encode(pixels)),
    )


def count_flops(spec: Spec) -> Flops:
    """Counted on the meta device; warns where it is off the known figures."""
    pooled = spec.text[1]["projection_dim"] if spec.text[1] else 0
    ids = (5 if spec.refiner else 6) if spec.xl else 0
    flops = _counted(
        json.dumps(spec.unet), json.dumps(spec.vae), spec.size, spec.latent, ids, pooled
    )
    for name, known in zip(("unet", "decode", "encode"), spec.known or (), strict=False):
        if abs(getattr(flops, name) / known - 1) > 0.02:
            print(
                f"warning: {spec.title} {name}: {getattr(flops, name):.3f} TFLOP counted, "
                f"{known:.3f} known",
                flush=True,
            )
    return flops
