"""The sampler as tables: what one denoising step does to a row, looked up by the row's own step.

Rows of one batch stand at different timesteps, so a sampler here is arrays over k = 0...T-1 and nothing else. Every method below
is linear in the latent x, the network's guided output m, fresh noise z and, for the multistep one, its last data prediction h:

    input to the UNet    scale_k x
    data prediction      x0 = data_keep_k x + data_push_k m            (only where a method keeps it)
    step                 x <- keep_k x + push_k m + past_k h + kick_k z,  then h <- x0;  h = x0 at a row's first step
    start of img2img     x = signal_k z0 + spread_k e                    (paper §3.1)

With a = alpha-bar at the step's timestep, a' at the next one, s = sqrt((1-a)/a), s' the next one's, and x0 from
epsilon-prediction, x0 = (x - sqrt(1-a) m) / sqrt(a), or v-prediction (Salimans and Ho 2022), x0 = sqrt(a) x - sqrt(1-a) m.

Which timesteps, and which a' after the last, is the model's scheduler config to say (generate/schedule.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from discl_ray.errors import ModelError
from discl_ray.generate.schedule import F64, NoiseSchedule, Off, timesteps

COEFFICIENTS = (
    "scale",
    "keep",
    "push",
    "past",
    "kick",
    "data_keep",
    "data_push",
    "signal",
    "spread",
)


@dataclass(frozen=True, kw_only=True)
class Table:
    """One sampler for one schedule of T steps; float64 arrays of shape (T,), from noisy to clean."""

    timesteps: F64
    """What the UNet is told at step k."""
    scale: F64
    """Factor of the latent as the UNet sees it."""
    keep: F64
    """Factor of the latent."""
    push: F64
    """Factor of the network's output."""
    past: F64
    """Factor of the last data prediction; all zero unless the method is a multistep one."""
    kick: F64
    """Standard deviation of the fresh noise; all zero unless the method is stochastic."""
    data_keep: F64
    """The latent's factor in the data prediction."""
    data_push: F64
    """The network output's factor in the data prediction."""
    signal: F64
    """How much of the source a row that starts here keeps."""
    spread: F64
    """How much noise it gets."""
    pure: float
    """Standard deviation of the pure noise that text-to-image starts from."""

    def __post_init__(self) -> None:
        wrong = [name for name in COEFFICIENTS if not np.isfinite(getattr(self, name)).all()]
        if wrong:
            raise ModelError(
                f"scheduler_config.json: {wrong[0]} is not finite in {self.num_steps} steps; take another plan.num_steps"
            )

    @property
    def num_steps(self) -> int:
        """T."""
        return len(self.timesteps)

    @property
    def multistep(self) -> bool:
        """Whether a step needs the data prediction of the one before."""
        return bool(self.past.any())


def data_prediction(schedule: NoiseSchedule, a: F64) -> tuple[F64, F64]:
    """x0 = P x + Q m: the factors (P, Q) for the model's prediction type at alpha-bar `a`."""
    if schedule.prediction_type == "epsilon":
        return 1 / np.sqrt(a), -np.sqrt((1 - a) / a)
    return np.sqrt(a), -np.sqrt(1 - a)


class DDIMSchedule(NoiseSchedule):
    """What DDIM reads of scheduler_config.json."""

    stock: ClassVar[str] = "DDIMScheduler"
    unbounded: ClassVar[tuple[str, ...]] = ("clip_sample", "thresholding")

    set_alpha_to_one: bool = True


def ddim(scheduler: Mapping[str, Any], num_steps: int) -> Table:
    """DDIM with eta = 0: x <- sqrt(a') x0 + sqrt(1-a') e, e = (x - sqrt(a) x0) / sqrt(1-a) (Song et al. 2021, Eq. 12)."""
    schedule = DDIMSchedule.read(scheduler)
    alpha, steps = schedule.alphas_cumprod(), timesteps(schedule, num_steps)
    following = steps.astype(int) - len(alpha) // num_steps
    final = 1.0 if schedule.set_alpha_to_one else alpha[0]
    a = alpha[steps.astype(int)]
    b = np.where(following >= 0, alpha[np.maximum(following, 0)], final)
    p, q = data_prediction(schedule, a)
    of_x0, of_x = np.sqrt(b) - np.sqrt(a * (1 - b) / (1 - a)), np.sqrt((1 - b) / (1 - a))
    return _table(
        steps, keep=of_x + of_x0 * p, push=of_x0 * q, signal=np.sqrt(a), spread=np.sqrt(1 - a)
    )


class DDPMSchedule(NoiseSchedule):
    """What ancestral sampling reads of scheduler_config.json."""

    stock: ClassVar[str] = "DDPMScheduler"
    unbounded: ClassVar[tuple[str, ...]] = ("clip_sample", "thresholding")


def _ddpm(variance: str) -> Callable[[Mapping[str, Any], int], Table]:
    def ddpm(scheduler: Mapping[str, Any], num_steps: int) -> Table:
        """Ancestral sampling (Ho et al. 2020, Eq. 7; the paper's Eq. 2) on the respaced chain, alpha = a/a', beta = 1 - alpha.

        x <- sqrt(a') beta/(1-a) x0 + sqrt(alpha) (1-a')/(1-a) x + sigma z for t > 0, with sigma^2 = beta (`large`) or the
        posterior's beta (1-a')/(1-a) (`small`). Nothing is clipped.
        """
        schedule = DDPMSchedule.read(scheduler)
        alpha, steps = schedule.alphas_cumprod(), timesteps(schedule, num_steps)
        a = alpha[steps.astype(int)]
        b = np.append(a[1:], 1.0)
        beta = 1 - a / b
        sigma2 = beta if variance == "large" else np.maximum(beta * (1 - b) / (1 - a), 1e-20)
        p, q = data_prediction(schedule, a)
        of_x0, of_x = np.sqrt(b) * beta / (1 - a), np.sqrt(a / b) * (1 - b) / (1 - a)
        kick = np.where(steps > 0, np.sqrt(sigma2), 0.0)
        return _table(
            steps,
            keep=of_x + of_x0 * p,
            push=of_x0 * q,
            kick=kick,
            signal=np.sqrt(a),
            spread=np.sqrt(1 - a),
        )

    return ddpm


class EulerSchedule(NoiseSchedule):
    """What Euler's method reads of scheduler_config.json."""

    stock: ClassVar[str] = "EulerDiscreteScheduler"
    whole: ClassVar[bool] = False
    terminal: ClassVar[float] = 2.0**-24

    timestep_spacing: Literal["leading", "trailing", "linspace"] = "linspace"
    final_sigmas_type: Literal["zero", "sigma_min"] = "zero"
    interpolation_type: Literal["linear"] = "linear"
    timestep_type: Literal["discrete", "continuous"] = "discrete"
    use_karras_sigmas: Off = False
    use_exponential_sigmas: Off = False
    use_beta_sigmas: Off = False

    @model_validator(mode="after")
    def _told_timesteps(self) -> Self:
        if self.timestep_type == "continuous" and self.prediction_type == "v_prediction":
            raise ValueError(
                "timestep_type = 'continuous': with v-prediction it tells the UNet other times; 'discrete' is allowed"
            )
        return self


def euler(scheduler: Mapping[str, Any], num_steps: int) -> Table:
    """Euler's method in s (Karras et al. 2022, Alg. 1 without churn): x <- x + (s'-s) (x - x0) / s.

    Here x = z0 + s e; the UNet sees the variance-preserving x / sqrt(1 + s^2).
    """
    schedule = EulerSchedule.read(scheduler)
    steps = timesteps(schedule, num_steps)
    s, following = _sigmas(schedule, schedule.final_sigmas_type, steps)
    p, q = data_prediction(
        schedule, 1 / (1 + s**2)
    )  # of the variance-preserving latent x / sqrt(1+s^2)
    change = (following - s) / s
    scale = 1 / np.sqrt(1 + s**2)
    top = float(np.max(s))
    return _table(
        steps,
        scale=scale,
        keep=1 + change * (1 - p * scale),
        push=-change * q,
        signal=np.ones_like(s),
        spread=s,
        pure=float(np.sqrt(top**2 + 1)) if schedule.timestep_spacing == "leading" else top,
    )


class DPMSolverSchedule(NoiseSchedule):
    """What DPM-Solver++ reads of scheduler_config.json. UniPC's and DEIS's names for a solver mean its own, as in diffusers."""

    stock: ClassVar[str] = "DPMSolverMultistepScheduler"
    unbounded: ClassVar[tuple[str, ...]] = ("thresholding",)
    dropped: ClassVar[int] = 1
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
        lowest = self.alphas_cumprod()[-1]
        if not 0.5 * math.log(lowest / (1 - lowest)) >= self.lambda_min_clipped:
            raise ValueError(
                f"lambda_min_clipped = {self.lambda_min_clipped}: leaves out timesteps of this schedule; remove it"
            )
        return self


def dpm_solver_2m(scheduler: Mapping[str, Any], num_steps: int) -> Table:
    """DPM-Solver++ 2M, midpoint (Lu et al. 2022, Alg. 2), in the half log-SNR -log s with steps h = log(s/s').

    x <- (sigma'/sigma) x - alpha' (e^-h - 1) D,  D = (1 + w) x0 - w x0_before,  w = h / (2 h_before), alpha = sqrt(a),
    sigma = sqrt(1-a). First order (w = 0) at a row's first step and, as diffusers has it, at the last one.
    """
    schedule = DPMSolverSchedule.read(scheduler)
    steps = timesteps(schedule, num_steps)
    s, following = _sigmas(schedule, schedule.final_sigmas_type, steps)
    a, b = 1 / (1 + s**2), 1 / (1 + following**2)
    with np.errstate(divide="ignore"):
        h = np.log(s) - np.log(following)  # infinite at the end, where s' = 0
    w = np.zeros(num_steps)
    w[1:] = h[1:] / (2 * h[:-1])
    short = schedule.lower_order_final and num_steps < 15
    if schedule.final_sigmas_type == "zero" or short or schedule.euler_at_final:
        w[-1] = 0
    gain = np.sqrt(b) * (1 - following / s)
    p, q = data_prediction(schedule, a)
    return _table(
        steps,
        keep=np.sqrt((1 - b) / (1 - a)) + gain * (1 + w) * p,
        push=gain * (1 + w) * q,
        past=-gain * w,
        data_keep=p,
        data_push=q,
        signal=np.sqrt(a),
        spread=np.sqrt(1 - a),
    )


def _sigmas(schedule: NoiseSchedule, last: str, steps: F64) -> tuple[F64, F64]:
    """s at every step and s' after it."""
    alpha = schedule.alphas_cumprod()
    trained = np.sqrt((1 - alpha) / alpha)
    s = np.interp(steps, np.arange(len(alpha)), trained)
    return s, np.append(s[1:], 0.0 if last == "zero" else trained[0])


def _table(steps: F64, *, pure: float = 1.0, **columns: F64) -> Table:
    rest = {name: np.zeros_like(steps) for name in COEFFICIENTS} | {"scale": np.ones_like(steps)}
    return Table(timesteps=steps, pure=pure, **{**rest, **columns})


Sampler = Callable[[Mapping[str, Any], int], Table]

SAMPLERS: dict[str, Sampler] = {
    "ddim": ddim,
    "ddpm_large": _ddpm("large"),
    "ddpm_small": _ddpm("small"),
    "euler": euler,
    "dpm++2m": dpm_solver_2m,
}
"""Samplers by name: (the model's scheduler config, T) -> Table. `ddpm_large` is the paper's Eq. 2."""

SCHEDULES: dict[str, type[NoiseSchedule]] = {
    "ddim": DDIMSchedule,
    "ddpm_large": DDPMSchedule,
    "ddpm_small": DDPMSchedule,
    "euler": EulerSchedule,
    "dpm++2m": DPMSolverSchedule,
}
"""What a sampler reads of a model's scheduler config, by name."""
