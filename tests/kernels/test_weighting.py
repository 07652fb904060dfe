"""Weighted sums against values worked by hand, float64 einsum, and the CUDA kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from camrt.errors import ShapeError
from camrt.kernels import weighted_sum

SHAPES = [(1, 1, 1, 1), (2, 7, 5, 3), (3, 4, 1, 9), (2, 1, 6, 1), (1, 2048, 7, 7), (257, 3, 2, 5)]


def rounding(n_channels: int, dtype: Any) -> float:
    """Return the error of adding n normal products in a row: partial sums grow as the root, each rounds by half eps."""
    return 2 * float(np.finfo(dtype).eps) * (n_channels + 4)


def oracle(acts: np.ndarray, weights: np.ndarray, relu: bool) -> np.ndarray:
    """Return the sum by einsum in float64."""
    letters = "nkhw,nk->nhw" if weights.ndim == 2 else "nkhw,nkhw->nhw"
    maps: np.ndarray = np.einsum(letters, acts.astype("f8"), weights.astype("f8"))
    return np.maximum(maps, 0) if relu else maps


def test_two_channels_worked_by_hand() -> None:
    """3 * [1 2] - 1 * [10 0] = [-7 6]; element-wise [3 0]*[1 2] + [0 5]*[10 0] = [3 0]."""
    acts = np.array([[[[1.0, 2.0]], [[10.0, 0.0]]]])
    assert_array_equal(weighted_sum(acts, np.array([[3.0, -1.0]])), [[[-7.0, 6.0]]])
    assert_array_equal(weighted_sum(acts, np.array([[3.0, -1.0]]), relu=True), [[[0.0, 6.0]]])
    assert_array_equal(weighted_sum(acts, np.array([[[[3.0, 0.0]], [[0.0, 5.0]]]])), [[[3.0, 0.0]]])


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("per_cell", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_sum_equals_einsum_in_float64(
    shape: tuple[int, ...], per_cell: bool, relu: bool, dtype: str, rng: np.random.Generator
) -> None:
    acts, weights = (
        rng.normal(size=shape).astype(dtype),
        rng.normal(size=shape if per_cell else shape[:2]).astype(dtype),
    )
    maps = weighted_sum(acts, weights, relu=relu)
    assert maps.dtype == dtype
    assert_allclose(maps, oracle(acts, weights, relu), rtol=0, atol=rounding(shape[1], dtype))


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("per_cell", [False, True])
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (2, 7, 5, 3), (3, 4, 1, 33), (2, 5, 4, 8), (2, 130, 7, 7), (17, 3, 2, 5)]
)
def test_the_cuda_kernel_equals_numpy(
    shape: tuple[int, ...], per_cell: bool, relu: bool, dtype: str, cupy: Any, rng: np.random.Generator
) -> None:
    acts, weights = (
        rng.normal(size=shape).astype(dtype),
        rng.normal(size=shape if per_cell else shape[:2]).astype(dtype),
    )
    maps = weighted_sum(cupy.asarray(acts), cupy.asarray(weights), relu=relu)
    assert isinstance(maps, cupy.ndarray)
    assert maps.dtype == dtype
    want = weighted_sum(acts, weights, relu=relu)
    assert_allclose(cupy.asnumpy(maps), want, rtol=0, atol=rounding(shape[1], dtype))


def test_the_cuda_kernel_takes_half_precision_any_layout_and_no_images(cupy: Any) -> None:
    acts = np.full((2, 3, 3, 4), 60000, np.float16)
    weights = np.full((2, 3), 2, np.float16)
    turned = cupy.asarray(np.ascontiguousarray(acts.transpose(0, 2, 3, 1))).transpose(0, 3, 1, 2)
    assert_array_equal(
        cupy.asnumpy(weighted_sum(turned, cupy.asarray(weights))), np.full((2, 3, 4), 360000, np.float32)
    )
    assert weighted_sum(cupy.asarray(acts[:0]), cupy.asarray(weights[:0])).shape == (0, 3, 4)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 9),
    k=st.integers(1, 40),
    h=st.integers(1, 9),
    w=st.integers(1, 9),
    per_cell=st.booleans(),
    dtype=st.sampled_from(["f2", "f4", "f8"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_batch_equals_its_images_one_by_one_bit_for_bit(
    n: int, k: int, h: int, w: int, per_cell: bool, dtype: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    acts = rng.normal(size=(n, k, h, w)).astype(dtype)
    weights = rng.normal(size=acts.shape if per_cell else (n, k)).astype(dtype)
    singles = [weighted_sum(acts[i : i + 1], weights[i : i + 1]) for i in range(n)]
    assert_array_equal(weighted_sum(acts, weights), np.concatenate(singles))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), per_cell=st.booleans(), exponent=st.integers(-20, 20))
def test_powers_of_two_pass_through_exactly_and_the_order_of_channels_does_not_matter(
    seed: int, per_cell: bool, exponent: int
) -> None:
    rng = np.random.default_rng(seed)
    acts = rng.normal(size=(2, 12, 4, 5))
    weights = rng.normal(size=acts.shape if per_cell else (2, 12))
    maps = weighted_sum(acts, weights)
    assert_array_equal(weighted_sum(acts, np.ldexp(weights, exponent)), np.ldexp(maps, exponent))
    order = rng.permutation(12)
    assert_allclose(weighted_sum(acts[:, order], weights[:, order]), maps, rtol=0, atol=rounding(12, "f8"))


def test_half_precision_does_not_overflow() -> None:
    acts, weights = np.full((1, 3, 2, 2), 60000, np.float16), np.full((1, 3), 2, np.float16)
    maps = weighted_sum(acts, weights)
    assert maps.dtype == np.float32
    assert_array_equal(maps, np.full((1, 2, 2), 360000))


@pytest.mark.parametrize("per_cell", [False, True])
def test_the_memory_layout_does_not_matter(per_cell: bool, rng: np.random.Generator) -> None:
    acts = rng.normal(size=(3, 8, 4, 5)).astype("f4")
    weights = rng.normal(size=acts.shape if per_cell else (3, 8)).astype("f4")
    channels_last = np.ascontiguousarray(acts.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    backwards = np.ascontiguousarray(weights[:, ::-1])[:, ::-1]
    assert_array_equal(weighted_sum(channels_last, backwards), weighted_sum(acts, weights))


def test_relu_keeps_nan() -> None:
    acts = np.array([[[[np.nan, -1.0, 2.0]]]])
    assert_array_equal(weighted_sum(acts, np.ones((1, 1)), relu=True), [[[np.nan, 0.0, 2.0]]])


@pytest.mark.parametrize("per_cell", [False, True])
def test_infinities_of_both_signs_add_up_to_nan_without_a_warning(per_cell: bool) -> None:
    acts = np.array([np.inf, -np.inf], np.float32).reshape(1, 2, 1, 1)
    assert np.isnan(weighted_sum(acts, np.ones_like(acts) if per_cell else np.ones((1, 2), np.float32))).all()


def test_relu_keeps_nan_on_the_gpu(cupy: Any) -> None:
    acts = cupy.asarray(np.array([[[[np.nan, -1.0, 2.0]]]]))
    maps = weighted_sum(acts, cupy.asarray(np.ones((1, 1))), relu=True)
    assert_array_equal(cupy.asnumpy(maps), [[[np.nan, 0.0, 2.0]]])


@pytest.mark.parametrize(("acts", "weights", "maps"), [("f4", "f8", "f8"), ("f8", "f4", "f8"), ("f2", "f4", "f4")])
def test_the_wider_of_two_types_wins(acts: str, weights: str, maps: str) -> None:
    assert weighted_sum(np.ones((1, 2, 2, 2), acts), np.ones((1, 2), weights)).dtype == maps


def test_no_images_give_no_maps() -> None:
    assert weighted_sum(np.ones((0, 2, 3, 4)), np.ones((0, 2))).shape == (0, 3, 4)
    assert weighted_sum(np.ones((0, 2, 3, 4)), np.ones((0, 2, 3, 4)), relu=True).shape == (0, 3, 4)


@pytest.mark.parametrize(
    ("acts", "weights"),
    [((2, 3, 4, 4), (2, 4)), ((2, 3, 4, 4), (3,)), ((2, 3, 4, 4), (2, 3, 4, 5)), ((2, 3, 4), (2, 3))],
)
def test_weights_that_do_not_fit_are_refused(acts: tuple[int, ...], weights: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError):
        weighted_sum(np.ones(acts), np.ones(weights))


def test_the_message_names_both_shapes_that_would_fit() -> None:
    with pytest.raises(ShapeError, match=r"\(2, 9\) do not fit acts \(2, 3, 4, 4\); give \(2, 3\), or \(2, 3, 4, 4\)"):
        weighted_sum(np.ones((2, 3, 4, 4)), np.ones((2, 9)))
