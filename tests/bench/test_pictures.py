"""The inputs that figures are measured with."""

from __future__ import annotations

import numpy as np
import pytest

from bench.pictures import batch


@pytest.mark.parametrize("shape", [(2, 3, 24, 40), (3, 16, 20, 3), (1, 1, 30, 30)])
def test_a_batch_has_the_shape_asked_for_and_the_spread_of_a_prepared_picture(shape: tuple[int, ...]) -> None:
    x = batch(shape)
    assert x.shape == shape
    assert x.dtype == np.float32
    assert x.flags.c_contiguous
    assert 0.4 < x.std() < 1.6


def test_the_same_seed_draws_the_same_pictures_and_another_seed_others() -> None:
    np.testing.assert_array_equal(batch((1, 3, 16, 16)), batch((1, 3, 16, 16)))
    assert not np.array_equal(batch((1, 3, 16, 16)), batch((1, 3, 16, 16), seed=1))


def test_neighbours_look_alike_as_in_a_picture_and_unlike_white_noise() -> None:
    x = batch((4, 3, 64, 64)).astype(np.float64)
    left, right = x[..., :-1].ravel(), x[..., 1:].ravel()
    assert np.corrcoef(left, right)[0, 1] > 0.5
