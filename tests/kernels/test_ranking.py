"""Ranks against orders worked by hand, Python's own stable sort, SciPy's ordinal ranks, and the CUDA kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from camrt.errors import InputError, NumericError, ShapeError
from camrt.kernels import patch_ranks, pixel_ranks


def sorted_ranks(values: list[float], descending: bool) -> list[int]:
    """Return places by Python's stable sort of (value, raster index)."""
    order = sorted(range(len(values)), key=lambda i: (-values[i] if descending else values[i], i))
    return [order.index(i) for i in range(len(values))]


def direct_patches(one: np.ndarray, patch: int, overlap: int, descending: bool) -> np.ndarray:
    """Rank squares of one map (H, W) square by square, the later ranks first, so that the first ones stay."""
    corners = [(y, x) for y in range(0, one.shape[0], patch) for x in range(0, one.shape[1], patch)]
    squares = [(slice(y, y + patch + overlap), slice(x, x + patch + overlap)) for y, x in corners]
    ranks = sorted_ranks([float(one[square].astype("f8").sum()) for square in squares], descending)
    placed = np.full(one.shape, -1, np.int32)
    for square, rank in sorted(zip(squares, ranks, strict=True), key=lambda pair: -pair[1]):
        placed[square] = rank
    return placed


def special(dtype: str) -> np.ndarray:
    """Return values of both signs, both zeros, subnormal ones, infinities and neighbours, many of them twice."""
    tiny, eps = float(np.finfo(dtype).smallest_subnormal), float(np.finfo(dtype).eps)
    values = [0.0, -0.0, tiny, -tiny, np.inf, -np.inf, 1.0, 1 + eps, -1.0, -1 - eps, 0.5, 6e4, -6e4, tiny]
    return np.array(values * 2, dtype)[None, None]


def test_three_by_three_worked_by_hand() -> None:
    """Ones before the half before the zeros; each in raster order, also when the zeros come first."""
    one = np.array([[[0, 1, 0], [0.5, 1, 0], [0, 0, 1]]])
    assert_array_equal(pixel_ranks(one), [[[4, 0, 5], [3, 1, 6], [7, 8, 2]]])
    assert_array_equal(pixel_ranks(one, descending=False), [[[0, 6, 1], [5, 7, 2], [3, 4, 8]]])
    assert pixel_ranks(one).dtype == np.int32


@pytest.mark.parametrize("descending", [True, False])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_every_kind_of_number_is_ordered_as_python_orders_it(dtype: str, descending: bool, cupy: Any) -> None:
    maps = special(dtype)
    want = sorted_ranks(maps.ravel().tolist(), descending)
    assert_array_equal(pixel_ranks(maps, descending=descending).ravel(), want)
    assert_array_equal(cupy.asnumpy(pixel_ranks(cupy.asarray(maps), descending=descending)).ravel(), want)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_a_large_map_with_ties_equals_scipys_ordinal_ranks(dtype: str, rng: np.random.Generator) -> None:
    scipy_stats = pytest.importorskip("scipy.stats")
    maps = rng.integers(0, 40, (2, 90, 70)).astype(dtype) / 40
    for one, ranks, reverse in zip(maps, pixel_ranks(maps), pixel_ranks(maps, descending=False), strict=True):
        assert_array_equal(ranks.ravel(), scipy_stats.rankdata(-one.ravel(), method="ordinal") - 1)
        assert_array_equal(reverse.ravel(), scipy_stats.rankdata(one.ravel(), method="ordinal") - 1)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 3), st.integers(1, 9), st.integers(1, 9), st.integers(1, 11), st.integers(0, 7), st.booleans(),
    st.sampled_from(["f2", "f4", "f8"]),
)  # fmt: skip
def test_squares_of_any_side_and_overlap_equal_the_loop_and_a_batch_its_maps(
    n: int, h: int, w: int, patch: int, overlap: int, descending: bool, dtype: str
) -> None:
    maps = np.random.default_rng(h * 10 + w).integers(0, 4, (n, h, w)).astype(dtype)  # sums are exact, ties are many
    ranks = patch_ranks(maps, patch, overlap, descending=descending)
    assert ranks.shape == maps.shape
    for one, found in zip(maps, ranks, strict=True):
        assert_array_equal(found, direct_patches(one, patch, overlap, descending))
        assert_array_equal(found, patch_ranks(one[None], patch, overlap, descending=descending)[0])


def test_squares_worked_by_hand() -> None:
    """Sums 6, 4 above 5, 9: the places are 1, 3 above 2, 0. Reaching one pixel over, 12, 4 above 9, 9: 0, 3 above 1, 2."""
    one = np.array([[[3, 0, 1, 0], [3, 0, 3, 0], [2, 0, 0, 0], [0, 3, 4, 5]]], "f4")
    halves = np.array([[1, 1, 3, 3]] * 2 + [[2, 2, 0, 0]] * 2)
    assert_array_equal(patch_ranks(one, 2)[0], halves)
    assert_array_equal(patch_ranks(one, 2, 1)[0], [[0, 0, 0, 3], [0, 0, 0, 3], [0, 0, 0, 2], [1, 1, 1, 2]])


def test_squares_of_one_pixel_are_pixels_and_one_square_is_one_rank(rng: np.random.Generator) -> None:
    maps = rng.random((2, 6, 5)).astype("f4")
    assert_array_equal(patch_ranks(maps, 1), pixel_ranks(maps))
    assert_array_equal(patch_ranks(maps, 6), np.zeros((2, 6, 5)))


@pytest.mark.parametrize("descending", [True, False])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize(("shape", "patch", "overlap"), [((3, 9, 31), 4, 0), ((2, 9, 8), 4, 1), ((1, 7, 9), 2, 5)])
def test_the_cuda_kernels_equal_numpy_bit_for_bit(
    shape: tuple[int, ...], patch: int, overlap: int, dtype: str, descending: bool, cupy: Any, rng: np.random.Generator
) -> None:
    maps = (rng.integers(0, 30, shape) / 7).astype(dtype)
    on_gpu = cupy.asarray(maps)
    ranks = pixel_ranks(on_gpu, descending=descending), patch_ranks(on_gpu, patch, overlap, descending=descending)
    want = pixel_ranks(maps, descending=descending), patch_ranks(maps, patch, overlap, descending=descending)
    for found, wanted in zip(ranks, want, strict=True):
        assert isinstance(found, cupy.ndarray)
        assert_array_equal(cupy.asnumpy(found), wanted, strict=True)


def test_no_maps_and_any_layout(cupy: Any, rng: np.random.Generator) -> None:
    maps = rng.random((2, 5, 6)).astype("f4")
    turned = maps.transpose(0, 2, 1)
    for ranks in (pixel_ranks, lambda given_: patch_ranks(given_, 2, 1)):
        assert_array_equal(ranks(turned), ranks(np.ascontiguousarray(turned)))
        assert_array_equal(cupy.asnumpy(ranks(cupy.asarray(turned))), ranks(turned))
        assert ranks(maps[:0]).shape == ranks(cupy.asarray(maps[:0])).shape == (0, 5, 6)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_nan_has_no_place(dtype: str) -> None:
    maps = np.zeros((2, 3, 3), dtype)
    maps[1, 2, 2] = np.nan
    for ranks in (pixel_ranks, lambda given_: patch_ranks(given_, 2)):
        with pytest.raises(NumericError, match="holds a NaN, which has no place"):
            ranks(maps)
    with pytest.raises(NumericError, match="NaN"):
        patch_ranks(np.array([[[np.inf, -np.inf]]], dtype), 2)


@pytest.mark.parametrize(
    ("patch", "overlap", "words"),
    [(0, 0, "patch must be at least 1"), (2, -1, "overlap at least 0, got 2 and -1"), (2.0, 0, "whole numbers")],
)
def test_squares_that_are_none_are_refused(patch: Any, overlap: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        patch_ranks(np.zeros((1, 2, 2)), patch, overlap)


def test_maps_of_another_rank_or_type_or_without_pixels_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"maps must have the shape \(B, H, W\), got \(2, 2\)"):
        pixel_ranks(np.zeros((2, 2)))
    with pytest.raises(ShapeError, match="maps must be float32 or float64"):
        patch_ranks(np.zeros((1, 2, 2), np.int64), 2)
    with pytest.raises(ShapeError, match="has an empty axis"):
        pixel_ranks(np.zeros((1, 0, 2)))
