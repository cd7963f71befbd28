"""The command line: its commands, its help, its errors and exit codes."""

import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest

from discl_ray.cli import overview, parser_of
from discl_ray.commands import COMMANDS
from discl_ray.keys import sections
from discl_ray.process.calls import JOBS

ROOT = Path(__file__).parents[1]
BLOCKED = (
    "import sys; [sys.modules.update({m: None}) for m in ('torch', 'ray', 'diffusers')]; "
    "from discl_ray.__main__ import main; sys.argv[0] = 'discl-ray'; main()"
)


def called(*words, cwd=None):
    """`discl-ray` in a process of its own, where PyTorch and Ray cannot be imported."""
    command = [sys.executable, "-c", BLOCKED, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=cwd)


def test_every_command_has_a_script_a_module_and_a_line():
    assert set(COMMANDS) == set(JOBS) == {p.stem for p in ROOT.glob("jobs/[a-z]*.py")}
    for name, command in COMMANDS.items():
        assert f"{name} " in overview()
        assert command.page == import_module(command.module).__doc__.strip()
        assert f"discl-ray {name}" in command.page
        assert len(command.meaning) < 70


@pytest.mark.parametrize("name", [n for n in COMMANDS if n not in ("doctor", "verify")])
def test_a_filter_or_strategy_that_cannot_be_imported_is_refused_before_anything_is_made(
    name, tmp_path
):
    """PyTorch and Ray are not loaded by then, and no folder is there."""
    for key in ("filter.mode", "curriculum.strategy"):
        done = called(name, f"{key}=nomod:f", f"run.root={tmp_path / 'runs'}", cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"error: {key} = 'nomod:f': module 'nomod' cannot be imported")
        assert not list(tmp_path.iterdir())


def test_help_lists_the_commands_and_a_wrong_one_is_named(tmp_path):
    for words in ([], ["--help"]):
        done = called(*words, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (0, overview() + "\n")
    wrong = called("trian")
    assert wrong.returncode == 2
    assert "trian: no such command; did you mean 'train'?" in wrong.stderr


def test_help_of_a_command_lists_every_key_without_pytorch(tmp_path):
    began = time.monotonic()
    done = called("train", "--help", cwd=tmp_path)
    assert time.monotonic() - began < 20  # .8 s on a machine that has nothing else to do
    assert done.returncode == 0, done.stderr
    assert "usage: discl-ray train" in done.stdout
    missing = [
        key.name
        for section in sections()
        for key in section.keys
        if f" {key.name} " not in done.stdout
    ]
    assert not missing


@pytest.mark.parametrize("config", ["digits_lt", "conf/digits_lt.yaml", "digits_lt.yaml"])
def test_a_preset_is_found_from_any_folder(tmp_path, config):
    done = called("generate", "--config", config, "plan.replica=3", cwd=tmp_path)
    assert done.returncode == 2
    assert "did you mean 'replicas'" in done.stderr
    assert config not in done.stderr  # the problem is the command line's


def test_what_is_no_file_and_no_preset_is_refused_with_their_names(tmp_path):
    done = called("train", "--config", "digits", cwd=tmp_path)
    assert done.returncode == 2
    assert "digits: no such file; nor one of the presets, which are " in done.stderr
    assert "digits_lt" in done.stderr


@pytest.mark.parametrize(
    "words",
    ["a=1 --config x.yaml b=2 --config y.yaml c=3", "--config x.yaml --config y.yaml a=1 b=2 c=3"],
)
def test_files_and_overrides_may_stand_in_any_order(words):
    asked = parser_of(COMMANDS["train"]).parse_intermixed_args(words.split())
    assert (asked.config, asked.overrides) == (["x.yaml", "y.yaml"], ["a=1", "b=2", "c=3"])


def test_options_of_compare_stand_beside_overrides():
    asked = parser_of(COMMANDS["compare"]).parse_intermixed_args(["--seeds", "3", "seed=1"])
    assert (asked.seeds, asked.table, asked.tag, asked.overrides) == (3, None, "", ["seed=1"])
