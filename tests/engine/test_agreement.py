"""Agreement of heatmaps: figures against SciPy and closed forms, curves against a model whose answer is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from camrt.agreement import agreement, area, blurred, cosine, curve, rank_correlation, top_overlap
from camrt.errors import MethodError, ShapeError

Array = np.ndarray[Any, Any]


def test_a_map_agrees_entirely_with_itself_and_with_any_multiple(rng: np.random.Generator) -> None:
    heat = rng.random((9, 7))
    found = agreement(heat, heat * 0.25)
    np.testing.assert_allclose([found.cosine, found.rank, found.top10, found.top20], 1, rtol=1e-12)
    assert found.largest == heat.max() * 0.75


def test_the_cosine_is_that_of_the_angle() -> None:
    angle = 0.3
    a, b = np.array([[1.0, 0.0]]), np.array([[np.cos(angle), np.sin(angle)]])
    np.testing.assert_allclose(cosine(a, b), np.cos(angle), rtol=1e-15)
    np.testing.assert_allclose(cosine(a * 1e-300, b * 1e300), np.cos(angle), rtol=1e-12)  # squares would vanish


@pytest.mark.parametrize("ties", [False, True])
def test_rank_correlation_is_scipys(ties: bool, rng: np.random.Generator) -> None:
    stats = pytest.importorskip("scipy.stats")
    a, b = rng.normal(size=(2, 20, 15))
    if ties:
        a, b = np.maximum(a, 0), np.round(b, 1)
    np.testing.assert_allclose(rank_correlation(a, b), stats.spearmanr(a.ravel(), b.ravel()).statistic, rtol=1e-12)


def test_rank_correlation_is_1_for_any_rising_change_and_minus_1_for_a_falling_one(rng: np.random.Generator) -> None:
    a = rng.random((6, 6))
    np.testing.assert_allclose([rank_correlation(a, np.exp(5 * a)), rank_correlation(a, -(a**3))], [1, -1], rtol=1e-12)


def test_top_regions_overlap_as_drawn() -> None:
    """Two bands of 20 of 100 pixels that share 10: 10 / 30; half of each is one and the same tenth."""
    a, b = np.zeros((10, 10)), np.zeros((10, 10))
    a[0:2], b[1:3] = 1, 1
    a[1] = b[1] = 2
    assert top_overlap(a, b, 0.2) == pytest.approx(1 / 3)
    assert top_overlap(a, b, 0.1) == 1
    assert top_overlap(a, b[::-1].copy(), 0.2) == 0


def test_maps_without_contrast_agree_with_each_other_alone() -> None:
    flat, other = np.zeros((4, 5)), np.arange(20.0).reshape(4, 5)
    for a, b, wanted in ((flat, flat, 1.0), (flat, other, 0.0), (other, flat, 0.0)):
        found = agreement(a, b)
        assert (found.cosine, found.rank, found.top10, found.top20) == (wanted,) * 4


def test_maps_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"one shape were wanted; got \(3, 4\) and \(4, 3\)"):
        agreement(np.zeros((3, 4)), np.zeros((4, 3)))
    with pytest.raises(ShapeError, match="finite"):
        cosine(np.array([[np.nan]]), np.array([[1.0]]))
    with pytest.raises(MethodError, match="share"):
        top_overlap(np.eye(2), np.eye(2), 0)


def test_the_area_is_the_trapezoids() -> None:
    y = np.random.default_rng(1).random(30)
    np.testing.assert_allclose(area(y), np.trapezoid(y, dx=1 / 29), rtol=1e-12)
    assert area(np.ones(8)) == 1
    with pytest.raises(ShapeError, match="two points"):
        area([1.0])


@pytest.mark.parametrize("channels_last", [False, True])
def test_curves_change_the_highest_pixels_first(channels_last: bool) -> None:
    """With the probability the mean of the input, deleting the largest of 0..n-1 first leaves a sum in closed form."""
    n, steps = 60, 12
    heat = np.random.default_rng(2).permutation(n).reshape(6, 10).astype(np.float32)
    x = np.stack([heat, heat], axis=-1 if channels_last else 0).astype(np.float32)
    got = curve(
        lambda batch: batch.reshape(len(batch), -1).mean(1),
        x,
        np.zeros_like(x),
        heat,
        steps=steps,
        channels_last=channels_last,
    )
    left = n - np.arange(steps + 1) * (n // steps)  # pixels 0 .. left - 1 remain
    np.testing.assert_allclose(got, left * (left - 1) / 2 / n, rtol=1e-6)


def test_steps_that_do_not_divide_the_pixels_end_at_the_end() -> None:
    x, end = np.ones((1, 5, 5)), np.zeros((1, 5, 5))
    got = curve(lambda batch: batch.mean((1, 2, 3)), x, end, np.arange(25.0).reshape(5, 5), steps=4)  # 7 pixels each
    np.testing.assert_allclose(got, [1, 18 / 25, 11 / 25, 4 / 25, 0])


def test_equal_pixels_change_in_raster_order() -> None:
    seen: list[Array] = []

    def probability(batch: Array) -> Array:
        seen.append(batch)
        return np.zeros(len(batch))

    curve(probability, np.zeros((1, 2, 2)), np.ones((1, 2, 2)), np.zeros((2, 2)), steps=4)
    assert np.concatenate(seen)[:, 0].reshape(5, 4).tolist() == [[1.0] * k + [0.0] * (4 - k) for k in range(5)]


def test_curves_refuse_what_does_not_fit() -> None:
    x = np.zeros((3, 4, 5))
    with pytest.raises(MethodError, match="steps"):
        curve(lambda b: b, x, x, np.zeros((4, 5)), steps=0)
    with pytest.raises(ShapeError, match="heatmap's size"):
        curve(lambda b: b, x, x, np.zeros((5, 4)))


def test_the_blur_is_the_one_of_the_authors_code(rng: np.random.Generator) -> None:
    """A single point filtered in a window of 11, then a convolution with zeros around."""
    ndimage = pytest.importorskip("scipy.ndimage")
    point = np.zeros((11, 11))
    point[5, 5] = 1
    kernel = ndimage.gaussian_filter(point, 5)
    x = rng.normal(size=(3, 20, 17)).astype(np.float32)
    want = np.stack([ndimage.convolve(plane.astype(np.float64), kernel, mode="constant") for plane in x])
    np.testing.assert_allclose(blurred(x), want, atol=1e-6)
    np.testing.assert_allclose(blurred(np.moveaxis(x, 0, -1), channels_last=True), np.moveaxis(want, 0, -1), atol=1e-6)


def test_a_blurred_picture_of_whole_numbers_stays_one() -> None:
    x = np.full((1, 31, 31), 200, np.uint8)
    got = blurred(x)
    assert got.dtype == np.uint8
    assert (got[:, 5:-5, 5:-5] == 200).all()  # the window's mass is 1; zeros come in at the border
    assert (got[:, 0] < 200).all()
