"""The switch between array libraries, and small questions asked of activations."""

from __future__ import annotations

import numpy as np

from camrt.methods.arrays import has_negative, namespace, total


def test_numpy_arrays_are_served_by_numpy():
    assert namespace(np.zeros(2)) is np


def test_negative_activations_are_told_image_by_image():
    acts = np.zeros((3, 2, 2, 2))
    acts[1, 1, 0, 1] = -1e-30
    assert has_negative(acts).tolist() == [False, True, False]


def test_total_sums_over_positions_and_keeps_the_axes(rng):
    acts = rng.normal(size=(2, 3, 4, 5))
    np.testing.assert_allclose(total(acts)[:, :, 0, 0], np.einsum("nkhw->nk", acts))
    assert total(acts).shape == (2, 3, 1, 1)
