"""The package as it is installed: what a wheel holds, and the console command outside the clone."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from discl_ray.commands import COMMANDS
from tests.test_extending import PACKAGE, own_yaml

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
PARTS = ("discl_ray", "conf", "setup.py", "pyproject.toml", "README.md", "LICENSE")
TINY = (
    "plan.replicas=1",
    "plan.num_steps=4",
    "plan.lams=[0,0.5]",
    "plan.shard_steps=20",
    "hard.probe_sources=1",
    "generator.actors=1",
    "train.width=4",
    "train.epochs=2",
    "curriculum.epochs=1",
    "train.start_steps=0",
    "train.eval_every=2",
    "train.batch=8",
)


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with the package of a wheel in it, made from a copy of the tree.

    Nothing is fetched.
    """
    place = tmp_path_factory.mktemp("installed")
    (place / "tree").mkdir()
    for part in PARTS:
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, place / "tree" / part)
    build = "import setuptools.build_meta as b; print(b.build_wheel('..'))"
    done = subprocess.run(
        [sys.executable, "-c", build], cwd=place / "tree", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = place.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place / "site")
    return place / "site"


def called(site: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The console command in a folder, as the script that pip writes calls it."""
    script = site.parent / "discl-ray"  # Python looks for modules beside it, not in `folder`
    script.write_text("from discl_ray.__main__ import main\nmain()\n")
    environment = {**os.environ, "PYTHONPATH": str(site), "RAY_AUTH_MODE": "disabled"}
    command = [sys.executable, str(script), *words]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=400
    )


def test_a_wheel_holds_presets_weights_types_and_the_command(installed):
    package = installed / "discl_ray"
    assert {p.name for p in package.glob("conf/*.yaml")} == {
        p.name for p in ROOT.glob("conf/*.yaml")
    }
    for file in ("py.typed", "conf/prompts/scenes.yaml", "embedded/weights/judge.safetensors"):
        assert (package / file).is_file()
    sources = {p.relative_to(ROOT / "discl_ray") for p in (ROOT / "discl_ray").rglob("*.py")}
    assert {p.relative_to(package) for p in package.rglob("*.py")} == sources
    assert not (installed / "conf").exists()
    assert not (installed / "tests").exists()
    (entry,) = installed.glob("*.dist-info/entry_points.txt")
    assert "discl-ray = discl_ray.__main__:main" in entry.read_text()


def test_the_command_works_outside_the_clone(installed, tmp_path):
    listed = called(installed, tmp_path, "--help")
    assert all(f"  {name} " in listed.stdout for name in COMMANDS)
    where = "import discl_ray; print(discl_ray.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    found = subprocess.run(
        [sys.executable, "-c", where], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert found.stdout.startswith(str(installed))
    refused = called(installed, tmp_path, "train", "--config", "digits_lt", "seed=3")
    assert refused.returncode == 2, refused.stdout + refused.stderr
    assert "discl-ray generate --config digits_lt seed=3" in refused.stderr


@pytest.mark.timeout(900)
def test_it_generates_and_trains_with_a_module_of_ones_own(installed, tmp_path):
    """Reader, strategy and filter lie in the working directory, to which nothing else leads."""
    shutil.copy(PACKAGE, tmp_path)
    (tmp_path / "own.yaml").write_text(own_yaml())

    def finish(name):
        done = called(installed, tmp_path, name, "--config", "own.yaml", *TINY)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    said = finish("generate")
    assert "a function of your own" in said
    assert "discl-ray train --config own.yaml" in said
    (made,) = tmp_path.glob("runs/own/generate-*")
    assert (made / "MANIFEST.json").is_file()
    recorded = yaml.safe_load((made / "config.yaml").read_text())
    assert recorded["data"]["options"] == {"count": 16}
    said = finish("train")
    assert "difference" in said
    assert "Back-To-Forth" not in said
    assert "back_and_forth" in said
    assert len(list(tmp_path.glob("runs/own/train-*"))) == 2
