"""The sampler as tables: what one denoising step does to a row, looked up by the row's own step.

Rows of one batch stand at different timesteps, so nothing here has state. For eta = 0 every DDIM step is linear in the latent
x and the network's output m, x <- A_k x + B_k m, and the whole sampler is three arrays over k = 0...T-1.

With a = alpha-bar at the step's timestep, a' at the next one (1 or alpha-bar_0 after the last, as the model says):

    epsilon-prediction   A = sqrt(a'/a)                          B = sqrt(1-a') - sqrt(a'(1-a)/a)
    v-prediction         A = sqrt(a a') + sqrt((1-a)(1-a'))      B = sqrt(a (1-a')) - sqrt(a' (1-a))

(DDIM: Song et al. 2021, Eq. 12 with sigma = 0; v-prediction: Salimans and Ho 2022, x0 = sqrt(a) x - sqrt(1-a) v.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from discl_ray.errors import ModelError


@dataclass(frozen=True, kw_only=True)
class Table:
    """One sampler for one schedule of T steps; arrays of shape (T,), from noisy to clean."""

    timesteps: NDArray[np.int64]
    """What the UNet is told at step k."""
    keep: NDArray[np.float32]
    """A_k, the factor of the latent."""
    push: NDArray[np.float32]
    """B_k, the factor of the network's output."""
    signal: NDArray[np.float32]
    """sqrt(alpha-bar) at step k: how much of the source a row that starts here keeps (paper §3.1)."""
    noise: NDArray[np.float32]
    """sqrt(1 - alpha-bar) at step k."""

    @property
    def num_steps(self) -> int:
        """T."""
        return len(self.timesteps)


def alphas_cumprod(scheduler: dict[str, Any]) -> NDArray[np.float64]:
    """alpha-bar for t = 0...N-1 from a diffusers scheduler config.

    Raises ModelError for a beta schedule this sampler does not know.
    """
    n, low, high = scheduler["num_train_timesteps"], scheduler["beta_start"], scheduler["beta_end"]
    schedules = {
        "linear": lambda: np.linspace(low, high, n),
        "scaled_linear": lambda: np.linspace(low**0.5, high**0.5, n) ** 2,
    }
    kind = scheduler.get("beta_schedule", "linear")
    if kind not in schedules:
        raise ModelError(f"scheduler_config.json: beta_schedule = '{kind}'; allowed: {', '.join(schedules)}")
    return np.cumprod(1.0 - schedules[kind]())


def spaced_timesteps(scheduler: dict[str, Any], num_steps: int) -> NDArray[np.int64]:
    """T timesteps, descending, spaced as the model's scheduler config says (`leading` or `trailing`)."""
    n, spacing = scheduler["num_train_timesteps"], scheduler.get("timestep_spacing", "leading")
    if spacing == "leading":
        return (np.arange(num_steps)[::-1] * (n // num_steps)).astype(np.int64) + scheduler.get("steps_offset", 0)
    if spacing == "trailing":
        return np.round(np.arange(n, 0, -n / num_steps)).astype(np.int64) - 1
    raise ModelError(f"scheduler_config.json: timestep_spacing = '{spacing}'; allowed: leading, trailing")


def ddim(scheduler: dict[str, Any], num_steps: int) -> Table:
    """DDIM with eta = 0 over T = `num_steps` steps, from a diffusers scheduler config."""
    alpha, steps = alphas_cumprod(scheduler), spaced_timesteps(scheduler, num_steps)
    following = steps - scheduler["num_train_timesteps"] // num_steps
    final = 1.0 if scheduler.get("set_alpha_to_one", True) else alpha[0]
    a = alpha[steps]
    b = np.where(following >= 0, alpha[np.maximum(following, 0)], final)
    prediction = scheduler.get("prediction_type", "epsilon")
    if prediction == "epsilon":
        keep, push = np.sqrt(b / a), np.sqrt(1 - b) - np.sqrt(b * (1 - a) / a)
    elif prediction == "v_prediction":
        keep, push = np.sqrt(a * b) + np.sqrt((1 - a) * (1 - b)), np.sqrt(a * (1 - b)) - np.sqrt(b * (1 - a))
    else:
        raise ModelError(f"scheduler_config.json: prediction_type = '{prediction}'; allowed: epsilon, v_prediction")
    as32 = np.float32
    return Table(
        timesteps=steps,
        keep=keep.astype(as32),
        push=push.astype(as32),
        signal=np.sqrt(a).astype(as32),
        noise=np.sqrt(1 - a).astype(as32),
    )


SAMPLERS = {"ddim": ddim}
"""Samplers by name: (scheduler config, T) -> Table."""
