import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from open_clip.tokenizer import SimpleTokenizer
from pydantic import ValidationError

from discl_ray.config import Config
from discl_ray.core.settings import identity
from discl_ray.errors import ConfigError
from discl_ray.plan.config import PromptConfig
from discl_ray.plan.prompts import Prompts, check_names, load_prompts
from discl_ray.plan.templates import LONGEST

SCENES = Path(__file__).resolve().parents[2] / "conf" / "prompts" / "scenes.yaml"
BROKEN = [
    "{0}",
    "{}",
    "{other}",
    "{name!r}",
    "{name:>9}",
    "{name.__class__}",
    "{name[0]}",
    "{name",
    "name}",
    "",
    "  ",
    "a \x1b {name}",
]
CODES = ["n01440764", "17", "sp_017"]
NAMES = (
    "zero",
    "Golden Retriever",
    "electric locomotive",
    "black and gold garden spider, Argiope aurantia",
    "Pseudacris sierra (Sierran treefrog)",
    "Lycaon pictus, African hunting dog, hyena dog, Cape hunting dog",
    "church, church building",
)
"""Names of the usual kinds, up to the longest of ImageNet."""


def written(tmp_path, value, name="scenes.yaml"):
    path = tmp_path / name
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return PromptConfig(scenes=str(path), generation=("plain {name}",))


def refused(config):
    with pytest.raises(ConfigError) as caught:
        load_prompts(config)
    assert config.scenes in str(caught.value)
    return str(caught.value)


def test_descriptions_of_a_class_replace_the_general_ones_which_replace_the_templates(tmp_path):
    scenes = {
        "any": ["one {name}", "two {name}"],
        "classes": {"red fox": ["a vixen", "the {name} b", "c {name}"]},
    }
    prompts = load_prompts(written(tmp_path, scenes))
    assert [prompts.generation("owl", r) for r in range(3)] == ["one owl", "two owl", "one owl"]
    assert [prompts.generation("red fox", r) for r in range(4)] == [
        "a vixen",
        "the red fox b",
        "c red fox",
        "a vixen",
    ]
    only = load_prompts(written(tmp_path, {"classes": {"red fox": ["a vixen"]}}))
    assert (only.generation("red fox", 5), only.generation("owl", 5)) == ("a vixen", "plain owl")
    assert (
        Prompts(config=PromptConfig(generation=("x {name}", "y {name}"))).generation("owl", 3)
        == "y owl"
    )


def test_scenes_leave_the_filter_alone(tmp_path):
    config = written(tmp_path, {"any": ["one {name}"]}).model_copy(
        update={"filter": "a photo of a {name}"}
    )
    assert load_prompts(config).filter("red fox") == "a photo of a red fox"


@given(st.text())
def test_a_class_name_is_put_in_as_it_is(name):
    prompts = Prompts(
        config=PromptConfig(filter="a {name}, {{name}}"),
        general=("{name} alone",),
        by_class={"x": ("{name}",)},
    )
    assert prompts.generation(name, 0) == (name if name == "x" else f"{name} alone")
    assert prompts.filter(name) == f"a {name}, {{name}}"


@pytest.mark.parametrize(
    "name", ["{0}", "{name}", "{name.__class__}", "{", "%s", "$name", "<script>", "${oc.env:HOME}"]
)
def test_a_class_name_that_looks_like_a_template_stays_text(name):
    assert (
        Prompts(config=PromptConfig(generation=("the {name}",))).generation(name, 0)
        == f"the {name}"
    )


@pytest.mark.parametrize("template", ["a photo", "a photo of {{name}}", "name"])
def test_a_template_without_the_class_name_is_refused_and_a_scene_of_a_class_is_not(
    tmp_path, template
):
    for fields in ({"generation": ("fine {name}", template)}, {"filter": template}):
        with pytest.raises(
            ValidationError, match=r"has no \{name\}, so it says the same of every class"
        ):
            PromptConfig(**fields)
    assert "needs {name}" in refused(written(tmp_path, {"any": [template]}))
    load_prompts(written(tmp_path, {"classes": {"red fox": [template]}}))


@pytest.mark.parametrize("template", BROKEN)
def test_a_broken_template_is_refused_everywhere_with_its_key(tmp_path, template):
    for fields in ({"generation": ("fine {name}", template)}, {"filter": template}):
        with pytest.raises(ValidationError) as caught:
            PromptConfig(**fields)
        assert caught.value.errors()[0]["loc"][0] in fields
    assert "any[1]" in refused(written(tmp_path, {"any": ["fine {name}", template]}))
    assert "classes.red fox[0]" in refused(written(tmp_path, {"classes": {"red fox": [template]}}))


def test_every_problem_of_a_file_is_in_one_report(tmp_path):
    scenes = {
        "every": ["x"],
        "any": ["no gap", "{name} " + "x" * LONGEST, 3, "{{name}}"],
        "classes": {"red fox": [], "owl": "an owl", "eel": ["{name} in {place}"]},
    }
    report = refused(written(tmp_path, scenes, "scenes.json"))
    assert "8 problems" in report
    for part in (
        "every: unknown key; allowed: any, classes",
        "any[0] = 'no gap': needs {name}",
        f"any[1] = '{'{name}'} {'x' * 33}…': {LONGEST + 7} characters, at most {LONGEST}",
        "any[2] = 3: text is needed",
        "any[3] = '{{name}}': needs {name}",
        "classes.red fox: a list with at least one description",
        "classes.owl: a list",
        "classes.eel[0] = '{name} in {place}': the only placeholder is {name}",
    ):
        assert part in report


def test_a_report_does_not_grow_with_the_file(tmp_path):
    report = refused(written(tmp_path, {"any": ["{x}"] * 1000}))
    assert "1000 problems" in report
    assert "and 980 more" in report
    assert len(report.splitlines()) == 22


@pytest.mark.parametrize(
    ("text", "name", "rule"),
    [
        ("", "s.yaml", "a mapping with any or classes"),
        ("[1]", "s.json", "a mapping with any or classes"),
        ("{}", "s.yaml", "no scene descriptions"),
        ("any:\n", "s.yaml", "any: a list"),
        ("any: []", "s.yaml", "any: a list"),
        ("classes: {}", "s.yaml", "classes: a mapping"),
        ("classes: [a]", "s.yaml", "classes: a mapping"),
        ("class: {owl: [x]}", "s.yaml", "did you mean 'classes'?"),
        ("any: [", "s.yaml", "cannot be read"),
        ("any: &a [*a]", "s.yaml", "cannot be read"),
        ("{", "s.json", "cannot be read"),
        ("[" * 100_000, "s.json", "cannot be read"),
        ("classes: {owl: ['x'], owl: ['y']}", "s.yaml", "'owl' stands twice"),
        ('{"any": ["{name}"], "any": ["a {name}"]}', "s.json", "'any' stands twice"),
        ("classes: {[a, b]: ['x']}", "s.yaml", "cannot be read"),
    ],
)
def test_a_file_of_another_form_is_refused_by_its_name(tmp_path, text, name, rule):
    assert rule in refused(written(tmp_path, text, name))


def test_a_file_that_cannot_be_read_is_refused_by_its_name(tmp_path):
    assert "no such file" in refused(PromptConfig(scenes=str(tmp_path / "none.yaml")))
    assert "cannot be read" in refused(PromptConfig(scenes=str(tmp_path)))
    (tmp_path / "latin.yaml").write_bytes("any: ['é {name}']".encode("latin-1"))
    assert "cannot be read" in refused(PromptConfig(scenes=str(tmp_path / "latin.yaml")))


def test_yaml_holds_no_code_and_reads_every_class_as_text(tmp_path):
    mark = tmp_path / "ran"
    text = (
        f"any: !!python/object/apply:os.system ['touch {mark}']\n"
        "classes: {no: [the no], 17: [the 17], 1.0: [the one], null: [none]}"
    )
    refused(written(tmp_path, text))
    assert not mark.exists()
    prompts = load_prompts(written(tmp_path, text.split("\n")[1]))
    assert list(prompts.by_class) == ["no", "17", "1.0", "null"]


def test_classes_are_compared_in_nfc(tmp_path):
    apart, composed = "cafe\u0301", "caf\u00e9"
    prompts = load_prompts(written(tmp_path, {"classes": {apart: ["a warm {name}"]}}))
    prompts.check([composed])
    assert prompts.generation(composed, 0) == f"a warm {composed}"
    both = {"classes": {apart: ["x"], composed: ["y"]}}
    assert "stands twice" in refused(written(tmp_path, both))


def test_a_relative_path_is_one_from_the_working_directory(tmp_path, monkeypatch):
    written(tmp_path, {"any": ["an {name}"]})
    monkeypatch.chdir(tmp_path)
    assert load_prompts(PromptConfig(scenes="scenes.yaml")).generation("owl", 0) == "an owl"


def test_the_content_decides_and_not_the_form_or_place(tmp_path):
    value = {"any": ["an {name} in a wood"], "classes": {"owl": ["x", "y"], "eel": ["z"]}}
    yaml = (
        "# a comment\nclasses:\n  eel: [z]\n  owl: [x, 'y']\n"
        "any:\n  - >\n    an {name}\n    in a wood\n"
    )
    one, two = (
        load_prompts(written(tmp_path, v, n)) for v, n in ((value, "a.json"), (yaml, "b.yaml"))
    )
    assert one.fingerprint == two.fingerprint != ""
    assert two.generation("fox", 0) == "an fox in a wood"
    others = [
        {**value, "any": ["an {name} in a wood."]},
        {**value, "classes": {"owl": ["y", "x"], "eel": ["z"]}},
        {"any": value["any"]},
        {"classes": value["classes"]},
    ]
    prints = {load_prompts(written(tmp_path, other, "c.json")).fingerprint for other in others}
    assert len(prints | {one.fingerprint}) == 5
    assert load_prompts(PromptConfig()).fingerprint == ""
    assert identity(one.config) == identity(
        two.config.model_copy(update={"scenes": None, "force": True})
    )


def test_a_described_class_that_is_not_there_is_named_with_its_nearest(tmp_path):
    prompts = load_prompts(
        written(tmp_path, {"classes": {"red fx": ["x"], "owl": ["y"], "qqqq": ["z"]}})
    )
    with pytest.raises(ConfigError) as caught:
        prompts.check(["red fox", "owl", "eel"])
    message = str(caught.value)
    assert "2 problems" in message
    assert "classes.red fx: no such class in the data set; did you mean 'red fox'?" in message
    assert (
        "classes.qqqq: no such class in the data set; classes are 'eel', 'owl', 'red fox'"
        in message
    )
    prompts.check(["red fx", "owl", "qqqq", "another"])


def test_names_that_read_like_codes_are_refused_with_the_remedy_unless_forced():
    for names in (CODES, dict.fromkeys(CODES, 0)):
        with pytest.raises(ConfigError) as caught:
            check_names(names, force=False)
        assert all(repr(code) in str(caught.value) for code in CODES)
        assert "data.names=FILE.csv" in str(caught.value)
        assert "prompts.force=true" in str(caught.value)
        check_names(names, force=True)
    with pytest.raises(ConfigError, match="and 7 more"):
        Prompts(config=PromptConfig()).check([f"n{i:08d}" for i in range(12)])
    Prompts(config=PromptConfig(force=True)).check(CODES)
    check_names(NAMES, force=False)


@pytest.mark.parametrize("name", ["a\nb", "a\x00b", "\x1b[31mred", "", " ", "\ud800", "a\u2028b"])
def test_names_with_control_characters_are_refused_even_when_forced(name):
    with pytest.raises(ConfigError, match="control character") as caught:
        check_names(["owl", name], force=True)
    assert repr(name) in str(caught.value)
    assert str(caught.value).isprintable()


def test_the_committed_scenes_are_what_they_say():
    prompts = load_prompts(PromptConfig(scenes=str(SCENES)))
    tokenizer = SimpleTokenizer()
    assert len(set(prompts.general)) == 10
    prompts.check(NAMES)
    for scene in prompts.general:
        assert scene.count("{name}") == 1
        assert len(scene.split()) >= 15
        assert not re.search(r"\b(an? \{name\}|no|not|without)(\s|$)", scene)
        for name in NAMES:
            assert len(tokenizer.encode(scene.format(name=name))) + 2 < 77


@pytest.mark.parametrize(
    ("data", "prompt"),
    [
        ({"name": "digits_lt"}, "a photo of the digit {name}"),
        ({"name": "digits_wild"}, "a photo of the digit {name}"),
        ({"name": "imagefolder", "root": "x"}, "a photo of a {name}"),
    ],
)
def test_prompts_that_are_not_given_are_the_data_sets_own(data, prompt):
    assert Config(data=data).prompts == PromptConfig(generation=(prompt,), filter=prompt)
    own = PromptConfig(filter="an {name}")
    assert Config(data=data, prompts=own).prompts == PromptConfig(
        generation=(prompt,), filter="an {name}"
    )


def test_a_template_leaves_alone_what_is_given_even_where_it_is_the_default():
    given_all = PromptConfig(generation=("a photo of a {name}",), filter="a photo of a {name}")
    assert given_all.with_template("the {name}") == given_all
    once = PromptConfig().with_template("the {name}")
    assert once.with_template("another {name}") == once
