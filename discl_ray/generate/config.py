"""Which diffusion model makes the spectrum, and how."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from discl_ray.core.images import Codec
from discl_ray.core.settings import Settings, execution


class GeneratorConfig(Settings):
    """The generator. Identity fields enter every image's id; execution fields do not."""

    model: str = "embedded"
    """`embedded`, a diffusers-format folder, or a Hugging Face id."""
    revision: str | None = None
    """Commit or tag of a Hugging Face id."""
    sampler: Literal["ddim"] = "ddim"
    """DDIM with eta = 0; see generate/samplers.py."""
    cfg_scale: float = Field(default=4.0, ge=1)
    """Classifier-free guidance e_u + s (e_c - e_u); the paper's Eq. 2 writes w = s - 1."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the UNet; latents are always float32."""
    codec: Codec = "png"
    """How images are stored; png and webp are lossless."""
    micro_batch: int = execution(32, ge=1)
    """Rows the UNet works on at once (twice that with guidance); lower it when memory is short, and the run goes on."""
    decode_batch: int = execution(16, ge=1)
    """Images the VAE decodes at once."""
    actors: int = execution(1, ge=1)
    """Generator processes."""
    threads: int = execution(2, ge=1)
    """CPU threads of each generator process; fixed, so that the number of actors cannot change a byte."""
    num_gpus: float = execution(0.0, ge=0)
    """GPUs (or a part of one) each generator process asks Ray for; 0 runs on the CPU."""
