"""What a job prints as the next command calls that job with the same words, whatever is in them."""

import os
import shlex
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discl_ray.process.calls import AGAIN, BY_MAKE, Call, advice, next_command, whole
from tests.support.runs import ROOT

MADE = {BY_MAKE: "generate"}
WORDS = (
    "run.root=/data/my runs",
    "plan.lams=[0,0.5]",
    "data.root=/a#b",
    "prompts.caption=a 'photo' of $5 \"x\" `y` \\ !",
)
words = st.lists(
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).map(lambda s: f"key={s}"),
    max_size=3,
)
MAKEFILE = (
    "x:\n\t@$(PYTHON) -c 'import sys; print(ascii(sys.argv[1:]))' "
    "$(addprefix --config ,$(CONF)) $(ARGS)\n"
)


def call(*rest, script="jobs/generate.py", files=("a.yaml", "b.yaml"), environment=None):
    configured = [word for file in files for word in ("--config", file)]
    return Call.of([script, *configured, *rest], environment or {}, "python")


@given(words)
def test_a_call_by_python_is_pasted_back_word_for_word(rest):
    again = shlex.split(call(*rest).command())
    assert again == [
        "python",
        "jobs/generate.py",
        "--config",
        "a.yaml",
        "--config",
        "b.yaml",
        *rest,
    ]
    assert Call.of(again[1:], {}, "python") == call(*rest)


@pytest.mark.parametrize(
    "rest", [WORDS, WORDS[:1], ("#x=1",), ("a=$HOME", "b=$(shell ls)"), ("c=*",), ()]
)
def test_a_call_by_make_reaches_python_word_for_word_through_two_shells_and_make(rest, tmp_path):
    (tmp_path / "Makefile").write_text(MAKEFILE)
    command = call(*rest, environment=MADE).command("x" if not rest else "")
    assert command.startswith("make ")
    pasted = command.replace("make generate", "make x", 1) + f" PYTHON={sys.executable}"
    outside = {
        name: value
        for name, value in os.environ.items()
        if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    }
    done = subprocess.run(
        ["bash", "-c", pasted],
        cwd=tmp_path,
        env=outside,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == ascii(["--config", "a.yaml", "--config", "b.yaml", *rest])


def test_the_form_is_the_one_of_the_call():
    assert (
        call("seed=1", environment=MADE).command("train")
        == 'make train CONF="a.yaml b.yaml" ARGS=seed=1'
    )
    assert call(files=(), environment=MADE).command("train") == "make train"
    default = ("conf/digits_lt.yaml", "conf/tune_digits_lt.yaml")
    assert (
        call(script="jobs/tune.py", files=default, environment={BY_MAKE: "tune"}).command()
        == "make tune"
    )
    submitted = call("seed=1", files=(), environment={"RAY_JOB_CONFIG_JSON_ENV_VAR": "{}"}).command(
        "train"
    )
    assert submitted == "ray job submit --working-dir . -- python jobs/train.py seed=1"


def test_an_own_command_names_all_targets_that_were_typed(tmp_path):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho $1: ${BY_MAKE}\n")
    python.chmod(0o755)
    outside = {
        name: value
        for name, value in os.environ.items()
        if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", BY_MAKE)
    }
    typed = ["make", "-s", "generate", "train", f"BIN={tmp_path}", "STAMP="]
    told = subprocess.run(
        typed, cwd=ROOT, env=outside, capture_output=True, text=True, check=True
    ).stdout
    assert told == "jobs/generate.py: generate train\njobs/train.py: generate train\n"
    generate = call("seed=1", environment={BY_MAKE: "generate train"})
    assert generate.command() == 'make generate train CONF="a.yaml b.yaml" ARGS=seed=1'
    assert generate.command("train") == 'make train CONF="a.yaml b.yaml" ARGS=seed=1'


def test_make_hands_a_signal_on_to_its_job_also_where_a_shell_reads_the_words(tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho $$\nexec sleep 60\n")
    python.chmod(0o755)
    outside = {
        name: value
        for name, value in os.environ.items()
        if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    }
    typed = [
        "make",
        "-s",
        "generate",
        f"BIN={tmp_path}",
        "STAMP=",
        "ARGS=plan.lams=[0,0.5] 'run.root=/my runs'",
    ]
    with subprocess.Popen(
        typed, cwd=ROOT, env=outside, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as make:
        assert make.stdout is not None
        job = int(make.stdout.readline())
        make.terminate()
        make.wait(timeout=10)
    with pytest.raises(ProcessLookupError):
        os.kill(job, 0)


def test_options_of_a_job_are_repeated_for_it_and_left_out_for_others():
    compare = call("--seeds", "5", "--tag=x", "seed=1", script="jobs/compare.py", files=())
    assert compare.command() == "python jobs/compare.py --seeds 5 --tag=x seed=1"
    assert compare.command("generate") == "python jobs/generate.py seed=1"


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("/nowhere/bin/discl-ray", "/nowhere/bin/discl-ray"),
        ("/lib/discl_ray/__main__.py", "python -m discl_ray"),
    ],
)
def test_who_calls_the_console_command_is_told_it(typed, shown):
    words = [typed, "generate", "--config", "digits_lt", "seed=1"]
    console = Call.of(words, {}, "python")
    assert console.job == "generate"
    assert console.command() == f"{shown} generate --config digits_lt seed=1"
    assert console.command("train") == f"{shown} train --config digits_lt seed=1"
    submitted = Call.of(words, {"RAY_JOB_CONFIG_JSON_ENV_VAR": "{}"}, "python")
    assert submitted.command("train").startswith(f"ray job submit --working-dir . -- {shown} train")


def test_the_console_command_is_named_as_the_shell_finds_it(tmp_path, monkeypatch):
    command = tmp_path / "discl-ray"
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Call.of([str(command), "tune"], {}).command("train") == "discl-ray train"


def test_the_console_command_without_a_job_is_no_job():
    assert Call.of(["/bin/discl-ray", "--help"], {}).script == ""


def test_what_is_no_job_is_told_make(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/pytest", "tests"])
    assert next_command("train") == "make train"
    assert advice("train") == "run `make train` with the same CONF and ARGS"
    monkeypatch.setattr(sys, "argv", ["jobs/preview.py", "seed=1"])
    assert advice("train").endswith("jobs/train.py seed=1`")


def test_what_a_worker_says_gets_its_whole_commands_where_it_is_printed(monkeypatch):
    said = f"x: is gone; {AGAIN}, or {advice('generate')}, which makes it"
    assert whole(said) == said
    monkeypatch.setattr(sys, "argv", ["jobs/train.py", "seed=1"])
    found = whole(said)
    assert "jobs/train.py seed=1` again, or run `" in found
    assert found.endswith("jobs/generate.py seed=1`, which makes it")
    assert "with the same" not in found
