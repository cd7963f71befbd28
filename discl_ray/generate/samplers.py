"""The sampler as tables: what one denoising step does to a row, looked up by the row's own step.

Rows of one batch stand at different timesteps, so a sampler here is arrays over k = 0...T-1 and nothing else. Every method below
is linear in the latent x, the network's guided output m, fresh noise z and, for the multistep one, its last data prediction h:

    input to the UNet    scale_k x
    data prediction      x0 = data_keep_k x + data_push_k m            (only where a method keeps it)
    step                 x <- keep_k x + push_k m + past_k h + kick_k z,  then h <- x0;  h = x0 at a row's first step
    start of img2img     x = signal_k z0 + spread_k e                    (paper §3.1)

With a = alpha-bar at the step's timestep, a' at the next one, s = sqrt((1-a)/a), s' the next one's, and x0 from
epsilon-prediction, x0 = (x - sqrt(1-a) m) / sqrt(a), or v-prediction (Salimans and Ho 2022), x0 = sqrt(a) x - sqrt(1-a) m.

Which timesteps, and which a' after the last, is the model's scheduler config to say; names missing there take the default that
diffusers gives the same sampler, so a folder means here what it means there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from discl_ray.errors import ModelError

F64 = NDArray[np.floating]
COEFFICIENTS = ("scale", "keep", "push", "past", "kick", "data_keep", "data_push", "signal", "spread")


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
        if any(getattr(self, name).shape != self.timesteps.shape for name in COEFFICIENTS):
            raise ModelError(f"scheduler_config.json: these settings give {len(self.timesteps)} timesteps for another number")

    @property
    def num_steps(self) -> int:
        """T."""
        return len(self.timesteps)

    @property
    def multistep(self) -> bool:
        """Whether a step needs the data prediction of the one before."""
        return bool(self.past.any())


def _setting(scheduler: Mapping[str, Any], name: str) -> Any:
    if scheduler.get(name) is None:
        raise ModelError(f"scheduler_config.json: '{name}' is missing; a discrete (beta) noise schedule has it")
    return scheduler[name]


def _one_of(scheduler: Mapping[str, Any], name: str, default: str, allowed: tuple[str, ...]) -> str:
    value = scheduler.get(name, default)
    if value not in allowed:
        raise ModelError(f"scheduler_config.json: {name} = '{value}'; allowed: {', '.join(allowed)}")
    return value


def _refuse(scheduler: Mapping[str, Any], *names: str) -> None:
    """Raises ModelError for a switch that changes the schedule in a way no table here follows."""
    for name in names:
        if scheduler.get(name):
            raise ModelError(
                f"scheduler_config.json: {name} = {scheduler[name]}; this sampler needs it off, or take another one"
            )


def alphas_cumprod(scheduler: Mapping[str, Any]) -> F64:
    """alpha-bar for t = 0...N-1 from a diffusers scheduler config.

    Raises ModelError for a beta schedule no sampler here knows.
    """
    if scheduler.get("trained_betas") is not None:
        return np.cumprod(1.0 - np.asarray(scheduler["trained_betas"], np.float64))
    kind = _one_of(scheduler, "beta_schedule", "linear", ("linear", "scaled_linear"))
    n, low, high = (_setting(scheduler, name) for name in ("num_train_timesteps", "beta_start", "beta_end"))
    betas: F64 = np.linspace(low, high, n) if kind == "linear" else np.linspace(low**0.5, high**0.5, n) ** 2
    return np.cumprod(1.0 - betas)


def spaced_timesteps(scheduler: Mapping[str, Any], num_steps: int, default: str = "leading", *, whole: bool = True) -> F64:
    """T timesteps, descending, spaced as the model's scheduler config says; rounded if `whole`."""
    n, offset = _setting(scheduler, "num_train_timesteps"), scheduler.get("steps_offset", 0)
    spacing = _one_of(scheduler, "timestep_spacing", default, ("leading", "trailing", "linspace"))
    if spacing == "leading":
        return np.arange(num_steps, dtype=np.float64)[::-1] * (n // num_steps) + offset
    if spacing == "trailing":
        return np.round(np.arange(n, 0, -n / num_steps)) - 1
    steps = np.linspace(0, n - 1, num_steps, dtype=np.float64 if whole else np.float32)[::-1].astype(np.float64)
    return np.round(steps) if whole else steps


def data_prediction(scheduler: Mapping[str, Any], a: F64) -> tuple[F64, F64]:
    """x0 = P x + Q m: the factors (P, Q) for the model's prediction type at alpha-bar `a`."""
    kind = _one_of(scheduler, "prediction_type", "epsilon", ("epsilon", "v_prediction"))
    if kind == "epsilon":
        return 1 / np.sqrt(a), -np.sqrt((1 - a) / a)
    return np.sqrt(a), -np.sqrt(1 - a)


def ddim(scheduler: Mapping[str, Any], num_steps: int) -> Table:
    """DDIM with eta = 0: x <- sqrt(a') x0 + sqrt(1-a') e, e = (x - sqrt(a) x0) / sqrt(1-a) (Song et al. 2021, Eq. 12)."""
    _refuse(scheduler, "rescale_betas_zero_snr", "thresholding")
    alpha, steps = alphas_cumprod(scheduler), spaced_timesteps(scheduler, num_steps)
    following = steps.astype(int) - len(alpha) // num_steps
    final = 1.0 if scheduler.get("set_alpha_to_one", True) else alpha[0]
    a = alpha[steps.astype(int)]
    b = np.where(following >= 0, alpha[np.maximum(following, 0)], final)
    p, q = data_prediction(scheduler, a)
    of_x0, of_x = np.sqrt(b) - np.sqrt(a * (1 - b) / (1 - a)), np.sqrt((1 - b) / (1 - a))
    return _table(steps, keep=of_x + of_x0 * p, push=of_x0 * q, signal=np.sqrt(a), spread=np.sqrt(1 - a))


def _ddpm(variance: str) -> Callable[[Mapping[str, Any], int], Table]:
    def ddpm(scheduler: Mapping[str, Any], num_steps: int) -> Table:
        """Ancestral sampling (Ho et al. 2020, Eq. 7; the paper's Eq. 2) on the respaced chain, alpha = a/a', beta = 1 - alpha.

        x <- sqrt(a') beta/(1-a) x0 + sqrt(alpha) (1-a')/(1-a) x + sigma z for t > 0, with sigma^2 = beta (`large`) or the
        posterior's beta (1-a')/(1-a) (`small`). Nothing is clipped.
        """
        _refuse(scheduler, "rescale_betas_zero_snr", "thresholding")
        alpha, steps = alphas_cumprod(scheduler), spaced_timesteps(scheduler, num_steps)
        a = alpha[steps.astype(int)]
        b = np.append(a[1:], 1.0)
        beta = 1 - a / b
        sigma2 = beta if variance == "large" else np.maximum(beta * (1 - b) / (1 - a), 1e-20)
        p, q = data_prediction(scheduler, a)
        of_x0, of_x = np.sqrt(b) * beta / (1 - a), np.sqrt(a / b) * (1 - b) / (1 - a)
        kick = np.where(steps > 0, np.sqrt(sigma2), 0.0)
        return _table(steps, keep=of_x + of_x0 * p, push=of_x0 * q, kick=kick, signal=np.sqrt(a), spread=np.sqrt(1 - a))

    return ddpm


def euler(scheduler: Mapping[str, Any], num_steps: int) -> Table:
    """Euler's method in s (Karras et al. 2022, Alg. 1 without churn): x <- x + (s'-s) (x - x0) / s.

    Here x = z0 + s e; the UNet sees the variance-preserving x / sqrt(1 + s^2).
    """
    _refuse(scheduler, "rescale_betas_zero_snr", "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
    _one_of(scheduler, "interpolation_type", "linear", ("linear",))
    _one_of(scheduler, "timestep_type", "discrete", ("discrete",))
    alpha = alphas_cumprod(scheduler)
    steps = spaced_timesteps(scheduler, num_steps, "linspace", whole=False)
    s, following = _sigmas(scheduler, alpha, steps)
    p, q = data_prediction(scheduler, 1 / (1 + s**2))  # of the variance-preserving latent x / sqrt(1+s^2)
    change = (following - s) / s
    scale = 1 / np.sqrt(1 + s**2)
    top = float(np.max(s))
    even = scheduler.get("timestep_spacing", "linspace") in ("linspace", "trailing")
    return _table(
        steps,
        scale=scale,
        keep=1 + change * (1 - p * scale),
        push=-change * q,
        signal=np.ones_like(s),
        spread=s,
        pure=top if even else float(np.sqrt(top**2 + 1)),
    )


def dpm_solver_2m(scheduler: Mapping[str, Any], num_steps: int) -> Table:
    """DPM-Solver++ 2M, midpoint (Lu et al. 2022, Alg. 2), in the half log-SNR -log s with steps h = log(s/s').

    x <- (sigma'/sigma) x - alpha' (e^-h - 1) D,  D = (1 + w) x0 - w x0_before,  w = h / (2 h_before), alpha = sqrt(a),
    sigma = sqrt(1-a). First order (w = 0) at a row's first step and, as diffusers has it, at the last one.
    """
    _refuse(
        scheduler,
        "rescale_betas_zero_snr", "thresholding", "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas",
        "use_lu_lambdas", "use_flow_sigmas",
    )  # fmt: skip
    _one_of(scheduler, "solver_type", "midpoint", ("midpoint",))
    _one_of(scheduler, "algorithm_type", "dpmsolver++", ("dpmsolver++",))
    if scheduler.get("solver_order", 2) != 2:
        raise ModelError(f"scheduler_config.json: solver_order = {scheduler['solver_order']}; allowed: 2")
    alpha, n = alphas_cumprod(scheduler), _setting(scheduler, "num_train_timesteps")
    spacing = _one_of(scheduler, "timestep_spacing", "linspace", ("leading", "trailing", "linspace"))
    if spacing == "trailing":
        steps = spaced_timesteps(scheduler, num_steps)
    elif spacing == "leading":
        steps = np.arange(num_steps, 0, -1) * float(n // (num_steps + 1)) + scheduler.get("steps_offset", 0)
    else:
        steps = np.round(np.linspace(0, n - 1, num_steps + 1))[:0:-1]
    s, following = _sigmas(scheduler, alpha, steps)
    a, b = 1 / (1 + s**2), 1 / (1 + following**2)
    with np.errstate(divide="ignore"):
        h = np.log(s) - np.log(following)  # infinite at the end, where s' = 0
    w = np.zeros(num_steps)
    w[1:] = h[1:] / (2 * h[:-1])
    short = scheduler.get("lower_order_final", True) and num_steps < 15
    if scheduler.get("final_sigmas_type", "zero") == "zero" or short or scheduler.get("euler_at_final"):
        w[-1] = 0
    gain = np.sqrt(b) * (1 - following / s)
    p, q = data_prediction(scheduler, a)
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


def _sigmas(scheduler: Mapping[str, Any], alpha: F64, steps: F64) -> tuple[F64, F64]:
    """s at every step and s' after it."""
    trained = np.sqrt((1 - alpha) / alpha)
    s = np.interp(steps, np.arange(len(alpha)), trained)
    last = _one_of(scheduler, "final_sigmas_type", "zero", ("zero", "sigma_min"))
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
