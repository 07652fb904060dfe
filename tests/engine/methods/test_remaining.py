"""What is left to run bounds what a map can still become."""

from __future__ import annotations

import numpy as np
import pytest

from camrt.methods.remaining import constant_maps, remaining
from tests.engine.methods.heads import make_acts


def test_the_bound_by_hand():
    acts = np.array([[[[1.0, 2.0]], [[-3.0, 0.5]], [[4.0, 0.0]]]])
    present, missing = np.array([[[10.0, 5.0]]]), np.array([[0.0, 1.0, 0.25]])
    np.testing.assert_allclose(remaining(acts, present, missing), [(3.0 + 0.25 * 4.0) / 10])


def test_no_ending_exceeds_the_bound_and_one_reaches_it(rng):
    acts = make_acts(rng, signed=True)
    weights, left = rng.uniform(size=acts.shape[:2]), rng.uniform(size=acts.shape[:2]) > 0.5
    present = np.einsum("nk,nkhw->nhw", weights * ~left, acts)
    bound = remaining(acts, present, left.astype(float))
    top = np.maximum(present, 0).max((1, 2))
    for _ in range(200):
        ends = np.einsum("nk,nkhw->nhw", np.where(left, rng.integers(0, 2, left.shape), weights), acts)
        change = abs(np.maximum(ends, 0) - np.maximum(present, 0)).max((1, 2))
        assert (change <= bound * top + 1e-12).all()
    positive = abs(acts)  # the worst ending is then all weights at 1
    present = np.einsum("nk,nkhw->nhw", weights * ~left, positive)
    ends = np.einsum("nk,nkhw->nhw", np.where(left, 1, weights), positive)
    worst = (ends - present).max((1, 2)) / present.max((1, 2))
    np.testing.assert_allclose(remaining(positive, present, left.astype(float)), worst)


def test_nothing_left_is_zero_and_nothing_found_is_infinite():
    acts, empty = np.ones((2, 1, 1, 2)), np.zeros((2, 1, 2))
    np.testing.assert_array_equal(remaining(acts, empty, np.array([[0.0], [1.0]])), [0, np.inf])


@pytest.mark.parametrize("value", [0.0, 3.0, -1e-4])
def test_constant_channels_are_those_without_contrast(rng, value):
    acts = make_acts(rng, signed=True)
    acts[1, 2] = value
    want = np.zeros(acts.shape[:2], bool)
    want[1, 2] = True
    np.testing.assert_array_equal(constant_maps(acts), want)
