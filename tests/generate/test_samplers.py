import dataclasses
import itertools

import numpy as np
import pytest
import torch

from discl_ray.errors import ModelError
from discl_ray.generate.samplers import COEFFICIENTS, SAMPLERS, SCHEDULES, Table
from discl_ray.generate.schedule import (
    TEXT_TYPICAL,
    begins_late,
    nearest_good,
    plain_timesteps,
    timesteps,
)
from tests.generate.families import STOCK

BASE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "steps_offset": 1,
}
ZERO_SNR = {
    "rescale_betas_zero_snr": True,
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
}
SPACINGS = ("leading", "trailing", "linspace")
EDGES = (1, 2, 3, 14, 15, 61, 333, 334, 501, 600, 769, 998, 999, 1000)
"""T where a formula changes.

Or where the one of diffusers gives something else than T timesteps below N.
"""
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
    for p, s, choice in itertools.product(
        ("epsilon", "v_prediction"), ("leading", "trailing", "linspace"), CHOICES[name]
    )
]


def stock_scheduler(name, settings, num_steps):
    cls, extra = STOCK[name]
    scheduler = cls.from_config({**settings, **extra})
    scheduler.set_timesteps(num_steps)
    return scheduler


def trajectory_of_stock(name, scheduler, first, end, x, outputs, noises):
    """Latents after every step up to `end`, by the scheduler of diffusers.

    The run of img2img begins at step `first`.
    """
    scheduler.set_timesteps(scheduler.num_inference_steps)  # forgets the run before
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first)
    steps = scheduler.timesteps[first:end]
    x = scheduler.add_noise(x[0], x[1], steps[:1])
    seen = []
    for k, t in enumerate(steps):
        inputs = scheduler.scale_model_input(x, t)
        kicks = {"generator": Replay(noises[first + k])} if name.startswith("ddpm") else {}
        x = scheduler.step(outputs[first + k], t, x, **kicks).prev_sample
        seen.append((inputs, x))
    return seen


class Replay:
    """Stands for a generator; `randn_tensor` is told what to return."""

    def __init__(self, noise):
        self.noise = noise


@pytest.fixture(autouse=True)
def replay(monkeypatch):
    import diffusers.schedulers.scheduling_ddpm as module

    monkeypatch.setattr(module, "randn_tensor", lambda _shape, generator, **_: generator.noise)


def trajectory_of_table(table: Table, first, end, x, outputs, noises):
    c = {n: getattr(table, n) for n in COEFFICIENTS}
    clean, noise = (v.double().numpy() for v in x)
    x = c["sqrt_alpha_bar"][first] * clean + c["sigma"][first] * noise
    history, seen = None, []
    for k in range(first, end):
        m, z = outputs[k].double().numpy(), noises[k].double().numpy()
        inputs = c["c_in"][k] * x
        data = c["x0_c_x"][k] * x + c["x0_c_out"][k] * m
        h = data if history is None else history
        x = c["c_x"][k] * x + c["c_out"][k] * m + c["c_prev"][k] * h + c["noise_std"][k] * z
        history = data
        seen.append((inputs, x))
    return seen


def worst_difference(name, table, settings, num_steps, *, runs=None):
    """The largest difference between the table's and the stock scheduler's latents.

    Over `runs` of (first step, end); by default three whole ones.
    """
    g = torch.Generator().manual_seed(0)
    outputs, noises = (torch.randn(num_steps, 1, 4, 4, 4, generator=g) for _ in range(2))
    x = torch.randn(2, 1, 4, 4, 4, generator=g)
    scheduler = stock_scheduler(name, settings, num_steps)
    np.testing.assert_allclose(table.timesteps, scheduler.timesteps.double().numpy(), rtol=1e-6)
    worst = 0.0
    for first, end in runs or [(first, num_steps) for first in (0, num_steps // 2, num_steps - 1)]:
        stock = trajectory_of_stock(name, scheduler, first, end, x, outputs, noises)
        ours = trajectory_of_table(table, first, end, x, outputs, noises)
        for (stock_in, stock_out), (our_in, our_out) in zip(stock, ours, strict=True):
            for theirs, here in ((stock_in, our_in), (stock_out, our_out)):
                size = max(1.0, float(theirs.abs().max()))
                worst = max(worst, float(np.abs(theirs.double().numpy() - here).max()) / size)
    return worst


def some_runs(num_steps, rng):
    """Runs of two steps, at both ends and at random places between."""
    starts = {0, 1, num_steps - 2, num_steps - 1, *rng.integers(0, num_steps, 3).tolist()}
    return [(k, min(k + 2, num_steps)) for k in sorted(starts) if 0 <= k < num_steps]


def as_diffusers_runs(name, settings, num_steps):
    """The timesteps of diffusers.

    None where they are not T different ones that the model knows: it fails there, or worse.
    """
    steps = stock_scheduler(name, settings, num_steps).timesteps.double().numpy()
    known = (
        len(steps) == num_steps
        and steps[0] <= 999
        and steps[-1] >= 0
        and bool((np.diff(steps) < 0).all())
    )
    return steps if known else None


@pytest.mark.parametrize(
    ("name", "settings"),
    GRID,
    ids=lambda v: v if isinstance(v, str) else "-".join(map(str, v.values())),
)
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
    used = [
        n
        for n in COEFFICIENTS
        if getattr(table, n)[k] != 0 and n not in ("sqrt_alpha_bar", "sigma")
    ]
    assert {"c_x", "c_out", "c_in"} <= set(used)
    for column in used:
        wrong = getattr(table, column).copy()
        wrong[k] *= 1 + 3e-3
        changed = dataclasses.replace(table, **{column: wrong})
        assert worst_difference(name, changed, settings, 20) > 1e-5, column


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("num_steps", [50, 1000])
def test_ddpm_large_is_equation_2_in_float64(prediction, num_steps):
    """x <- (x - beta/sqrt(1-a) e) / sqrt(alpha) + sqrt(beta) z, on the respaced chain.

    Paper Eq. 2; SCIENCE: variance large.
    """
    settings = {**BASE, "prediction_type": prediction}
    table = SAMPLERS["ddpm_large"](settings, num_steps)
    a = SCHEDULES["ddpm_large"].read(settings).alphas_cumprod()[table.timesteps.astype(int)]
    rng = np.random.default_rng(0)
    for k in range(num_steps):
        alpha = a[k] / (a[k + 1] if k < num_steps - 1 else 1.0)
        x, m, z = rng.standard_normal((3, 8))
        e = m if prediction == "epsilon" else np.sqrt(a[k]) * m + np.sqrt(1 - a[k]) * x
        expected = (x - (1 - alpha) / np.sqrt(1 - a[k]) * e) / np.sqrt(alpha) + np.sqrt(
            1 - alpha
        ) * z
        if table.timesteps[k] == 0:  # the last step of all adds no noise
            expected = expected - np.sqrt(1 - alpha) * z
        np.testing.assert_allclose(
            table.c_x[k] * x + table.c_out[k] * m + table.noise_std[k] * z,
            expected,
            rtol=0,
            atol=1e-12,
        )


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_pure_noise_starts_where_diffusers_starts(name):
    for spacing in ("leading", "trailing", "linspace"):
        settings = {**BASE, "timestep_spacing": spacing}
        cls, extra = STOCK[name]
        scheduler = cls.from_config({**settings, **extra})
        scheduler.set_timesteps(20)
        assert SAMPLERS[name](settings, 20).pure == pytest.approx(
            float(scheduler.init_noise_sigma), rel=1e-5
        )


def test_only_the_multistep_method_has_a_past_and_only_ddpm_kicks():
    tables = {name: sampler(BASE, 20) for name, sampler in SAMPLERS.items()}
    assert [n for n, t in tables.items() if t.multistep] == ["dpm++2m"]
    assert [n for n, t in tables.items() if t.noise_std.any()] == ["ddpm_large", "ddpm_small"]


@pytest.mark.parametrize("name", list(SAMPLERS))
@pytest.mark.parametrize(
    "change",
    [
        {"prediction_type": "sample"},
        {"timestep_spacing": "other"},
        {"beta_schedule": "squaredcos_cap_v2"},
    ],
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
    [
        (n, f"use_{kind}_sigmas")
        for n in ("euler", "dpm++2m")
        for kind in ("karras", "exponential", "beta")
    ]
    + [("dpm++2m", "use_lu_lambdas"), ("dpm++2m", "use_flow_sigmas")],
)
def test_a_switch_no_table_follows_is_refused(name, key):
    with pytest.raises(ModelError, match=f"{key} = True: this sampler needs it off"):
        SAMPLERS[name]({**BASE, key: True}, 30)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("name", list(SAMPLERS))
def test_every_number_of_steps_gives_so_many_finite_ones_where_diffusers_puts_them(name, spacing):
    settings = {**BASE, "timestep_spacing": spacing}
    cls, extra = STOCK[name]
    stock = cls.from_config({**settings, **extra})
    mended = []
    for num_steps in range(1, 1001):
        table = SAMPLERS[name](settings, num_steps)
        assert all(np.isfinite(getattr(table, column)).all() for column in COEFFICIENTS), num_steps
        assert table.num_steps == num_steps
        assert table.timesteps[0] <= 999, num_steps
        assert table.timesteps[-1] >= 0, num_steps
        assert (np.diff(table.timesteps) < 0).all(), num_steps
        stock.set_timesteps(num_steps)
        theirs = stock.timesteps.double().numpy()
        if theirs.shape != table.timesteps.shape or not np.allclose(
            theirs, table.timesteps, rtol=1e-6
        ):
            mended.append(num_steps)
            usable = (
                len(theirs) == num_steps
                and theirs[0] <= 999
                and theirs[-1] >= 0
                and (np.diff(theirs) < 0).all()
            )
            assert not usable, num_steps
            if num_steps < 1000:  # what is left of theirs, moved to where the model was trained
                np.testing.assert_array_equal(
                    table.timesteps, theirs[:num_steps] - max(0, theirs[0] - 999)
                )
    expected = {
        "leading": [999, 1000] if name == "dpm++2m" else [1000],
        "linspace": [1000] if name == "dpm++2m" else [],
    }
    assert mended == expected[spacing] if spacing in expected else {61, 103, 998} <= set(mended)


def compared_with_diffusers(name, spacing, numbers):
    """How many of these T were compared, each on all its settings."""
    rng, compared = np.random.default_rng(0), 0
    for num_steps in numbers:
        for prediction in ("epsilon", "v_prediction"):
            choice = CHOICES[name][num_steps % len(CHOICES[name])]
            settings = {
                **BASE,
                "timestep_spacing": spacing,
                "prediction_type": prediction,
                **choice,
            }
            if as_diffusers_runs(name, settings, num_steps) is None:
                continue
            table = SAMPLERS[name](settings, num_steps)
            assert (
                worst_difference(name, table, settings, num_steps, runs=some_runs(num_steps, rng))
                < 2e-5
            ), num_steps
            compared += 1
    return compared


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("name", list(SAMPLERS))
def test_single_steps_are_those_of_diffusers_at_any_number(name, spacing):
    assert compared_with_diffusers(name, spacing, EDGES) >= 2 * (len(EDGES) - 4)


@pytest.mark.slow
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("name", list(SAMPLERS))
def test_single_steps_are_those_of_diffusers_at_many_numbers(name, spacing):
    assert compared_with_diffusers(name, spacing, range(1, 1001, 11)) > 150


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("name", list(SAMPLERS))
def test_as_many_steps_as_the_model_was_trained_with_are_all_of_them(name, spacing):
    """T = N = 1000, the paper's number: N-1 ... 0, which diffusers has with trailing spacing."""
    for choice in CHOICES[name]:
        settings = {**BASE, **choice, "timestep_spacing": spacing}
        table = SAMPLERS[name](settings, 1000)
        np.testing.assert_array_equal(table.timesteps, np.arange(999, -1, -1))
        trailing = {**settings, "timestep_spacing": "trailing"}
        runs = some_runs(1000, np.random.default_rng(0))
        assert worst_difference(name, table, trailing, 1000, runs=runs) < 2e-5


@pytest.mark.parametrize("one", [True, False])
def test_all_steps_of_ddim_are_equation_12(one):
    table = SAMPLERS["ddim"]({**BASE, "set_alpha_to_one": one}, 1000)
    betas = np.linspace(BASE["beta_start"] ** 0.5, BASE["beta_end"] ** 0.5, 1000) ** 2
    a = np.cumprod(1 - betas)
    x, e = np.random.default_rng(0).standard_normal((2, 8))
    for k, t in enumerate(range(999, -1, -1)):
        following = a[t - 1] if t else (1.0 if one else a[0])
        x0 = (x - np.sqrt(1 - a[t]) * e) / np.sqrt(a[t])
        expected = np.sqrt(following) * x0 + np.sqrt(1 - following) * e
        np.testing.assert_allclose(
            table.c_x[k] * x + table.c_out[k] * e, expected, rtol=0, atol=1e-11
        )


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_the_schedule_begins_in_the_noise_or_late_and_then_the_nearest_that_does_not_is_named(name):
    for spacing in SPACINGS:
        schedule = SCHEDULES[name].read({**BASE, "timestep_spacing": spacing})
        first = np.array([timesteps(schedule, t)[0] for t in range(1, 1001)])
        even = 1000 * (1 - 1 / np.arange(1, 1001))
        late = first < TEXT_TYPICAL * even
        assert [begins_late(schedule, t) for t in range(1, 1001)] == late.tolist()
        assert late.any() == (spacing == "leading")
        assert not late[[29, 49, 99, 999]].any()  # of T = 30, 50, 100, 1000
        for t in np.flatnonzero(late)[::97] + 1:
            near = nearest_good(schedule, int(t))
            between = late[min(t, near) : max(t, near) - 1]
            assert not late[near - 1]
            assert between.all(), (t, near)
    schedule = SCHEDULES[name].read({**BASE, "timestep_spacing": "leading"})
    assert all(begins_late(schedule, t) for t in (334, 501, 600))


@pytest.mark.parametrize("num_steps", [1, 4, 20, 50, 100])
@pytest.mark.parametrize("name", list(SAMPLERS))
def test_zero_terminal_snr_is_what_diffusers_makes_of_it(name, num_steps):
    for spacing in SPACINGS:
        settings = {**BASE, **ZERO_SNR, "timestep_spacing": spacing}
        table = SAMPLERS[name](settings, num_steps)
        # its betas are rescaled in float32; Euler's latents begin at s = 4096, of which float32 has
        # 5e-4
        assert worst_difference(name, table, settings, num_steps) < (
            5e-4 if name == "euler" else 5e-5
        )


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_with_zero_terminal_snr_a_schedule_from_the_top_begins_with_noise_alone(name):
    table = SAMPLERS[name]({**BASE, **ZERO_SNR}, 20)
    assert table.sqrt_alpha_bar[0] / table.sigma[0] < 3e-4
    with pytest.raises(ModelError, match="'v_prediction' is needed, with any sampler"):
        SAMPLERS[name]({**BASE, **ZERO_SNR, "prediction_type": "epsilon"}, 20)


@pytest.mark.parametrize(
    "change",
    [{"solver_type": kind} for kind in ("bh1", "bh2", "logrho")] + [{"algorithm_type": "deis"}],
)
def test_a_solver_of_another_class_means_what_diffusers_takes_it_for(change):
    last = {"final_sigmas_type": "sigma_min"}  # diffusers takes deis with no other
    settings = {**BASE, **last, **change}
    table = SAMPLERS["dpm++2m"](settings, 20)
    assert worst_difference("dpm++2m", table, settings, 20) < 1e-5
    plain = SAMPLERS["dpm++2m"]({**BASE, **last}, 20)
    assert all(np.array_equal(getattr(table, n), getattr(plain, n)) for n in COEFFICIENTS)


def test_a_clip_of_lambda_that_clips_nothing_is_accepted_and_another_refused():
    for harmless in (-float("inf"), -5.1):
        settings = {**BASE, "lambda_min_clipped": harmless}
        assert worst_difference("dpm++2m", SAMPLERS["dpm++2m"](settings, 20), settings, 20) < 1e-5
    with pytest.raises(ModelError, match="lambda_min_clipped = -2"):
        SAMPLERS["dpm++2m"]({**BASE, "lambda_min_clipped": -2}, 20)


@pytest.mark.parametrize("name", list(SAMPLERS))
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_train_timesteps": 0}, "num_train_timesteps = 0: input should be greater"),
        ({"num_train_timesteps": -1000}, "num_train_timesteps = -1000"),
        (
            {"num_train_timesteps": "1000"},
            "num_train_timesteps = '1000': input should be a valid integer",
        ),
        ({"num_train_timesteps": 1000.5}, "num_train_timesteps = 1000.5"),
        ({"num_train_timesteps": True}, "num_train_timesteps = True"),
        ({"num_train_timesteps": None}, "'num_train_timesteps' is missing"),
        (
            {"num_train_timesteps": 20},
            "plan.num_steps = 30: this model was trained with 20 timesteps",
        ),
        ({"beta_start": -0.1}, "beta_start = -0.1: input should be greater than 0"),
        ({"beta_start": 0}, "beta_start = 0"),
        ({"beta_start": "0.00085"}, "beta_start = '0.00085': input should be a valid number"),
        ({"beta_start": 1e-20}, "the betas take alpha-bar from 1 to"),
        ({"beta_end": 1.5}, "beta_end = 1.5: input should be less than 1"),
        ({"beta_end": float("nan")}, "beta_end = nan"),
        ({"beta_end": [0.1]}, r"beta_end = \[0.1\]"),
        ({"beta_start": None, "beta_end": None}, "'beta_start' is missing"),
        ({"beta_start": 0.5, "beta_end": 0.9}, "the betas take alpha-bar from 0.5 to"),
        ({"trained_betas": [0.01] * 5}, "trained_betas holds 5 values, num_train_timesteps = 1000"),
        ({"trained_betas": []}, "trained_betas holds 0 values"),
        ({"trained_betas": [-0.01] * 1000}, "trained_betas.0 = -0.01"),
        ({"trained_betas": "linear"}, "trained_betas = 'linear'"),
        ({"trained_betas": [0.01] * 999 + ["x"]}, "trained_betas.999 = 'x'"),
        ({"steps_offset": -1}, "steps_offset = -1"),
        ({"steps_offset": "1"}, "steps_offset = '1'"),
        ({"rescale_betas_zero_snr": "no"}, "rescale_betas_zero_snr = 'no'"),
        ({"prediction_type": 7}, "prediction_type = 7"),
        ({"timestep_spacing": ["leading"]}, r"timestep_spacing = \['leading'\]"),
    ],
    ids=lambda v: "" if isinstance(v, str) else str(v)[:40],
)
def test_nonsense_is_one_sentence_that_names_the_key(name, change, words):
    with pytest.raises(ModelError, match=words) as caught:
        SAMPLERS[name]({**BASE, **change}, 30)
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


def test_trained_betas_are_the_schedule():
    betas = (np.linspace(0.02, 0.11, 1000) ** 2).tolist()
    settings = {
        **{k: v for k, v in BASE.items() if not k.startswith("beta")},
        "trained_betas": betas,
    }
    for name in SAMPLERS:
        assert worst_difference(name, SAMPLERS[name](settings, 20), settings, 20) < 1e-5


def test_a_coefficient_that_is_not_finite_is_refused():
    table = SAMPLERS["ddim"](BASE, 20)
    with pytest.raises(ModelError, match="c_out is not finite in 20 steps"):
        dataclasses.replace(table, c_out=np.full(20, np.nan))


def test_an_offset_beyond_the_schedule_is_lowered():
    for name in SAMPLERS:
        schedule = SCHEDULES[name].read(
            {**BASE, "timestep_spacing": "leading", "steps_offset": 400}
        )
        assert plain_timesteps(schedule, 250)[0] > 999
        assert timesteps(schedule, 250)[0] == 999
