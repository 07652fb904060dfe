"""Similarities of two maps: by hand, by their identities, and against numbers of scikit-image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from camrt.errors import ShapeError
from camrt.metrics.similarity import hog, hog_similarity, spearman, structural

Array = np.ndarray[Any, Any]

GOLDEN = np.load(Path(__file__).parent / "golden" / "scikit_image_similarity.npz")
MAPS = arrays(np.float64, (14, 13), elements=st.floats(0, 1, width=16))
ALL = (spearman, structural, hog_similarity)


def maps(shape: tuple[int, int]) -> Array:
    """Return the maps that the numbers were made of."""
    y, x = np.meshgrid(np.linspace(0, 1, shape[0]), np.linspace(0, 1, shape[1]), indexing="ij")
    smooth = np.exp(-((y - 0.4) ** 2 + (x - 0.6) ** 2) * 9)
    partly = np.maximum(smooth - 0.5 * np.exp(-((y - 0.2) ** 2 + (x - 0.3) ** 2) * 20), 0)
    return np.stack([smooth, partly, np.random.default_rng(5).random(shape)])


@pytest.mark.parametrize("name", [name for name in GOLDEN if name.startswith("ssim")])
def test_structural_similarity_is_that_of_scikit_image(name: str) -> None:
    height, width = map(int, name.split()[1].split("x"))
    found = maps((height, width))
    np.testing.assert_allclose([[structural(a, b) for b in found] for a in found], GOLDEN[name], atol=1e-12)


@pytest.mark.parametrize("name", [name for name in GOLDEN if name.startswith("hog")])
def test_histograms_of_gradients_are_those_of_scikit_image(name: str) -> None:
    height, width = map(int, name.split()[1].split("x"))
    found = [hog(one) for one in maps((height, width))]
    np.testing.assert_allclose(found, GOLDEN[name], atol=1e-6)  # it adds up cells in float32


def test_structural_similarity_by_hand() -> None:
    # two columns of a wide map whose other pixels are 0, far apart: no window sees both, and many see none
    a, b = np.zeros((11, 60)), np.zeros((11, 60))
    a[:, 10], b[:, 40] = 1, 1
    taps = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    taps /= taps.sum()
    c, d, sample = 1e-4, 9e-4, 121 / 120
    one = [c * d / ((m**2 + c) * (sample * (m - m * m) + d)) for m in taps]  # a column of weight m, alone in its window
    want = (2 * sum(one) + (50 - 22)) / 50
    np.testing.assert_allclose(structural(a, b), want, rtol=1e-12)


def test_a_straight_edge_has_one_direction() -> None:
    heat = np.zeros((48, 48))
    heat[:, 24:] = 1  # gradients point right: the first of nine directions
    found = hog(heat)
    assert found.shape == (1, 1, 3, 3, 9)
    assert not found[..., 1:].any()
    # the edge lies in the cells of the middle column: three equal numbers, 1 / sqrt 3 cut off at 0.2 and scaled again
    np.testing.assert_allclose(found[0, 0, :, :, 0], [[0, 3**-0.5, 0]] * 3, atol=1e-8)
    np.testing.assert_allclose(hog(heat.T)[0, 0, :, :, 4], [[0] * 3, [3**-0.5] * 3, [0] * 3], atol=1e-8)  # 90 degrees


def test_small_maps_have_smaller_cells() -> None:
    heat = np.zeros((32, 40))
    heat[:, 15:] = 1
    found = hog(heat)  # cells of 10 pixels: 3 x 4 of them
    assert found.shape == (1, 2, 3, 3, 9)
    np.testing.assert_allclose(found[0, 0, :, :, 0], [[0, 3**-0.5, 0]] * 3, atol=1e-7)


@pytest.mark.parametrize("measure", ALL)
@settings(max_examples=30, deadline=None)
@given(a=MAPS, b=MAPS)
def test_similarities_are_symmetric_and_bounded(measure: Any, a: Array, b: Array) -> None:
    value = measure(a, b)
    assert -1 - 1e-12 <= value <= 1 + 1e-12
    assert measure(b, a) == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("measure", ALL)
@settings(max_examples=30, deadline=None)
@given(heat=MAPS.filter(lambda heat: np.ptp(heat[2:-2, 2:-2]) > 0.01))
def test_a_map_is_like_itself(measure: Any, heat: Array) -> None:
    assert measure(heat, heat) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("measure", ALL)
def test_a_constant_map_is_like_none(measure: Any) -> None:
    heat = maps((40, 40))[0]
    for level in (0.0, 0.5):
        flat = np.full_like(heat, level)
        assert [measure(heat, flat), measure(flat, heat), measure(flat, flat)] == [0, 0, 0]


def test_ranks_know_order_alone() -> None:
    heat = maps((9, 8))[2]
    assert spearman(heat, np.exp(3 * heat)) == pytest.approx(1)
    assert spearman(heat, -heat) == pytest.approx(-1)
    assert spearman(np.array([1.0, 2, 3, 4]), np.array([1.0, 2, 4, 3])) == pytest.approx(1 - 6 * 2 / (4 * 15))


def test_edges_do_not_care_for_brightness() -> None:
    heat = maps((60, 50))[2]
    np.testing.assert_allclose(hog(0.4 * heat + 0.3), hog(heat), atol=1e-7)


@pytest.mark.parametrize("measure", [structural, hog_similarity])
def test_other_shapes_are_refused(measure: Any) -> None:
    with pytest.raises(ShapeError, match="two maps"):
        measure(np.eye(4), np.eye(5))
    with pytest.raises(ShapeError, match="two maps"):
        measure(np.ones(4), np.ones(4))
