"""The tiny spectrum under a run root of its own."""

import pytest

from discl_ray.config import with_values
from discl_ray.spectrum.open import Spectrum


@pytest.fixture(scope="module")
def small(spectrum_run, tmp_path_factory):
    """(config, spectrum): a run root of its own, in which the tiny spectrum is a link."""
    config, prepared = spectrum_run
    root = tmp_path_factory.mktemp("compare")
    (root / "digits_lt").mkdir()
    for path in prepared.store.local.parent.iterdir():
        (root / "digits_lt" / path.name).symlink_to(path)
    values = {
        "run.root": str(root),
        "train.width": 4,
        "train.epochs": 3,
        "curriculum.epochs": 2,
        "train.start_steps": 4,
    }
    config = with_values(config, values | {"train.batch": 8, "train.eval_every": 3})
    return config, Spectrum.open(
        type(prepared.store).at(root / "digits_lt" / prepared.store.local.name)
    )
