"""Tiers of tests: each by what it imports, and a pure one that can import neither torch nor Ray."""

import importlib
import subprocess
import sys

import pytest

from tests.support import tiers
from tests.support.runs import ROOT
from tests.support.tiers import TESTS, TIERS, source, tier_of, tier_of_file

BLOCKED = """
import importlib.util
from tests.support import tiers
tiers.block()
assert importlib.util.find_spec("torch") and importlib.util.find_spec("ray")
for name in ("ray.data", "torch"):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        print(error)
"""


@pytest.mark.parametrize(
    ("file", "test", "tier"),
    [
        ("core/test_lam.py", "test_percent_survives_the_way_over_the_float", "pure"),
        ("generate/test_engine.py", "any", "model"),  # its file imports torch
        ("core/test_apart.py", "test_where_the_libraries_are_loaded_the_check_runs_here", "model"),
        ("spectrum/test_open.py", "test_an_open_spectrum_says_what_training_needs", "ray"),
        ("data/test_samples.py", "test_ray_reads_what_one_process_reads", "ray"),
        ("train/test_killed.py", "test_killed_drivers", "ray"),
        (
            "cluster/test_session.py",
            "test_a_session_starts_ray_ends_it_and_uses_one_that_runs",
            "jobs",
        ),
    ],
)
def test_a_tier_follows_from_imports_fixtures_and_helpers(file, test, tier):
    assert tier_of(TESTS / file, test, slow=False) == tier


def test_a_slow_test_that_starts_processes_is_of_jobs():
    file = TESTS / "test_jobs.py"
    test = "test_submitted_jobs_make_the_bytes_of_local_ones_that_were_killed"
    assert tier_of(file, test, slow=True) == "jobs"
    assert tier_of(file, test, slow=False) == "pure"


def test_a_file_that_cannot_be_imported_without_torch_is_not_pure():
    assert tier_of_file(TESTS / "core" / "test_lam.py") == "pure"
    assert tier_of_file(TESTS / "generate" / "test_engine.py") == "model"


def test_what_only_types_need_is_not_imported():
    actor = source(ROOT / "discl_ray" / "evaluate" / "out_of_fold.py")
    assert "ray" not in {name.partition(".")[0] for name in actor.when_imported.values()}


def test_every_test_has_one_tier(request):
    for item in request.session.items:
        marked = [tier for tier in TIERS if item.get_closest_marker(tier)]
        assert len(marked) == 1, f"{item.nodeid}: {marked}"


def test_what_is_blocked_is_there_and_cannot_be_imported():
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert [line.split(";")[0] for line in done.stdout.splitlines()] == [
        "a test of the pure tier imports ray",
        "a test of the pure tier imports torch",
    ]


def test_the_pure_tier_runs_with_torch_and_ray_blocked(pytestconfig):
    if pytestconfig.option.markexpr != "pure":
        pytest.skip("another selection of tests")
    for name in tiers.BLOCKED:
        assert name not in sys.modules
        with pytest.raises(ModuleNotFoundError, match="mark it with its tier"):
            importlib.import_module(name)
