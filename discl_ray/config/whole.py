"""The whole configuration, put together from the parts that each step declares; hashes of parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from omegaconf import OmegaConf
from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from discl_ray.config.aliases import ALIASES, renamed
from discl_ray.core import outside
from discl_ray.core.ids import stable_id
from discl_ray.core.settings import (
    RECORDED,
    Location,
    Settings,
    execution,
    identity,
    with_values_before,
)
from discl_ray.curriculum.config import BUILTIN as STRATEGIES
from discl_ray.curriculum.config import CurriculumConfig
from discl_ray.data.config import DATA_SETS, DataConfig, DigitsLTConfig
from discl_ray.experiments.config import TuneConfig
from discl_ray.generate.config import GeneratorConfig
from discl_ray.plan.config import HardConfig, PlanConfig, PreviewConfig, PromptConfig
from discl_ray.process.masking import masked
from discl_ray.score.config import ScorerConfig
from discl_ray.spectrum.config import BUILTIN as FILTERS
from discl_ray.spectrum.config import FilterConfig, SpectrumConfig
from discl_ray.train.config import TrainConfig


class RunConfig(Settings):
    """Where a run lies and what it may use; none of it changes what is made."""

    name: str = execution("digits_lt", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
    """First part of the run's directory; letters, digits, dot, dash and underscore, at most 100."""
    root: Location = execution("runs", min_length=1)
    """Folder of all runs. Inside a submitted job it must be absolute and shared by all nodes."""
    num_cpus: int | None = execution(None, ge=1)
    """Logical CPUs of a Ray started here; default: two more than there are cores. Ignored when a
    cluster is joined."""
    gpus: int | None = execution(None, ge=1)
    """GPUs that a cluster may start by itself, where it does not tell Ray so (KubeRay); default:
    what Ray knows."""
    stall_warning_s: float = execution(120.0, gt=0)
    """Seconds without progress until a warning names what is waited for."""
    stall_limit_s: float | None = execution(None, gt=0)
    """Seconds without progress until the job gives up; null waits without end, with warnings."""


class Config(Settings):
    """Everything."""

    seed: int = Field(default=0, ge=0)
    """Redraws class order, writers, rare images, initialisation and generation noise."""
    run: RunConfig = RunConfig()
    data: DataConfig = DigitsLTConfig()
    hard: HardConfig = HardConfig()
    prompts: PromptConfig = Field(default=PromptConfig(), validate_default=True)
    plan: PlanConfig = PlanConfig()
    generator: GeneratorConfig = GeneratorConfig()
    scorer: ScorerConfig = ScorerConfig()
    spectrum: SpectrumConfig = SpectrumConfig()
    filter: FilterConfig = FilterConfig()
    preview: PreviewConfig = PreviewConfig()
    curriculum: CurriculumConfig = CurriculumConfig()
    train: TrainConfig = TrainConfig()
    tune: TuneConfig = TuneConfig()

    @model_validator(mode="before")
    @classmethod
    def _names_of_today(cls, plain: Any) -> Any:
        """Reads keys of earlier versions under the names they have now."""
        return renamed(plain, ALIASES) if isinstance(plain, Mapping) else plain

    @field_validator("data", mode="before")
    @classmethod
    def _a_data_set(cls, data: Any, info: ValidationInfo) -> Any:
        """Fills in the default name; a name that nobody knows is an error of its own kind."""
        if not isinstance(data, Mapping):
            return data
        name = data.get("name", "digits_lt")
        known = name in DATA_SETS
        if isinstance(name, str):
            known = known or outside.READERS.knows(name)
        if not known and not info.context:
            allowed = outside.unknown(tuple(DATA_SETS), outside.READERS)
            said = {"name": name, "allowed": allowed}
            raise PydanticCustomError("data_set", "{name}", said)
        return {**data, "name": name}

    @field_validator("prompts")
    @classmethod
    def _say_what_the_data_shows(cls, prompts: PromptConfig, info: ValidationInfo) -> PromptConfig:
        # without a valid `data` the report has its problems, and these prompts are not used
        data = info.data.get("data")
        return prompts if data is None else prompts.with_template(data.template)

    @field_validator("train")
    @classmethod
    def _curriculum_fits(cls, train: TrainConfig, info: ValidationInfo) -> TrainConfig:
        # runs even if another section is wrong, so that every problem is in one report
        curriculum = info.data.get("curriculum")
        if curriculum is not None and curriculum.epochs > train.epochs:
            raise ValueError(
                f"curriculum.epochs = {curriculum.epochs} exceeds "
                f"train.epochs = {train.epochs}; lower the former"
            )
        return train

    @field_validator("train")
    @classmethod
    def _captions_of_the_data(cls, train: TrainConfig, info: ValidationInfo) -> TrainConfig:
        # without a valid `data` the report has its problems, and these captions are not used
        data = info.data.get("data")
        return train if data is None else train.with_captions(data.captions)

    @property
    def plumbing_test(self) -> bool:
        """Whether the embedded generator, which knows only digits, makes images of something else:
        they mean nothing."""
        return self.generator.model == "embedded" and not self.data.embedded


PLUMBING = (
    "PLUMBING TEST: the embedded generator knows only digits. "
    "Its images, and numbers that rest on them, mean nothing here."
)
"""What every sheet and table of a plumbing test says."""

PHASE_1 = ("seed", "hard", "prompts", "plan", "generator", "scorer")
"""Parts whose identity decides the spectrum, besides the samples it is made from and the models
that make it."""

PHASE_2 = ("seed", "filter", "curriculum", "train")
"""Parts whose identity decides a training run, besides the spectrum it uses."""


def part_hash(config: Config, parts: Sequence[str], *before: str) -> str:
    """Hash of the identity fields of some parts and of the hashes of the steps before.

    The source of strategies and filters from outside is part of it, their name alone is not enough.
    """
    plain = identity(config)
    fields = {part: plain[part] for part in parts}
    functions = functions_from_outside(config, parts)
    sources = [group.fingerprint(name) for group, name in functions]
    if sources:
        return stable_id(fields, before, sources)
    return stable_id(fields, before)  # without a third value: so runs made before have their names


def functions_from_outside(
    config: Config, parts: Sequence[str] = ("curriculum", "filter")
) -> list[tuple[outside.Group, str]]:
    """The strategy and the filter of some parts, where they are none of the package's own."""
    found: list[tuple[outside.Group, str]] = []
    strategy = config.curriculum.strategy
    if "curriculum" in parts and strategy not in STRATEGIES:
        found.append((outside.STRATEGIES, strategy))
    mode = config.filter.mode
    if "filter" in parts and mode not in FILTERS:
        found.append((outside.FILTERS, mode))
    return found


FUNCTION = {"curriculum": "curriculum.strategy", "filter": "filter.mode"}
"""The key of a section that names the function its `options` are for."""


def with_values(config: Config, values: Mapping[str, Any]) -> Config:
    """A configuration with some of its values replaced, by dotted keys, and validated again.

    Raises pydantic's ValidationError for values that are not valid.
    """
    plain = config.model_dump()
    changes_data = any(key.startswith("data.") for key in values)
    if not changes_data:
        plain["data"] = config.data  # its reader may be one that is not installed here
    for part, function in FUNCTION.items():
        if function in values:  # options belong to the function that was named before
            plain[part]["options"] = {}
    for key, value in values.items():
        *path, name = key.split(".")
        part = plain
        for step in path:
            part = part[step]
        part[name] = value
    return Config.model_validate(plain)


def recorded_config(text: str) -> Config:
    """The configuration that a run recorded; fields added since have the values that were implied
    then.

    Raises pydantic's ValidationError for one that this version cannot read, yaml.YAMLError for what
    is no YAML.
    """
    plain = yaml.safe_load(text)
    recorded = renamed(plain, ALIASES) if isinstance(plain, Mapping) else {}
    values = with_values_before(Config, recorded)
    return Config.model_validate(values, context=RECORDED)


def dump_config(config: Config) -> str:
    """The resolved configuration as YAML.

    Secrets in its URIs are masked, because the file is shared together with what was made.
    """
    plain = config.model_dump(mode="json")
    text = OmegaConf.to_yaml(OmegaConf.create(plain))
    return masked(text)
