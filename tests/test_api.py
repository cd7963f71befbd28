"""The steps of the path as functions; that they are public and documented is in test_public.py."""

import shutil

import pytest

from discl_ray.api import make_spectrum, plan_spectrum, read_samples, train_classifier
from discl_ray.config import with_values
from discl_ray.errors import SetupError
from discl_ray.synthesize import rounds


def test_samples_are_read_below_the_run_root_and_only_once(small, tmp_path):
    config = small()
    samples = read_samples(config)
    assert samples.store.base.startswith(str(tmp_path))
    assert len(samples.classes) == 10
    assert set(samples.table["split"].to_pylist()) == {"train", "val", "test"}
    assert read_samples(config).store.base == samples.store.base


def test_a_plan_holds_every_image_and_makes_none(small):
    config = small()
    run = plan_spectrum(config)
    assert run.config.plan == config.plan
    assert set(run.hard["split"].to_pylist()) == {"train", "val"}
    assert set(run.plan["lam_pct"].to_pylist()) == {0, 50}
    assert not run.store.exists("MANIFEST.json")


@pytest.mark.timeout(300)
def test_a_finished_spectrum_is_opened_and_not_made_again(spectrum_run, tmp_path, monkeypatch):
    config, made = spectrum_run
    shutil.copytree(made.store.local.parent, tmp_path / "digits_lt")
    monkeypatch.setattr(rounds, "run_graph", lambda *_: pytest.fail("started the generator"))
    spectrum = make_spectrum(with_values(config, {"run.root": str(tmp_path)}))
    assert spectrum.store.base == str(tmp_path / "digits_lt" / made.store.local.name)
    assert {0, 50} <= set(spectrum.grid)
    assert len(spectrum.classes) == 10


@pytest.mark.model
def test_without_a_spectrum_nothing_is_trained(small):
    with pytest.raises(SetupError):
        train_classifier(small())
