"""A split without an image says what to do."""

import pytest

from discl_ray.core.splits import MIN_IMAGES, SPLITS, no_image


@pytest.mark.parametrize("split", SPLITS)
def test_the_key_and_the_smallest_class_are_named(split):
    words = no_image(split)
    assert words.startswith(f"no {split} image to ")
    assert f"data.{split}_fraction" in words
    assert f"up to {MIN_IMAGES} images" in words
