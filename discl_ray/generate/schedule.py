"""The noise schedule a model was trained with, from its scheduler_config.json: alpha-bar, and which T timesteps are taken.

Names missing there take the default that diffusers gives the same sampler, so that a folder means here what it means there. A
sampler that reads more of the file has a class of its own, beside its table (generate/samplers.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from discl_ray.errors import ModelError

F64 = NDArray[np.floating]

Beta = Annotated[float, Field(gt=0, lt=1)]

TEXT_TYPICAL = 0.85
"""λ = 0 is typical of the text only if the schedule begins in the upper noise: at this share of where T even steps begin, or later."""

SMALLEST = 1e-12
"""alpha-bar below this is as good as 0: dividing by its root loses everything in float32."""


def _off(value: bool) -> bool:
    if value:
        raise ValueError("this sampler needs it off, or take another one")
    return value


Off = Annotated[bool, AfterValidator(_off)]
"""A switch that changes the schedule in a way no table here follows."""


class NoiseSchedule(BaseModel):
    """What every sampler reads of scheduler_config.json."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, allow_inf_nan=False)

    stock: ClassVar[str] = ""
    """The class of diffusers that is this sampler."""
    unbounded: ClassVar[tuple[str, ...]] = ()
    """Switches by which that class bounds the predicted image; not followed here, because latents have no bounds."""
    dropped: ClassVar[int] = 0
    """Timesteps that are spaced with the others and left out at the clean end."""
    whole: ClassVar[bool] = True
    """Whether the timesteps of even spacing are rounded."""
    terminal: ClassVar[float] = 0.0
    """The last alpha-bar of a schedule with zero terminal SNR; a sampler in s = sqrt((1-a)/a) cannot take 0."""

    num_train_timesteps: int = Field(ge=1)
    """N."""
    beta_schedule: Literal["linear", "scaled_linear"] = "linear"
    beta_start: Beta | None = None
    beta_end: Beta | None = None
    trained_betas: list[Beta] | None = None
    prediction_type: Literal["epsilon", "v_prediction"] = "epsilon"
    timestep_spacing: Literal["leading", "trailing", "linspace"] = "leading"
    steps_offset: int = Field(default=0, ge=0)
    rescale_betas_zero_snr: bool = False

    @classmethod
    def read(cls, scheduler: Mapping[str, Any], file: str | Path = "scheduler_config.json") -> Self:
        """The typed settings of a file; null means not given.

        Raises ModelError naming every key that cannot be used.
        """
        try:
            return cls.model_validate(
                {key: value for key, value in scheduler.items() if value is not None}
            )
        except ValidationError as error:
            found = {
                e["loc"][:1]: _sentence(e) for e in reversed(error.errors())
            }  # of a thousand betas the first
            raise ModelError(f"{file}: {'; '.join(reversed(found.values()))}") from error

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.trained_betas is None:
            missing = [name for name in ("beta_start", "beta_end") if getattr(self, name) is None]
            if missing:
                raise ValueError(
                    f"'{missing[0]}' is missing; a discrete (beta) noise schedule has it"
                )
        elif len(self.trained_betas) != self.num_train_timesteps:
            raise ValueError(
                f"trained_betas holds {len(self.trained_betas)} values, num_train_timesteps = {self.num_train_timesteps}; "
                "one for each timestep is needed"
            )
        if self.rescale_betas_zero_snr and self.prediction_type == "epsilon":
            raise ValueError(
                "rescale_betas_zero_snr = True with prediction_type = 'epsilon': where alpha-bar is 0 the noise tells nothing "
                "of the image; models with zero terminal SNR predict v: 'v_prediction' is needed, with any sampler"
            )
        alpha = self.alphas_cumprod()
        if alpha[0] == 1 or (alpha[-1] < SMALLEST and not self.rescale_betas_zero_snr):
            raise ValueError(
                f"the betas take alpha-bar from {alpha[0]:g} to {alpha[-1]:g}; it has to fall from below 1 to {SMALLEST:g} or more"
                " (a schedule that is meant to end at 0 has rescale_betas_zero_snr = true)"
            )
        return self

    def alphas_cumprod(self) -> F64:
        """alpha-bar for t = 0...N-1, shape (N,).

        With zero terminal SNR, sqrt(alpha-bar) is moved to end at 0 and stretched to begin where it did (Lin et al. 2024, Alg. 1).
        """
        n, low, high = self.num_train_timesteps, self.beta_start or 0.0, self.beta_end or 0.0
        if self.trained_betas is not None:
            betas = np.asarray(self.trained_betas, np.float64)
        elif self.beta_schedule == "linear":
            betas = np.linspace(low, high, n)
        else:
            betas = np.linspace(low**0.5, high**0.5, n) ** 2
        alpha = np.cumprod(1.0 - betas)
        if not self.rescale_betas_zero_snr:
            return alpha
        root = np.sqrt(alpha)
        alpha = ((root - root[-1]) * (root[0] / (root[0] - root[-1]))) ** 2 if n > 1 else alpha
        alpha[-1] = self.terminal
        return alpha


def plain_timesteps(schedule: NoiseSchedule, num_steps: int) -> F64:
    """Descending timesteps by the formula of diffusers, which are not always T and not always below N."""
    n, more = schedule.num_train_timesteps, schedule.dropped
    if schedule.timestep_spacing == "leading":
        return (
            np.arange(num_steps + more - 1, more - 1, -1.0) * (n // (num_steps + more))
            + schedule.steps_offset
        )
    if schedule.timestep_spacing == "trailing":
        return np.round(np.arange(n, 0, -n / num_steps)) - 1
    exact = np.float64 if schedule.whole else np.float32
    steps = np.linspace(0, n - 1, num_steps + more, dtype=exact)[::-1][:num_steps].astype(
        np.float64
    )
    return np.round(steps) if schedule.whole else steps


def timesteps(schedule: NoiseSchedule, num_steps: int) -> F64:
    """T timesteps, strictly descending, of 0...N-1.

    They are those of diffusers wherever these are such. T = N takes them all. An offset that leads beyond N-1, which the model has
    never seen, is lowered; a trailing schedule that comes out a step longer, because 1/T is no binary fraction, loses that step.

    Raises ModelError if T exceeds N.
    """
    n = schedule.num_train_timesteps
    if num_steps > n:
        raise ModelError(
            f"plan.num_steps = {num_steps}: this model was trained with {n} timesteps; at most {n} are allowed"
        )
    if num_steps == n:
        return np.arange(n - 1, -1, -1.0)
    steps = plain_timesteps(schedule, num_steps)[:num_steps]
    return steps - max(0.0, steps[0] - (n - 1))


def begins_late(schedule: NoiseSchedule, num_steps: int) -> bool:
    """Whether the first timestep lies so low that λ = 0 keeps much of the source: `leading` rounds N/T down."""
    even = schedule.num_train_timesteps * (1 - 1 / num_steps)
    return bool(timesteps(schedule, num_steps)[0] < TEXT_TYPICAL * even)


def nearest_good(schedule: NoiseSchedule, num_steps: int) -> int:
    """The T nearest to this one that does not begin late; T = N never does."""
    good = [t for t in range(1, schedule.num_train_timesteps + 1) if not begins_late(schedule, t)]
    return min(good, key=lambda t: abs(t - num_steps))


def _sentence(error: Any) -> str:
    key, message = (
        error["loc"][0] if error["loc"] else "",
        error["msg"].removeprefix("Value error, "),
    )
    if error["type"] == "missing":
        return f"'{key}' is missing; a discrete (beta) noise schedule has it"
    if not error["loc"]:  # of several keys together: the message names them
        return message
    return f"{'.'.join(map(str, error['loc']))} = {error['input']!r:.60}: {message[0].lower()}{message[1:]}"
