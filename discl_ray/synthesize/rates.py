# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions at import; pyright cannot see them)
"""UNet steps a second of earlier runs, from which the next one's time is estimated."""

from __future__ import annotations

from collections.abc import Sequence

from discl_ray.cluster.demand import Demand
from discl_ray.cluster.heartbeat import GeneratorSigns
from discl_ray.config import Config
from discl_ray.core.storage import Store
from discl_ray.synthesize.layout import Prepared

RATES = "rates.json"
"""UNet steps per second measured in earlier runs under one root, by generator fingerprint and micro-batch."""


def rate_key(prepared: Prepared, config: Config, hands: Demand) -> str:
    """What a measured rate is of: weights, micro-batch, number of generators."""
    return f"{prepared.fingerprint[:16]}-b{config.generator.micro_batch}-a{hands.parts[0].actors}"


def note_rate(
    prepared: Prepared, config: Config, hands: Demand, signs: Sequence[GeneratorSigns]
) -> None:
    """Keeps the steps per second of the generators' working time, for the next estimate."""
    rate = sum(s.steps / s.seconds for s in signs if s.seconds)
    if rate:
        Store.at(config.run.root).write_json(
            RATES, {**read_rates(config), rate_key(prepared, config, hands): round(rate, 1)}
        )


def read_rates(config: Config) -> dict[str, float]:
    """What was measured before; a damaged record is begun anew."""
    root = Store.at(config.run.root)
    known = root.read_json(RATES) if root.sound(RATES) else {}
    return (
        {key: rate for key, rate in known.items() if isinstance(rate, float)}
        if isinstance(known, dict)
        else {}
    )
