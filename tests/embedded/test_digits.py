"""Who wrote which scan, how it is shown, and what its caption says."""

import hashlib

import numpy as np
import pytest

from discl_ray.embedded import digits
from discl_ray.embedded.digits import (
    CAPTIONS,
    DEV_BLOCK,
    LOOKS,
    NAMES,
    PALETTE,
    SIDE,
    TASK_BLOCKS,
    WEB_BLOCKS,
    WEB_PROFILE,
    caption,
    finish,
    ochre_look,
    ramp,
    render,
    scans,
    scans_of,
    sepia_look,
    stroke,
    web_images,
    web_look,
)


def rng(seed=0):
    return np.random.default_rng(seed)


def test_every_scan_has_one_block_of_writers_and_every_block_one_role():
    assert len(scans()) == 1797
    assert [scan.index for scan in scans()] == list(range(1797))
    roles = [*WEB_BLOCKS, DEV_BLOCK, *TASK_BLOCKS]
    assert roles == list(range(14))
    assert len(scans_of(roles)) == 1797
    starts = [next(scan.index for scan in scans() if scan.block == block) for block in roles]
    assert tuple(starts) == digits.BLOCK_STARTS
    assert {scan.label for scan in scans_of((DEV_BLOCK,))} == set(range(10))


def test_scans_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    data = load_digits()
    assert [scan.label for scan in scans()] == data.target.tolist()
    assert np.array_equal(np.stack([scan.pixels for scan in scans()]), data.images / 16)


def test_a_stroke_is_ink_in_the_middle_of_the_canvas():
    scan = np.zeros((8, 8))
    scan[2:6, 2:6] = 1.0
    ink = stroke(scan, rng(), wobble=0.0)
    assert ink.shape == (SIDE, SIDE)
    assert (ink[12:20, 12:20] > 0.9).all()
    assert (ink[:6] < 0.1).all()
    assert np.allclose(ink, ink.T, atol=1e-6)  # nothing is turned or moved
    assert not np.allclose(stroke(scan, rng()), stroke(scan, rng(1)))


def test_a_ramp_goes_from_one_side_to_the_other():
    field = ramp(rng())
    gradient = np.gradient(field)
    assert all(np.allclose(part, part[0, 0]) for part in gradient)
    assert abs(field + field[::-1, ::-1]).max() < 1e-9
    assert np.hypot(*(part[0, 0] for part in gradient)) == pytest.approx(2 / (SIDE - 1))


def test_an_image_is_finished_as_bytes_with_its_noise():
    flat = np.full((SIDE, SIDE, 3), 0.5)
    assert (finish(flat, rng(), noise=0.0) == 128).all()
    noisy = finish(flat, rng(), noise=0.1)
    assert noisy.dtype == np.uint8
    assert noisy.std() / 255 == pytest.approx(0.1, rel=0.1)
    assert (finish(flat + 1, rng(), noise=0.0) == 255).all()


def test_the_webs_words_are_the_colours_of_the_image():
    blank = np.zeros((8, 8))
    for seed in range(20):
        image, words = web_look(blank, rng(seed))
        assert words["ink"] != words["ground"]
        ground = np.median(image.reshape(-1, 3), axis=0) / 255
        assert np.linalg.norm(ground - PALETTE[words["ground"]]) < 0.4


@pytest.mark.parametrize(("look", "least"), [(ochre_look, 0.02), (sepia_look, 0.05)])
def test_narrow_looks_are_brown_on_ochre_and_have_no_words(look, least):
    scan = scans_of((DEV_BLOCK,))[0].pixels
    image, words = look(scan, rng())
    assert words == {}
    red, green, blue = image.reshape(-1, 3).mean(axis=0)
    assert red > green > blue
    ink = stroke(scan, rng()) > 0.5
    assert ink.any()
    grey = image.mean(axis=2)
    assert np.percentile(grey, 90) - np.percentile(grey, 5) > 255 * least


def test_a_render_is_a_function_of_scan_look_and_seed():
    scan = scans()[0]
    for look in LOOKS:
        assert np.array_equal(render(scan, look, 1), render(scan, look, 1))
        assert not np.array_equal(render(scan, look, 1), render(scan, look, 2))
    with pytest.raises(KeyError):
        render(scan, "unheard-of")


def test_web_images_are_of_the_webs_writers_in_the_profiles_shares():
    web = web_images(2000, seed=5)
    assert web.images.shape == (2000, SIDE, SIDE, 3)
    shares = np.bincount(web.labels, minlength=10) / 2000
    assert shares == pytest.approx(np.array(WEB_PROFILE) / sum(WEB_PROFILE), abs=0.03)
    again = web_images(3, seed=5)
    assert not np.array_equal(again.images, web_images(3, seed=6).images)
    assert again.words[0].keys() == {"ink", "ground"}


def test_web_images_that_models_were_trained_on_have_not_changed():
    web = web_images(60, 3)
    assert hashlib.sha256(web.images.tobytes()).hexdigest()[:16] == "6107f4eb4a108425"


def test_a_caption_states_the_digit_and_the_words_it_declares():
    words = {"ink": "red", "ground": "blue"}
    for number, (_, stated) in enumerate(CAPTIONS):
        text = caption(number, 7, words)
        assert NAMES[7] in text
        assert [word in text for word in ("red", "blue")] == ["ink" in stated, "ground" in stated]
