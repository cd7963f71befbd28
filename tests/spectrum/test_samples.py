"""The real images of a spectrum."""

import pytest

from discl_ray.spectrum.samples import read_split, samples_of

pytestmark = pytest.mark.timeout(600)


def test_test_images_are_neither_sources_nor_planned(spectrum_run):
    store, plan = spectrum_run[1].store, spectrum_run[1].plan
    test = set(read_split(samples_of(store), "test", ["sample_id"])["sample_id"].to_pylist())
    assert test
    assert not test & set(store.read_table("sources/000000.parquet")["sample_id"].to_pylist())
    assert not test & set(plan["sample_id"].to_pylist())
