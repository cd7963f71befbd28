import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from discl_ray.generate.resize import fit_image

SIDES = st.integers(1, 90)


def picture(height, width):
    y, x = np.mgrid[:height, :width]
    return np.stack(
        [x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1), (x + y) % 256], -1
    ).astype(np.uint8)


@given(
    SIDES,
    SIDES,
    st.sampled_from(["pad", "crop", "stretch"]),
    st.sampled_from([(32, 32), (24, 40), (64, 16)]),
)
def test_every_shape_comes_out_at_the_size_with_its_box_inside(height, width, mode, size):
    fitted, box = fit_image(picture(height, width), size, mode)
    assert fitted.shape == (*size, 3)
    assert fitted.dtype == np.uint8
    assert box.top >= 0
    assert box.left >= 0
    assert box.cut(fitted).shape == (box.height, box.width, 3)
    if mode == "pad":
        assert box.height == size[0] or box.width == size[1]
        assert abs(box.height / box.width - height / width) * min(box.width, box.height) <= max(
            1, height / width
        ) * 1.01 + 1 or 1 in (box.height, box.width)
    else:
        assert box == (0, 0, *size)


@pytest.mark.parametrize("mode", ["pad", "crop", "stretch"])
def test_an_image_of_the_size_is_left_as_it_is(mode):
    image = picture(24, 40)
    fitted, box = fit_image(image, (24, 40), mode)
    assert fitted is image
    assert box == (0, 0, 24, 40)


def test_padding_reflects_the_border_and_is_cut_off_again():
    image = picture(16, 32)
    fitted, box = fit_image(image, (32, 32), "pad")
    assert box == (8, 0, 16, 32)
    np.testing.assert_array_equal(box.cut(fitted), image)
    np.testing.assert_array_equal(fitted[7], image[1])
    np.testing.assert_array_equal(fitted[0], image[8])
    np.testing.assert_array_equal(fitted[24], image[14])


def test_cropping_keeps_the_middle_and_stretching_everything():
    image = picture(32, 96)
    cropped, _ = fit_image(image, (32, 32), "crop")
    np.testing.assert_array_equal(cropped, image[:, 32:64])
    stretched, _ = fit_image(image, (32, 32), "stretch")
    assert stretched[0, 0, 0] < 10
    assert stretched[0, -1, 0] > 245
