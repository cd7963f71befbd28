import os
import subprocess
import sys
from pathlib import Path

import pytest

from discl_ray.config import PHASE_1, PHASE_2, Config, dump_config, load_config, part_hash
from discl_ray.core.settings import Settings
from discl_ray.errors import ConfigError

CONF = "conf/digits_lt.yaml"


@pytest.fixture(autouse=True)
def _in_root(monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)


def refused(*overrides, path=CONF):
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    assert caught.value.exit_code == 2
    return str(caught.value)


def written(tmp_path, text):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    return path


def test_the_committed_configuration_loads_and_survives_its_own_dump(tmp_path):
    config = load_config(CONF, ["plan.lams=[0,0.3]", "seed=7", "generator.revision=null"])
    assert (config.plan.lams, config.seed, config.generator.revision) == ((0.0, 0.3), 7, None)
    assert load_config(written(tmp_path, dump_config(config))) == config


@pytest.mark.parametrize(
    ("override", "near"),
    [
        ("plan.replica=3", "replicas"),
        ("generatr.model=x", "generator"),
        ("generator.micro_bach=1", "micro_batch"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_one(override, near):
    message = refused(override)
    assert override.partition(".")[0] in message
    assert "unknown key" in message
    assert f"did you mean '{near}'?" in message


@pytest.mark.parametrize(
    ("override", "near"),
    [
        ("replicas=4", "'plan.replicas' or 'preview.replicas'"),
        ("lams=[0]", "'plan.lams' or 'preview.lams'"),
        ("long_tail.head=3", "'data.long_tail'"),
    ],
)
def test_a_key_without_its_section_is_told_the_sections_that_have_it(override, near):
    assert f"unknown key; did you mean {near}? allowed: seed" in refused(override)
    assert "did you mean" not in refused("no_such_key=1")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["plan.lams=0.3"], "plan.lams = 0.3: a list is needed, e.g. [0.3]"),
        (["plan.lams=0,0.3"], "plan.lams = '0,0.3': a list is needed, e.g. [0, 0.3]"),
        (
            ["data.name=own:read", "data.options=5"],
            "data.options = 5: a mapping is needed, {key: value}",
        ),
    ],
)
def test_a_value_of_another_shape_is_told_how_it_is_written(overrides, said):
    assert said in refused(*overrides, path=[])


def test_a_data_set_without_its_folder_is_told_an_example():
    said = refused(path="conf/imagefolder.yaml")
    assert "data.root: has no default and is needed, e.g. data.root=/path/to/images" in said


def test_every_problem_is_reported_at_once():
    message = refused(
        "hard.below=0",
        "train.epoch=3",
        "generator.cfg_scale=zero",
        "filter.mode=both",
        "plan.lams=[0.3,0.3]",
    )
    assert "5 problems" in message
    for key in (
        "hard.below = 0",
        "train.epoch",
        "generator.cfg_scale = 'zero'",
        "filter.mode = 'both'",
        "twice",
    ):
        assert key in message


def test_a_problem_is_said_of_where_it_was_given(tmp_path, monkeypatch):
    monkeypatch.delenv("DISCL_RAY_BY_MAKE", raising=False)
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text("plan: {replicas: 2}\ntrain: {epochs: 30}\n")
    bad.write_text("plan: {replica: 3}\nfilter: {mode: both}\n")
    assert refused("plan.replica=3", path=[good]).startswith(
        "the command line: 1 problem in the configuration\n  plan.replica = 3"
    )
    assert refused(path=[good, bad, good]).startswith(f"{bad}: 2 problems in the configuration\n")
    assert refused("filter.mode=rank", path=[good, bad]).startswith(
        f"{bad}: 1 problem"
    )  # mended by the override
    mixed = refused("plan.lams=[2]", path=[good, bad]).split("\n")
    assert mixed[0] == f"the command line + {bad}: 3 problems in the configuration"
    assert [line.rpartition(" (")[2] for line in mixed[1:]] == [
        "the command line)",
        f"{bad})",
        f"{bad})",
    ]
    # what one key contradicts is in a file, what the other says is not
    assert refused("curriculum.epochs=99", path=[good]).startswith("the command line: 1 problem")
    assert refused("seed=[1", path=[good]).startswith(
        "the command line: 1 problem in the configuration\n  'seed=[1': cannot be read"
    )
    assert refused("run.name=${seed}", path=[good]).startswith("the command line: 1 problem")
    monkeypatch.setenv("DISCL_RAY_BY_MAKE", "generate")
    assert refused("plan.replica=3", path=[good]).startswith("ARGS: 1 problem")


def test_a_configuration_that_is_no_regular_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "c.yaml")
    assert "c.yaml: is no regular file" in refused(path=tmp_path / "c.yaml")


def test_overrides_without_a_value_are_refused_together():
    message = refused("plan.replicas", "--fast")
    assert "'plan.replicas'" in message
    assert "'--fast'" in message


@pytest.mark.parametrize("value", ["${oc.env:HOME}", "x${seed}", "${run.root}"])
def test_interpolation_is_refused_and_not_resolved(tmp_path, value):
    for message in (
        refused(f"run.name={value}"),
        refused(path=written(tmp_path, f"run:\n  name: '{value}'\n")),
    ):
        assert "run.name" in message
        assert value in message
        assert os.environ["HOME"] not in message.replace(str(tmp_path), "")
    assert "prompts.generation[0]" in refused(
        path=written(tmp_path, f"prompts:\n  generation: ['{value}']\n")
    )


@pytest.mark.parametrize(
    "tag", ["object/apply:os.system", "object/apply:subprocess.check_call", "name:os"]
)
def test_yaml_that_holds_code_is_refused_and_not_run(tmp_path, tag):
    mark = tmp_path / "ran"
    refused(path=written(tmp_path, f"seed: !!python/{tag} ['touch {mark}']\n"))
    assert not mark.exists()


@pytest.mark.parametrize("text", ["a: [", "\x00", "seed: 1\nseed: 2\n"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path, text):
    assert "c.yaml" in refused(path=written(tmp_path, text))


def test_a_file_that_is_a_list_is_refused(tmp_path):
    assert "c.yaml" in refused(path=written(tmp_path, "- 1\n- 2\n"))


@pytest.mark.parametrize("text", ["", "# nothing yet\n"])
def test_an_empty_file_is_all_defaults(tmp_path, text):
    assert load_config(written(tmp_path, text)) == Config()


def test_values_of_another_kind_are_told_together(tmp_path):
    message = refused(path=written(tmp_path, "seed: many\nplan: {replicas: [1]}\ngenerator: 5\n"))
    assert "3 problems" in message
    for words in ("seed = 'many'", "plan.replicas = [1]", "generator = 5"):
        assert words in message


def test_a_missing_file_is_named():
    assert "conf/nowhere.yaml: no such file" in refused(path="conf/nowhere.yaml")


@pytest.mark.parametrize(
    "lams",
    ["[1.0]", "[-0.1]", "[1.5]", "[0.3,0.3]", "[0.0,0.0]", "[]", "[0.333]", "[.nan]", "[.inf]"],
)
def test_a_bad_grid_is_refused(lams):
    assert "plan" in refused(f"plan.lams={lams}")


@pytest.mark.parametrize(
    "override",
    ["seed=-1", "run.name=../up", "run.name=a/b", "curriculum.epochs=99", "data.tail=40"],
)
def test_values_outside_their_bounds_are_refused(override):
    refused(override)


def leaves(model, prefix="", kind="identity"):
    for name, field in model.model_fields.items():
        extra = field.json_schema_extra
        own = "execution" if isinstance(extra, dict) and extra.get("kind") == "execution" else kind
        if isinstance(field.default, Settings):  # `data` is a union of which the default is one
            yield from leaves(type(field.default), f"{prefix}{name}.", own)
        else:
            yield f"{prefix}{name}", own


def other(value):
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case float():
            return value + 0.01
        case tuple():
            return (*value, value[-1] if value else "x")
        case str():
            return value + "x"
        case dict():
            return {**value, "x": 1}
        case None:
            return "x"
    raise AssertionError(f"no other value for {value!r}")


OTHER_NAMES = {"diverse_to_specific": "fixed", "rank": "quantile"}
"""For those that name a function."""


def with_other(settings, path):
    head, _, rest = path.partition(".")
    value = getattr(settings, head)
    if isinstance(value, str) and value in OTHER_NAMES:
        return settings.model_copy(update={head: OTHER_NAMES[value]})
    return settings.model_copy(update={head: with_other(value, rest) if rest else other(value)})


LEAVES = dict(leaves(Config))


def test_a_runs_name_leaves_room_for_what_is_added_to_it():
    longest = "a" * 100
    assert load_config([], [f"run.name={longest}"]).run.name == longest
    with pytest.raises(ConfigError, match=r"run\.name = 'a+': string should have at most 100 char"):
        load_config([], [f"run.name={longest}a"])


def test_execution_fields_are_the_ones_that_change_no_byte():
    execution = {path for path, kind in LEAVES.items() if kind == "execution"}
    assert {
        "run.name",
        "run.root",
        "generator.micro_batch",
        "generator.actors",
        "generator.num_gpus",
    } <= execution
    assert not execution & {
        "seed",
        "generator.dtype",
        "generator.codec",
        "generator.cfg_scale",
        "plan.lams",
        "plan.num_steps",
    }


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("path", sorted(LEAVES))
def test_a_hash_changes_with_identity_fields_of_its_parts_only(path):
    config = load_config(CONF)
    changed, part = with_other(config, path), path.split(".")[0]
    assert changed != config
    for parts in (PHASE_1, PHASE_2, ("data",)):
        matters = part in parts and LEAVES[path] == "identity"
        assert (part_hash(changed, parts) != part_hash(config, parts)) == matters


def test_a_hash_depends_on_the_step_before():
    config = load_config(CONF)
    assert (
        part_hash(config, PHASE_2, "a")
        != part_hash(config, PHASE_2, "b")
        != part_hash(config, PHASE_2)
    )


def test_a_wrong_field_does_not_hide_the_checks_over_several(tmp_path):
    wrong = ["plan.replicas=0", "plan.lams=[0,1.5]", "curriculum.epochs=99", "seed=-1"]
    with pytest.raises(ConfigError) as caught:
        load_config("conf/digits_lt.yaml", wrong)
    assert [
        part in str(caught.value)
        for part in ("plan.replicas", "λ = 1.5", "curriculum.epochs = 99", "seed = -1")
    ] == [True] * 4


def test_files_are_laid_one_over_the_other(tmp_path):
    over = written(tmp_path, "generator: {cfg_scale: 9}\nplan: {replicas: 2}")
    config = load_config([CONF, over], ["plan.replicas=3"])
    assert (config.generator.cfg_scale, config.plan.replicas, config.data.head) == (9, 3, 36)
    over.write_text("generator: {cfg_scale: 9}\nseed: -1")
    assert refused(path=[CONF, over]).startswith(f"{over}: 1 problem")
    assert "nowhere.yaml: no such file" in refused(path=[CONF, "nowhere.yaml"])


@pytest.mark.parametrize(
    "text",
    [
        *(
            "/x/Photos #2",
            "no",
            "null",
            "007",
            "1e3",
            "a: b",
            "[x",
            "{x}",
            "on",
            "2024-01-01",
            "it's",
            "&a",
            "*a",
            "!x",
            "- a",
            "| a",
        ),
        *(
            "0x1F",
            "1_000",
            "x=y",
            "a\\b",
            " both ",
            "%20",
            "why?",
            "é",
            "'",
            "a, b",
            "true",
            "---",
            "???",
        ),
    ],
)
def test_a_path_or_a_name_is_the_whole_text_behind_the_equals_sign(tmp_path, text):
    config = load_config(
        "conf/manifest.yaml",
        [f"data.root={text}", f"data.names={text}x", f"data.columns.path={text}"],
    )
    assert (config.data.root, config.data.names, config.data.columns) == (
        text,
        f"{text}x",
        {"path": text},
    )
    assert load_config(written(tmp_path, dump_config(config))) == config
    assert (
        load_config("conf/manifest.yaml", [f'data.root="{text}"']).data.root == text or "\\" in text
    )


def test_items_of_lists_of_texts_are_texts_and_other_values_are_what_yaml_says():
    config = load_config(
        CONF,
        [
            "hard.exclude_classes=[no, 007, 1e3]",
            "scorer.pretrained=null",
            "generator.revision=",
            "generator.size=[64, 32]",
        ],
    )
    assert config.hard.exclude_classes == ("no", "007", "1e3")
    assert (config.scorer.pretrained, config.generator.revision, config.generator.size) == (
        None,
        None,
        (64, 32),
    )
    assert (
        load_config(
            CONF, ["train.max_decoded_gb=1e1", "curriculum.share=auto"]
        ).train.max_decoded_gb
        == 10
    )


@pytest.mark.parametrize(
    "override", ["seed=5 #3", "plan.lams=[0,0.5] # few", "train.use_gpu=false #"]
)
def test_an_override_holds_no_comment(override):
    assert override.partition("=")[0] in refused(override)


def test_the_home_folder_is_meant_wherever_a_path_may_stand(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "over.yaml").write_text("run: {root: ~/runs}\n")
    keys = (
        "data.root",
        "data.names",
        "generator.model",
        "scorer.model",
        "scorer.pretrained",
        "train.clip",
        "prompts.scenes",
    )
    config = load_config(["conf/manifest.yaml", "~/over.yaml"], [f"{key}=~/x" for key in keys])
    assert config.run.root == str(tmp_path / "runs")
    for key in keys:
        section, name = key.split(".")
        assert getattr(getattr(config, section), name) == str(tmp_path / "x")


@pytest.mark.parametrize(
    "key", ["data.root=/photos", "data.val_fraction=0.3", "data.long_tail.head=3"]
)
def test_a_data_set_of_ones_own_without_its_file_names_the_file(key):
    for path in (CONF, "conf/digits_wild.yaml"):
        assert "--config conf/imagefolder.yaml" in refused(key, path=path)


@pytest.mark.parametrize(
    "preset", sorted(p.name for p in Path(__file__).parents[1].glob("conf/sd*.yaml"))
)
def test_every_preset_is_valid_over_a_data_set_and_says_what_it_costs(preset):
    config = load_config([CONF, f"conf/{preset}"])
    assert config.generator.model.count("/") == 1
    assert config.generator.num_gpus + config.scorer.num_gpus == 1
    words = Path("conf", preset).read_text()
    assert all(f"# {word}" in words for word in ("Licence", "Download", "Memory", "Time"))


def test_there_are_presets():
    assert {p.stem for p in Path("conf").glob("sd*.yaml")} == {"sd15", "sdxl", "sdxl-refiner"}


@pytest.mark.parametrize("job", ["identify", "preview", "generate", "train", "compare", "tune"])
def test_a_job_says_what_is_wrong_before_it_imports_pytorch_or_ray(job):
    script = (
        "import sys, runpy; sys.modules['torch'] = sys.modules['ray'] = None; "
        "sys.argv.pop(0); runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = [sys.executable, "-c", script, f"jobs/{job}.py", "train.epochz=3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    assert "did you mean 'epochs'" in done.stderr


@pytest.mark.parametrize("part", ["generator", "scorer"])
def test_a_process_is_on_a_gpu_once_a_share_of_one_is_named(part):
    shares = {"auto": False, "0": False, "0.25": True, "1": True}
    for share, expected in shares.items():
        config = load_config(CONF, [f"{part}.num_gpus={share}"])
        assert getattr(config, part).on_gpu is expected


def test_training_is_on_a_gpu_where_that_is_asked_for():
    values = {"auto": False, "false": False, "true": True}
    for value, expected in values.items():
        assert load_config(CONF, [f"train.use_gpu={value}"]).train.on_gpu is expected
