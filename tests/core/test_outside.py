"""Functions from outside: found by `module:function` or entry point.

What is wrong with one is refused in one sentence.
"""

import sys

import pytest

from discl_ray.config import (
    Config,
    dump_config,
    load_config,
    part_hash,
    recorded_config,
    with_values,
)
from discl_ray.core import outside
from discl_ray.core.outside import FILTERS, READERS, STRATEGIES
from discl_ray.errors import ConfigError, DataError
from discl_ray.process.stopping import Stopped

MODULE = """
def strategy(at): return None
number = 3
class Inner:
    @staticmethod
    def read(config, seed): return None
"""
ENTRY_POINTS = "[discl_ray.strategies]\nlate = own_{0}:strategy\n"


@pytest.fixture
def own(tmp_path, monkeypatch, request):
    """A module and an installed package with a strategy, both of this test alone.

    Returns the module's name.
    """
    name = f"own_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    info = tmp_path / "own-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS.replace("own_{0}", name))
    monkeypatch.syspath_prepend(tmp_path)
    outside.registered_in.cache_clear()
    yield name
    sys.modules.pop(name, None)
    outside.registered_in.cache_clear()


def test_a_function_is_found_by_module_and_name_and_by_entry_point(own):
    assert STRATEGIES.load(f"{own}:strategy") is STRATEGIES.load("late")
    assert READERS.load(f"{own}:Inner.read")(None, 0) is None
    assert "late" in STRATEGIES.registered()
    assert "late" not in FILTERS.registered()


def test_the_working_directory_is_a_place_for_modules(tmp_path, monkeypatch):
    (tmp_path / "found_here.py").write_text("def read(config, seed): return seed\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert READERS.load("found_here:read")(None, 5) == 5


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("no_such_module:read", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("{own}:nothing", "has no 'nothing'"),
        ("{own}:number", "is a int, not a function"),
        ("late_", "is unknown and no entry point of discl_ray.strategies; allowed: late"),
    ],
)
def test_what_cannot_be_had_is_named_with_its_key(own, name, why):
    name = name.format(own=own)
    with pytest.raises(ConfigError) as caught:
        STRATEGIES.load(name)
    assert str(caught.value).startswith(f"curriculum.strategy = '{name}'")
    assert why in str(caught.value)


def test_a_module_that_raises_is_the_users_to_mend(tmp_path, monkeypatch):
    (tmp_path / "broken_module.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"cannot be imported \(ZeroDivisionError"):
        FILTERS.load("broken_module:verdict")


def test_a_module_that_ends_the_program_does_not_count_as_success(tmp_path, monkeypatch):
    (tmp_path / "script_module.py").write_text("raise SystemExit(0)\n")
    (tmp_path / "stopped_module.py").write_text(
        "from discl_ray.process.stopping import Stopped\nraise Stopped(130)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    words = "^data.name = 'script_module:read': the module ended the program when it was imported"
    with pytest.raises(ConfigError, match=words) as caught:
        READERS.load("script_module:read")
    assert isinstance(caught.value.__cause__, SystemExit)
    with pytest.raises(Stopped):
        READERS.load("stopped_module:read")


def boom():
    raise RuntimeError("first\nsecond")


def test_what_a_function_raises_is_one_line_with_its_place_and_its_cause():
    with pytest.raises(ConfigError) as caught, outside.calling("key = 'a:b'", boom):
        boom()
    place = f"{__file__}, line {boom.__code__.co_firstlineno + 1}"
    assert str(caught.value) == f"key = 'a:b': raised RuntimeError: first second ({place})"
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_a_function_that_ends_the_program_does_not_count_as_success():
    with (
        pytest.raises(ConfigError, match=r"^key = 'a:b': ended the program"),
        outside.calling("key = 'a:b'", sys.exit),
    ):
        sys.exit(0)


def of_ray():
    """As Ray ends a worker, at a signal."""
    error = SystemExit(1)
    error.ray_terminate_msg = "SIGTERM"
    return error


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), Stopped(130), of_ray(), DataError("ours"), OSError("AWS Error")]
)
def test_what_stops_the_job_and_errors_that_say_all_pass(error):
    with pytest.raises(type(error)) as caught, outside.calling("key = 'a:b'", boom):
        raise error
    assert caught.value is error


def test_a_configuration_takes_names_that_read_so_without_importing_them(own):
    config = load_config(
        [],
        [
            "data.name=no_such:read",
            "data.options={side: 8}",
            "curriculum.strategy=late",
            "curriculum.options.from=3",
            "filter.mode=no_such:verdict",
        ],
    )
    assert config.data.options == {"side": 8}
    assert config.curriculum.options == {"from": 3}
    assert not config.data.embedded
    assert config.plumbing_test


@pytest.mark.parametrize("key", ["data.name", "curriculum.strategy", "filter.mode"])
def test_a_plain_name_that_nobody_registered_is_refused(key):
    with pytest.raises(ConfigError, match=f"{key} = 'nobodys'.*module:function") as caught:
        load_config([], [f"{key}=nobodys"])
    assert "1 problem" in str(caught.value)


@pytest.mark.parametrize("key", ["curriculum", "filter"])
def test_options_of_a_builtin_function_have_no_effect_and_are_refused(key):
    with pytest.raises(ConfigError, match="options are for a function of your own"):
        load_config([], [f"{key}.options={{x: 1}}"])


def test_a_recorded_configuration_is_read_where_its_reader_is_not_installed(own):
    recorded = dump_config(Config()).replace("name: digits_lt", "name: gone").splitlines()
    of_files = "\n".join(
        line for line in recorded if line.strip().split(":")[0] not in ("look", "head", "tail")
    )
    config = recorded_config(of_files.replace("mode: rank", "mode: gone"))
    assert (config.data.name, config.filter.mode) == ("gone", "gone")


def test_an_edited_function_gives_another_hash_and_builtin_ones_have_none(own, tmp_path):
    config = load_config([], [f"curriculum.strategy={own}:strategy"])
    before = part_hash(config, ("curriculum",))
    assert before == part_hash(config, ("curriculum",))
    assert part_hash(config, ("train",)) == part_hash(Config(), ("train",))
    (tmp_path / f"{own}.py").write_text(MODULE + "# edited\n")
    assert part_hash(config, ("curriculum",)) != before


def test_a_row_with_another_strategy_does_not_inherit_its_options(own):
    config = load_config([], [f"curriculum.strategy={own}:strategy", "curriculum.options.x=1"])
    other = with_values(config, {"curriculum.strategy": "real_only"})
    assert other.curriculum.options == {}
    assert part_hash(other, ("curriculum",)) == part_hash(
        load_config([], ["curriculum.strategy=real_only"]), ("curriculum",)
    )
    assert with_values(config, {"seed": 1}).curriculum.options == {"x": 1}
