"""Published tables: every row is a configuration and has its baseline."""

from discl_ray.config import with_values
from discl_ray.experiments.tables import LONG_TAIL, LOW_QUALITY, TABLES


def test_every_published_row_is_a_configuration_and_has_what_it_is_compared_with(small) -> None:
    config, _ = small
    for name, table in TABLES.items():
        labels = [spec.label for spec in table.rows]
        assert len(set(labels)) == len(labels)
        assert set(table.baselines) | set(table.baselines.values()) <= set(labels)
        base = (
            with_values(config, {"train.model": "clip", "train.start_steps": 0})
            if name == "low_quality"
            else config
        )
        assert len(
            {spec.of(base).model_dump_json() + spec.read + spec.web for spec in table.rows}
        ) == len(labels)
    assert next(iter(LONG_TAIL.baselines.items())) == (
        "BS + Diverse-to-Specific",
        "Balanced Softmax",
    )
    assert next(iter(LOW_QUALITY.baselines.items())) == ("FLYP + Adaptive", "FLYP")
