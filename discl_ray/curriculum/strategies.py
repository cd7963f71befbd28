"""Strategies: what does each epoch train on? Pure functions of one signature, in a dict.

S_λ are kept synthetic images, D_h hard and D_nh non-hard real ones, D_all both; the L ascending
levels end with λ = 1, and S_1 = D_h. A level is λ as an integer percent. During E_CL curriculum
epochs, and after them:

    diverse_to_specific, specific_to_diverse    S_λ ∪ D_nh ∪ D_h                     D_nh ∪ D_h
    all_level                                   ∪ S_λ, as many images, ∪ D_nh ∪ D_h  D_nh ∪ D_h
    adaptive, random, easy_to_hard              S_λ ∪ D_nh                           D_all
    text_only (λ = 0), fixed                    S_λ ∪ D_nh throughout: never D_h (paper §4.1)
    duplicated                                  D_nh ∪ D_h throughout
    real_only                                   D_all throughout

Where D_h is used without synthetic images it is repeated to the size of a synthetic stage.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np

from discl_ray.core import outside
from discl_ray.core.lam import REAL, lam_to_pct, pct_to_lam
from discl_ray.curriculum.config import CurriculumConfig
from discl_ray.curriculum.progress import ByLevel, most_progressed
from discl_ray.errors import ConfigError, IntegrityError
from discl_ray.process.calls import advice

Levels = tuple[int, ...]
"""λ in percent, ascending."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What one epoch trains on besides D_nh."""

    levels: Levels
    """λ in percent, drawn from evenly; (100,) is D_h itself, repeated; () is D_all as it is, with
    nothing synthetic and nothing repeated."""
    hard: bool = True
    """Whether D_h is added to the synthetic images."""
    explore: bool = False
    """Not decided yet: measure progress over a round of real images first, then ask again."""
    lead: float | None = None
    """adaptive: lead of the level with the most progress over the second, in standard errors."""

    @property
    def synthetic(self) -> Levels:
        """The levels that are not the real image."""
        return tuple(level for level in self.levels if level != REAL)

    @property
    def lam_pct(self) -> int:
        """The mean level in whole percent, for records and plots; 100 without synthetic images."""
        if not self.levels:
            return REAL
        return round(sum(self.levels) / len(self.levels))


@dataclass(frozen=True, kw_only=True)
class Situation:
    """Everything a strategy may base its choice on."""

    epoch: int
    """From 1."""
    levels: Levels
    """Ascending, 100 last."""
    config: CurriculumConfig
    seed: int
    progress: ByLevel | None = None
    """Measured over this epoch's round of real images, by level; None before that round."""
    past: ByLevel | None = None
    """The previous epoch's progress; None if it measured none."""
    previous: int | None = None
    """The previous epoch's level."""

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
    """Algorithm 1: equal time for each level; at epoch e = 1...E_CL number ⌊(e-1) L / E_CL⌋."""
    count = len(at.levels)
    number = (at.epoch - 1) * count // at.config.epochs
    return min(number, count - 1)


def diverse_to_specific(at: Situation) -> Choice:
    """Algorithm 1: from text-typical to real."""
    if at.over:
        return REAL_STAGE
    level = at.levels[_ascending(at)]
    return Choice(levels=(level,))


def specific_to_diverse(at: Situation) -> Choice:
    """Algorithm 1 backwards."""
    if at.over:
        return REAL_STAGE
    level = at.levels[-1 - _ascending(at)]
    return Choice(levels=(level,))


def all_level(at: Situation) -> Choice:
    """No curriculum: every synthetic level at once, as many images as one level would give."""
    return REAL_STAGE if at.over else Choice(levels=at.levels)


def text_only(at: Situation) -> Choice:
    """λ = 0 and no hard real image, ever."""
    return Choice(levels=(0,), hard=False)


def fixed(at: Situation) -> Choice:
    """One λ and no hard real image, ever."""
    return Choice(levels=(lam_to_pct(at.config.fixed_lam),), hard=False)


def easy_to_hard(at: Situation) -> Choice:
    """Diverse-to-Specific for the low-quality task: there, closer to the hard images is harder."""
    if at.over:
        return AS_IS
    level = at.levels[_ascending(at)]
    return Choice(levels=(level,), hard=False)


def random(at: Situation) -> Choice:
    """A level drawn for each epoch."""
    if at.over:
        return AS_IS
    rng = np.random.default_rng([at.seed, at.epoch, 0x5A])
    drawn = int(rng.integers(len(at.levels)))
    return Choice(levels=(at.levels[drawn],), hard=False)


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
            "adaptive: there is no probe at any level; "
            "hard.probe_sources leaves none, or val has no hard image"
        )
    measured = at.progress if at.config.apply == "same" else at.past
    if not measured:
        return Choice(levels=(REAL,), hard=False)
    previous = at.previous if at.config.rule == "margin" else None
    level, lead = most_progressed(measured, previous=previous)
    return Choice(levels=(level,), hard=False, lead=lead)


def duplicated(at: Situation) -> Choice:
    """The control: the hard real images, repeated as often as others see synthetic ones."""
    return REAL_STAGE


def real_only(at: Situation) -> Choice:
    """The baseline: all real images alike, as many per epoch as the other strategies use."""
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

    Raises ConfigError if one from outside cannot be found; what that raises or returns becomes one
    as well, unless it is a Choice that can be trained on.
    """
    builtin = STRATEGIES.get(config.strategy)
    if builtin is not None:
        return builtin
    own = outside.STRATEGIES.load(config.strategy)

    def checked(at: Situation) -> Choice:
        named = f"curriculum.strategy = '{config.strategy}', epoch {at.epoch}"
        with outside.calling(named, own):
            choice = own(at)
        problem = _problem_of(choice, at)
        if problem:
            raise ConfigError(f"{named}: {problem}")
        return choice

    return checked


def _problem_of(choice: object, at: Situation) -> str:
    """What is wrong with the choice of a strategy from outside; empty if nothing is."""
    if not isinstance(choice, Choice):
        return f"returned a {type(choice).__name__}; a discl_ray.Choice is needed"
    levels = cast(object, choice.levels)
    if not isinstance(levels, tuple):
        return f"chose levels = {levels!r}, a {type(levels).__name__}; a tuple is needed, as (50,)"
    for level in choice.levels:
        if level not in at.levels:
            made = ", ".join(map(str, at.levels))
            return f"chose λ = {level} %; there are {made}"
    if choice.explore and at.progress is not None:
        return "asks to measure progress, which has been measured"
    return ""


def explores(config: CurriculumConfig, levels: Levels, *, seed: int) -> bool:
    """Whether the strategy measures progress before it chooses."""
    first = Situation(epoch=1, levels=levels, config=config, seed=seed)
    return strategy_of(config)(first).explore


def stages(config: CurriculumConfig, levels: Levels, *, seed: int, epochs: int) -> list[Choice]:
    """What the epochs of a run may train on, each once; of an adaptive curriculum every level."""
    if explores(config, levels, seed=seed):
        return [Choice(levels=(level,), hard=False) for level in levels]
    strategy = strategy_of(config)
    choices: dict[Choice, None] = {}  # a set that keeps the order of the epochs
    for epoch in range(1, epochs + 1):
        situation = Situation(epoch=epoch, levels=levels, config=config, seed=seed)
        choices[strategy(situation)] = None
    return list(choices)


def curriculum_levels(config: CurriculumConfig, spectrum: Levels) -> Levels:
    """The levels a curriculum goes through, in percent, ascending, 100 last.

    `spectrum` are those that were made, without 100. Raises ConfigError for a level that is not
    among them.
    """
    wanted = spectrum
    if config.levels is not None:
        named = {lam_to_pct(lam) for lam in config.levels}
        wanted = tuple(sorted(named - {REAL}))
    for key, levels in _levels_by_key(config, wanted).items():
        for level in levels:
            if level not in spectrum:
                raise _not_made(key, level, spectrum)
    return (*wanted, REAL)


def _levels_by_key(config: CurriculumConfig, wanted: Levels) -> dict[str, Levels]:
    """The synthetic levels a strategy needs, by the configuration key that asks for them."""
    if config.strategy in ("real_only", "duplicated"):
        return {}
    named = {"curriculum.levels": wanted}
    if config.strategy == "text_only":
        named["curriculum.strategy = text_only"] = (0,)
    if config.strategy == "fixed":
        named["curriculum.fixed_lam"] = (lam_to_pct(config.fixed_lam),)
    return named


def _not_made(key: str, level: int, spectrum: Levels) -> ConfigError:
    lam = pct_to_lam(level)
    made = ", ".join(f"{pct_to_lam(other):g}" for other in spectrum)
    return ConfigError(
        f"{key}: no image was made at λ = {lam:g}; there are {made or 'none'}. "
        f"Add it to plan.lams and {advice('generate')}, which makes only what is new"
    )
