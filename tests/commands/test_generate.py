"""A finished spectrum is looked at again without being made again."""

import io
import shutil

import pytest
from PIL import Image

from discl_ray.commands.generate import SHEET, job
from discl_ray.config import with_values
from discl_ray.core.storage import Store
from discl_ray.synthesize import rounds
from tests.support.spectra import dates


def tables(store):
    """When the tables were written; what a filter says of them is written anew."""
    return {
        path: date
        for path, date in dates(store).items()
        if path.suffix == ".parquet" and path.name != "verdicts.parquet"
    }


@pytest.mark.timeout(300)
def test_a_finished_spectrum_gets_its_sheet_and_makes_nothing(
    spectrum_run, tmp_path, monkeypatch, capsys
):
    config, made = spectrum_run
    shutil.copytree(made.store.local.parent, tmp_path / "digits_lt")
    store = Store.at(tmp_path / "digits_lt" / made.store.local.name)
    before = tables(store)
    monkeypatch.setattr(rounds, "run_graph", lambda *_: pytest.fail("started the generator"))
    job(with_values(config, {"run.root": str(tmp_path)}))
    said = capsys.readouterr().out
    assert f"plan · {store.base}\n" in said
    assert f"look at {store.path(SHEET)} · next: make train" in said
    assert Image.open(io.BytesIO(store.read(SHEET))).size[0] > 96
    assert len(before) > 1
    assert tables(store) == before
