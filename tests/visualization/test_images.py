"""Images of any kind become pixels."""

import re

import numpy as np
import pytest
import torch

from trak.visualization.images import pixels


def test_pixels_are_kept_where_they_are_bytes_or_from_0_to_1_and_stretched_elsewhere():
    values = np.array([[0.0, 0.5], [0.2, 0.4]])
    np.testing.assert_array_equal(pixels(values), np.rint(values * 255))
    np.testing.assert_array_equal(pixels(torch.from_numpy(values)[None]), np.rint(values * 255))
    np.testing.assert_array_equal(pixels(values * 8 - 3), np.rint(values * 2 * 255))
    given = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    np.testing.assert_array_equal(pixels(np.moveaxis(given, -1, 0)), np.moveaxis(given, -1, 0).transpose(1, 2, 0))
    np.testing.assert_array_equal(pixels(np.full((2, 2), 7.0)), np.zeros((2, 2)))


def test_an_image_of_pillow_is_the_same_as_its_array():
    image = pytest.importorskip("PIL.Image")
    array = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)
    np.testing.assert_array_equal(pixels(image.fromarray(array)), array)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ((4, 4, 3), (4, 4, 3)), ((3, 3, 4), (3, 3, 4)), ((3, 3, 1), (3, 3)), ((1, 1, 3), (1, 1, 3)),
        ((1, 4, 4), (4, 4)), ((3, 4, 4), (4, 4, 3)), ((4, 5, 3), (5, 3, 4)), ((3, 3, 9), (3, 9, 3)),
    ],
)  # fmt: skip
def test_a_small_square_is_told_from_its_channels_on_either_side(given, shown):
    assert pixels(np.zeros(given, np.uint8)).shape == shown


@pytest.mark.parametrize("value", [np.zeros((2, 5, 6)), np.zeros(4), np.zeros((0, 3))])
def test_what_is_no_image_is_refused_by_its_shape(value):
    with pytest.raises(ValueError, match=re.escape(f"got {value.shape}")):
        pixels(value)
