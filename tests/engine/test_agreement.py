"""Agreement of heatmaps: figures against SciPy and closed forms, curves against a model whose answer is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from camrt.agreement import agreement, cosine, rank_correlation, top_overlap
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
