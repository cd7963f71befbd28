"""PLAN rows become images: the sampler's tables, the engine, the diffusers adapter, the Ray actor."""
