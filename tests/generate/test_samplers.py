import dataclasses
import itertools

import numpy as np
import pytest
import torch

from discl_ray.errors import ModelError
from discl_ray.generate.samplers import COEFFICIENTS, SAMPLERS, Table, alphas_cumprod
from tests.generate.families import STOCK

BASE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "steps_offset": 1,
}
CHOICES = {
    "ddim": [{"set_alpha_to_one": one} for one in (True, False)],
    "ddpm_large": [{}],
    "ddpm_small": [{}],
    "euler": [{"final_sigmas_type": last} for last in ("zero", "sigma_min")],
    "dpm++2m": [
        {"final_sigmas_type": last, "lower_order_final": low}
        for last, low in itertools.product(("zero", "sigma_min"), (True, False))
    ],
}
GRID = [
    (name, {"prediction_type": p, "timestep_spacing": s, **choice})
    for name in SAMPLERS
    for p, s, choice in itertools.product(("epsilon", "v_prediction"), ("leading", "trailing", "linspace"), CHOICES[name])
]


def trajectory_of_stock(name, settings, num_steps, first, x, outputs, noises):
    """Latents after every step, by the scheduler of diffusers, for a run of img2img that begins at step `first`."""
    cls, extra = STOCK[name]
    scheduler = cls.from_config({**settings, **extra})
    scheduler.set_timesteps(num_steps)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first)
    steps = scheduler.timesteps[first:]
    x = scheduler.add_noise(x[0], x[1], steps[:1])
    seen = []
    for k, t in enumerate(steps):
        inputs = scheduler.scale_model_input(x, t)
        kicks = {"generator": Replay(noises[first + k])} if name.startswith("ddpm") else {}
        x = scheduler.step(outputs[first + k], t, x, **kicks).prev_sample
        seen.append((inputs, x))
    return scheduler.timesteps, seen


class Replay:
    """Stands for a generator; `randn_tensor` is told what to return."""

    def __init__(self, noise):
        self.noise = noise


@pytest.fixture(autouse=True)
def replay(monkeypatch):
    import diffusers.schedulers.scheduling_ddpm as module

    monkeypatch.setattr(module, "randn_tensor", lambda _shape, generator, **_: generator.noise)


def trajectory_of_table(table: Table, first, x, outputs, noises):
    c = {n: getattr(table, n) for n in COEFFICIENTS}
    clean, noise = (v.double().numpy() for v in x)
    x = c["signal"][first] * clean + c["spread"][first] * noise
    history, seen = None, []
    for k in range(first, table.num_steps):
        m, z = outputs[k].double().numpy(), noises[k].double().numpy()
        inputs = c["scale"][k] * x
        data = c["data_keep"][k] * x + c["data_push"][k] * m
        h = data if history is None else history
        x = c["keep"][k] * x + c["push"][k] * m + c["past"][k] * h + c["kick"][k] * z
        history = data
        seen.append((inputs, x))
    return seen


def worst_difference(name, table, settings, num_steps):
    g = torch.Generator().manual_seed(0)
    outputs, noises = (torch.randn(num_steps, 1, 4, 4, 4, generator=g) for _ in range(2))
    x = torch.randn(2, 1, 4, 4, 4, generator=g)
    worst = 0.0
    for first in (0, num_steps // 2, num_steps - 1):
        steps, stock = trajectory_of_stock(name, settings, num_steps, first, x, outputs, noises)
        np.testing.assert_allclose(table.timesteps, steps.double().numpy(), rtol=1e-6)
        for (stock_in, stock_out), (our_in, our_out) in zip(
            stock, trajectory_of_table(table, first, x, outputs, noises), strict=True
        ):
            for theirs, ours in ((stock_in, our_in), (stock_out, our_out)):
                size = max(1.0, float(theirs.abs().max()))
                worst = max(worst, float(np.abs(theirs.double().numpy() - ours).max()) / size)
    return worst


@pytest.mark.parametrize(("name", "settings"), GRID, ids=lambda v: v if isinstance(v, str) else "-".join(map(str, v.values())))
@pytest.mark.parametrize("num_steps", [4, 7, 20, 50])
def test_every_trajectory_is_the_one_diffusers_takes(name, settings, num_steps):
    settings = {**BASE, **settings}
    table = SAMPLERS[name](settings, num_steps)
    assert table.num_steps == num_steps
    assert worst_difference(name, table, settings, num_steps) < 1e-5


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_what_a_config_leaves_out_means_what_it_means_to_diffusers(name):
    bare = {k: v for k, v in BASE.items() if k != "steps_offset"}
    assert worst_difference(name, SAMPLERS[name](bare, 20), bare, 20) < 1e-5
    linear = {**bare, "beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02}
    assert worst_difference(name, SAMPLERS[name](linear, 20), linear, 20) < 1e-5


@pytest.mark.parametrize("name", list(SAMPLERS))
@pytest.mark.parametrize("k", [5, 10, 17])
def test_the_comparison_notices_one_wrong_coefficient(name, k):
    settings = {**BASE, "prediction_type": "v_prediction"}
    table = SAMPLERS[name](settings, 20)
    used = [n for n in COEFFICIENTS if getattr(table, n)[k] != 0 and n not in ("signal", "spread")]
    assert {"keep", "push", "scale"} <= set(used)
    for column in used:
        wrong = getattr(table, column).copy()
        wrong[k] *= 1 + 3e-3
        changed = dataclasses.replace(table, **{column: wrong})
        assert worst_difference(name, changed, settings, 20) > 1e-5, column


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_ddpm_large_is_equation_2_in_float64(prediction):
    """x <- (x - beta/sqrt(1-a) e) / sqrt(alpha) + sqrt(beta) z, on the respaced chain (paper Eq. 2; SCIENCE: variance large)."""
    settings = {**BASE, "prediction_type": prediction}
    table = SAMPLERS["ddpm_large"](settings, 50)
    a = alphas_cumprod(settings)[table.timesteps.astype(int)]
    rng = np.random.default_rng(0)
    for k in range(50):
        alpha = a[k] / (a[k + 1] if k < 49 else 1.0)
        x, m, z = rng.standard_normal((3, 8))
        e = m if prediction == "epsilon" else np.sqrt(a[k]) * m + np.sqrt(1 - a[k]) * x
        expected = (x - (1 - alpha) / np.sqrt(1 - a[k]) * e) / np.sqrt(alpha) + np.sqrt(1 - alpha) * z
        np.testing.assert_allclose(table.keep[k] * x + table.push[k] * m + table.kick[k] * z, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_pure_noise_starts_where_diffusers_starts(name):
    for spacing in ("leading", "trailing", "linspace"):
        settings = {**BASE, "timestep_spacing": spacing}
        cls, extra = STOCK[name]
        scheduler = cls.from_config({**settings, **extra})
        scheduler.set_timesteps(20)
        assert SAMPLERS[name](settings, 20).pure == pytest.approx(float(scheduler.init_noise_sigma), rel=1e-5)


def test_only_the_multistep_method_has_a_past_and_only_ddpm_kicks():
    tables = {name: sampler(BASE, 20) for name, sampler in SAMPLERS.items()}
    assert [n for n, t in tables.items() if t.multistep] == ["dpm++2m"]
    assert [n for n, t in tables.items() if t.kick.any()] == ["ddpm_large", "ddpm_small"]


@pytest.mark.parametrize("name", list(SAMPLERS))
@pytest.mark.parametrize(
    "change", [{"prediction_type": "sample"}, {"timestep_spacing": "other"}, {"beta_schedule": "squaredcos_cap_v2"}]
)
def test_a_setting_the_tables_do_not_know_is_refused_by_name(name, change):
    ((key, value),) = change.items()
    with pytest.raises(ModelError, match=f"{key} = '{value}'"):
        SAMPLERS[name]({**BASE, **change}, 30)


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_a_config_without_a_beta_schedule_is_refused_by_name(name):
    for key in ("beta_start", "num_train_timesteps"):
        with pytest.raises(ModelError, match=f"'{key}' is missing"):
            SAMPLERS[name]({k: v for k, v in BASE.items() if k != key}, 30)


@pytest.mark.parametrize(
    ("name", "key"),
    [(n, "rescale_betas_zero_snr") for n in SAMPLERS] + [(n, "use_karras_sigmas") for n in ("euler", "dpm++2m")],
)
def test_a_switch_no_table_follows_is_refused(name, key):
    with pytest.raises(ModelError, match=key):
        SAMPLERS[name]({**BASE, key: True}, 30)
