"""Controls: retrieved web images, and pretraining on them."""

import numpy as np
import torch

from discl_ray.core.lam import REAL
from discl_ray.experiments import controls
from discl_ray.experiments.controls import pretrain, retrieve
from discl_ray.experiments.rows import plan_run, table_of
from discl_ray.plan.prompts import load_prompts
from discl_ray.train.images.table import open_table


def test_retrieved_web_images_stand_in_for_as_many_synthetic_ones(small, monkeypatch) -> None:
    monkeypatch.setattr(controls, "POOL", 400)
    config, spectrum = small
    table = open_table(table_of(config, spectrum))
    found = retrieve(
        plan_run(config, spectrum).job, table, config.scorer, load_prompts(config.prompts)
    )
    synthetic = (table.role == "train") & (table.lam_pct != REAL)
    web = found.sample_id == "web"
    assert (found.lam_pct[web] == 0).all()
    assert ((found.role == "train") & (found.lam_pct != REAL)).sum() == web.sum()
    for label in np.unique(table.label[synthetic]):
        assert (
            0 < (web & (found.label == label)).sum() <= (synthetic & (table.label == label)).sum()
        )
    kept = np.flatnonzero(~web)
    assert (found.images[kept] == table.images[np.flatnonzero(~synthetic)]).all()


def test_pretraining_is_a_function_of_the_seed(small, monkeypatch) -> None:
    monkeypatch.setattr(controls, "POOL", 64)
    config, spectrum = small
    job = plan_run(config, spectrum).job
    first, again = pretrain(job), pretrain(job)
    assert all(torch.equal(first[name], again[name]) for name in first)
