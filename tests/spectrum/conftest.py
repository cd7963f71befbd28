import shutil

import pytest

from discl_ray.config import with_values
from discl_ray.core.storage import Store
from discl_ray.spectrum.open import Spectrum


@pytest.fixture
def copy(spectrum_run, tmp_path) -> Store:
    """A copy of the session's spectrum that a test may damage."""
    return Store.at(shutil.copytree(spectrum_run[1].store.base, tmp_path / "generate-copy"))


@pytest.fixture
def run(spectrum_run, tmp_path):
    """(config, store) of a copy of the tiny run."""
    config, prepared = spectrum_run
    source = prepared.store.local
    shutil.copytree(source.parent, tmp_path / "runs" / config.run.name)
    config = with_values(config, {"run.root": str(tmp_path / "runs")})
    return config, Store.at(tmp_path / "runs" / config.run.name / source.name)


@pytest.fixture
def of_another_tool(run, tmp_path):
    """The same images and samples, in a folder with nothing else of ours, and a column less."""
    _, store = run
    theirs = Store.at(tmp_path / "theirs")
    for name in store.list("spectrum", ".parquet"):
        theirs.write_table(name, store.read_table(name).drop_columns(["source_text_rank"]))
    samples = Spectrum.open(store).samples
    for split in ("train", "val", "test"):
        for name in samples.list(split, ".parquet"):
            theirs.write_table(f"samples/{name}", samples.read_table(name))
    return theirs
