"""Noise and squares: what they are made of, and that they depend on their numbers alone."""

from __future__ import annotations

import numpy as np
import pytest

from camrt.metrics.changes import Shifted
from camrt.metrics.filling import Pictures
from camrt.metrics.model import Model
from camrt.metrics.shifting import channel_mean, shift_of

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


@pytest.mark.parametrize("kind", ["gaussian", "uniform"])
@pytest.mark.parametrize("sign", [1, -1])
def test_noise_in_the_picture_s_own_memory_is_the_noise_apart(kind, sign):
    """Float32 pictures on the host are written in place; others, here float64, are not."""
    pair, change = np.stack([X, 2 * X]), Shifted(kind, 0.3, 3, 1, sign)
    ids, heats = np.array([5, 9], np.uint64), [np.zeros((2, 40, 24), np.float32)]
    noise = [shift_of(change, X.shape, image, None) for image in (5, 9)]
    for dtype in (np.float32, np.float64):
        pictures = Pictures(pair.astype(dtype), heats, ids, Model(lambda x: x[:, 0, 0]))
        given = pictures.x.copy()
        assert np.array_equal(
            pictures.of(change), np.stack([pair[i].astype(dtype) + sign * noise[i] for i in range(2)])
        )
        assert np.array_equal(pictures.x, given)
        means = {image: noise[image].mean(0, dtype=np.float64) for image in range(2)} if sign < 0 else {}
        assert [image for _, image in sorted(pictures.shift_means, key=lambda key: key[1])] == list(means)
        for image, mean in means.items():
            np.testing.assert_allclose(pictures.shift_means[change, image], mean, rtol=0, atol=1e-7)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64])
def test_the_mean_of_channels_is_of_at_least_single_precision(dtype, last):
    values = np.random.default_rng(1).integers(0, 256, (3, 4, 5)).astype(dtype)
    mean = channel_mean(np.moveaxis(values, 0, -1) if last else values, channels_last=last)
    assert mean.dtype == (np.float64 if dtype == np.float64 else np.float32)
    np.testing.assert_allclose(mean, values.astype(np.float64).mean(0), rtol=1e-6)
