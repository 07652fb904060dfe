"""Bilinear interpolation against values worked by hand, PyTorch, and the CUDA kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from camrt.errors import InputError, ShapeError
from camrt.kernels import resize

ALIGNS = ["half_pixel", "corners"]
SIZES = [
    ((7, 7), (224, 224)),
    ((7, 5), (31, 64)),
    ((14, 14), (14, 14)),
    ((9, 12), (4, 5)),
    ((224, 100), (7, 30)),
    ((1, 1), (5, 3)),
    ((6, 4), (1, 1)),
    ((1, 9), (1, 20)),
    ((8, 1), (3, 1)),
    ((5, 5), (7, 2)),
]


@pytest.mark.parametrize("align", ALIGNS)
@pytest.mark.parametrize(("before", "after"), SIZES)
def test_resize_equals_pytorch(
    before: tuple[int, int], after: tuple[int, int], align: Any, rng: np.random.Generator
) -> None:
    torch = pytest.importorskip("torch")
    maps = rng.normal(size=(3, *before))
    for dtype, atol in (("f8", 1e-12), ("f4", 1e-4)):  # PyTorch rounds float32's coordinates, up to 1e-5 of a cell
        tensor = torch.from_numpy(maps.astype(dtype))[:, None]
        want = torch.nn.functional.interpolate(tensor, after, mode="bilinear", align_corners=align == "corners")
        got = resize(maps.astype(dtype), after, align=align)
        assert got.dtype == dtype
        assert_allclose(got, want[:, 0].numpy(), rtol=0, atol=atol)


def test_half_pixel_centres_worked_by_hand() -> None:
    """Two cells to four: sources -1/4, 1/4, 3/4, 5/4, so weights of the right cell 0, 1/4, 3/4, 1 (border repeats)."""
    row = resize(np.array([[[0.0, 4.0]]]), (1, 4))
    assert_array_equal(row, [[[0.0, 1.0, 3.0, 4.0]]])
    both = resize(np.array([[[0.0, 4.0], [8.0, 12.0]]]), (2, 4))
    assert_array_equal(both, [[[0.0, 1.0, 3.0, 4.0], [8.0, 9.0, 11.0, 12.0]]])


def test_half_pixel_shrinking_samples_and_does_not_average_more_than_two_cells() -> None:
    """Six cells to two: sources 1 and 4 exactly."""
    assert_array_equal(resize(np.array([[[9.0, 1.0, 9.0, 9.0, 2.0, 9.0]]]), (1, 2)), [[[1.0, 2.0]]])


def test_corners_worked_by_hand() -> None:
    """Two cells to four: sources 0, 1/3, 2/3, 1; to one: source 0."""
    assert_allclose(resize(np.array([[[0.0, 3.0]]]), (1, 4), align="corners"), [[[0, 1, 2, 3]]], rtol=0, atol=1e-15)
    assert_array_equal(resize(np.array([[[5.0, 3.0]]]), (1, 1), align="corners"), [[[5.0]]])


@pytest.mark.parametrize("align", ALIGNS)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize(("before", "after"), [*SIZES[1:4], *SIZES[5:]])
def test_the_cuda_kernel_equals_numpy_bit_for_bit(
    before: tuple[int, int], after: tuple[int, int], dtype: str, align: Any, cupy: Any, rng: np.random.Generator
) -> None:
    maps = rng.normal(size=(17, *before)).astype(dtype)
    resized = resize(cupy.asarray(maps), after, align=align)
    assert isinstance(resized, cupy.ndarray)
    assert_array_equal(cupy.asnumpy(resized), resize(maps, after, align=align), strict=True)


def test_the_cuda_kernel_takes_half_precision_any_layout_and_no_maps(cupy: Any, rng: np.random.Generator) -> None:
    maps = rng.normal(size=(3, 4, 5)).astype(np.float16)
    resized = resize(cupy.asarray(maps).transpose(0, 2, 1), (9, 8))
    assert_array_equal(cupy.asnumpy(resized), resize(maps.astype("f4").transpose(0, 2, 1), (9, 8)), strict=True)
    assert resize(cupy.asarray(maps[:0]), (9, 8)).shape == (0, 9, 8)


@pytest.mark.parametrize("align", ALIGNS)
@pytest.mark.parametrize("value", [3.3, -1e-30, 1e30])
def test_a_constant_map_stays_constant_to_the_bit(value: float, align: Any) -> None:
    maps = np.full((1, 7, 7), value, np.float32)
    assert_array_equal(resize(maps, (224, 199), align=align), np.full((1, 224, 199), np.float32(value)))


sides = st.integers(1, 24)


@settings(max_examples=80, deadline=None)
@given(sides, sides, sides, sides, st.sampled_from(ALIGNS), st.integers(0, 2**32 - 1))
def test_the_result_is_bounded_turns_with_the_map_and_does_not_depend_on_the_batch(
    h: int, w: int, height: int, width: int, align: Any, seed: int
) -> None:
    maps = np.random.default_rng(seed).normal(size=(3, h, w))
    resized = resize(maps, (height, width), align=align)
    slack = 4e-16 * np.abs(maps).max()  # low + fraction * (high - low) may round past high
    assert resized.min() >= maps.min() - slack
    assert resized.max() <= maps.max() + slack
    assert_array_equal(resized, np.concatenate([resize(one[None], (height, width), align=align) for one in maps]))
    if align == "half_pixel" or (height > 1 and width > 1):  # one corner sample is the first cell, not the middle
        turned = resize(maps[:, ::-1, ::-1], (height, width), align=align)
        assert_allclose(turned, resized[:, ::-1, ::-1], rtol=0, atol=1e-13)


@settings(max_examples=40, deadline=None)
@given(sides, sides, st.sampled_from(ALIGNS))
def test_the_same_size_changes_nothing_and_copies(h: int, w: int, align: Any) -> None:
    maps = np.random.default_rng(0).normal(size=(2, h, w)).astype("f4")
    resized = resize(maps, (h, w), align=align)
    assert_array_equal(resized, maps)
    assert not np.shares_memory(resized, maps)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 12), st.integers(2, 12), st.integers(2, 60), st.integers(2, 60))
def test_corners_reproduces_a_plane(h: int, w: int, height: int, width: int) -> None:
    plane = 3 * np.linspace(0, 1, h)[:, None] - 2 * np.linspace(0, 1, w) + 1
    want = 3 * np.linspace(0, 1, height)[:, None] - 2 * np.linspace(0, 1, width) + 1
    assert_allclose(resize(plane[None], (height, width), align="corners")[0], want, rtol=0, atol=1e-14)


def test_a_large_batch_equals_its_maps_one_by_one(rng: np.random.Generator) -> None:
    maps = rng.normal(size=(257, 3, 4)).astype("f4")
    assert_array_equal(resize(maps, (9, 11)), np.concatenate([resize(one[None], (9, 11)) for one in maps]))


def test_half_precision_is_interpolated_in_float32() -> None:
    maps = np.array([[[-60000, 60000]]], np.float16)
    assert_array_equal(resize(maps, (1, 4)), np.array([[[-60000, -30000, 30000, 60000]]], np.float32), strict=True)


def test_the_memory_layout_does_not_matter(rng: np.random.Generator) -> None:
    maps = rng.normal(size=(2, 5, 6)).astype("f4")
    assert_array_equal(
        resize(maps.transpose(0, 2, 1)[:, ::-1], (11, 7)), resize(maps.transpose(0, 2, 1)[:, ::-1].copy(), (11, 7))
    )


def test_nan_spoils_the_pixels_that_sample_it_and_no_others() -> None:
    maps = np.zeros((1, 5, 5))
    maps[0, 2, 2] = np.nan
    spoiled = np.isnan(resize(maps, (50, 50))[0])
    assert spoiled[15:35, 15:35].all()
    assert spoiled.sum() == 20 * 20


def test_infinity_is_met_without_a_warning() -> None:
    assert not np.isfinite(resize(np.array([[[np.inf, -np.inf]]]), (1, 4))).any()


@pytest.mark.parametrize("size", [7, (7,), (7, 7, 7), (0, 7), (7, -1), (7.0, 7), ("7", "7"), None])
def test_a_size_that_is_not_two_positive_integers_is_refused(size: Any) -> None:
    with pytest.raises(ShapeError, match="size must be"):
        resize(np.zeros((1, 2, 2)), size)


def test_a_size_of_numpy_integers_is_taken() -> None:
    assert resize(np.zeros((1, 2, 2)), tuple(np.array([3, 4]))).shape == (1, 3, 4)


def test_an_unknown_alignment_is_refused() -> None:
    with pytest.raises(InputError, match="align must be 'half_pixel' or 'corners', got 'center'"):
        resize(np.zeros((1, 2, 2)), (3, 3), align="center")  # type: ignore[arg-type]


def test_maps_of_another_rank_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"maps must have the shape \(N, h, w\), got \(2, 2\)"):
        resize(np.zeros((2, 2)), (3, 3))
