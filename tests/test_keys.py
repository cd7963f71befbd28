"""The list of keys: whole, described, and the page in docs/ is the same list."""

from pathlib import Path

from discl_ray.config import Config
from discl_ray.core.settings import Settings, identity
from discl_ray.keys import PAGE_COMMAND, as_markdown, as_text, sections

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"


def flat(value, path=""):
    for name, inner in value.items():
        dotted = f"{path}{name}"
        if isinstance(inner, dict) and inner and "options" not in dotted:
            yield from flat(inner, f"{dotted}.")
        else:
            yield dotted


def keys():
    return [key for section in sections() for key in section.keys]


def test_the_page_is_current():
    assert PAGE.read_text("utf-8") == as_markdown(), f"remake it: {PAGE_COMMAND}"


def test_every_value_of_the_default_configuration_is_a_key():
    listed = {key.name for key in keys()}
    assert set(flat(Config().model_dump())) - {"data.name"} <= listed


def test_every_key_says_what_it_is_and_marks_hold():
    plain = set(flat(identity(Config(train={"loss": "ce"}))))
    for key in keys():
        assert key.kind
        assert key.meaning, key.name
        if not key.name.startswith("data."):
            assert key.execution == (key.name not in plain) or key.name.endswith(".options")


def test_defaults_are_written_as_they_are_given():
    default = {key.name: key.default for key in keys() if not key.name.startswith("data.")}
    assert default["plan.lams"] == "[0, 0.1, 0.3, 0.5]"
    assert default["train.compile"] == "false"
    assert default["hard.threshold"] == "null"
    assert default["train.learning_rate"] == "0.001"
    kinds = {key.name: key.kind for key in keys()}
    assert kinds["filter.mode"] == "absolute, quantile, rank, or module:function"
    assert kinds["generator.size"] == "integer or [integer, integer] or null"
    assert kinds["train.batch"] == "integer ≥ 1"


def test_every_section_is_listed_by_its_name_and_the_text_fits_a_terminal():
    named = [name for name, f in Config.model_fields.items() if isinstance(f.default, Settings)]
    titles = {section.title.partition(" ")[0] for section in sections()}
    assert set(named) <= titles
    assert max(map(len, as_text().splitlines())) <= 110
