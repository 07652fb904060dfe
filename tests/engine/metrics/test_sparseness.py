"""Sparseness: the Gini index and the peak over the mean, by hand and by their definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from camrt.errors import MethodError, NumericError
from camrt.metrics import METRICS
from camrt.metrics.case import Case
from camrt.metrics.sparseness import sparseness, sparseness_values

MAPS = arrays(np.float64, (1, 3, 4), elements=st.floats(0, 1).map(lambda value: round(value, 3)))


def test_by_hand() -> None:
    """Of 0, .5, .5, 1: (-3 * 0 - 1 * .5 + 1 * .5 + 3 * 1) / (4 * 2) = 3/8, and a peak of 1 over a mean of 1/2."""
    maps = np.array([[[0.5, 1.0], [0.0, 0.5]]])
    np.testing.assert_allclose(sparseness(maps), [3 / 8], atol=1e-15)
    np.testing.assert_allclose(sparseness(maps, variant="max-over-mean"), [2], atol=1e-15)


@pytest.mark.parametrize(("variant", "same", "single"), [("gini", 0, 1 - 1 / 12), ("max-over-mean", 1, 12)])
def test_the_ends_of_the_scale(variant: str, same: float, single: float) -> None:
    constant, one_hot, nothing = np.full((3, 4), 0.3), np.eye(3, 4) * [1, 0, 0, 0], np.zeros((3, 4))
    got = sparseness(np.stack([constant, one_hot, nothing]), variant=variant)
    np.testing.assert_allclose(got, [same, single, 0], atol=1e-7)


@settings(deadline=None)
@given(MAPS)
def test_the_index_is_half_the_mean_difference_of_two_pixels_over_the_mean(maps: Any) -> None:
    """Gini's own definition: the mean of |a - b| over all pairs, over twice the mean."""
    values = maps.ravel()
    want = abs(values[:, None] - values).mean() / (2 * values.mean()) if values.any() else 0
    np.testing.assert_allclose(sparseness(maps), [want], atol=1e-12)


@settings(deadline=None)
@given(MAPS, st.randoms(use_true_random=False))
def test_neither_depends_on_scale_or_place(maps: Any, random: Any) -> None:
    mixed = maps.ravel().tolist()
    random.shuffle(mixed)
    other = np.array(mixed).reshape(maps.shape) / 4
    for variant in METRICS["sparseness"].variants:
        np.testing.assert_allclose(sparseness(other, variant=variant), sparseness(maps, variant=variant), atol=1e-12)


def test_the_table_says_the_same(rng: np.random.Generator) -> None:
    maps = rng.uniform(size=(2, 5, 5)).astype(np.float32)
    ids = np.zeros(2, np.uint64)
    case = Case(maps, ids > 0, ids.astype(np.int64), ids, maps[:, None])
    for variant in METRICS["sparseness"].variants:
        found = sparseness_values(case, variant=variant)["sparseness"]
        np.testing.assert_array_equal(found, sparseness(maps, variant=variant))
        assert found.dtype == np.float64


def test_bad_requests_are_refused() -> None:
    with pytest.raises(MethodError, match="no variant 'hoyer'"):
        sparseness(np.ones((1, 2, 2)), variant="hoyer")
    with pytest.raises(NumericError):
        sparseness(np.full((1, 2, 2), -0.1))
