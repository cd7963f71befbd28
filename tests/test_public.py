"""The public names: each is there, documented, typed, and imported only when it is used."""

import doctest
import json
import subprocess
import sys
from pathlib import Path

import pytest

import discl_ray
from tests.support.runs import ROOT

HEAVY = ("torch", "ray", "diffusers", "transformers", "open_clip", "matplotlib")
LIGHT = [name for name in discl_ray.__all__ if name not in ("build_engine", "Row")]
"""What is imported without PyTorch and Ray; the engine is PyTorch."""


def loaded(statement: str) -> set[str]:
    """Of HEAVY, what a fresh Python imports by a statement."""
    script = f"import sys; {statement}; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    return set(json.loads(done.stdout.replace("'", '"')))


@pytest.mark.model
@pytest.mark.parametrize("name", discl_ray.__all__)
def test_every_public_name_can_be_imported_and_says_what_it_is(name):
    found = getattr(discl_ray, name)
    assert found is getattr(discl_ray, name)
    assert name in dir(discl_ray)
    assert name == "STRATEGIES" or len(found.__doc__.strip()) > 10


def test_each_name_is_where_type_checkers_are_told_it_is():
    text = Path(discl_ray.__file__).read_text()
    checked = text.partition("if TYPE_CHECKING:")[2].partition("__all__")[0]
    for name in discl_ray.__all__:
        where = discl_ray._FOUND_IN[name]
        lines = [line for line in checked.splitlines() if f"from discl_ray.{where} import" in line]
        assert any(name in line for line in lines), name


def test_a_name_that_is_not_there_is_said_so():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        discl_ray.nothing  # noqa: B018


def test_importing_the_package_imports_nothing_large():
    assert loaded("import discl_ray") == set()


def test_names_that_need_no_model_import_no_pytorch():
    assert loaded(f"import discl_ray; [getattr(discl_ray, n) for n in {LIGHT}]") <= {"matplotlib"}


def test_the_example_of_the_package_holds(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = doctest.testmod(discl_ray, verbose=False)
    assert found.failed == 0
    assert found.attempted >= 6


USE = """
import discl_ray
config = discl_ray.load_config("digits_lt")
spectrum = discl_ray.Spectrum.open("x")
engine = discl_ray.build_engine(config.generator, config.plan.num_steps)
def strategy(at: discl_ray.Situation) -> discl_ray.Choice:
    return discl_ray.STRATEGIES["fixed"](at)
reveal_type(config.plan.replicas)
reveal_type(spectrum.grid)
reveal_type(discl_ray.plan_spectrum(config).class_prompts)
reveal_type(discl_ray.make_spectrum(config).classes)
reveal_type(discl_ray.train_classifier(config)[-1].label)
reveal_type([made.error for made in engine.run([])])
wrong: int = discl_ray.load_config
"""


# an editable installation is found by an import hook, which pyright does not follow
STRICT = {"typeCheckingMode": "strict", "extraPaths": [str(ROOT)]}


@pytest.mark.slow
def test_users_of_pyright_see_the_types(tmp_path):
    (tmp_path / "use.py").write_text(USE)
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(STRICT))
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    said = json.loads(done.stdout)["generalDiagnostics"]
    errors = [entry["message"] for entry in said if entry["severity"] == "error"]
    revealed = [entry["message"] for entry in said if entry["severity"] == "information"]
    assert len(errors) == 1, errors  # the wrong line
    assert len(revealed) == 6
    assert not any("Unknown" in message for message in revealed), revealed
