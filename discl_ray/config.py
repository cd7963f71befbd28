"""One configuration for the whole path: conf/*.yaml, then `key=value`, then pydantic.

YAML holds values, not code: no interpolation, no environment. All problems are reported at once,
before anything is started or written. Only jobs, the doctor and tests see the whole `Config`; each
step gets its own part.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeGuard, Union, get_args, get_origin

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import (
    BaseModel,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from discl_ray.core import outside, presets
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
from discl_ray.data.config import (
    DATA_SETS,
    OUTSIDE,
    DataConfig,
    DigitsLTConfig,
    FilesConfig,
    OutsideConfig,
)
from discl_ray.errors import ConfigError
from discl_ray.experiments.config import TuneConfig
from discl_ray.generate.config import GeneratorConfig
from discl_ray.plan.config import HardConfig, PlanConfig, PreviewConfig, PromptConfig
from discl_ray.process.calls import Call
from discl_ray.process.masking import masked
from discl_ray.score.config import ScorerConfig
from discl_ray.spectrum.config import BUILTIN as FILTERS
from discl_ray.spectrum.config import FilterConfig, SpectrumConfig
from discl_ray.train.config import TrainConfig


class RunConfig(Settings):
    """Where a run lies and what it may use; none of it changes what is made."""

    name: str = execution("digits_lt", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """First part of the run's directory; letters, digits, dot, dash and underscore."""
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
        return renamed(plain, ALIASES) if isinstance(plain, Mapping) else plain

    @field_validator("data", mode="before")
    @classmethod
    def _a_data_set(cls, data: Any, info: ValidationInfo) -> Any:
        if not isinstance(data, Mapping):
            return data
        name = data.get("name", "digits_lt")
        known = name in DATA_SETS or (isinstance(name, str) and outside.READERS.knows(name))
        if not known and not info.context:
            allowed = outside.unknown(tuple(DATA_SETS), outside.READERS)
            raise PydanticCustomError("data_set", "{name}", {"name": name, "allowed": allowed})
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
        """Whether the embedded generator, which knows only digits, is used on something else:
        its images mean nothing."""
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
    sources: list[str] = []
    if "curriculum" in parts and config.curriculum.strategy not in STRATEGIES:
        sources.append(outside.STRATEGIES.fingerprint(config.curriculum.strategy))
    if "filter" in parts and config.filter.mode not in FILTERS:
        sources.append(outside.FILTERS.fingerprint(config.filter.mode))
    decisive = ({part: plain[part] for part in parts}, before)
    return stable_id(*decisive, sources) if sources else stable_id(*decisive)


FUNCTION = {"curriculum": "curriculum.strategy", "filter": "filter.mode"}
"""The key of a section that names the function its `options` are for."""


def with_values(config: Config, values: Mapping[str, Any]) -> Config:
    """A configuration with some of its values replaced, by dotted keys, and validated again.

    Raises pydantic's ValidationError for values that cannot be.
    """
    plain = config.model_dump()
    if not any(key.startswith("data.") for key in values):
        plain["data"] = config.data  # its reader may be one that is not installed here
    for part in ("curriculum", "filter"):
        if FUNCTION[part] in values:  # options belong to the function that was named before
            plain[part]["options"] = {}
    for key, value in values.items():
        *path, name = key.split(".")
        part = plain
        for step in path:
            part = part[step]
        part[name] = value
    return Config.model_validate(plain)


TAGS = (*DATA_SETS, OUTSIDE)
"""What stands in an error's location for the kind of data set."""

ALIASES: dict[str, str] = {}
"""Dotted keys of earlier versions -> what they are called now; read in every configuration, and
said in CHANGELOG."""


def renamed(plain: Mapping[str, Any], aliases: Mapping[str, str]) -> dict[str, Any]:
    """A nested configuration with its keys as they are called now; where both names are given, both
    stay."""
    values = {
        key: dict(value) if isinstance(value, Mapping) else value for key, value in plain.items()
    }
    for old, new in aliases.items():
        (old_part, old_key), (new_part, new_key) = old.split("."), new.split(".")
        section = values.get(old_part)
        if (
            not isinstance(section, dict)
            or old_key not in section
            or new_key in values.get(new_part, {})
        ):
            continue
        values.setdefault(new_part, {})[new_key] = section.pop(old_key)
    return values


def recorded_config(text: str) -> Config:
    """The configuration that a run recorded: fields added since have the values they had implicitly
    then.

    Raises pydantic's ValidationError for one that this version cannot read, yaml.YAMLError for what
    is no YAML.
    """
    plain = yaml.safe_load(text)
    recorded = renamed(plain, ALIASES) if isinstance(plain, Mapping) else {}
    return Config.model_validate(with_values_before(Config, recorded), context=RECORDED)


def load_config(paths: str | Path | Sequence[str | Path], overrides: Sequence[str] = ()) -> Config:
    """Reads YAML files, each over the ones before it (a data set's, then a model's), applies
    `key=value` and validates.

    Raises ConfigError naming every problem: where it was given, path, value, what is allowed, the
    nearest name.
    """
    files = [paths] if isinstance(paths, str | Path) else list(paths)
    given = _given(overrides)
    read = [(str(file), _read(file)) for file in files]
    sources = _Sources(
        files=read, overrides=tuple(o.partition("=")[0] for o in overrides), given=_plain(given)
    )
    try:
        values = _plain(OmegaConf.merge(*(part for _, part in read), given))
    except (TypeError, OmegaConfBaseException) as error:
        raise ConfigError(
            f"{sources.all}: cannot be laid over each other: {' '.join(str(error).split())}"
        ) from error
    if found := list(_interpolations(values)):
        problems = [
            (key, f"{key} = '{value}': ${{...}} is not interpreted here; write the value")
            for key, value in found
        ]
        raise ConfigError(
            sources.report([(re.split(r"[.\[\]]+", key), problem) for key, problem in problems])
        )
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(
            sources.report([(_place(e), _sentence(e)) for e in error.errors()])
        ) from error


def _read(file: str | Path) -> DictConfig:
    """A YAML file's sections."""
    path = presets.find(file)
    if not path.is_file():
        what = "is no regular file" if path.exists() else "no such file"
        known = ", ".join(presets.names())
        raise ConfigError(f"{file}: {what}; nor one of the presets, which are {known}")
    try:
        found = OmegaConf.load(path)
    except (
        OSError,
        UnicodeDecodeError,
        TypeError,
        yaml.YAMLError,
        OmegaConfBaseException,
    ) as error:
        raise ConfigError(f"{file}: cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(found, DictConfig):
        raise ConfigError(f"{file}: a mapping of sections is needed")
    return found


def _plain(values: Any) -> Any:
    return OmegaConf.to_container(values, resolve=False)


@dataclass(frozen=True, kw_only=True)
class _Sources:
    """Where the values of a configuration come from, for whoever has to mend one."""

    files: Sequence[tuple[str, DictConfig]]
    overrides: Sequence[str]
    """Their keys."""
    given: Any
    """What they say, nested."""

    @property
    def all(self) -> str:
        """All of them."""
        return " + ".join(
            [*(name for name, _ in self.files), *([_command_line()] if self.overrides else [])]
        )

    def of(self, place: Sequence[Any], problem: str) -> str:
        """The source whose value stands at a place, or of which the problem names a key; empty if
        none says anything there."""
        if _says(self.given, place) or any(
            re.search(rf"(?<![\w.]){re.escape(key)}(?![\w.])", problem) for key in self.overrides
        ):
            return _command_line()
        return next((name for name, part in reversed(self.files) if _says(_plain(part), place)), "")

    def report(self, problems: Sequence[tuple[Sequence[Any], str]]) -> str:
        """Problems as one text: (place, sentence) of each."""
        found = [(self.of(place, problem), problem) for place, problem in problems]
        named = list(dict.fromkeys(source for source, _ in found if source))
        if len(named) < 2:
            return _report(named[0] if named else self.all, [problem for _, problem in found])
        return _report(
            " + ".join(named),
            [f"{problem} ({source})" if source else problem for source, problem in found],
        )


def _command_line() -> str:
    return "ARGS" if Call.this().targets else "the command line"


def _says(values: Any, place: Sequence[Any]) -> bool:
    """Whether nested values have something at a place, or, in its stead, something that is no
    mapping on the way to it."""
    for part in place:
        if not isinstance(values, Mapping):
            return True
        if part not in values:
            return False
        values = values[part]
    return True


def sentences(error: ValidationError) -> list[str]:
    """What is wrong with a configuration, a sentence each."""
    return [_sentence(e) for e in error.errors()]


def dump_config(config: Config) -> str:
    """The resolved configuration as YAML; what is secret in its URIs is masked, for it lies beside
    what is shared."""
    return masked(OmegaConf.to_yaml(OmegaConf.create(config.model_dump(mode="json"))))


def _given(overrides: Sequence[str]) -> DictConfig:
    """What `key=value` say, by key.

    Raises ConfigError naming those that do not read so.
    """
    given = OmegaConf.create()
    problems: list[str] = []
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            problems.append(f"'{override}': an override reads key=value, e.g. train.epochs=10")
            continue
        try:
            OmegaConf.update(given, key, _value(_kinds_at(key), text))
        except (TypeError, ValueError, yaml.YAMLError, OmegaConfBaseException) as error:
            problems.append(f"'{override}': cannot be read: {' '.join(str(error).split())}")
    if problems:
        raise ConfigError(_report(_command_line(), problems))
    return given


def _value(kinds: Sequence[Any], text: str) -> Any:
    """What stands behind the `=`, as a value of one of these types.

    Where text is needed it is the whole text: nothing in it is YAML but quotes around all of it,
    and `null` where a key may be null. In lists and mappings of texts every item is one. All else
    is YAML without comments.
    """
    some = [kind for kind in kinds if kind is not NoneType]
    if some and len(some) < len(kinds) and text.strip() in ("", "null"):
        return None
    if some and all(map(_is_text, some)):
        return _unquoted(text)
    if _has_comment(text):
        return text
    if some and all(map(_holds_text, some)):
        return yaml.load(text, yaml.BaseLoader)
    values = _plain(OmegaConf.from_dotlist([f"value={text}"]))
    return values["value"]


def _unquoted(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        try:
            return yaml.load(text, yaml.BaseLoader)
        except yaml.YAMLError:
            return text
    return text


def _has_comment(text: str) -> bool:
    """Whether YAML would drop some of it."""
    node = yaml.compose(text)
    end = 0 if node is None else node.end_mark.index
    return text[end:].strip() != ""


def _kinds_at(key: str) -> list[Any]:
    """The types a value may have by the field of a dotted key; of all data sets that have such a
    field."""
    kinds: list[Any] = [Config]
    for part in key.split("."):
        found: list[Any] = []
        for kind in kinds:
            fields = kind.model_fields if _is_model(kind) else {}
            if part in fields:
                found += _members(fields[part].annotation)
            elif get_origin(kind) is dict:
                found += _members(get_args(kind)[1])
        kinds = found
    return kinds


def _is_model(kind: Any) -> TypeGuard[type[BaseModel]]:
    """Whether a type is a section."""
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _members(annotation: Any) -> list[Any]:
    """The types of a union, one by one."""
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        found: list[Any] = []
        for part in get_args(annotation):
            found += _members(part)
        return found
    return [annotation]


def _is_text(kind: Any) -> bool:
    """Whether a type has texts alone."""
    if get_origin(kind) is Literal:
        return all(isinstance(word, str) for word in get_args(kind))
    return kind is str


def _holds_text(kind: Any) -> bool:
    """Whether a type is a list or mapping of texts."""
    if get_origin(kind) not in (tuple, list, dict):
        return False
    parts: list[Any] = []
    for item in get_args(kind):
        parts += [] if item is Ellipsis else _members(item)
    return all(_is_text(part) for part in parts)


def _report(path: str, problems: Sequence[str]) -> str:
    count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    return "\n".join([f"{path}: {count} in the configuration", *(f"  {p}" for p in problems)])


def _interpolations(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _interpolations(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from _interpolations(inner, f"{path}[{i}]")
    elif isinstance(value, str) and "${" in value:
        yield path, value


def _model_at(location: tuple[str | int, ...]) -> type[BaseModel]:
    model: type[BaseModel] = Config
    for part in location:
        field = model.model_fields.get(str(part))
        kinds = [] if field is None else [field.annotation, *get_args(field.annotation)]
        models: list[type[BaseModel]] = [kind for kind in kinds if _is_model(kind)]
        if model is Config and part == "data":  # a union: the location's next part is the tag
            models = [DATA_SETS.get(str(name), OutsideConfig) for name in location[1:2]]
        if not models:
            if part in TAGS:
                continue
            break
        model = models[0]
    return model


def _place(error: Any) -> list[Any]:
    """The keys that lead to what is wrong."""
    location = error["loc"]
    return [
        part
        for i, part in enumerate(location)
        if not (i == 1 and location[0] == "data" and part in TAGS)
    ]


def _sentence(error: Any) -> str:
    location = error["loc"]
    path = ".".join(str(part) for part in _place(error)) or "(whole)"
    if error["type"] == "data_set":
        return f"{path}.name = {error['ctx']['name']!r}: {error['ctx']['allowed']}"
    if (
        error["type"] == "extra_forbidden"
        and location[0] == "data"
        and location[-1] in FilesConfig.model_fields
    ):
        return (  # all others have this field
            f"{path} = {error['input']!r}: data.name = {location[1]}, which comes with the "
            "package; name the file of your data set: --config conf/imagefolder.yaml (class "
            "folders), conf/manifest.yaml (a list of files), or another of conf/*.yaml; with make, "
            "CONF=conf/imagefolder.yaml"
        )
    if error["type"] == "extra_forbidden":
        names = list(_model_at(location[:-1]).model_fields)
        near = difflib.get_close_matches(str(location[-1]), names, n=1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        return f"{path} = {error['input']!r}: unknown key; {hint}allowed: {', '.join(names)}"
    message = error["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(error["input"], Mapping | BaseModel) else f" = {error['input']!r}"
    return f"{path}{shown}: {message[0].lower()}{message[1:]}"
