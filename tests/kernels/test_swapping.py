"""Swapped pixels against a row worked by hand, NumPy's ``where``, and the CUDA kernel; every bit counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from camrt.errors import InputError, ShapeError
from camrt.kernels import fill_swapped

TYPES = ["f2", "f4", "f8", "u1"]
SHOWN = ["whole", "image", "colour", "colour of each", "plane", "one"]


def scene(rng: np.random.Generator, dtype: str, shown: str, channels_last: bool) -> dict[str, Any]:
    """Return the arguments of `fill_swapped` but for the buffer: 5 rows of 3 images with 2 orders."""
    n, c, h, w = 3, 2, 4, 5
    sides = {
        "whole": (n, c, h, w), "image": (1, c, h, w), "colour": (1, c, 1, 1), "colour of each": (n, c, 1, 1),
        "plane": (n, 1, h, w), "one": (1, 1, 1, 1),
    }[shown]  # fmt: skip
    images, substrates = ((rng.normal(size=size) * 60 + 100).astype(dtype) for size in ((n, c, h, w), sides))
    if channels_last:
        images, substrates = (np.ascontiguousarray(np.moveaxis(array, 1, -1)) for array in (images, substrates))
    return {
        "images": images,
        "which": np.array([2, 0, 0, 1, 2]),
        "ranks": np.stack([rng.permutation(h * w).reshape(h, w) for _ in range(2)]).astype(np.int32),
        "of": np.array([1, 0, 1, 1, 0]),
        "start": np.array([0, 5, -(2**40), 9, 30]),
        "stop": np.array([7, 12, 2**40, 9, 20]),
        "substrates": substrates,
        "channels_last": channels_last,
    }


def direct(given_: dict[str, Any]) -> np.ndarray:
    """Fill rows by ``np.where``."""
    ranks = given_["ranks"][given_["of"]].astype(np.int64)
    start, stop = (given_[name][:, None, None] for name in ("start", "stop"))
    swapped = (start <= ranks) & (ranks < stop)
    swapped = swapped[..., None] if given_["channels_last"] else swapped[:, None]
    shown = np.broadcast_to(given_["substrates"], given_["images"].shape)
    want: np.ndarray = np.where(swapped, shown[given_["which"]], given_["images"][given_["which"]])
    return want


def on(module: Any, given_: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments with arrays of another module."""
    return {name: module.asarray(value) if isinstance(value, np.ndarray) else value for name, value in given_.items()}


def test_two_by_two_worked_by_hand() -> None:
    """Ranks 0 3 / 1 2: the stretch from 1 to 2 is the lower row; both channels of it turn grey."""
    images = np.arange(1, 9, dtype="f4").reshape(1, 2, 2, 2)
    out, zero = np.full_like(images, np.nan), np.zeros(1, np.int64)
    ranks, grey = np.array([[[0, 3], [1, 2]]], np.int32), np.full((1, 1, 1, 1), 9, "f4")
    fill_swapped(out, images, zero, ranks, zero, np.array([1]), np.array([3]), grey)
    assert_array_equal(out, [[[[1, 2], [9, 9]], [[5, 6], [9, 9]]]])


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("shown", SHOWN)
@pytest.mark.parametrize("dtype", TYPES)
def test_both_sides_equal_where_bit_for_bit(
    dtype: str, shown: str, channels_last: bool, cupy: Any, rng: np.random.Generator
) -> None:
    given_ = scene(rng, dtype, shown, channels_last)
    want = direct(given_)
    assert_array_equal(want[3:], given_["images"][[1, 2]])  # empty stretches
    out = np.zeros((5, *given_["images"].shape[1:]), dtype)
    fill_swapped(out, **given_)
    assert_array_equal(out, want, strict=True)
    on_gpu = cupy.empty(out.shape, out.dtype)
    fill_swapped(on_gpu, **on(cupy, given_))
    assert_array_equal(cupy.asnumpy(on_gpu), want, strict=True)


@pytest.mark.parametrize("dtype", TYPES[:3])
def test_nan_and_infinity_are_copied_where_they_belong_and_spoil_nothing(dtype: str, cupy: Any) -> None:
    images, shown = np.zeros((1, 1, 2, 2), dtype), np.zeros((1, 1, 2, 2), dtype)
    images[0, 0, 0], shown[0, 0, 1] = (np.nan, np.inf), (-np.inf, np.nan)
    ranks, zero, two = np.arange(4, dtype=np.int32).reshape(1, 2, 2), np.zeros(1, np.int64), np.array([2])
    for module in (np, cupy):
        out = module.asarray(np.ones((1, 1, 2, 2), dtype))
        fill_swapped(out, *(module.asarray(a) for a in (images, zero, ranks, zero, two, two + 2, shown)))
        assert_array_equal(np.asarray(out).ravel(), [np.nan, np.inf, -np.inf, np.nan])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 6), st.integers(0, 20), st.sampled_from(TYPES), st.booleans(), st.integers(0, 2**32 - 1))
def test_a_batch_equals_its_rows_and_two_stretches_make_the_whole(
    row: int, middle: int, dtype: str, channels_last: bool, seed: int
) -> None:
    """Replacing ranks 0 to m in the picture, or m to the end in the substrate, is the same picture."""
    rng = np.random.default_rng(seed)
    given_ = scene(rng, dtype, "whole", channels_last)
    rows = rng.integers(0, 3, 7), rng.integers(0, 2, 7)
    bounds = np.zeros(7, np.int64), np.full(7, middle), np.full(7, 20)
    images, shown, ranks = given_["images"], given_["substrates"], given_["ranks"]
    out, back, one = (np.zeros((n, *images.shape[1:]), dtype) for n in (7, 7, 1))
    fill_swapped(out, images, rows[0], ranks, rows[1], bounds[0], bounds[1], shown, channels_last)
    fill_swapped(back, shown, rows[0], ranks, rows[1], bounds[1], bounds[2], images, channels_last)
    assert_array_equal(out, back)
    alone = [array[row : row + 1] for array in (*rows, *bounds)]
    fill_swapped(one, images, alone[0], ranks, alone[1], alone[2], alone[3], shown, channels_last)
    assert_array_equal(one[0], out[row])


def test_no_rows_and_a_part_of_a_larger_buffer(cupy: Any, rng: np.random.Generator) -> None:
    given_ = scene(rng, "f4", "colour", False)
    none = {name: value[:0] if name in ("which", "of", "start", "stop") else value for name, value in given_.items()}
    fill_swapped(np.zeros((0, 2, 4, 5), "f4"), **none)
    fill_swapped(cupy.empty((0, 2, 4, 5), np.float32), **on(cupy, none))
    chunk = np.full((9, 2, 4, 5), 7, "f4")
    fill_swapped(chunk[2:7], **given_)
    assert_array_equal(chunk[2:7], direct(given_))
    assert (chunk[[0, 1, 7, 8]] == 7).all()


@pytest.mark.parametrize(
    ("name", "value", "error", "words"),
    [
        ("ranks", np.zeros((2, 4, 5), np.int64), ShapeError, r"ranks must be int32 \(R, 4, 5\), got int64"),
        ("ranks", np.zeros((2, 5, 4), np.int32), ShapeError, r"ranks must be int32 \(R, 4, 5\), got int32 \(2, 5, 4\)"),
        ("of", np.array([0, 0, 0, 0, 2]), InputError, "of must be between 0 and 1, got 0 to 2"),
        ("which", np.array([0, 0, 0, -1, 2]), InputError, "which must be between 0 and 2, got -1 to 2"),
        ("which", np.zeros(4, np.int64), ShapeError, r"which must be int64 \(5,\)"),
        ("start", np.zeros(5, np.int32), ShapeError, r"start must be int64 \(5,\), one a row, got int32"),
        ("stop", np.zeros((5, 1), np.int64), ShapeError, r"stop must be int64 \(5,\), one a row, got int64 \(5, 1\)"),
        ("substrates", np.zeros((1, 1, 1, 1)), ShapeError, "substrates must be float32 and of the shape"),
        ("substrates", np.zeros((2, 2, 4, 5), "f4"), ShapeError, r"or 1 along an axis, got float32 \(2, 2, 4, 5\)"),
        ("substrates", np.zeros((2, 1, 1), "f4"), ShapeError, "substrates must be"),
        ("images", np.zeros((3, 2, 4, 6), "f4"), ShapeError, "do not fit out"),
    ],
)
def test_what_does_not_fit_is_refused(
    name: str, value: np.ndarray, error: type[Exception], words: str, rng: np.random.Generator
) -> None:
    given_ = scene(rng, "f4", "whole", False) | {name: value}
    with pytest.raises(error, match=words):
        fill_swapped(np.zeros((5, 2, 4, 5), "f4"), **given_)


def test_two_sides_and_a_buffer_with_gaps_are_refused(fake_cupy: Any, rng: np.random.Generator) -> None:
    given_ = scene(rng, "f4", "whole", False)
    with pytest.raises(ShapeError, match="out must be C-contiguous"):
        fill_swapped(np.zeros((10, 2, 4, 5), "f4")[::2], **given_)
    with pytest.raises(ShapeError, match="out and substrates must lie on one side"):
        fill_swapped(np.zeros((5, 2, 4, 5), "f4"), **given_ | {"substrates": fake_cupy.asarray(given_["substrates"])})
