"""Noise that depends on its numbers only."""

from __future__ import annotations

import math

import numpy as np
import pytest

from camrt import noise
from camrt.noise import standard_normal, uniform

SHAPES = [(), (0,), (1,), (2,), (7,), (3, 5, 5), (2, noise.BLOCK), (2 * noise.BLOCK + 3,), (200, 1000)]


def normal_below(z: float) -> float:
    """Return how often a normal number is below z."""
    return (1 + math.erf(z / math.sqrt(2))) / 2


def distance(values: np.ndarray, below: list[float]) -> float:
    """Return Kolmogorov's distance of some numbers from a distribution, by how often it is below each of them, in 1/sqrt(n)."""
    told, n = np.array(below), len(below)
    steps = np.arange(n + 1) / n
    return float(max((steps[1:] - told).max(), (told - steps[:-1]).max()) * np.sqrt(n))


@pytest.mark.parametrize("made", [standard_normal, uniform])
def test_its_numbers_are_all_that_matters(made):
    drawn = made((200, 300), 3, 2**63 + 5, 7)
    np.testing.assert_array_equal(drawn, made((200, 300), 3, 2**63 + 5, 7))
    for other in ((4, 2**63 + 5, 7), (3, 2**63 + 6, 7), (3, 2**63 + 5, 8)):
        correlation = np.corrcoef(drawn.ravel(), made((200, 300), *other).ravel())[0, 1]
        assert abs(correlation) < 4 / np.sqrt(drawn.size)


@pytest.mark.parametrize("made", [standard_normal, uniform])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_number_of_a_shape_is_drawn_and_no_two_blocks_are_the_same(made, shape):
    drawn = made(shape, 5)
    assert drawn.shape == shape and drawn.dtype == np.float32 and np.isfinite(drawn).all()
    assert len(np.unique(drawn)) >= 0.98 * drawn.size  # of 24 random bits each, some are the same by chance


@pytest.mark.parametrize("made", [standard_normal, uniform])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_is_written_where_it_is_wanted(made, shape):
    room = np.full((2, *shape), 7, np.float32)
    assert np.shares_memory(made(shape, 5, out=room[0, ...]), room) or not room.size
    np.testing.assert_array_equal(room[0], made(shape, 5))
    assert (room[1] == 7).all()


@pytest.mark.parametrize("out", [np.zeros((4, 3), np.float32), np.zeros((3, 4)), np.zeros((4, 3), np.float32).T])
def test_what_it_cannot_be_written_into_is_refused(out):
    for made in (standard_normal, uniform):
        with pytest.raises((TypeError, ValueError)):
            made((3, 4), 5, out=out)
    assert not out.any()


@pytest.mark.parametrize("seed", [0, 1])
def test_normal_noise_is_normal(seed):
    values = np.sort(standard_normal((40_000,), seed).astype(np.float64))
    assert distance(values, [normal_below(z) for z in values]) < 1.95  # one in a thousand is beyond


@pytest.mark.parametrize("block", [1, 3, 64, 2**20])
def test_normal_noise_does_not_depend_on_how_it_is_cut(block, monkeypatch):
    whole = standard_normal((9, 111), 4)
    monkeypatch.setattr(noise, "BLOCK", block)
    np.testing.assert_allclose(standard_normal((9, 111), 4), whole, rtol=1e-5, atol=1e-6)


def test_normal_noise_has_normal_moments_and_pairs_that_have_nothing_in_common():
    values = standard_normal((1000, 1000), 11).ravel().astype(np.float64)
    n, half = len(values), len(values) // 2
    for power, moment, spread in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((values**power).mean() - moment) < 4 * np.sqrt(spread / n)
    assert 4.5 < np.abs(values).max() <= math.sqrt(2 * 24 * math.log(2)) + 1e-6
    first, second = values[:half], values[half:]  # each pair is made of one radius and one turn
    for a, b in ((first, second), (first**2, second**2), (np.abs(first), second), (values[:-1], values[1:])):
        assert abs(np.corrcoef(a, b)[0, 1]) < 4 / np.sqrt(half)


@pytest.mark.parametrize(("drawn", "farthest"), [(0.0, 0.0), (1 - 2**-24, math.sqrt(48 * math.log(2)))])
def test_the_least_and_the_largest_draw_give_finite_noise(drawn, farthest, monkeypatch):
    monkeypatch.setattr(noise, "_drawn", lambda shape, *rest: np.full(shape, drawn, np.float32))
    values = standard_normal((6,), 0)
    assert np.isfinite(values).all()
    assert abs(np.abs(values).max() - farthest) < 1e-5
    assert (uniform((3,), 0) == (1 - 2**-23 if drawn else -1)).all()


def test_uniform_noise_is_even():
    values = np.sort(uniform((300, 1000), 2).ravel().astype(np.float64))
    assert distance(values, list((values + 1) / 2)) < 1.95
    assert -1 <= values[0] < -0.9999 and 0.9999 < values[-1] < 1
