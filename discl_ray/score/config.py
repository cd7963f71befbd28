"""Which CLIP model scores the spectrum."""

from __future__ import annotations

from pydantic import Field

from discl_ray.core.settings import Location, Settings, execution


class ScorerConfig(Settings):
    """The scorer."""

    model: Location = "embedded"
    """`embedded`, an open_clip folder (open_clip_config.json beside its safetensors), or an open_clip name such as ViT-B-32."""
    pretrained: Location | None = None
    """Weights for a name: open_clip's tag, e.g. `openai`, or the path of a *.safetensors file. A file says nothing of its images'
    size and normalisation; where those are not open_clip's defaults, give a folder."""
    actors: int = execution(1, ge=1)
    """Scorer processes."""
    max_actors: int | None = execution(None, ge=1)
    """Up to how many may be started while the cluster has room; default: `actors`."""
    threads: int = execution(1, ge=1)
    """CPU threads of each."""
    num_gpus: float = execution(0.0, ge=0)
    """GPUs (or a part of one) each asks Ray for."""
    batch: int = Field(default=64, ge=1, json_schema_extra={"kind": "execution"})
    """Images embedded at once."""
