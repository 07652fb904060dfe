"""Gaussian blur against values worked by hand, NumPy's own padding and convolution, PyTorch, and the CUDA kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from camrt.errors import InputError, ShapeError
from camrt.kernels import gaussian_blur


def direct(image: np.ndarray, size: int, sigma: float) -> np.ndarray:
    """Blur one plane (H, W) by ``np.pad`` and ``np.convolve``, row by row and column by column."""
    offsets = np.arange(size) - size // 2
    kernel = np.exp(-(offsets**2) / (2 * sigma**2))
    kernel /= kernel.sum()

    def line(values: np.ndarray) -> np.ndarray:
        return np.convolve(np.pad(values, size // 2, "reflect"), kernel, "valid")

    return np.apply_along_axis(line, 0, np.apply_along_axis(line, 1, image))


def test_a_row_worked_by_hand() -> None:
    """A Gaussian of sigma with exp(-1 / (2 sigma^2)) = 1/2 has weights 1/4, 1/2, 1/4; the border mirrors."""
    sigma = float(np.sqrt(0.5 / np.log(2)))
    row = gaussian_blur(np.array([8.0, 0.0, 0.0, 4.0]).reshape(1, 1, 1, 4), 3, sigma)
    assert_allclose(row.ravel(), [4, 2, 1, 2], rtol=1e-14)


@pytest.mark.parametrize(("size", "sigma"), [(1, 3.0), (3, 0.8), (11, 2.0), (51, 50.0)])
@pytest.mark.parametrize("shape", [(2, 3, 64, 61), (1, 1, 7, 5), (1, 2, 1, 9), (1, 1, 1, 1)])
def test_the_blur_equals_padding_and_convolution(
    shape: tuple[int, ...], size: int, sigma: float, rng: np.random.Generator
) -> None:
    images = rng.normal(size=shape)
    want = np.array([[direct(plane, size, sigma) for plane in image] for image in images])
    assert_allclose(gaussian_blur(images, size, sigma), want, rtol=0, atol=1e-13)
    assert_allclose(gaussian_blur(images.astype("f4"), size, sigma), want, rtol=0, atol=3e-6)


@pytest.mark.parametrize(("size", "sigma"), [(5, 1.1), (51, 50.0)])
def test_the_blur_equals_pytorchs_reflection_and_convolution(size: int, sigma: float, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    images = rng.normal(size=(2, 1, 40, 33))
    line = torch.exp(-0.5 * (torch.linspace(-(size // 2), size // 2, size, dtype=torch.float64) / sigma) ** 2)
    kernel = torch.outer(line, line) / line.sum() ** 2
    padded = torch.nn.functional.pad(torch.from_numpy(images), [size // 2] * 4, mode="reflect")
    want = torch.nn.functional.conv2d(padded, kernel[None, None]).numpy()
    assert_allclose(gaussian_blur(images, size, sigma), want, rtol=0, atol=1e-13)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 3),
    st.integers(1, 3),
    st.integers(1, 12),
    st.integers(1, 12),
    st.integers(0, 6),
    st.sampled_from(["f2", "f4", "f8"]),
)
def test_a_batch_equals_its_images_and_a_layout_the_other_to_the_bit(
    n: int, c: int, h: int, w: int, reach: int, dtype: str
) -> None:
    images = np.random.default_rng(n).normal(size=(n, c, h, w)).astype(dtype)
    blurred = gaussian_blur(images, 2 * reach + 1, 1.5)
    assert blurred.dtype == np.promote_types(dtype, "f4")
    for image, found in zip(images, blurred, strict=True):
        assert_array_equal(gaussian_blur(image[None], 2 * reach + 1, 1.5)[0], found)
    last = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    for given_ in (last, images.transpose(0, 2, 3, 1)):
        other = gaussian_blur(given_, 2 * reach + 1, 1.5, layout="channels_last")
        assert_array_equal(other, blurred.transpose(0, 2, 3, 1))


def test_a_constant_image_stays_and_the_input_is_kept() -> None:
    images = np.full((1, 3, 30, 20), 0.7, np.float32)
    blurred = gaussian_blur(images, 51, 50)
    assert_allclose(blurred, images, rtol=2e-6)
    assert not np.shares_memory(blurred, images)
    assert (images == np.float32(0.7)).all()


def test_nan_spoils_what_the_kernel_reaches_and_no_more() -> None:
    images = np.zeros((2, 2, 20, 20), np.float32)
    images[1, 0, 10, 10] = np.nan
    spoiled = np.isnan(gaussian_blur(images, 5, 1.0))
    assert spoiled[1, 0, 8:13, 8:13].all()
    assert spoiled.sum() == 25


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize(
    ("shape", "size", "sigma"), [((2, 3, 9, 40), 7, 2.0), ((1, 1, 1, 5), 51, 50.0), ((0, 3, 4, 4), 3, 1.0)]
)
def test_the_cuda_kernels_equal_numpy(
    shape: tuple[int, ...], size: int, sigma: float, dtype: str, layout: Any, cupy: Any, rng: np.random.Generator
) -> None:
    images = rng.normal(size=shape).astype(dtype)
    blurred = gaussian_blur(cupy.asarray(images), size, sigma, layout=layout)
    assert isinstance(blurred, cupy.ndarray)
    want = gaussian_blur(images, size, sigma, layout=layout)
    assert blurred.dtype == want.dtype
    slack = 4 * float(np.finfo(want.dtype).eps) * float(abs(images).max(initial=0))  # a weight may round otherwise
    assert_allclose(cupy.asnumpy(blurred), want, rtol=0, atol=slack)


@pytest.mark.parametrize(
    ("size", "sigma", "words"),
    [
        (4, 1.0, "size must be odd and at least 1, got 4"),
        (-1, 1.0, "size must be odd"),
        (3.0, 1.0, "size and sigma must be an odd integer and a number"),
        (3, "wide", "size and sigma must be"),
        (3, 0.0, "sigma must be above 0"),
        (3, float("nan"), "sigma must be above 0"),
    ],
)
def test_a_kernel_that_is_none_is_refused(size: Any, sigma: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        gaussian_blur(np.zeros((1, 1, 2, 2)), size, sigma)


def test_images_of_another_rank_and_an_unknown_layout_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"images must have the shape \(N, C, H, W\), got \(2, 2\)"):
        gaussian_blur(np.zeros((2, 2)), 3, 1.0)
    with pytest.raises(InputError, match="layout must be 'channels_first' or 'channels_last', got 'rows'"):
        gaussian_blur(np.zeros((1, 1, 2, 2)), 3, 1.0, layout="rows")  # type: ignore[arg-type]
