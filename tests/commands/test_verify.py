"""Every byte is read again; what is damaged is named, and generate makes it again."""

import shutil
from pathlib import Path

import pytest

from discl_ray.commands.verify import job
from discl_ray.config import with_values
from discl_ray.core.run_directory import MANIFEST
from discl_ray.core.storage import Store
from discl_ray.errors import IntegrityError, SetupError
from discl_ray.spectrum.fold import fold
from discl_ray.spectrum.records import committed
from tests.support.spectra import dates, flip

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def run(spectrum_run, tmp_path):
    """(config, store) of a copy of the tiny run."""
    config, prepared = spectrum_run
    source = prepared.store.local
    shutil.copytree(source.parent, tmp_path / "runs" / config.run.name)
    config = with_values(config, {"run.root": str(tmp_path / "runs")})
    return config, Store.at(tmp_path / "runs" / config.run.name / source.name)


def test_a_whole_spectrum_is_said_to_be_whole_and_nothing_is_written(run, capsys):
    config, store = run
    before = dates(store)
    job(config)
    out = capsys.readouterr().out.splitlines()
    assert out[0] == f"verify · {store.base}"
    count = len(committed(store))
    assert out[-1].startswith(f"verified · {count} files, ")
    assert out[-1].endswith("every byte is as it was committed")
    assert dates(store) == before


def test_damaged_shards_are_named_and_lose_their_records_so_that_they_are_made_again(run, capsys):
    config, store = run
    fold(store)
    flipped, garbled, *rest = sorted(committed(store))
    flip(store, f"spectrum/{flipped}.parquet", 0.3, keep_date=True)
    store.write(f"commits/{garbled}.json", b"{")
    flip(store, store.list("folded", ".parquet")[0], keep_date=True)
    said = r"2 damaged and the fold damaged, and deleted, to be made again; .*generate"
    with pytest.raises(IntegrityError, match=said):
        job(config)
    out = capsys.readouterr().out
    assert f"{flipped}.parquet: its bytes differ from its commit" in out
    assert f"{garbled}.json: is cut short or garbled" in out
    assert "folded" in out
    assert sorted(committed(store)) == rest
    assert store.list("folded") == []
    assert not store.exists(MANIFEST)  # nobody takes the run for complete
    job(config)  # what is left is whole


@pytest.mark.parametrize("kept", [1, 0])
def test_a_complete_spectrum_without_some_of_its_records_is_not_whole(run, kept, capsys):
    """As an incomplete copy is."""
    config, store = run
    for name in store.list("commits")[kept:]:
        store.delete(name)
    with pytest.raises(IntegrityError, match="shards have no commit record any more"):
        job(config)
    store.delete(MANIFEST)
    job(config)
    assert "it is not complete: run " in capsys.readouterr().out


def test_a_fold_alone_that_is_damaged_is_deleted_and_the_images_stay(run, capsys):
    config, store = run
    fold(store)
    flip(store, store.list("folded", ".parquet")[0], keep_date=True)
    with pytest.raises(IntegrityError, match="the fold damaged, and deleted, to be made again"):
        job(config)
    assert store.list("folded") == []
    assert store.exists(MANIFEST)
    job(config)


def test_a_folder_is_named_by_its_path_and_another_tools_is_left_alone(run, tmp_path, capsys):
    config, store = run
    theirs = tmp_path / "theirs"
    shutil.copytree(store.path("spectrum"), theirs / "spectrum")
    named = with_values(config, {"spectrum.path": str(theirs)})
    job(named)
    assert capsys.readouterr().out.rstrip().endswith("every page could be read")
    files = sorted(Path(theirs).rglob("*.*"))
    flip(Store.at(theirs), f"spectrum/{files[0].name}", 0.3)
    with pytest.raises(IntegrityError, match="1 damaged; let the tool that wrote it"):
        job(named)
    assert sorted(Path(theirs).rglob("*.*")) == files
    with pytest.raises(SetupError):
        job(with_values(config, {"spectrum.path": str(tmp_path / "nowhere")}))
    with pytest.raises(SetupError, match="no complete spectrum"):
        job(with_values(config, {"run.root": str(tmp_path / "elsewhere")}))
