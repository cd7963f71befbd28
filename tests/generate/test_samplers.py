import dataclasses
import itertools

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from discl_ray.errors import ModelError
from discl_ray.generate.samplers import SAMPLERS, ddim

BASE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "steps_offset": 1,
}
GRID = [
    {"prediction_type": p, "timestep_spacing": s, "set_alpha_to_one": one}
    for p, s, one in itertools.product(("epsilon", "v_prediction"), ("leading", "trailing"), (True, False))
]


def worst_difference(table, settings, num_steps):
    scheduler = DDIMScheduler(**settings)
    scheduler.set_timesteps(num_steps)
    assert table.timesteps.tolist() == scheduler.timesteps.tolist()
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for k, t in enumerate(scheduler.timesteps):
        x, m, clean, noise = torch.randn(4, 1, 4, 8, 8, generator=generator).unbind()
        expected = scheduler.step(m, t, x, eta=0.0).prev_sample
        worst = max(worst, float((table.keep[k] * x + table.push[k] * m - expected).abs().max()))
        noised = scheduler.add_noise(clean, noise, t[None])
        worst = max(worst, float((table.signal[k] * clean + table.noise[k] * noise - noised).abs().max()))
    return worst


@pytest.mark.parametrize("settings", GRID, ids=lambda s: "-".join(map(str, s.values())))
@pytest.mark.parametrize("num_steps", [4, 7, 30, 50])
def test_every_step_is_the_one_diffusers_takes(settings, num_steps):
    table = ddim({**BASE, **settings}, num_steps)
    assert table.num_steps == num_steps
    assert worst_difference(table, {**BASE, **settings}, num_steps) < 1e-5


def test_the_linear_schedule_is_the_one_of_diffusers_too():
    settings = {**BASE, **GRID[0], "beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02}
    assert worst_difference(ddim(settings, 30), settings, 30) < 1e-5


@pytest.mark.parametrize("name", ["keep", "push", "signal", "noise"])
@pytest.mark.parametrize("k", [0, 15, 29])
def test_the_comparison_notices_one_wrong_coefficient(name, k):
    settings = {**BASE, **GRID[0]}
    table = ddim(settings, 30)
    wrong = getattr(table, name).copy()
    wrong[k] += 1e-4
    assert worst_difference(dataclasses.replace(table, **{name: wrong}), settings, 30) > 1e-5


@pytest.mark.parametrize("key", ["prediction_type", "set_alpha_to_one"])
def test_the_comparison_notices_a_setting_that_is_ignored(key):
    settings = {**BASE, **GRID[0]}
    swapped = {**settings, key: {"prediction_type": "v_prediction", "set_alpha_to_one": False}[key]}
    assert worst_difference(ddim(settings, 30), swapped, 30) > 1e-5


def test_noise_falls_and_signal_rises():
    table = SAMPLERS["ddim"](BASE, 30)
    assert (np.diff(table.timesteps) < 0).all()
    assert (np.diff(table.signal) > 0).all()
    np.testing.assert_allclose(table.signal.astype(float) ** 2 + table.noise.astype(float) ** 2, 1, atol=1e-6)


@pytest.mark.parametrize(
    "change", [{"prediction_type": "sample"}, {"timestep_spacing": "linspace"}, {"beta_schedule": "squaredcos_cap_v2"}]
)
def test_a_setting_the_table_does_not_know_is_refused_by_name(change):
    ((key, value),) = change.items()
    with pytest.raises(ModelError, match=f"{key} = '{value}'"):
        ddim({**BASE, **change}, 30)
