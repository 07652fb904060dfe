"""Min-max scaling: values worked by hand, the rule for constant maps, NaN, and the CUDA kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from camrt.errors import ShapeError
from camrt.kernels import min_max


def special_maps(dtype: str) -> np.ndarray:
    """Return maps of 2 x 3 pixels that try every branch."""
    nan, inf = np.nan, np.inf
    eps = float(np.finfo(dtype).eps)
    rows: list[list[float]] = [
        [-1, 0, 1, 2, 3, 0.5],
        [0, 0, 0, 0, 0, 0],
        [5, 5, 5, 5, 5, 5],
        [-5, -5, -5, -5, -5, -5 * (1 + 2 * eps)],
        [0, 0, 0, 0, 0, 1e-30],
        [1e30, 0, 1, 2, 3, 4],
        [nan, 1, 2, 3, 4, 5],
        [1, 2, 3, 4, 5, nan],
        [1, 2, inf, 3, 4, 5],
        [1, 2, -inf, 3, inf, 5],
        [nan] * 6,
        [inf] * 6,
        [-0.0, 0.0, 0.0, 0.0, -0.0, 0.0],
    ]
    return np.array(rows, dtype).reshape(-1, 2, 3)


def test_a_map_worked_by_hand() -> None:
    """(-1, 0, 3): the span is 4, so (0, 1/4, 1)."""
    scaled, degenerate = min_max(np.array([[[-1.0, 0.0, 3.0]]]))
    assert_array_equal(scaled, [[[0.0, 0.25, 1.0]]])
    assert_array_equal(degenerate, [False])


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_special_maps_follow_the_rules(dtype: str) -> None:
    maps = special_maps(dtype)
    scaled, degenerate = min_max(maps)
    assert scaled.dtype == dtype
    assert degenerate.dtype == bool
    assert_array_equal(degenerate, [False, True, True, True, *[False] * 8, True])
    assert_array_equal(scaled[degenerate], np.zeros((4, 2, 3)))
    assert np.isnan(scaled[6:12]).all()
    assert_array_equal(scaled[[0, 4, 5]].min((1, 2)), [0, 0, 0])
    assert_array_equal(scaled[[0, 4, 5]].max((1, 2)), [1, 1, 1])


@pytest.mark.parametrize(("dtype", "bound"), [("f4", 1e-6), ("f8", 1e-12)])
@pytest.mark.parametrize("size", [1.0, -1.0, 1e20, -1e-20])
def test_the_bound_of_a_constant_map_is_relative_to_its_own_size(dtype: str, bound: float, size: float) -> None:
    for factor, flagged in ((0.5, True), (2.0, False)):
        maps = np.array([[[size, size * (1 - factor * bound)]]], dtype)
        assert min_max(maps)[1].tolist() == [flagged]


def test_a_span_beyond_the_types_range_is_not_finite() -> None:
    scaled, degenerate = min_max(np.array([[[-3e38, 3e38]]], np.float32))
    assert np.isnan(scaled).all()
    assert not degenerate.any()


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 9), (5, 40, 31), (17, 2, 2)])
def test_the_cuda_kernel_equals_numpy_bit_for_bit(
    shape: tuple[int, ...], dtype: str, cupy: Any, rng: np.random.Generator
) -> None:
    maps = rng.normal(size=shape).astype(dtype)
    scaled, degenerate = min_max(cupy.asarray(maps))
    assert isinstance(scaled, cupy.ndarray)
    assert isinstance(degenerate, cupy.ndarray)
    want = min_max(maps)
    assert_array_equal(cupy.asnumpy(scaled), want[0], strict=True)
    assert_array_equal(cupy.asnumpy(degenerate), want[1], strict=True)


@pytest.mark.parametrize("pixel", [0, 1, 511, 512, 700, 1199])
def test_a_nan_anywhere_spoils_a_large_map(pixel: int, cupy: Any, rng: np.random.Generator) -> None:
    maps = rng.normal(size=(2, 30, 40)).astype("f4")
    maps[1].ravel()[pixel] = np.nan
    for scaled, degenerate in (min_max(maps), map(cupy.asnumpy, min_max(cupy.asarray(maps)))):
        assert np.isfinite(scaled[0]).all()
        assert np.isnan(scaled[1]).all()
        assert not degenerate.any()


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_the_cuda_kernel_follows_the_rules_for_special_maps(dtype: str, cupy: Any) -> None:
    maps = special_maps(dtype)
    scaled, degenerate = min_max(cupy.asarray(maps))
    want = min_max(maps)
    assert_array_equal(cupy.asnumpy(scaled), want[0])
    assert_array_equal(cupy.asnumpy(degenerate), want[1])


def test_the_cuda_kernel_takes_half_precision_any_layout_and_no_maps(cupy: Any, rng: np.random.Generator) -> None:
    maps = rng.normal(size=(2, 5, 4)).astype(np.float16)
    scaled, _ = min_max(cupy.asarray(maps).transpose(0, 2, 1))
    assert_array_equal(cupy.asnumpy(scaled), min_max(maps.astype("f4").transpose(0, 2, 1))[0], strict=True)
    scaled, degenerate = min_max(cupy.asarray(maps[:0]))
    assert (scaled.shape, degenerate.shape) == ((0, 5, 4), (0,))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 9),
    st.integers(1, 12),
    st.integers(1, 12),
    st.sampled_from(["f2", "f4", "f8"]),
    st.integers(0, 2**32 - 1),
)
def test_the_extremes_are_exact_and_a_batch_equals_its_maps_one_by_one(
    n: int, h: int, w: int, dtype: str, seed: int
) -> None:
    maps = np.random.default_rng(seed).normal(size=(n, h, w)).astype(dtype)
    scaled, degenerate = min_max(maps)
    assert_array_equal(degenerate, np.full(n, h * w == 1))
    if h * w > 1:
        assert_array_equal(scaled.min((1, 2)), np.zeros(n))
        assert_array_equal(scaled.max((1, 2)), np.ones(n))
    assert_array_equal(scaled, np.concatenate([min_max(one[None])[0] for one in maps]))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(-60, 60))
def test_scaling_forgets_a_power_of_two_keeps_the_order_and_is_idempotent(seed: int, exponent: int) -> None:
    maps = np.random.default_rng(seed).normal(size=(2, 5, 4)).astype("f4")
    scaled, _ = min_max(maps)
    assert_array_equal(min_max(np.ldexp(maps, exponent))[0], scaled)
    assert_array_equal(min_max(scaled)[0], scaled)
    assert (np.diff(scaled.ravel()[np.argsort(maps[0].ravel())]) >= 0).all()


def test_257_maps_and_none_at_all(rng: np.random.Generator) -> None:
    maps = rng.normal(size=(257, 3, 2))
    assert_array_equal(min_max(maps)[0], np.concatenate([min_max(one[None])[0] for one in maps]))
    scaled, degenerate = min_max(maps[:0])
    assert (scaled.shape, degenerate.shape) == ((0, 3, 2), (0,))


def test_half_precision_spans_more_than_its_own_range() -> None:
    scaled, _ = min_max(np.array([[[-60000, 0, 60000]]], np.float16))
    assert_array_equal(scaled, np.array([[[0, 0.5, 1]]], np.float32), strict=True)


def test_the_memory_layout_does_not_matter_and_the_input_is_kept(rng: np.random.Generator) -> None:
    maps = rng.normal(size=(2, 5, 6)).astype("f4")
    before = maps.copy()
    assert_array_equal(min_max(maps.transpose(0, 2, 1))[0], min_max(maps)[0].transpose(0, 2, 1))
    assert_array_equal(maps, before)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_overwritten_maps_hold_the_same_numbers(dtype: str) -> None:
    maps = special_maps(dtype)
    want = min_max(maps)
    scaled, degenerate = min_max(maps, overwrite=True)
    assert np.shares_memory(scaled, maps)
    assert_array_equal(scaled, want[0], strict=True)
    assert_array_equal(degenerate, want[1])


def test_what_cannot_be_overwritten_is_kept(rng: np.random.Generator) -> None:
    half = rng.normal(size=(2, 5, 6)).astype("f2")
    turned = rng.normal(size=(2, 5, 6)).astype("f4").transpose(0, 2, 1)
    for maps in (half, turned):
        before = maps.copy()
        assert_array_equal(min_max(maps, overwrite=True)[0], min_max(before)[0], strict=True)
        assert_array_equal(maps, before)


def test_the_cuda_kernel_reads_a_map_before_it_writes_over_it(cupy: Any, rng: np.random.Generator) -> None:
    maps = rng.normal(size=(3, 40, 31)).astype("f4")
    scaled, _ = min_max(cupy.asarray(maps), overwrite=True)
    assert_array_equal(cupy.asnumpy(scaled), min_max(maps)[0])


def test_maps_of_another_rank_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"maps must have the shape \(N, h, w\), got \(2, 2\)"):
        min_max(np.zeros((2, 2)))
