"""What decides the plan: which images are hard, with which prompts, at which levels."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator

from discl_ray.core.lam import check_grid, lam_to_pct
from discl_ray.core.settings import Location, Settings, execution
from discl_ray.data.config import NEUTRAL
from discl_ray.data.root import same_name
from discl_ray.plan.templates import broken_rule, placeholders

PAPER_QUANTILE = 0.064
"""8,260 of 129,809 images."""


class HardConfig(Settings):
    """The rule for hardness."""

    rule: Literal["class_count", "confidence"] = "class_count"
    """Hard are the images of rare classes, or those of which a classifier is not confident."""
    below: int = Field(default=6, ge=1)
    """class_count: classes with fewer training images than this are hard."""
    method: Literal["zero_shot", "out_of_fold"] = "zero_shot"
    """confidence: whose. The scorer's over all class prompts, or that of classifiers trained on the
    other folds."""
    threshold: float | None = Field(default=None, gt=0, le=1)
    """confidence: hard is a probability of the own class below this."""
    top_n: int | None = Field(default=None, ge=1)
    """confidence: so many training images are hard, those with the lowest probability of their own
    class."""
    quantile: float | None = Field(default=None, gt=0, le=1, validate_default=True)
    """confidence: this share of the training images is hard; default, if nothing else cuts: the
    paper's 0.064."""
    folds: int = Field(default=5, ge=2)
    """out_of_fold: classifiers to train; images of one group, and copies of one image, are in one
    fold."""
    suspect_above: float = Field(default=0.9, gt=0, le=1)
    """confidence: an image that is given to another class with at least this probability may be
    labelled wrongly."""
    include_suspects: bool = False
    """confidence: makes spectra of suspects, too."""
    exclude_classes: tuple[str, ...] = ()
    """Names of classes that never get a spectrum, such as `empty`."""
    probe_sources: int = Field(default=3, ge=0)
    """Val images of each class that get a probe spectrum, at most: the hardest; 0 makes none."""

    @field_validator("quantile")
    @classmethod
    def _one_cut(cls, quantile: float | None, info: ValidationInfo) -> float | None:
        # runs even if another field is wrong, so that every problem is in one report
        others = ("threshold", "top_n")
        cuts = {name: info.data.get(name) for name in others}
        cuts["quantile"] = quantile
        given: list[str] = []
        for name, value in cuts.items():
            if value is not None:
                given.append(f"{name} = {value:g}")
        if len(given) > 1:
            all_given = ", ".join(given)
            raise ValueError(f"{all_given}: one of them cuts; set the others to null")
        others_are_valid = info.data.keys() >= set(others)
        if others_are_valid and not given:
            return PAPER_QUANTILE
        return quantile

    @field_validator("exclude_classes")
    @classmethod
    def _each_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        same = [same_name(name) for name in names]
        twice = {name for name in same if same.count(name) > 1}
        if twice:
            raise ValueError(f"'{min(twice)}' is in it twice")
        return names

    @property
    def excluded(self) -> tuple[str, ...]:
        """`exclude_classes` as classes are compared."""
        compared = [same_name(name) for name in self.exclude_classes]
        return tuple(compared)


_Templates = tuple[str, ...] | str
"""What a key of prompts holds: several templates, or one."""


def _check_template(template: str) -> None:
    """Raises ValueError for a template that breaks a rule or does not name the class."""
    rule = broken_rule(template)
    if rule:
        raise ValueError(f"'{template}': {rule}")
    if not placeholders(template):
        raise ValueError(f"'{template}' has no {{name}}, so it says the same of every class")


class PromptConfig(Settings):
    """Templates; `{name}` is the class name."""

    generation: tuple[str, ...] = Field(default=(NEUTRAL,), min_length=1)
    """Prompts for the generator; replicas take them in turn. Default: the data set's template."""
    scenes: Location | None = execution(None, min_length=1)
    """YAML or JSON file of scene descriptions, which replace `generation`: `any`, a list for every
    class, and `classes`, a list for each class named in it, which replaces `any`. What it holds
    decides what is made, its place does not."""
    filter: str = NEUTRAL
    """The prompt an image is scored against. Default: the data set's own template."""
    negative: str = ""
    """What classifier-free guidance leads away from."""
    force: bool = execution(False)
    """Takes class names that read like codes as they are."""

    @field_validator("generation", "filter")
    @classmethod
    def _templates(cls, value: _Templates) -> _Templates:
        templates = (value,) if isinstance(value, str) else value
        for template in templates:
            _check_template(template)
        return value

    def with_template(self, template: str) -> Self:
        """These prompts, with a data set's template in place of every default.

        It has to be filled in before anything is hashed: a run's name says what its images are
        made from.
        """
        defaults: dict[str, Any] = {"generation": (template,), "filter": template}
        missing = defaults.keys() - self.model_fields_set
        update = {name: defaults[name] for name in missing}
        return self.model_copy(update=update)


def _check_levels(lams: tuple[float, ...], num_steps: int) -> None:
    """Raises ValueError unless each level is a whole percent with steps of its own."""
    problems = check_grid(lams, num_steps)
    if problems:
        raise ValueError("; ".join(problems))


class PlanConfig(Settings):
    """The grid."""

    replicas: int = Field(default=8, ge=1)
    """Images per hard training sample and level."""
    probe_replicas: int = Field(default=1, ge=1)
    """Images per probe source and level."""
    num_steps: int = Field(default=30, ge=1, le=1000)
    """T, the steps of the full schedule; a level takes T * (100 - λ%) // 100 of them."""
    lams: tuple[float, ...] = (0.0, 0.1, 0.3, 0.5)
    """Levels to generate, in [0, 1); the real image (λ = 1) is always there. Default: the paper's
    for long tails."""
    attempts: int = Field(default=1, ge=1, le=20)
    """Tries at one image: what falls short of `until_text_sim` is made again from other noise, at
    most this often in all."""
    until_text_sim: float | None = Field(default=None, ge=-1, le=1, validate_default=True)
    """text_sim above which an image is not tried again (the reference: 6 attempts, 0.30 of OpenAI's
    ViT-B/32)."""
    shard_steps: int = Field(default=1500, ge=1)
    """UNet steps per shard, the unit of commit and resume: aim at 10 to 90 seconds of work."""

    @field_validator("lams")
    @classmethod
    def _grid(cls, lams: tuple[float, ...], info: ValidationInfo) -> tuple[float, ...]:
        # runs even if another field is wrong, so that every problem is in one report
        num_steps = info.data.get("num_steps", 1000)
        _check_levels(lams, num_steps)
        return lams

    @field_validator("until_text_sim")
    @classmethod
    def _attempts_end(cls, until: float | None, info: ValidationInfo) -> float | None:
        attempts = info.data.get("attempts", 1)
        if until is None and attempts > 1:
            raise ValueError(
                f"attempts = {attempts} needs a text_sim to reach, e.g. until_text_sim=0.3"
            )
        return until

    @property
    def levels(self) -> tuple[int, ...]:
        """The grid in ascending integer percents."""
        percents = [lam_to_pct(lam) for lam in self.lams]
        return tuple(sorted(percents))


class PreviewConfig(Settings):
    """What a preview makes; none of it changes the full run."""

    sources: int = execution(8, ge=1)
    """Hard training images, spread evenly over the hard classes."""
    lams: tuple[float, ...] = execution((0.0, 0.1, 0.3, 0.5, 0.7, 0.9))
    """Levels to show, in [0, 1); one that leaves no step of plan.num_steps is left out."""
    replicas: int = execution(2, ge=1)
    """Images per source and level."""

    @field_validator("lams")
    @classmethod
    def _grid(cls, lams: tuple[float, ...]) -> tuple[float, ...]:
        _check_levels(lams, 100)  # with 100 steps every whole percent below 1 has one
        return lams
