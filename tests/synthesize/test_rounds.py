"""Rounds of attempts, and rerunning a finished run."""

import numpy as np
import pytest
import torch

from discl_ray.core.run_directory import MANIFEST
from discl_ray.spectrum.read import open_spectrum
from discl_ray.synthesize.layout import lay_out
from discl_ray.synthesize.rounds import generate
from discl_ray.synthesize.run import prepare
from tests.support.runs import tiny_config
from tests.support.spectra import LAX, dates

pytestmark = pytest.mark.timeout(600)


def test_a_finished_run_makes_nothing_and_rewrites_nothing(spectrum_run, monkeypatch, capsys):
    from discl_ray.synthesize import rounds

    _, run = spectrum_run
    before = dates(run.store)
    monkeypatch.setattr(rounds, "run_graph", lambda *_: pytest.fail("started the generator"))
    generate(run)
    assert dates(run.store) == before
    assert "resuming" not in capsys.readouterr().out


def test_attempts_make_again_what_fell_short_and_the_best_of_them_is_kept(
    spectrum_run, tmp_path, capsys
):
    first = {
        r["gid"]: r
        for r in open_spectrum(spectrum_run[1].store, LAX, columns=["image"]).to_pylist()
    }
    until = float(np.median([r["text_sim"] for r in first.values()]))
    config = tiny_config(
        tmp_path,
        "plan.attempts=2",
        f"plan.until_text_sim={until}",
        "filter.mode=absolute",
        "filter.threshold=-1",
    )
    run = lay_out(prepare(config))
    store = run.store
    signs = generate(run)
    assert not torch.cuda.is_initialized()  # the driver needs none
    assert signs
    assert signs[0].peak_bytes > 0
    rows = open_spectrum(store, config.filter, columns=["image", "attempt", "seed"]).to_pylist()
    short = {gid for gid, r in first.items() if np.float32(r["text_sim"]) <= np.float32(until)}
    again = [r for r in rows if r["attempt"] == 1]
    assert {r["gid"] for r in rows if r["attempt"] == 0} == set(first)
    assert all(first[r["gid"]]["image"] == r["image"] for r in rows if r["attempt"] == 0)
    place = lambda r: (r["sample_id"], r["role"], r["lam_pct"], r["replica"])  # noqa: E731
    assert sorted(map(place, again)) == sorted(place(first[gid]) for gid in short)
    best = {}
    for r in rows:
        best[place(r)] = max(best.get(place(r), -2), r["text_sim"])
    assert all((r["text_sim"] == best[place(r)]) == r["kept"] for r in rows)
    assert any(r["kept"] for r in again)
    assert {r["reason"] for r in rows if not r["kept"]} == {"attempt"}
    assert store.read_json(MANIFEST)["rows"] == len(rows)
    assert f"attempt 2 of 2: {len(short)} images fell short" in capsys.readouterr().out
    before = dates(store)
    assert generate(run) == []
    assert dates(store) == before
