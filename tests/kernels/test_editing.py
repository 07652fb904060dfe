"""Edited activations against values worked by hand, a plain loop in float64, and the CUDA kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from camrt.errors import InputError, ShapeError
from camrt.kernels import keep_cells, wipe_channels

SHAPES = [(1, 1, 1, 1), (3, 5, 4, 6), (2, 7, 1, 9), (2, 3, 8, 1), (1, 300, 2, 2)]
GAUSSIAN = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]], np.float32) / 16
LOPSIDED = np.arange(9, dtype=np.float32).reshape(3, 3)  # a kernel that would show a flip
TYPES = ["f2", "f4", "f8"]


def wiped(acts: np.ndarray, which: np.ndarray, channels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the definition of `wipe_channels`, in float64 and by a mask over all channels."""
    chosen = np.arange(acts.shape[1])[None, :, None, None] == channels[:, None, None, None]
    rows: np.ndarray = np.where(chosen, values.astype("f8")[:, None, None, None], acts[which].astype("f8"))
    return rows


def kept(acts: np.ndarray, which: np.ndarray, cells: np.ndarray, kernel: np.ndarray | None) -> np.ndarray:
    """Return the definition of `keep_cells`, in float64 and element by element."""
    h, w = acts.shape[2:]
    rows = np.zeros((len(which), *acts.shape[1:]))
    for row, (image, cell) in enumerate(zip(which, cells, strict=True)):
        y, x = cell // w, cell % w
        for i in (-1, 0, 1):
            for j in (-1, 0, 1):
                inside = 0 <= y + i < h and 0 <= x + j < w
                if inside and kernel is not None:
                    rows[row, :, y + i, x + j] = kernel[i + 1, j + 1].astype("f8") * acts[image, :, y, x].astype("f8")
        if kernel is None:
            rows[row, :, y, x] = acts[image, :, y, x]
    return rows


def test_one_channel_of_two_is_wiped_by_hand() -> None:
    acts, out = np.array([[[[1.0, 2.0]], [[3.0, 4.0]]], [[[5.0, 6.0]], [[7.0, 8.0]]]]), np.empty((3, 2, 1, 2))
    wipe_channels(out, acts, np.array([1, 0, 1]), np.array([0, 1, 1]), np.array([0.0, -1.0, 9.0]))
    assert_array_equal(out[:, :, 0], [[[0, 0], [7, 8]], [[1, 2], [-1, -1]], [[5, 6], [9, 9]]])


def test_a_cell_and_its_copies_by_hand() -> None:
    """The neighbours get the cell's own value, 16, times the kernel; what they had is gone, and a corner is cut."""
    acts = np.full((1, 1, 3, 3), 77.0)
    acts[0, 0, 1, 1] = acts[0, 0, 0, 2] = 16
    out = np.empty((2, 1, 3, 3))
    which, cells = np.array([0, 0]), np.array([4, 2])
    keep_cells(out, acts, which, cells)
    assert_array_equal(out[:, 0], [[[0, 0, 0], [0, 16, 0], [0, 0, 0]], [[0, 0, 16], [0, 0, 0], [0, 0, 0]]])
    keep_cells(out, acts, which, cells, GAUSSIAN)
    assert_array_equal(out[:, 0], [[[1, 2, 1], [2, 4, 2], [1, 2, 1]], [[0, 2, 4], [0, 1, 2], [0, 0, 0]]])


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_edits_equal_their_definition_in_float64_rounded_once(
    shape: tuple[int, int, int, int], dtype: str, rng: np.random.Generator
) -> None:
    n, k, h, w = shape
    acts = rng.normal(size=shape).astype(dtype)
    which, channels, cells = rng.integers(0, n, 20), rng.integers(0, k, 20), rng.integers(0, h * w, 20)
    values = rng.normal(size=20).astype("f4")
    out = np.full((20, k, h, w), np.nan, dtype)
    wipe_channels(out, acts, which, channels, values)
    assert_array_equal(out, wiped(acts, which, channels, values).astype(dtype))
    for kernel in (None, GAUSSIAN, LOPSIDED):  # weights of few bits: their products are exact in float32
        out[:] = np.nan
        keep_cells(out, acts, which, cells, kernel)
        want = kept(acts, which, cells, kernel)
        assert_array_equal(out, want.astype("f8" if dtype == "f8" else "f4").astype(dtype))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_cuda_kernels_equal_numpy_bit_for_bit(
    shape: tuple[int, int, int, int], dtype: str, cupy: Any, rng: np.random.Generator
) -> None:
    n, k, h, w = shape
    acts = rng.normal(size=shape).astype(dtype)
    which, channels, cells = rng.integers(0, n, 9), rng.integers(0, k, 9), rng.integers(0, h * w, 9)
    values, weights = rng.normal(size=9), rng.normal(size=(3, 3))
    want = np.empty((9, k, h, w), dtype)

    wipe_channels(want, acts, which, channels, values)
    got = cupy.empty(want.shape, want.dtype)
    wipe_channels(got, *map(cupy.asarray, (acts, which, channels, values)))
    assert_array_equal(cupy.asnumpy(got), want, strict=True)

    for kernel in (None, weights):
        keep_cells(want, acts, which, cells, kernel)
        got = cupy.empty(want.shape, want.dtype)
        keep_cells(got, *map(cupy.asarray, (acts, which, cells)), None if kernel is None else cupy.asarray(kernel))
        assert_array_equal(cupy.asnumpy(got), want, strict=True)


def test_nan_and_infinity_pass_through_and_do_not_spread(cupy: Any) -> None:
    acts = np.array([np.nan, np.inf, -np.inf, -0.0, 65504.0, 1.0], np.float16).reshape(1, 1, 2, 3)
    which, zeros, cells = np.zeros(6, np.int64), np.zeros(6, np.int64), np.arange(6)
    values = np.array([np.nan, np.inf, 1e9, -1e9, 65519.0, 65520.0], np.float32)
    for kernel in (None, GAUSSIAN * 8):
        out, got = np.empty((6, 1, 2, 3), np.float16), cupy.empty((6, 1, 2, 3), np.float16)
        keep_cells(out, acts, which, cells, kernel)
        keep_cells(got, *map(cupy.asarray, (acts, which, cells)), None if kernel is None else cupy.asarray(kernel))
        with np.errstate(over="ignore"):
            want = kept(acts, which, cells, kernel).astype("f4").astype("f2")
        assert_array_equal(out, want)
        assert_array_equal(cupy.asnumpy(got), out)
    wipe_channels(out, acts, which, zeros, values)
    wipe_channels(got, *map(cupy.asarray, (acts, which, zeros, values)))
    assert_array_equal(out[:, 0, 0, 0], [np.nan, np.inf, np.inf, -np.inf, 65504, np.inf])
    assert_array_equal(cupy.asnumpy(got), out)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 257), st.sampled_from(TYPES), st.integers(0, 2**32 - 1))
def test_a_row_does_not_depend_on_its_neighbours(n_rows: int, dtype: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    acts = rng.normal(size=(2, 3, 4, 5)).astype(dtype)
    which, channels, cells = rng.integers(0, 2, n_rows), rng.integers(0, 3, n_rows), rng.integers(0, 20, n_rows)
    values = rng.normal(size=n_rows)
    out, alone = np.empty((n_rows, 3, 4, 5), dtype), np.empty((1, 3, 4, 5), dtype)
    row = int(rng.integers(0, n_rows))
    one = slice(row, row + 1)
    wipe_channels(out, acts, which, channels, values)
    wipe_channels(alone, acts, which[one], channels[one], values[one])
    assert_array_equal(alone[0], out[row])
    keep_cells(out, acts, which, cells, GAUSSIAN)
    keep_cells(alone, acts, which[one], cells[one], GAUSSIAN)
    assert_array_equal(alone[0], out[row])


def test_no_rows_any_layout_and_the_activations_are_kept(cupy: Any, rng: np.random.Generator) -> None:
    acts = rng.normal(size=(2, 4, 5, 3)).transpose(0, 3, 1, 2)
    copy = acts.copy()
    which, places, values = np.array([1, 0]), np.array([2, 0]), np.zeros(2)
    out, got = np.empty((2, 3, 4, 5)), cupy.empty((2, 3, 4, 5), np.float64)
    wipe_channels(out, acts, which, places, values)
    wipe_channels(got, *map(cupy.asarray, (acts, which, places, values)))
    assert_array_equal(out, wiped(copy, which, places, values))
    assert_array_equal(cupy.asnumpy(got), out)
    assert_array_equal(acts, copy)
    wipe_channels(got[:0], *map(cupy.asarray, (acts, which[:0], places[:0], values[:0])))
    keep_cells(out[:0], acts, which[:0], places[:0])
    assert_array_equal(cupy.asnumpy(got), out)


def good() -> dict[str, Any]:
    """Return arguments that both accept, but for the places."""
    return {"out": np.empty((2, 3, 4, 5), "f4"), "acts": np.ones((1, 3, 4, 5), "f4"), "which": np.zeros(2, np.int64)}


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"out": np.empty((2, 3, 4, 5))}, ShapeError, "out float64 .* does not fit acts float32"),
        ({"out": np.empty((2, 3, 5, 4), "f4")}, ShapeError, "out .* does not fit acts"),
        ({"out": np.empty((2, 3, 4, 10), "f4")[..., ::2]}, ShapeError, "C order"),
        ({"acts": np.ones((3, 4, 5), "f4")}, ShapeError, r"acts must have the shape \(N, K, h, w\)"),
        ({"which": np.zeros(2, np.int32)}, ShapeError, "which must be int64"),
        ({"which": np.array([0, 1])}, InputError, "which must be between 0 and 0, got 0 to 1"),
        ({"channels": np.array([0, 3])}, InputError, "channels must be between 0 and 2, got 0 to 3"),
        ({"values": np.zeros(3)}, ShapeError, r"values must be float \(2,\)"),
        ({"values": np.zeros(2, int)}, ShapeError, r"values must be float \(2,\)"),
        ({"cells": np.array([0, 20])}, InputError, "cells must be between 0 and 19, got 0 to 20"),
        ({"cells": np.zeros(3, np.int64)}, ShapeError, "cells must be int64"),
        ({"kernel": np.ones((5, 5))}, ShapeError, r"kernel must be float \(3, 3\)"),
    ],
)
def test_what_does_not_fit_is_refused(wrong: dict[str, Any], error: type[Exception], message: str) -> None:
    wipe = good() | {"channels": np.array([0, 2]), "values": np.zeros(2)}
    keep = good() | {"cells": np.array([0, 19]), "kernel": GAUSSIAN}
    for edit, given_ in ((wipe_channels, wipe), (keep_cells, keep)):
        if set(wrong) <= set(given_):
            edit(**given_)
            with pytest.raises(error, match=message):
                edit(**given_ | wrong)


@pytest.mark.parametrize("name", ["acts", "which", "channels", "values", "cells", "kernel"])
def test_host_and_device_are_not_mixed(name: str, fake_cupy: Any) -> None:
    wipe = good() | {"channels": np.array([0, 2]), "values": np.zeros(2)}
    keep = good() | {"cells": np.array([0, 19]), "kernel": GAUSSIAN}
    for edit, given_ in ((wipe_channels, wipe), (keep_cells, keep)):
        if name in given_:
            with pytest.raises(ShapeError, match="must lie on one side"):
                edit(**given_ | {name: fake_cupy.asarray(given_[name])})
