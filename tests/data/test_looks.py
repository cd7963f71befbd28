"""The looks of the embedded digits.

What was rendered before is rendered still, and each look is as far from the web as it says.
"""

import hashlib

import numpy as np
import pytest

from discl_ray.embedded import digits
from discl_ray.embedded.judge import load_judge, read

DEV = digits.scans_of((digits.DEV_BLOCK,))


@pytest.mark.parametrize(
    ("look", "digest"), [("web", "3a870e30ebcc1cd5"), ("ochre", "fcdc42c5739ad5cc")]
)
def test_looks_that_runs_were_made_with_have_not_changed(look: str, digest: str) -> None:
    seen = hashlib.sha256()
    for scan in digits.scans()[::150]:
        seen.update(digits.render(scan, look).tobytes() + digits.render(scan, look, 3).tobytes())
    assert seen.hexdigest()[:16] == digest


@pytest.mark.parametrize("look", digits.LOOKS)
def test_a_look_is_a_function_of_scan_and_seed(look: str) -> None:
    one, again, other = (digits.render(DEV[0], look, seed) for seed in (1, 1, 2))
    assert one.shape == (digits.SIDE, digits.SIDE, 3)
    assert one.dtype == np.uint8
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_sepia_lies_between_web_and_ochre_for_a_reader_of_the_web() -> None:
    judge, truth = load_judge(), np.array([scan.label for scan in DEV])
    right = {
        look: np.mean(
            [
                read(judge, np.stack([digits.render(s, look, r) for s in DEV])) == truth
                for r in (1, 2, 3)
            ]
        )
        for look in ("web", "sepia", "ochre")
    }
    assert right["web"] - right["sepia"] > 0.02
    assert right["sepia"] - right["ochre"] > 0.4
