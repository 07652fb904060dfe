"""Blurs against values worked by hand, NumPy's own padding and convolution, SciPy, PyTorch, and the CUDA kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from camrt.errors import InputError, ShapeError
from camrt.kernels import box_blur, gaussian_blur, rise_blur


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


def test_a_mean_over_squares_worked_by_hand() -> None:
    """Beyond the border of 0 3 / 6 9 lies the other row or column: 3 x 3 around 0 holds 0 once, 3 and 6 twice, 9 four times."""
    image = np.array([[0.0, 3.0], [6.0, 9.0]]).reshape(1, 1, 2, 2)
    assert_allclose(box_blur(image, 3).reshape(2, 2), [[6, 5], [4, 3]], rtol=1e-14)
    assert_array_equal(box_blur(image, 1), image)


def test_rises_window_worked_by_hand() -> None:
    """In a window of 3 a Gaussian of sigma 1 reaches 4 steps from the centre, onto 2 1 0 | 0 1 2 | 2 1 0."""
    g = [float(np.exp(-d * d / 2)) for d in range(5)]
    edge, centre = g[1] + g[2] + g[4], g[0] + 2 * g[3]
    row = rise_blur(np.array([0.0, 0.0, 1.0, 0.0, 0.0]).reshape(1, 1, 1, 5), 3, 1.0).ravel()
    along = centre / (centre + 2 * edge)  # the one row there is, with zeros above and below
    assert_allclose(row, along * np.array([0, edge, centre, edge, 0]) / (centre + 2 * edge), rtol=1e-14)


@pytest.mark.parametrize(("size", "sigma"), [(11, 5.0), (5, 5.0), (51, 50.0), (7, 0.6)])
def test_rises_blur_equals_scipys_filter_of_a_point_and_a_padded_convolution(
    size: int, sigma: float, rng: np.random.Generator
) -> None:
    ndimage, signal = pytest.importorskip("scipy.ndimage"), pytest.importorskip("scipy.signal")
    point = np.zeros((size, size))
    point[size // 2, size // 2] = 1
    kernel = ndimage.gaussian_filter(point, sigma)
    assert_allclose(kernel.sum(), 1, rtol=1e-12)
    images = rng.normal(size=(2, 2, 60, 55))
    want = np.array([[signal.convolve2d(plane, kernel, "same") for plane in image] for image in images])
    assert_allclose(rise_blur(images, size, sigma), want, rtol=0, atol=1e-13)
    inside = np.zeros((1, 1, 2 * size + 1, 2 * size + 1))
    inside[0, 0, size, size] = 1
    assert_allclose(rise_blur(inside, size, sigma).sum(), 1, rtol=1e-12)  # no mass is lost away from the border


@pytest.mark.parametrize("size", [1, 3, 9, 45])
def test_the_mean_equals_scipys_uniform_filter(size: int, rng: np.random.Generator) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    images = rng.normal(size=(2, 3, 50, 47))
    want = ndimage.uniform_filter(images, size, mode="mirror", axes=(2, 3))
    assert_allclose(box_blur(images, size), want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("shape", [(2, 3, 9, 40), (1, 1, 1, 5), (0, 3, 4, 4)])
def test_the_cuda_kernels_of_the_other_windows_equal_numpy(
    shape: tuple[int, ...], dtype: str, layout: Any, cupy: Any, rng: np.random.Generator
) -> None:
    images = rng.normal(size=shape).astype(dtype)
    for blur in (box_blur, rise_blur):
        for size in (1, 5, 11):
            found, want = blur(cupy.asarray(images), size, layout=layout), blur(images, size, layout=layout)
            assert isinstance(found, cupy.ndarray)
            assert found.dtype == want.dtype == np.promote_types(dtype, "f4")
            slack = 8 * float(np.finfo(want.dtype).eps) * float(abs(images).max(initial=0))
            assert_allclose(cupy.asnumpy(found), want, rtol=0, atol=slack)


def test_other_windows_keep_batches_layouts_and_nan_apart(rng: np.random.Generator) -> None:
    images = rng.normal(size=(3, 2, 20, 21)).astype("f4")
    images[1, 0, 10, 10] = np.nan
    for blur in (box_blur, rise_blur):
        whole = blur(images, 5)
        assert_array_equal(np.concatenate([blur(image[None], 5) for image in images]), whole)
        turned = blur(images.transpose(0, 2, 3, 1), 5, layout="channels_last")
        assert_array_equal(turned.transpose(0, 3, 1, 2), whole)
        assert np.isnan(whole).sum() == np.isnan(whole[1, 0, 8:13, 8:13]).sum() == 25
        with pytest.raises(InputError, match="size must be odd and at least 1, got 4"):
            blur(images, 4)
        with pytest.raises(ShapeError, match=r"images must have the shape \(N, C, H, W\)"):
            blur(images[0], 3)
