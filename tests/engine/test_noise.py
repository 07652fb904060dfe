"""Noise that depends on its numbers only."""

from __future__ import annotations

import math

import numpy as np
import pytest

from camrt import noise
from camrt.noise import standard_normal, uniform

SHAPES = [(), (0,), (1,), (7,), (3, 5, 5), (2, noise.BLOCK), (2 * noise.BLOCK + 3,), (200, 1000)]


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


@pytest.mark.parametrize("block", [2, 64, 2**20])
@pytest.mark.parametrize("seed", [0, 1])
def test_normal_noise_is_normal_however_it_is_cut(block, seed, monkeypatch):
    monkeypatch.setattr(noise, "BLOCK", block)
    values = np.sort(standard_normal((4000 if block == 2 else 40_000,), seed).astype(np.float64))
    assert distance(values, [normal_below(z) for z in values]) < 1.95  # one in a thousand is beyond


def test_normal_noise_has_normal_moments_and_pairs_that_have_nothing_in_common():
    values = standard_normal((1000, 1000), 11).ravel().astype(np.float64)
    n, half = len(values), len(values) // 2
    for power, moment, spread in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((values**power).mean() - moment) < 4 * np.sqrt(spread / n)
    assert 4.5 < np.abs(values).max() <= math.sqrt(2 * 24 * math.log(2)) + 1e-6
    first, second = values[:half], values[half:]  # each pair is made of one radius and one turn
    for a, b in ((first, second), (first**2, second**2), (np.abs(first), second), (values[:-1], values[1:])):
        assert abs(np.corrcoef(a, b)[0, 1]) < 4 / np.sqrt(half)


def test_the_least_and_the_largest_bits_give_finite_noise(monkeypatch):
    """The radius is 0 at most bits and 5.77 at none; the turn never reaches a whole one."""
    for bits in (0, 2**24 - 1):
        monkeypatch.setattr(noise, "_bits", lambda draw, count, bits=bits: np.full(count, bits, np.int32))
        values = standard_normal((6,), 0)
        assert np.isfinite(values).all()
        assert abs(np.abs(values).max() - (0 if bits else math.sqrt(48 * math.log(2)))) < 1e-3
        assert (uniform((3,), 0) == (1 - 2**-23 if bits else -1)).all()


def test_uniform_noise_is_even():
    values = np.sort(uniform((300, 1000), 2).ravel().astype(np.float64))
    assert distance(values, list((values + 1) / 2)) < 1.95
    assert -1 <= values[0] < -0.9999 and 0.9999 < values[-1] < 1
