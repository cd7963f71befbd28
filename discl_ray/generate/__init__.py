"""PLAN rows become images: samplers, engine, diffusers adapter, Ray actor."""
