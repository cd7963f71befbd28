"""A reader, a strategy and a filter from a package outside the tree.

As docs/extending.md shows them.
"""

import inspect
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from discl_ray.spectrum.config import FilterConfig
from discl_ray.spectrum.open import Spectrum

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tests" / "outside" / "own_shapes.py"
PAGE = ROOT / "docs" / "extending.md"
NAMED = ("data.name=own_shapes:read", "data.options={count: 16}", "generator.allow_embedded=true")
OWN = ("curriculum.strategy=own_shapes:back_and_forth", "curriculum.options.period=2")
FILTER = ("filter.mode=own_shapes:near_its_source", "filter.options.least=0.2")
TINY = (
    "plan.replicas=1",
    "plan.num_steps=4",
    "plan.lams=[0,0.5]",
    "plan.shard_steps=20",
    "hard.probe_sources=1",
    "hard.below=5",
    "generator.actors=1",
    "train.width=4",
    "train.epochs=4",
    "curriculum.epochs=2",
    "train.start_steps=4",
    "train.eval_every=2",
    "train.batch=8",
    "prompts.force=true",
)


@pytest.fixture(scope="module")
def own_shapes(tmp_path_factory):
    """The module, imported from a folder that is not in the tree."""
    folder = tmp_path_factory.mktemp("outside")
    shutil.copy(PACKAGE, folder)
    sys.path.insert(0, str(folder))
    import own_shapes

    yield own_shapes
    sys.path.remove(str(folder))
    del sys.modules["own_shapes"]


@pytest.mark.parametrize("name", ["read", "back_and_forth", "near_its_source"])
def test_the_page_shows_the_functions_that_run_here(own_shapes, name):
    assert inspect.getsource(getattr(own_shapes, name)) in PAGE.read_text("utf-8")


def test_every_key_of_the_example_is_on_the_page():
    page = PAGE.read_text("utf-8")
    for word in (NAMED[0], OWN[0], FILTER[0]):
        assert word in page


def test_a_filter_judges_made_and_real_images_and_its_result_is_checked(own_shapes, spectrum_run):
    _, run = spectrum_run
    spectrum = Spectrum.open(run.store)
    config = FilterConfig(mode="own_shapes:near_its_source", options={"least": -1.0})
    assert all(spectrum.table(config, [])["kept"].to_pylist())
    none = config.model_copy(update={"options": {"least": 1.1}})
    assert set(spectrum.table(none, [])["reason"].to_pylist()) == {"filter"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_all_three_from_the_console_in_a_folder_of_ones_own(tmp_path):
    """The module lies in the working directory.

    Neither PYTHONPATH nor an installation leads to it.
    """
    shutil.copy(PACKAGE, tmp_path)
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    environment.pop("PYTHONPATH", None)
    (tmp_path / "own.yaml").write_text("run: {name: own}\n")

    def finish(*words):
        command = [sys.executable, "-m", "discl_ray", *words, "--config", "own.yaml"]
        done = subprocess.run(
            [*command, *NAMED, *OWN, *FILTER, *TINY],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=400,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    said = finish("generate")
    assert "a function of your own" in said
    (made,) = tmp_path.glob("runs/own/generate-*")
    recorded = yaml.safe_load((made / "config.yaml").read_text())
    assert recorded["data"]["options"] == {"count": 16}
    said = finish("train")
    assert "Back-To-Forth" not in said
    assert "back_and_forth" in said
    assert len(list(tmp_path.glob("runs/own/train-*"))) == 3
