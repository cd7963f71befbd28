import shutil

import pytest

from discl_ray.core.storage import Store


@pytest.fixture
def copy(spectrum_run, tmp_path) -> Store:
    """A copy of the session's spectrum that a test may damage."""
    return Store.at(shutil.copytree(spectrum_run[1].store.base, tmp_path / "copy"))
