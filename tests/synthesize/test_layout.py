"""What a run writes before its first image."""

from dataclasses import replace

import pytest

from discl_ray.errors import IntegrityError
from discl_ray.synthesize.layout import lay_out
from discl_ray.synthesize.run import prepare

pytestmark = pytest.mark.timeout(600)


def test_a_directory_with_another_plan_is_refused(copy, spectrum_run):
    config, run = spectrum_run
    other = replace(prepare(config), store=copy)
    assert lay_out(other).plan.equals(run.plan)
    with pytest.raises(IntegrityError, match="another plan"):
        lay_out(replace(other, fingerprint="other"))
