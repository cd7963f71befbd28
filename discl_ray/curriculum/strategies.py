"""Strategies: what does each epoch train on? Pure functions of a situation, one signature, one dict.

S_λ are kept synthetic images, D_h hard and D_nh non-hard real ones, D_all both; L ascending levels end with λ = 1, and S_1 = D_h.
During E_CL curriculum epochs, and after them:

    diverse_to_specific, specific_to_diverse    S_λ ∪ D_nh ∪ D_h                     D_nh ∪ D_h
    all_level                                   ∪ S_λ, as many images, ∪ D_nh ∪ D_h  D_nh ∪ D_h
    adaptive, random, easy_to_hard              S_λ ∪ D_nh                           D_all
    text_only (λ = 0), fixed                    S_λ ∪ D_nh, all the time: never D_h (paper §4.1)
    duplicated                                  D_nh ∪ D_h, all the time
    real_only                                   D_all, all the time

Wherever D_h stands without synthetic images it is repeated to the size that a synthetic stage has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from discl_ray.core import outside
from discl_ray.core.lam import REAL, lam_to_pct
from discl_ray.curriculum.config import CurriculumConfig
from discl_ray.curriculum.progress import Progress, most_progressed
from discl_ray.errors import ConfigError, IntegrityError
from discl_ray.process.calls import advice


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What one epoch trains on besides D_nh."""

    levels: tuple[int, ...]
    """Levels drawn from, evenly; (100,) is D_h itself, repeated; () is D_all as it is, nothing synthetic and nothing repeated."""
    hard: bool = True
    """D_h stands beside the synthetic images."""
    explore: bool = False
    """Not decided yet: measure progress over a round of real images first, then ask again."""
    lead: float | None = None
    """adaptive: by how many standard errors the level that progressed most leads the second."""

    @property
    def synthetic(self) -> tuple[int, ...]:
        """The levels that are not the real image."""
        return tuple(level for level in self.levels if level != REAL)

    @property
    def lam(self) -> float:
        """The mean level, for records and plots; 1 without synthetic images."""
        return float(np.mean(self.levels)) / REAL if self.levels else 1.0


@dataclass(frozen=True, kw_only=True)
class Situation:
    """All that a strategy may look at."""

    epoch: int
    """From 1."""
    levels: tuple[int, ...]
    """Ascending, 100 last."""
    config: CurriculumConfig
    seed: int
    progress: Mapping[int, Progress] | None = None
    """What this epoch's round of real images did, by level; None before it."""
    past: Mapping[int, Progress] | None = None
    """The same of the epoch before; None if there was none."""
    previous: int | None = None
    """The level of the epoch before."""

    @property
    def over(self) -> bool:
        """Whether the curriculum has ended."""
        return self.epoch > self.config.epochs


REAL_STAGE = Choice(levels=(REAL,))
"""λ = 1: D_nh ∪ D_h, with D_h repeated to the size of a synthetic stage."""

AS_IS = Choice(levels=())
"""The data set as it is."""

EXPLORE = Choice(levels=(), explore=True)


def _ascending(at: Situation) -> int:
    """Algorithm 1: equal time for each level; at epoch e = 1...E_CL level min(⌊(e-1) L / E_CL⌋, L-1)."""
    return min((at.epoch - 1) * len(at.levels) // at.config.epochs, len(at.levels) - 1)


def diverse_to_specific(at: Situation) -> Choice:
    """Algorithm 1: from text-typical to real."""
    return REAL_STAGE if at.over else Choice(levels=(at.levels[_ascending(at)],))


def specific_to_diverse(at: Situation) -> Choice:
    """Algorithm 1 backwards."""
    return REAL_STAGE if at.over else Choice(levels=(at.levels[-1 - _ascending(at)],))


def all_level(at: Situation) -> Choice:
    """No curriculum: every synthetic level at once, the same number of images as one level would give."""
    return REAL_STAGE if at.over else Choice(levels=at.levels)


def text_only(at: Situation) -> Choice:
    """λ = 0 and no hard real image, ever."""
    return Choice(levels=(0,), hard=False)


def fixed(at: Situation) -> Choice:
    """One λ and no hard real image, ever."""
    return Choice(levels=(lam_to_pct(at.config.fixed_lam),), hard=False)


def easy_to_hard(at: Situation) -> Choice:
    """The order of Diverse-to-Specific for the low-quality task, where what is closer to the hard images is harder."""
    return AS_IS if at.over else Choice(levels=(at.levels[_ascending(at)],), hard=False)


def random(at: Situation) -> Choice:
    """A level drawn for each epoch."""
    drawn = np.random.default_rng([at.seed, at.epoch, 0x5A]).integers(len(at.levels))
    return AS_IS if at.over else Choice(levels=(at.levels[int(drawn)],), hard=False)


def adaptive(at: Situation) -> Choice:
    """Algorithm 2: the level at which a round of real images made the most progress.

    With `apply: next` the first epoch, which has no measurement before it, trains on λ = 1.
    Raises IntegrityError if there is no probe at any level.
    """
    if at.over:
        return AS_IS
    if at.progress is None:
        return EXPLORE
    if not at.progress:
        raise IntegrityError(
            "adaptive: there is no probe at any level; hard.probe_sources leaves none, or val has no hard image"
        )
    decides = at.progress if at.config.apply == "same" else at.past
    if not decides:
        return Choice(levels=(REAL,), hard=False)
    level, lead = most_progressed(
        decides, previous=at.previous if at.config.rule == "margin" else None
    )
    return Choice(levels=(level,), hard=False, lead=lead)


def duplicated(at: Situation) -> Choice:
    """The control that repeats the hard real images as often as others see synthetic ones."""
    return REAL_STAGE


def real_only(at: Situation) -> Choice:
    """The baseline: every real image alike, as many of them per epoch as the other strategies see images."""
    return AS_IS


STRATEGIES: dict[str, Callable[[Situation], Choice]] = {
    "diverse_to_specific": diverse_to_specific,
    "specific_to_diverse": specific_to_diverse,
    "all_level": all_level,
    "text_only": text_only,
    "fixed": fixed,
    "easy_to_hard": easy_to_hard,
    "random": random,
    "adaptive": adaptive,
    "duplicated": duplicated,
    "real_only": real_only,
}
"""Strategies by name."""


def strategy_of(config: CurriculumConfig) -> Callable[[Situation], Choice]:
    """The configured strategy.

    Raises ConfigError if one from outside cannot be found; what that returns is checked.
    """
    if (builtin := STRATEGIES.get(config.strategy)) is not None:
        return builtin
    own = outside.STRATEGIES.load(config.strategy)

    def checked(at: Situation) -> Choice:
        choice = own(at)
        named = f"curriculum.strategy = '{config.strategy}', epoch {at.epoch}"
        if not isinstance(choice, Choice):
            raise ConfigError(
                f"{named}: returned a {type(choice).__name__}; a discl_ray.Choice is needed"
            )
        if missing := [level for level in choice.levels if level not in at.levels]:
            there = ", ".join(map(str, at.levels))
            raise ConfigError(f"{named}: chose λ = {missing[0]} %; there are {there}")
        if choice.explore and at.progress is not None:
            raise ConfigError(f"{named}: asks to measure progress, which has been measured")
        return choice

    return checked


def explores(config: CurriculumConfig, levels: tuple[int, ...], *, seed: int) -> bool:
    """Whether the strategy measures progress before it chooses."""
    at = Situation(epoch=1, levels=levels, config=config, seed=seed)
    return strategy_of(config)(at).explore


def stages(
    config: CurriculumConfig, levels: tuple[int, ...], *, seed: int, epochs: int
) -> list[Choice]:
    """What the epochs of a run may train on, each once; of an adaptive curriculum every level."""
    if explores(config, levels, seed=seed):
        return [Choice(levels=(level,), hard=False) for level in levels]
    strategy = strategy_of(config)
    at = (
        Situation(epoch=epoch, levels=levels, config=config, seed=seed)
        for epoch in range(1, epochs + 1)
    )
    return list(dict.fromkeys(map(strategy, at)))


def curriculum_levels(config: CurriculumConfig, spectrum: tuple[int, ...]) -> tuple[int, ...]:
    """The levels a curriculum goes through, ascending, 100 last; `spectrum` are those that were made, without 100.

    Raises ConfigError for a level that the spectrum does not have.
    """
    wanted = (
        spectrum
        if config.levels is None
        else tuple(sorted({lam_to_pct(lam) for lam in config.levels} - {REAL}))
    )
    named = {"curriculum.levels": wanted}
    if config.strategy == "text_only":
        named["curriculum.strategy = text_only"] = (0,)
    if config.strategy == "fixed":
        named["curriculum.fixed_lam"] = (lam_to_pct(config.fixed_lam),)
    if config.strategy not in ("real_only", "duplicated"):
        for key, levels in named.items():
            if missing := [level for level in levels if level not in spectrum]:
                there = ", ".join(f"{level / REAL:g}" for level in spectrum) or "none"
                raise ConfigError(
                    f"{key}: no image was made at λ = {missing[0] / REAL:g}; there are {there}. Add it to plan.lams and "
                    f"{advice('generate')}, which makes only what is new"
                )
    return (*wanted, REAL)
