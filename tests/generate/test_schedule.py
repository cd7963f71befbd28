"""The noise schedule against diffusers' own schedulers."""

import numpy as np
import pytest
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler

from discl_ray.errors import ModelError
from discl_ray.generate.samplers import DDIMSchedule, DPMSolverSchedule, EulerSchedule
from discl_ray.generate.schedule import (
    TEXT_TYPICAL,
    begins_late,
    nearest_good,
    plain_timesteps,
    timesteps,
)

STOCK = {"beta_start": 0.00085, "beta_end": 0.012, "num_train_timesteps": 1000}
KINDS = {
    "ddim": (DDIMSchedule, DDIMScheduler),
    "euler": (EulerSchedule, EulerDiscreteScheduler),
    "dpm++2m": (DPMSolverSchedule, DPMSolverMultistepScheduler),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "settings",
    [
        {"beta_schedule": "linear"},
        {"beta_schedule": "scaled_linear"},
        {"trained_betas": np.linspace(1e-4, 0.02, 1000).tolist()},
        {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"},
    ],
)
def test_alpha_bar_is_that_of_diffusers(kind, settings):
    ours, theirs = KINDS[kind]
    expected = theirs(**STOCK, **settings).alphas_cumprod.numpy()
    found = ours.read({**STOCK, **settings}).alphas_cumprod()
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-6)
    assert np.all(np.diff(found) < 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("num_steps", [1, 7, 20, 50])
def test_timesteps_are_those_of_diffusers(kind, spacing, num_steps):
    ours, theirs = KINDS[kind]
    stock = theirs(**STOCK, timestep_spacing=spacing)
    stock.set_timesteps(num_steps)
    schedule = ours.read({**STOCK, "timestep_spacing": spacing})
    np.testing.assert_allclose(plain_timesteps(schedule, num_steps), stock.timesteps, rtol=1e-6)
    np.testing.assert_allclose(timesteps(schedule, num_steps), stock.timesteps, rtol=1e-6)


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_there_are_t_timesteps_in_range_and_descending_whatever_t_is(spacing):
    schedule = DDIMSchedule.read({**STOCK, "timestep_spacing": spacing, "steps_offset": 1})
    for num_steps in range(1, 1001, 13):
        steps = timesteps(schedule, num_steps)
        assert len(steps) == num_steps
        assert np.all(np.diff(steps) < 0)
        assert steps[-1] >= 0
        assert steps[0] < 1000
    with pytest.raises(ModelError, match="at most 1000 are allowed"):
        timesteps(schedule, 1001)


def test_a_schedule_that_begins_late_is_noticed_and_the_nearest_t_that_does_not_is_named():
    schedule = DDIMSchedule.read({**STOCK, "timestep_spacing": "leading"})
    assert begins_late(schedule, 334)  # 1000 // 334 = 2: the first step is at 666
    good = nearest_good(schedule, 334)
    assert not begins_late(schedule, good)
    assert timesteps(schedule, good)[0] >= TEXT_TYPICAL * 1000 * (1 - 1 / good)
    between = range(min(good, 334) + 1, max(good, 334))
    assert all(begins_late(schedule, t) for t in between)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"beta_start": None}, "'beta_start' is missing"),
        ({"num_train_timesteps": None}, "'num_train_timesteps' is missing"),
        ({"beta_end": 2.0}, "beta_end = 2.0: "),
        ({"beta_schedule": "squaredcos_cap_v2"}, "beta_schedule = 'squaredcos_cap_v2'"),
        ({"trained_betas": [0.1, 0.2]}, "one for each timestep is needed"),
        ({"rescale_betas_zero_snr": True}, "'v_prediction' is needed"),
        ({"beta_start": 0.9, "beta_end": 0.95}, "the betas take alpha-bar from"),
    ],
)
def test_settings_that_cannot_be_used_are_named(settings, problem):
    with pytest.raises(ModelError) as caught:
        DDIMSchedule.read({**STOCK, **settings}, "folder/scheduler_config.json")
    assert problem in str(caught.value)
    assert str(caught.value).startswith("folder/scheduler_config.json: ")


def test_a_switch_no_table_follows_has_to_be_off():
    with pytest.raises(ModelError, match=r"use_karras_sigmas = True: .* needs it off"):
        EulerSchedule.read({**STOCK, "use_karras_sigmas": True})
