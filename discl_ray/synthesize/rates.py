"""UNet steps per second of earlier runs, from which the next one's time is estimated."""

from __future__ import annotations

from collections.abc import Sequence

from discl_ray.cluster.demand import Demand
from discl_ray.cluster.heartbeat import GeneratorSigns
from discl_ray.config import Config
from discl_ray.core.storage import Store
from discl_ray.synthesize.run import Run

RATES = "rates.json"
"""UNet steps per second measured in earlier runs under one root, by `rate_key`."""


def rate_key(run: Run, demand: Demand) -> str:
    """What a measured rate depends on: weights, micro-batch, number of generators."""
    micro_batch = run.config.generator.micro_batch
    return f"{run.fingerprint[:16]}-b{micro_batch}-a{demand.parts[0].actors}"


def note_rate(run: Run, demand: Demand, signs: Sequence[GeneratorSigns]) -> None:
    """Records the steps per second of the generators' working time, for the next estimate."""
    rate = sum(s.steps / s.seconds for s in signs if s.seconds)
    if rate:
        rates = read_rates(run.config)
        rates[rate_key(run, demand)] = round(rate, 1)
        Store.at(run.config.run.root).write_json(RATES, rates)


def read_rates(config: Config) -> dict[str, float]:
    """Measured rates by `rate_key`; a damaged record counts as empty."""
    root = Store.at(config.run.root)
    known = root.read_json(RATES) if root.sound(RATES) else {}
    if not isinstance(known, dict):
        return {}
    return {key: rate for key, rate in known.items() if isinstance(rate, float)}
