"""Figures of gradients against arithmetic by hand."""

from __future__ import annotations

import numpy as np
import pytest

from bench.coverage_figures import canonical, cosines, errors, full_shape


def test_the_error_of_an_image_is_relative_to_its_own_largest_gradient() -> None:
    want = np.array([[[2.0, -4.0]], [[0.5, 0.25]]])
    got = want + np.array([[[0.0, 1.0]], [[0.1, 0.0]]])
    np.testing.assert_allclose(errors(got, want), [0.25, 0.2])


@pytest.mark.parametrize(
    ("got", "want", "told"),
    [
        (np.ones((2, 3)), np.array([[1.0, 0, 0], [0, 0, 0]]), "vanishes"),
        (np.array([[np.nan]]), np.ones((1, 1)), "NaN"),
        (np.ones((1, 1)), np.array([[np.inf]]), "NaN"),
        (np.ones((1, 2)), np.ones((1, 3)), "shape"),
    ],
)
def test_gradients_that_prove_nothing_are_no_success(got: np.ndarray, want: np.ndarray, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        errors(got, want)


def test_a_cosine_knows_directions_alone() -> None:
    want = np.array([[1.0, 0.0], [1.0, 1.0], [3.0, 4.0]])
    got = np.array([[5.0, 0.0], [1.0, 0.0], [-3.0, -4.0]])
    np.testing.assert_allclose(cosines(got, want), [1, np.sqrt(0.5), -1])


def test_every_layout_becomes_channels_over_a_grid() -> None:
    wanted = np.arange(2 * 3 * 2 * 4.0).reshape(2, 3, 2, 4)
    rows = wanted.reshape(2, 3, 8).transpose(0, 2, 1)
    with_prefix = np.concatenate([np.full((2, 1, 3), -1.0), rows], 1)
    for tensor, layout, prefix in (
        (wanted, "nchw", 0),
        (wanted.transpose(0, 2, 3, 1), "nhwc", 0),
        (with_prefix, "tokens", 1),
        (with_prefix.transpose(1, 0, 2), "tokens_first", 1),
    ):
        np.testing.assert_array_equal(canonical(tensor, layout, prefix, (2, 4)), wanted)
        symbolic = ["N" if axis == (layout == "tokens_first") else size for axis, size in enumerate(tensor.shape)]
        assert full_shape(symbolic, layout, 2) == tensor.shape
