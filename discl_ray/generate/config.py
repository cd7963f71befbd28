"""Which diffusion model makes the spectrum, and how."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from discl_ray.core.images import Codec
from discl_ray.core.settings import Count, Location, Settings, Share, execution


class GeneratorConfig(Settings):
    """The generator. Identity fields enter every image's id; execution fields do not."""

    model: Location = Field(default="embedded", min_length=1)
    """`embedded`, a diffusers-format folder, or a Hugging Face id."""
    revision: str | None = None
    """Commit or tag of a Hugging Face id."""
    variant: str | None = None
    """Which weights of a folder that holds several, e.g. `fp16`."""
    sampler: Literal["ddim", "ddpm_large", "ddpm_small", "euler", "dpm++2m"] = "ddim"
    """See generate/samplers.py; `ddpm_large` is the paper's Eq. 2."""
    cfg_scale: float = Field(default=4.0, ge=1)
    """Classifier-free guidance e_u + s (e_c - e_u); the paper's Eq. 2 writes w = s - 1. 1 = no
    guidance, half the work."""
    text_only: bool = False
    """λ = 0 starts from pure noise (text-to-image) instead of the noised source."""
    size: int | tuple[int, int] | None = None
    """Side, or height and width, the UNet works at; default: what the model was trained at.
    Multiples of the VAE's factor (8)."""
    fit: Literal["pad", "crop", "stretch"] = "pad"
    """How a source of another shape gets there: `pad` reflects its borders and cuts them off again,
    `crop` keeps the middle."""
    aesthetic_score: float = 6.0
    """SDXL refiner: the score images are asked to have."""
    negative_aesthetic_score: float = 2.5
    """SDXL refiner: the score guidance leads away from."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the UNet; latents are always float32."""
    vae_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of decoding; images that come out black or not finite are decoded in float32."""
    compile: Literal["none", "default", "max-autotune"] = "none"
    """torch.compile of the UNet and the decoder, each for its one shape. `max-autotune` may change
    bits between machines."""
    codec: Codec = "png"
    """How images are stored; png and webp are lossless."""
    quality: int = Field(default=95, ge=1, le=100)
    """Quality of `codec: jpeg`."""
    allow_embedded: bool = execution(False)
    """Let the embedded generator, which knows only digits, loose on another data set: a test of the
    plumbing, no more."""
    micro_batch: int = execution(32, ge=1)
    """Rows the UNet works on at once (twice that with guidance); halved by itself when memory runs
    out."""
    decode_batch: int = execution(16, ge=1)
    """Images the VAE decodes at once."""
    shards_in_flight: int = execution(2, ge=1)
    """Shards an actor works on at once, so that one's end overlaps the next one's start."""
    actors: Count = execution("auto")
    """Generator processes; `auto`: as many as the GPUs hold, or as CPUs and memory allow."""
    max_actors: int | None = execution(None, ge=1)
    """At most so many of `auto`."""
    threads: int = execution(1, ge=1)
    """CPU threads of each generator process; fixed, so that the number of actors cannot change a
    byte. On a CPU, one thread each and as many actors as there are cores is the fastest: a small
    UNet's threads spend much of their time waiting for each other."""
    num_gpus: Share = execution("auto")
    """Part of a GPU that each process reserves; 0 is the CPU. `auto`: 0.8 if the cluster has a GPU
    or may start one, else 0."""

    @property
    def on_gpu(self) -> bool:
        """Whether a process reserves a GPU; not before it is decided how many there are."""
        return self.num_gpus != "auto" and self.num_gpus > 0
