"""A small configuration for sweeps."""

from pathlib import Path

from discl_ray.config import Config, load_config

ROOT = Path(__file__).resolve().parents[2]
LR = {"train.learning_rate": {"loguniform": [1e-4, 1e-2]}}


def config(space: object, *overrides: str) -> Config:
    base = load_config(ROOT / "conf" / "digits_lt.yaml", overrides)
    return base.model_copy(update={"tune": base.tune.model_copy(update={"space": space})})
