"""Images of earlier runs are taken over."""

import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from discl_ray.core.ids import stable_id
from discl_ray.core.images import encode_image
from discl_ray.core.storage import Store
from discl_ray.data import READERS
from discl_ray.data.digits_lt import digits_lt
from discl_ray.data.listing import inline
from discl_ray.spectrum.files import committed_files
from discl_ray.spectrum.fold import drop_folds, fold
from discl_ray.spectrum.read import open_spectrum
from discl_ray.spectrum.reuse import FILE, PLACED, REUSED, Image, Reuse, committed_images
from discl_ray.synthesize.layout import find_reusable, lay_out
from discl_ray.synthesize.rounds import generate
from discl_ray.synthesize.run import prepare
from tests.support.runs import tiny_config
from tests.support.spectra import LAX

pytestmark = pytest.mark.timeout(600)


def test_what_an_earlier_run_made_is_taken_over_and_only_the_rest_is_made(
    tmp_path, ray_local, capsys, monkeypatch
):
    """One source edited, one gone, one level more.

    Equal gids keep their images, nothing else is made but what is new.
    """
    config = tiny_config(tmp_path)
    first = lay_out(prepare(config))
    generate(first)
    images = {
        r["gid"]: r["image"] for r in open_spectrum(first.store, LAX, columns=["image"]).to_pylist()
    }

    def edited(seed, *_):
        listing = digits_lt(config.data, seed)
        rows = [row for row in listing.table.to_pylist() if row["sample_id"] != gone]
        next(r for r in rows if r["sample_id"] == other)["bytes"] = encode_image(
            np.full((32, 32, 3), 90, np.uint8), "png"
        )
        return inline(rows, listing.root, listing.classes)

    sources = sorted(set(first.plan["sample_id"].to_pylist()))
    gone, other = sources[0], sources[1]
    monkeypatch.setitem(READERS, "digits_lt", lambda _config, seed: edited(seed))
    more = tiny_config(tmp_path, "plan.lams=[0,0.25,0.5]")
    second = lay_out(prepare(more))
    kept = {r["gid"] for r in first.plan.to_pylist() if r["sample_id"] not in (gone, other)}
    assert set(second.plan["gid"].to_pylist()) & set(images) == kept
    assert set(second.store.read_table(FILE)["gid"].to_pylist()) == kept
    assert second.store.base != first.store.base
    signs = generate(second)
    # said once a second: the last may be missing
    assert 0 < sum(s.images for s in signs) <= second.plan.num_rows - len(kept)
    assert (
        f"{len(kept)} of {second.plan.num_rows} images were made by earlier runs"
        in capsys.readouterr().out
    )
    rows = open_spectrum(second.store, LAX, columns=["image", "text_sim", "status"]).to_pylist()
    assert {r["gid"]: r["image"] for r in rows if r["gid"] in kept} == {
        gid: images[gid] for gid in kept
    }
    assert all(r["status"] == "ok" and r["text_sim"] is not None for r in rows)
    shutil.rmtree(first.store.base)
    assert Reuse.open(second.store).take(kept) == {}  # deleted since: made again


def test_a_damaged_run_beside_it_lends_what_is_whole_and_stops_nothing(spectrum_run, tmp_path):
    run = spectrum_run[1]
    lender = Store.at(shutil.copytree(run.store.base, tmp_path / "generate-lender"))
    here = replace(run, store=Store.at(tmp_path / "generate-here"))
    assert find_reusable(here)["gid"].to_pylist() == sorted(run.plan["gid"].to_pylist())
    cut, gone, *whole = committed_files(lender)
    lender.write(cut, lender.read(cut)[:-9])
    lender.delete(gone)
    assert set(find_reusable(here)["file"].to_pylist()) == set(whole)
    lender.write(lender.list("commits")[0], b"{")
    assert find_reusable(here).num_rows == 0


def test_of_several_runs_that_have_an_image_the_last_is_taken(spectrum_run, tmp_path):
    run = spectrum_run[1]
    for name in ("generate-a", "generate-b"):
        shutil.copytree(run.store.base, tmp_path / name)
    here = replace(run, store=Store.at(tmp_path / "generate-here"))
    assert set(find_reusable(here)["directory"].to_pylist()) == {"generate-b"}
    file = committed_files(run.store)[0]
    Store.at(tmp_path / "generate-b").delete(file)
    found = find_reusable(here)
    assert found["gid"].to_pylist() == sorted(run.plan["gid"].to_pylist())
    of_a = found.filter(pa.compute.equal(found["directory"], "generate-a"))
    assert set(of_a["file"].to_pylist()) == {file}


@pytest.fixture
def lender(spectrum_run, tmp_path) -> Store:
    """A copy of a run whose commits are folded."""
    run = Store.at(shutil.copytree(spectrum_run[1].store.base, tmp_path / "generate-lender"))
    fold(run)
    return run


def test_a_folded_run_says_what_it_has_without_a_file_of_it_being_opened(lender):
    expected = committed_images(lender)
    assert expected.schema.equals(PLACED)
    assert expected.num_rows == open_spectrum(lender, LAX, columns=[]).num_rows
    for file in committed_files(lender):
        lender.write(file, bytes(len(lender.read(file))))
    assert committed_images(lender).equals(expected)
    cut, gone, *_ = committed_files(lender)
    lender.write(cut, b"")
    lender.delete(gone)
    left = [row for row in expected.to_pylist() if row["file"] not in (cut, gone)]
    assert committed_images(lender).to_pylist() == left


@pytest.mark.parametrize("folded", ["none", "damaged"])
def test_without_a_fold_only_what_lies_in_damaged_files_is_missing(lender, folded):
    expected = committed_images(lender).sort_by("gid")
    table = next(name for name in lender.list("folded") if name.endswith(".parquet"))
    if folded == "none":
        drop_folds(lender)
    else:
        lender.write(table, bytes(len(lender.read(table))))
    assert committed_images(lender).sort_by("gid").equals(expected)
    garbled, *whole = committed_files(lender)
    lender.write(garbled, bytes(len(lender.read(garbled))))
    found = committed_images(lender)
    assert found["file"].unique().to_pylist() == whole
    assert found.num_rows < expected.num_rows


def test_an_image_is_taken_from_the_file_that_holds_it_if_it_was_made(tmp_path):
    gids = [stable_id(number) for number in range(40)]
    places = {"gid": gids, "directory": ["generate-a"] * 40, "file": ["spectrum/0.parquet"] * 40}
    run, other = Store.at(tmp_path / "generate-b"), Store.at(tmp_path / "generate-a")
    run.write_table(FILE, pa.table(places, schema=REUSED).slice(3).sort_by("gid"))
    made = {
        "gid": gids,
        "image": [{"bytes": bytes([number]), "path": None} for number in range(40)],
        "status": ["ok" if number % 7 else "error" for number in range(40)],
        "micro_batch": [4] * 40,
    }
    other.write_table("spectrum/0.parquet", pa.table(made))
    found = Reuse.open(run).take([*gids, "0", "f" * 32])
    wanted = {gid: Image(bytes([number]), 4) for number, gid in enumerate(gids) if number % 7}
    assert found == {gid: image for gid, image in wanted.items() if gid not in gids[:3]}
    other.delete("spectrum/0.parquet")
    assert Reuse.open(run).take(gids) == {}
    assert Reuse.open(other).take(gids) == {}
