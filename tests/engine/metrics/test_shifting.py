"""Noise and squares: what they are made of, and that they depend on their numbers alone."""

from __future__ import annotations

import numpy as np
import pytest

from camrt.metrics.changes import Shifted
from camrt.metrics.filling import Pictures
from camrt.metrics.model import Model
from camrt.metrics.shifting import shift_of

X = np.random.default_rng(0).normal(size=(3, 40, 24)).astype(np.float32)


def shift(kind, scale=0.0, seed=0, sample=0, image=5, x=X, **layout):
    """Return one array."""
    return shift_of(Shifted(kind, scale, seed, sample), x.shape, image, x, **layout)


@pytest.mark.parametrize("kind", ["gaussian", "uniform", "square"])
def test_the_same_numbers_give_the_same_bits_and_any_other_number_others(kind):
    first = shift(kind, 0.5)
    assert np.array_equal(first, shift(kind, 0.5))
    for other in ({"seed": 1}, {"sample": 1}, {"image": 6}):
        assert not np.array_equal(first, shift(kind, 0.5, **other))


def test_gaussian_noise_has_its_deviation_and_uniform_noise_fills_its_range():
    normal, even = shift("gaussian", 0.2), shift("uniform", 0.02)
    n = X.size
    assert abs(normal.std() - 0.2) < 4 * 0.2 / np.sqrt(2 * n) and abs(normal.mean()) < 4 * 0.2 / np.sqrt(n)
    assert np.abs(even).max() <= 0.02 and np.abs(even).max() > 0.0199
    assert abs(even.std() - 0.02 / np.sqrt(3)) < 0.0005  # of an even distribution
    assert normal.dtype == even.dtype == np.float32


def test_squares_show_the_picture_inside_them_and_have_every_side_that_is_allowed():
    sides = set()
    for sample in range(400):
        square = shift("square", sample=sample)
        rows, columns = (np.flatnonzero(square.any((0, axis))) for axis in (2, 1))
        window = np.s_[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert np.array_equal(square[window], X[window])
        assert np.count_nonzero(square) == square[window].size == 3 * len(rows) * len(columns)
        assert len(rows) == len(columns)
        sides.add(len(rows))
    assert sides == set(range(40 // 8, 40 // 2 + 1))


def test_squares_reach_every_edge():
    squares = [shift("square", sample=sample) != 0 for sample in range(400)]
    covered = np.any(squares, axis=0)[0]
    assert covered[0].any() and covered[-1].any() and covered[:, 0].any() and covered[:, -1].any()


def test_a_picture_with_channels_last_gets_the_same_square():
    last = np.ascontiguousarray(np.moveaxis(X, 0, 2))
    assert np.array_equal(shift("square", x=last, channels_last=True), np.moveaxis(shift("square"), 0, 2))


def test_a_picture_smaller_than_a_square_is_covered_in_one_direction():
    wide = np.ones((1, 32, 2), np.float32)
    assert 4 * 2 <= shift("square", x=wide).sum() <= 16 * 2


@pytest.mark.parametrize("sign", [1, -1])
def test_pictures_are_filled_with_this_array_added_or_subtracted(sign):
    pair = np.stack([X, 2 * X])
    pictures = Pictures(
        pair, [np.zeros((2, 40, 24), np.float32)], np.array([5, 9], np.uint64), Model(lambda x: x[:, 0, 0])
    )
    change = Shifted("square", 0.0, 3, 1, sign)
    want = [pair[i] + sign * shift_of(change, X.shape, image, pair[i]) for i, image in enumerate((5, 9))]
    assert np.array_equal(pictures.of(change), np.stack(want))


def test_the_smallest_pictures_have_squares_of_a_pixel():
    def sizes(side):
        x = np.ones((1, side, side), np.float32)
        return {int(shift("square", sample=sample, x=x).sum()) for sample in range(60)}

    assert sizes(1) == sizes(2) == {1}
    assert sizes(4) == {1, 4}
