"""Samplers as tables: the coefficients of each denoising step, looked up by the row's own step.

Rows of one batch are at different timesteps, so a sampler is arrays over k = 0...T-1. Every method
here is linear in the latent x, the network's guided output m, fresh noise z and, for the multistep
method, its previous data prediction x0_prev:

    input to the UNet    c_in_k x
    data prediction      x0 = x0_c_x_k x + x0_c_out_k m        (only where a method keeps it)
    step                 x <- c_x_k x + c_out_k m + c_prev_k x0_prev + noise_std_k z
    then                 x0_prev <- x0;  at a row's first step x0_prev is its own x0
    start of img2img     x = sqrt_alpha_bar_k z0 + sigma_k e   (paper §3.1)

With a = alpha-bar at the step's timestep, a' at the next one, s = sqrt((1-a)/a), s' the next one's,
and x0 from epsilon-prediction, x0 = (x - sqrt(1-a) m) / sqrt(a), or v-prediction (Salimans and
Ho 2022), x0 = sqrt(a) x - sqrt(1-a) m.

The model's scheduler config determines the timesteps, and a' after the last (generate/schedule.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from discl_ray.errors import ModelError
from discl_ray.generate.schedule import F64, NoiseSchedule, Off, timesteps

STEP_COEFFICIENTS = ("c_in", "c_x", "c_out", "c_prev", "noise_std", "x0_c_x", "x0_c_out")
"""What a step needs of the table."""

COEFFICIENTS = (*STEP_COEFFICIENTS, "sqrt_alpha_bar", "sigma")


@dataclass(frozen=True, kw_only=True)
class Table:
    """One sampler for a schedule of T steps; float64 arrays of shape (T,), noisy to clean."""

    timesteps: F64
    """The UNet's timestep input at step k."""
    c_in: F64
    """Factor of the latent as the UNet sees it."""
    c_x: F64
    """Factor of the latent."""
    c_out: F64
    """Factor of the network's output."""
    c_prev: F64
    """Factor of the previous data prediction; all zero unless the method is multistep."""
    noise_std: F64
    """Standard deviation of fresh noise; all zero unless the method is stochastic."""
    x0_c_x: F64
    """The latent's factor in the data prediction."""
    x0_c_out: F64
    """The network output's factor in the data prediction."""
    sqrt_alpha_bar: F64
    """Factor of the source's latent in a row that starts here; always 1 for Euler."""
    sigma: F64
    """Standard deviation of the noise it gets."""
    pure: float
    """Standard deviation of the pure noise that text-to-image starts from."""

    def __post_init__(self) -> None:
        for name in COEFFICIENTS:
            finite = np.isfinite(getattr(self, name))
            if not finite.all():
                raise ModelError(
                    f"scheduler_config.json: {name} is not finite in {self.num_steps} steps; "
                    "take another plan.num_steps"
                )

    @property
    def num_steps(self) -> int:
        """T."""
        return len(self.timesteps)

    @property
    def multistep(self) -> bool:
        """Whether a step needs the data prediction of the one before."""
        return bool(self.c_prev.any())

    @property
    def stochastic(self) -> bool:
        """Whether steps draw fresh noise."""
        return bool(self.noise_std.any())


def data_prediction(schedule: NoiseSchedule, a: F64) -> tuple[F64, F64]:
    """x0 = P x + Q m: the factors (P, Q) for the model's prediction type at alpha-bar `a`."""
    noise = 1 - a
    if schedule.prediction_type == "epsilon":
        p = 1 / np.sqrt(a)
        q = -np.sqrt(noise / a)
    else:
        p = np.sqrt(a)
        q = -np.sqrt(noise)
    return p, q


class DDIMSchedule(NoiseSchedule):
    """What DDIM reads of scheduler_config.json."""

    stock: ClassVar[str] = "DDIMScheduler"
    unbounded: ClassVar[tuple[str, ...]] = ("clip_sample", "thresholding")

    set_alpha_to_one: bool = True


def ddim(scheduler: Mapping[str, Any], num_steps: int) -> Table:
    """DDIM with eta = 0 (Song et al. 2021, Eq. 12).

    x <- sqrt(a') x0 + sqrt(1-a') e, with e = (x - sqrt(a) x0) / sqrt(1-a).
    """
    schedule = DDIMSchedule.read(scheduler)
    alpha = schedule.alphas_cumprod()
    steps = timesteps(schedule, num_steps)
    here = steps.astype(int)
    # diffusers goes down by this much, whatever the spacing of the timesteps
    stride = len(alpha) // num_steps
    following = here - stride
    final = 1.0 if schedule.set_alpha_to_one else alpha[0]
    a = alpha[here]
    # the last step leads below timestep 0, where alpha-bar has no value of its own
    clamped = np.maximum(following, 0)
    b = np.where(following >= 0, alpha[clamped], final)
    noise = 1 - a
    noise_after = 1 - b
    p, q = data_prediction(schedule, a)
    of_x = np.sqrt(noise_after / noise)
    of_e = np.sqrt(a * noise_after / noise)
    of_x0 = np.sqrt(b) - of_e
    return _table(
        steps,
        c_x=of_x + of_x0 * p,
        c_out=of_x0 * q,
        sqrt_alpha_bar=np.sqrt(a),
        sigma=np.sqrt(noise),
    )


class DDPMSchedule(NoiseSchedule):
    """What ancestral sampling reads of scheduler_config.json."""

    stock: ClassVar[str] = "DDPMScheduler"
    unbounded: ClassVar[tuple[str, ...]] = ("clip_sample", "thresholding")


def ddpm(
    scheduler: Mapping[str, Any], num_steps: int, *, variance: Literal["large", "small"]
) -> Table:
    """Ancestral sampling on the respaced chain (Ho et al. 2020, Eq. 7; the paper's Eq. 2).

    With alpha = a/a' and beta = 1 - alpha:
    x <- sqrt(a') beta/(1-a) x0 + sqrt(alpha) (1-a')/(1-a) x + sigma z for t > 0, where sigma^2 is
    beta (`large`) or the posterior's beta (1-a')/(1-a) (`small`). Nothing is clipped.
    """
    schedule = DDPMSchedule.read(scheduler)
    alpha = schedule.alphas_cumprod()
    steps = timesteps(schedule, num_steps)
    a = alpha[steps.astype(int)]
    b = np.append(a[1:], 1.0)
    beta = 1 - a / b
    noise = 1 - a
    noise_after = 1 - b
    # the floor is that of diffusers, whose last posterior variance is 0 as well
    exact = beta * noise_after / noise
    posterior = np.maximum(exact, 1e-20)
    fresh = beta if variance == "large" else posterior
    # none at timestep 0: nothing would take it out again (Ho et al. 2020, Alg. 2)
    noise_std = np.where(steps > 0, np.sqrt(fresh), 0.0)
    p, q = data_prediction(schedule, a)
    root_alpha = np.sqrt(a / b)
    of_x = root_alpha * noise_after / noise
    of_x0 = np.sqrt(b) * beta / noise
    return _table(
        steps,
        c_x=of_x + of_x0 * p,
        c_out=of_x0 * q,
        noise_std=noise_std,
        sqrt_alpha_bar=np.sqrt(a),
        sigma=np.sqrt(noise),
    )


class EulerSchedule(NoiseSchedule):
    """What Euler's method reads of scheduler_config.json."""

    stock: ClassVar[str] = "EulerDiscreteScheduler"
    whole: ClassVar[bool] = False
    # as in diffusers: the smallest float16 above 0
    terminal: ClassVar[float] = 2.0**-24

    timestep_spacing: Literal["leading", "trailing", "linspace"] = "linspace"
    final_sigmas_type: Literal["zero", "sigma_min"] = "zero"
    interpolation_type: Literal["linear"] = "linear"
    timestep_type: Literal["discrete", "continuous"] = "discrete"
    use_karras_sigmas: Off = False
    use_exponential_sigmas: Off = False
    use_beta_sigmas: Off = False

    @model_validator(mode="after")
    def _discrete_with_v(self) -> Self:
        """Rejects timesteps that the UNet would get in other numbers."""
        if self.timestep_type == "continuous" and self.prediction_type == "v_prediction":
            raise ValueError(
                "timestep_type = 'continuous': with v-prediction the UNet gets other timesteps; "
                "'discrete' is allowed"
            )
        return self


def euler(scheduler: Mapping[str, Any], num_steps: int) -> Table:
    """Euler's method in s (Karras et al. 2022, Alg. 1 without churn): x <- x + (s'-s) (x - x0) / s.

    Here x = z0 + s e; the UNet sees the variance-preserving x / sqrt(1 + s^2).
    """
    schedule = EulerSchedule.read(scheduler)
    steps = timesteps(schedule, num_steps)
    s, following = _sigmas(schedule, schedule.final_sigmas_type, steps)
    variance = 1 + s**2
    # of the variance-preserving latent x / sqrt(1+s^2)
    alpha_bar = 1 / variance
    c_in = 1 / np.sqrt(variance)
    p, q = data_prediction(schedule, alpha_bar)
    change = (following - s) / s
    x0_of_x = p * c_in
    start_std = float(np.max(s))
    if schedule.timestep_spacing == "leading":
        # diffusers: the variance of leading timesteps' noisiest latent includes the source's
        with_source = start_std**2 + 1
        start_std = float(np.sqrt(with_source))
    return _table(
        steps,
        c_in=c_in,
        c_x=1 + change * (1 - x0_of_x),
        c_out=-change * q,
        sqrt_alpha_bar=np.ones_like(s),
        sigma=s,
        pure=start_std,
    )


class DPMSolverSchedule(NoiseSchedule):
    """What DPM-Solver++ reads of scheduler_config.json. UniPC's and DEIS's names for a solver mean
    its own, as in diffusers."""

    stock: ClassVar[str] = "DPMSolverMultistepScheduler"
    unbounded: ClassVar[tuple[str, ...]] = ("thresholding",)
    dropped: ClassVar[int] = 1
    # as in diffusers: the smallest float16 above 0
    terminal: ClassVar[float] = 2.0**-24

    timestep_spacing: Literal["leading", "trailing", "linspace"] = "linspace"
    final_sigmas_type: Literal["zero", "sigma_min"] = "zero"
    solver_type: Literal["midpoint", "bh1", "bh2", "logrho"] = "midpoint"
    algorithm_type: Literal["dpmsolver++", "deis"] = "dpmsolver++"
    solver_order: Literal[2] = 2
    lower_order_final: bool = True
    euler_at_final: bool = False
    lambda_min_clipped: float = Field(default=-math.inf, allow_inf_nan=True)
    use_karras_sigmas: Off = False
    use_exponential_sigmas: Off = False
    use_beta_sigmas: Off = False
    use_lu_lambdas: Off = False
    use_flow_sigmas: Off = False

    @model_validator(mode="after")
    def _unclipped(self) -> Self:
        """Rejects a clip that leaves out timesteps."""
        lowest = self.alphas_cumprod()[-1]
        snr = lowest / (1 - lowest)
        half_log_snr = 0.5 * math.log(snr)
        if not half_log_snr >= self.lambda_min_clipped:
            raise ValueError(
                f"lambda_min_clipped = {self.lambda_min_clipped}: leaves out timesteps of this "
                "schedule; remove it"
            )
        return self


def dpm_solver_2m(scheduler: Mapping[str, Any], num_steps: int) -> Table:
    """DPM-Solver++ 2M, midpoint (Lu et al. 2022, Alg. 2), in the half log-SNR -log s with steps h =
    log(s/s').

    x <- (sigma'/sigma) x - alpha' (e^-h - 1) D,  D = (1 + w) x0 - w x0_before,  w = h / (2
    h_before), alpha = sqrt(a), sigma = sqrt(1-a). First order (w = 0) at a row's first step and, as
    diffusers has it, at the last one.
    """
    schedule = DPMSolverSchedule.read(scheduler)
    steps = timesteps(schedule, num_steps)
    s, following = _sigmas(schedule, schedule.final_sigmas_type, steps)
    a = 1 / (1 + s**2)
    b = 1 / (1 + following**2)
    with np.errstate(divide="ignore"):
        h = np.log(s) - np.log(following)  # infinite at the end, where s' = 0
    w = np.zeros(num_steps)
    before = h[:-1]
    after_first = h[1:]
    w[1:] = after_first / (2 * before)
    # 15 is diffusers' number: fewer steps end with one of first order
    short = schedule.lower_order_final and num_steps < 15
    to_zero = schedule.final_sigmas_type == "zero"
    if to_zero or short or schedule.euler_at_final:
        w[-1] = 0
    noise = 1 - a
    noise_after = 1 - b
    ratio = following / s  # e^-h
    gain = np.sqrt(b) * (1 - ratio)
    shrink = np.sqrt(noise_after / noise)
    newest = gain * (1 + w)
    p, q = data_prediction(schedule, a)
    return _table(
        steps,
        c_x=shrink + newest * p,
        c_out=newest * q,
        c_prev=-gain * w,
        x0_c_x=p,
        x0_c_out=q,
        sqrt_alpha_bar=np.sqrt(a),
        sigma=np.sqrt(noise),
    )


def _sigmas(schedule: NoiseSchedule, last: str, steps: F64) -> tuple[F64, F64]:
    """s at every step and s' after it."""
    alpha = schedule.alphas_cumprod()
    noise_to_signal = (1 - alpha) / alpha
    trained = np.sqrt(noise_to_signal)
    every = np.arange(len(alpha))
    # Euler's timesteps need not be whole
    s = np.interp(steps, every, trained)
    final = 0.0 if last == "zero" else trained[0]
    after = np.append(s[1:], final)
    return s, after


def _table(steps: F64, *, pure: float = 1.0, **columns: F64) -> Table:
    """A table whose other columns are 0, and whose UNet sees the latent as it is."""
    defaults = {name: np.zeros_like(steps) for name in COEFFICIENTS}
    defaults["c_in"] = np.ones_like(steps)
    given = defaults | columns
    return Table(timesteps=steps, pure=pure, **given)


Sampler = Callable[[Mapping[str, Any], int], Table]

SAMPLERS: dict[str, Sampler] = {
    "ddim": ddim,
    "ddpm_large": partial(ddpm, variance="large"),
    "ddpm_small": partial(ddpm, variance="small"),
    "euler": euler,
    "dpm++2m": dpm_solver_2m,
}
"""Samplers by name: (the model's scheduler config, T) -> Table. `ddpm_large` is the paper's Eq.
2."""

SCHEDULES: dict[str, type[NoiseSchedule]] = {
    "ddim": DDIMSchedule,
    "ddpm_large": DDPMSchedule,
    "ddpm_small": DDPMSchedule,
    "euler": EulerSchedule,
    "dpm++2m": DPMSolverSchedule,
}
"""What a sampler reads of a model's scheduler config, by name."""
