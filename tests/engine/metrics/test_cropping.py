"""The largest box of a map, and crops against PyTorch's bicubic interpolation."""

from __future__ import annotations

import numpy as np
import pytest

from camrt.metrics.cropping import above_mean, crop_and_resize, largest_box


def test_the_largest_component_is_taken_by_pixels_and_by_four_neighbours():
    heat = np.array(
        [[0.9, 0.0, 0.6, 0.6], [0.0, 0.6, 0.0, 0.6], [0.0, 0.0, 0.0, 0.0]]
    )  # 0.6 touches 0.9 at a corner only
    assert largest_box(heat) == (2, 0, 4, 2)


def test_the_first_of_equal_components_is_taken():
    assert largest_box(np.array([[0, 1, 0, 1.0]])) == (1, 0, 2, 1)


@pytest.mark.parametrize("value", [0.0, 0.1, 1.0])
def test_a_constant_map_has_no_part_above_its_mean_and_the_whole_picture_as_its_box(value):
    heat = np.full((3, 50, 70), value, np.float32)  # the mean of float32 0.1 may round to either side
    assert not above_mean(heat).any()
    assert largest_box(heat[0]) == (0, 0, 70, 50)


def test_each_map_is_compared_with_its_own_mean_strictly():
    maps = np.array([[[0.0, 0.5, 1.0]], [[0.0, 0.1, 0.5]]])
    assert above_mean(maps).tolist() == [[[False, False, True]], [[False, False, True]]]


@pytest.mark.parametrize("box", [(2, 1, 9, 5), (0, 0, 13, 11), (4, 4, 5, 5), (0, 10, 13, 11)])
def test_crops_are_pytorchs_bicubic(box):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).normal(size=(3, 11, 13))
    x0, y0, x1, y1 = box
    cut = torch.from_numpy(x[None, :, y0:y1, x0:x1])
    want = torch.nn.functional.interpolate(cut, (11, 13), mode="bicubic", align_corners=False)[0].numpy()
    got = crop_and_resize(x, box)
    np.testing.assert_allclose(got, want, atol=1e-12)
    np.testing.assert_allclose(crop_and_resize(np.moveaxis(x, 0, 2), box, True), np.moveaxis(want, 0, 2), atol=1e-12)
    assert crop_and_resize(x.astype(np.float32), box).dtype == np.float32


def test_the_whole_picture_comes_back_as_it_was_and_one_pixel_fills_the_picture():
    x = np.random.default_rng(1).normal(size=(2, 5, 4)).astype(np.float32)
    assert np.array_equal(crop_and_resize(x, (0, 0, 4, 5)), x)
    np.testing.assert_allclose(crop_and_resize(x, (1, 2, 2, 3)), np.broadcast_to(x[:, 2:3, 1:2], x.shape), rtol=1e-6)


def test_doubling_by_hand():
    x = np.array([[[8.0, 16.0, 0.0, 0.0]]])
    # centres at -.25, .25, .75, 1.25 of the two samples: Keys' weights with a = -.75 at distances .25, .75, 1.25, 1.75
    near, far, beyond, last = 0.87890625, 0.26171875, -0.10546875, -0.03515625
    want = [8 * (last + far + near) + 16 * beyond, 8 * (near + beyond) + 16 * (far + last)]
    np.testing.assert_allclose(crop_and_resize(x, (0, 0, 2, 1))[0, 0, :2], want)
