"""The noise schedule a model was trained with: alpha-bar, and which T timesteps are taken.

It is read from scheduler_config.json. Names missing there have the default that diffusers gives
the same sampler. A sampler that reads more of the file has a class of its own, beside its table
(generate/samplers.py).
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
"""λ = 0 is typical of the text only if the schedule begins in the upper noise: at this share of
where T even steps begin, or later."""

SMALLEST = 1e-12
"""alpha-bar below this is as good as 0: dividing by its root loses everything in float32."""


def _off(value: bool) -> bool:
    """Raises ValueError for a switch that is on."""
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
    """Switches by which that class clips the predicted image; ignored: latents have no bounds."""
    dropped: ClassVar[int] = 0
    """Timesteps that are spaced with the others and left out at the clean end."""
    whole: ClassVar[bool] = True
    """Whether the timesteps of even spacing are rounded."""
    terminal: ClassVar[float] = 0.0
    """The last alpha-bar at zero terminal SNR; a sampler in s = sqrt((1-a)/a) cannot take 0."""

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
        given = {key: value for key, value in scheduler.items() if value is not None}
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            problems: dict[Any, str] = {}
            for problem in error.errors():
                key = problem["loc"][:1]
                # one for each key: a list of betas may have a thousand
                problems.setdefault(key, _sentence(problem))
            sentences = "; ".join(problems.values())
            raise ModelError(f"{file}: {sentences}") from error

    @model_validator(mode="after")
    def _complete(self) -> Self:
        self._check_betas()
        if self.rescale_betas_zero_snr and self.prediction_type == "epsilon":
            raise ValueError(
                "rescale_betas_zero_snr = True with prediction_type = 'epsilon': where alpha-bar "
                "is 0 the noise tells nothing of the image; models with zero terminal SNR predict "
                "v: 'v_prediction' is needed, with any sampler"
            )
        alpha = self.alphas_cumprod()
        first = alpha[0]
        last = alpha[-1]
        # rounding takes 1 - beta to 1 for tiny betas, and their product to 0 for large ones
        vanishes = last < SMALLEST and not self.rescale_betas_zero_snr
        if first == 1 or vanishes:
            raise ValueError(
                f"the betas take alpha-bar from {first:g} to {last:g}; it has to fall from "
                f"below 1 to {SMALLEST:g} or more (a schedule that is meant to end at 0 has "
                "rescale_betas_zero_snr = true)"
            )
        return self

    def _check_betas(self) -> None:
        """Raises ValueError unless the betas are given, by their ends or one by one."""
        betas = self.trained_betas
        if betas is None:
            self._check_range()
            return
        count = len(betas)
        n = self.num_train_timesteps
        if count != n:
            raise ValueError(
                f"trained_betas holds {count} values, num_train_timesteps = {n}; one for each "
                "timestep is needed"
            )

    def _check_range(self) -> None:
        """Raises ValueError unless both ends of the betas are given."""
        for name in ("beta_start", "beta_end"):
            if getattr(self, name) is None:
                raise ValueError(_missing(name))

    def alphas_cumprod(self) -> F64:
        """alpha-bar for t = 0...N-1, shape (N,).

        With zero terminal SNR, sqrt(alpha-bar) is moved to end at 0 and stretched to begin where it
        did (Lin et al. 2024, Alg. 1).
        """
        kept = 1.0 - self._betas()
        alpha = np.cumprod(kept)
        if not self.rescale_betas_zero_snr:
            return alpha
        root = np.sqrt(alpha)
        if len(alpha) > 1:
            first = root[0]
            last = root[-1]
            stretch = first / (first - last)
            moved = root - last
            alpha = (moved * stretch) ** 2
        alpha[-1] = self.terminal
        return alpha

    def _betas(self) -> F64:
        """beta for t = 0...N-1, shape (N,)."""
        if self.trained_betas is not None:
            return np.asarray(self.trained_betas, np.float64)
        n = self.num_train_timesteps
        low = self.beta_start or 0.0
        high = self.beta_end or 0.0
        if self.beta_schedule == "linear":
            return np.linspace(low, high, n)
        # even in the square root, as Stable Diffusion was trained
        low_root = low**0.5
        high_root = high**0.5
        roots = np.linspace(low_root, high_root, n)
        return roots**2


def plain_timesteps(schedule: NoiseSchedule, num_steps: int) -> F64:
    """Descending timesteps by the formula of diffusers.

    They are not always T, and not always below N.
    """
    n = schedule.num_train_timesteps
    spaced = num_steps + schedule.dropped
    if schedule.timestep_spacing == "leading":
        highest = spaced - 1
        below_lowest = schedule.dropped - 1
        multiples = np.arange(highest, below_lowest, -1.0)
        stride = n // spaced
        return multiples * stride + schedule.steps_offset
    if schedule.timestep_spacing == "trailing":
        stride = n / num_steps
        ends = np.arange(n, 0, -stride)
        return np.round(ends) - 1
    # diffusers spaces them in float32 where it does not round them
    dtype = np.float64 if schedule.whole else np.float32
    ascending = np.linspace(0, n - 1, spaced, dtype=dtype)
    descending = ascending[::-1]
    steps = descending[:num_steps].astype(np.float64)
    return np.round(steps) if schedule.whole else steps


def timesteps(schedule: NoiseSchedule, num_steps: int) -> F64:
    """T timesteps of 0...N-1, strictly descending, float64 (T,).

    They are diffusers' where those are T of 0...N-1. T = N takes them all. An offset that leads
    beyond N-1, which the model was not trained at, is lowered; a trailing schedule that is a step
    too long, because 1/T is not exact in binary, loses its last step.

    Raises ModelError if T exceeds N.
    """
    n = schedule.num_train_timesteps
    if num_steps > n:
        raise ModelError(
            f"plan.num_steps = {num_steps}: this model was trained with {n} timesteps; at most "
            f"{n} are allowed"
        )
    last = n - 1
    if num_steps == n:
        return np.arange(last, -1, -1.0)
    plain = plain_timesteps(schedule, num_steps)
    steps = plain[:num_steps]
    beyond = steps[0] - last
    excess = max(0.0, beyond)
    return steps - excess


def begins_late(schedule: NoiseSchedule, num_steps: int) -> bool:
    """Whether the first timestep is so low that λ = 0 keeps much of the source.

    This happens with `leading` timesteps, which round N/T down.
    """
    share = 1 - 1 / num_steps
    even = schedule.num_train_timesteps * share
    lowest = TEXT_TYPICAL * even
    first = timesteps(schedule, num_steps)[0]
    return bool(first < lowest)


def nearest_good(schedule: NoiseSchedule, num_steps: int) -> int:
    """The T nearest to this one that does not begin late; T = N never does."""
    n = schedule.num_train_timesteps
    every = range(1, n + 1)
    good = [t for t in every if not begins_late(schedule, t)]
    return min(good, key=lambda t: abs(t - num_steps))


def _missing(key: str) -> str:
    """What a file without a key is told."""
    return f"'{key}' is missing; a discrete (beta) noise schedule has it"


def _sentence(error: Any) -> str:
    """One of pydantic's errors as a sentence."""
    message = error["msg"].removeprefix("Value error, ")
    place = error["loc"]
    if not place:  # of several keys together: the message names them
        return message
    if error["type"] == "missing":
        return _missing(place[0])
    names = map(str, place)
    key = ".".join(names)
    given = error["input"]
    value = f"{given!r:.60}"  # a list of betas may have a thousand numbers
    initial = message[0].lower()
    rule = initial + message[1:]
    return f"{key} = {value}: {rule}"
