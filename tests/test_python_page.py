"""The script of docs/python.md, run as the page shows it."""

import json
import os
import re
import subprocess
import sys

import pytest
from PIL import Image

import discl_ray
from tests.support.runs import ROOT

PAGE = ROOT / "docs" / "python.md"


def script() -> str:
    """The fenced blocks of the page, in order."""
    return "\n".join(re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S))


def test_every_public_function_is_on_the_page():
    page = PAGE.read_text("utf-8")
    steps = ("load_config", "plan_spectrum", "make_spectrum", "build_engine", "train_classifier")
    assert set(steps) <= set(discl_ray.__all__)
    assert [name for name in steps if name not in page] == []


TRAINED = """
import json
baseline, configured = discl_ray.train_classifier(config)  # which are not trained again
assert baseline.weights.keys() == configured.weights.keys()
assert 0 <= baseline.scores["top1", "overall"][0] <= 100
print(json.dumps([baseline.history, configured.history]))
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_script_of_the_page_runs_and_both_rows_take_as_many_epochs_from_one_start(tmp_path):
    # as the page has it, on a smaller spectrum
    own = '"plan.replicas=1", '
    smaller = f'{own}"plan.num_steps=10", "plan.lams=[0,0.5]", "hard.probe_sources=1", '
    smaller += '"data.head=8", "data.tail=2", "hard.below=4", '
    text = script() + TRAINED
    assert own in text
    (tmp_path / "script.py").write_text(text.replace(own, smaller))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled"}
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for said in ("probe", "CE: ", "CE + Diverse-to-Specific: "):
        assert said in done.stdout
    baseline, configured = json.loads(done.stdout.splitlines()[-1])
    assert [row["epoch"] for row in baseline] == [1, 2, 3, 4]
    assert [row["epoch"] for row in configured] == [1, 2, 3, 4]
    assert all(row["synthetic"] == 0 for row in baseline)
    assert sum(row["synthetic"] for row in configured) > 0
    with Image.open(tmp_path / "mine.png") as made:
        assert made.size == (32, 32)
    assert len(list(tmp_path.glob("runs/from_python/generate-*"))) == 1
