"""A run as a value."""

import pytest

from discl_ray.synthesize.run import prepare

pytestmark = pytest.mark.timeout(600)


def test_the_plan_of_another_grid_lies_in_another_directory(spectrum_run):
    config, run = spectrum_run
    assert prepare(config).store.base == run.store.base
    plan = config.plan.model_copy(update={"lams": (0.0, 0.25)})
    assert prepare(config.model_copy(update={"plan": plan})).store.base != run.store.base
    execution = config.generator.model_copy(update={"micro_batch": 2, "actors": 2})
    assert prepare(config.model_copy(update={"generator": execution})).store.base == run.store.base
