"""Areas against trapezoids worked by hand, SciPy's, and the CUDA kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from camrt.errors import InputError, ShapeError
from camrt.kernels import areas


def test_trapezoids_worked_by_hand() -> None:
    """1, 3, 2: (1/2 + 3 + 2/2) / 2 = 2.25; at 0, 1, 4: (2 * 1 + 2.5 * 3) / 4 = 2.375."""
    curves = np.array([[1.0, 3.0, 2.0]])
    assert areas(curves).tolist() == [2.25]
    assert areas(curves, np.array([0, 1, 4])).tolist() == [2.375]
    assert areas(curves, np.array([[10.0, 20.0, 50.0]])).tolist() == [2.375]
    assert areas(np.array([[0.25, 0.75]], "f4")).tolist() == [0.5]


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("kind", ["equal", "shared", "own"])
def test_areas_equal_scipys_and_the_cuda_kernel_numpy(
    kind: str, dtype: str, cupy: Any, rng: np.random.Generator
) -> None:
    integrate = pytest.importorskip("scipy.integrate")
    curves = rng.random((70, 29)).astype(dtype)
    positions = {
        "equal": None, "shared": np.cumsum(rng.integers(1, 9, 29)), "own": np.cumsum(rng.random((70, 29)), axis=1),
    }[kind]  # fmt: skip
    x = np.broadcast_to(np.arange(29) if positions is None else positions, curves.shape)
    want = integrate.trapezoid(curves.astype("f8"), x) / (x[:, -1] - x[:, 0])
    found = areas(curves, positions)
    assert found.dtype == np.float64
    assert_allclose(found, want, rtol=1e-14)
    on_gpu = areas(cupy.asarray(curves), None if positions is None else cupy.asarray(positions))
    assert isinstance(on_gpu, cupy.ndarray)
    assert_array_equal(cupy.asnumpy(on_gpu), found)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 300), st.floats(-1e3, 1e3), st.sampled_from(["f4", "f8"]), st.booleans(), st.integers(0, 2**32 - 1)
)
def test_a_constant_curve_has_its_score_and_any_other_lies_between_its_extremes(
    n_points: int, score: float, dtype: str, spaced: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    positions = None if spaced else np.cumsum(rng.integers(0, 5, n_points)) + np.arange(n_points) // (n_points - 1)
    curves = np.stack([np.full(n_points, score), rng.random(n_points)]).astype(dtype)
    constant, other = areas(curves, positions)
    assert_allclose(constant, float(curves[0, 0]), rtol=1e-15 * n_points)
    assert curves[1].min() <= other + 1e-15 and other - 1e-15 <= curves[1].max()
    assert areas(curves[1:], positions)[0] == other


def test_a_curve_read_backwards_and_any_unit_of_its_positions_give_the_same_area(rng: np.random.Generator) -> None:
    curves, positions = rng.random((4, 12)), np.cumsum(rng.random(12))
    want = areas(curves, positions)
    assert_allclose(areas(curves[:, ::-1], -positions[::-1]), want, rtol=1e-13)
    assert_allclose(areas(curves, 50176 * positions - 3), want, rtol=1e-12)


def test_nan_spoils_its_own_curve_and_there_may_be_none(cupy: Any) -> None:
    curves = np.ones((3, 4), np.float32)
    curves[1, 2] = np.nan
    for found in (areas(curves), cupy.asnumpy(areas(cupy.asarray(curves)))):
        assert_array_equal(found, [1, np.nan, 1])
    assert areas(curves[:0]).shape == areas(cupy.asarray(curves[:0])).shape == (0,)


@pytest.mark.parametrize(
    ("positions", "error", "words"),
    [
        (np.array([0, 2, 1]), InputError, "positions must not decrease"),
        (np.array([1, 1, 1]), InputError, "must span a width"),
        (np.array([0.0, np.nan, 1.0]), InputError, "positions must not decrease"),
        (np.arange(4), ShapeError, r"positions must be numbers \(3,\) or \(2, 3\), got int64 \(4,\)"),
        (np.zeros((1, 3)), ShapeError, "positions must be numbers"),
        (np.array(["a", "b", "c"]), ShapeError, "positions must be numbers"),
    ],
)
def test_positions_that_make_no_width_are_refused(positions: np.ndarray, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        areas(np.zeros((2, 3)), positions)


def test_curves_without_an_area_are_refused(fake_cupy: Any) -> None:
    with pytest.raises(ShapeError, match=r"two scores each at least, got \(3, 1\)"):
        areas(np.zeros((3, 1)))
    with pytest.raises(ShapeError, match=r"curves must have the shape \(B, P\), got \(3,\)"):
        areas(np.zeros(3))
    with pytest.raises(ShapeError, match="must lie on one side"):
        areas(fake_cupy.asarray(np.zeros((1, 2))), np.arange(2))
