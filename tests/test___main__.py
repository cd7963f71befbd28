"""`python -m discl_ray`."""

import subprocess
import sys

import pytest

from discl_ray import __main__
from tests.support.runs import ROOT


def run(*words):
    command = [sys.executable, "-m", "discl_ray", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_it_is_the_command_line():
    done = run("--help")
    assert done.returncode == 0
    assert "generate" in done.stdout
    assert run("generat").returncode == 2


def test_main_ends_with_the_command_s_exit_code(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["discl-ray", "generat"])
    with pytest.raises(SystemExit) as ended:
        __main__.main()
    assert ended.value.code == 2
    assert "generat" in capsys.readouterr().err
