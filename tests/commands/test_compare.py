"""The command below a table makes it again; what cannot be compared is refused at once."""

import sys

import pytest

from discl_ray.commands.compare import command_of, job
from discl_ray.config import Config, with_values
from discl_ray.errors import ConfigError


@pytest.fixture
def call(monkeypatch, tmp_path):
    """Makes this process one that was called with some words."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISCL_RAY_BY_MAKE", raising=False)

    def called(*words):
        monkeypatch.setattr(sys, "argv", list(words))

    return called


def test_the_command_names_files_and_values_but_not_where_the_run_lies(call):
    call("jobs/compare.py", "--config", "a.yaml", "run.root=/runs", "seed=1")
    assert command_of(3, "gap") == (
        "python jobs/compare.py --seeds 3 --table gap --config a.yaml seed=1"
    )
    assert command_of(3, None) == ("python jobs/compare.py --seeds 3 --config a.yaml seed=1")


def test_secrets_in_the_command_are_masked(call):
    call("jobs/compare.py", "data.root=s3://user:secret@bucket/data")
    words = command_of(1, None)
    assert "data.root=s3://" in words
    assert "secret" not in words


@pytest.mark.model
@pytest.mark.parametrize(
    ("values", "seeds", "table", "why"),
    [
        ({}, 0, None, "--seeds 0: at least one is needed"),
        ({"spectrum.path": "/x"}, 2, None, "each seed of a comparison has a spectrum of its own"),
        ({}, 2, "wide", "--table wide: there is no such table; there are "),
    ],
)
def test_what_cannot_be_compared_is_refused(values, seeds, table, why):
    with pytest.raises(ConfigError, match=why):
        job(with_values(Config(), values), seeds=seeds, table=table, tag="")
