"""Which CLIP model scores the spectrum."""

from __future__ import annotations

from pydantic import Field

from discl_ray.core.settings import Count, Location, Settings, Share, execution


class ScorerConfig(Settings):
    """The scorer."""

    model: Location = Field(default="embedded", min_length=1)
    """`embedded`, an open_clip folder (open_clip_config.json beside its safetensors), or an
    open_clip name such as ViT-B-32."""
    pretrained: Location | None = None
    """Weights for a name: open_clip's tag, e.g. `openai`, or the path of a *.safetensors file. A
    file says nothing of its images' size and normalisation; where those are not open_clip's
    defaults, give a folder."""
    actors: Count = execution("auto")
    """Scorer processes; `auto`: one beside each generator on a GPU, as far as there is room, and
    few on a CPU."""
    max_actors: int | None = execution(None, ge=1)
    """At most so many of `auto`."""
    threads: int = execution(1, ge=1)
    """CPU threads of each."""
    num_gpus: Share = execution("auto")
    """Part of a GPU that each reserves; 0 is the CPU. `auto`: 0.2 if the cluster has a GPU or may
    start one, else 0."""
    batch: int = Field(default=64, ge=1, json_schema_extra={"kind": "execution"})
    """Images embedded at once."""

    @property
    def on_gpu(self) -> bool:
        """Whether a process reserves a GPU; not before it is decided how many there are."""
        return self.num_gpus != "auto" and self.num_gpus > 0
