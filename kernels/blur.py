"""
Blur of whole images, in one pass along each axis.

In go images, channels first or last; out come images of the same shape. Both passes see the array as ``(outer, length,
inner)`` with the blurred axis in the middle, so that one loop serves both axes and both layouts. What lies beyond the
border is the image mirrored about its outermost pixel, which is not repeated: ``d c b | a b c d | c b a``, OpenCV's
reflect-101, PyTorch's and NumPy's "reflect"; an axis shorter than the kernel is mirrored again and again. RISE's blur
has zeros there.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from math import isfinite, prod
from operator import index
from typing import Literal, TypeAlias, get_args

import numpy as np

from camrt.errors import InputError

from .array import Array, DType, computing_dtype, is_cupy
from .device import Gpu, Kernel

__all__ = ["Layout", "box_blur", "gaussian_blur", "rise_blur"]

Layout: TypeAlias = Literal["channels_first", "channels_last"]
Window: TypeAlias = Literal["gaussian", "rise", "box"]

THREADS = 256  # values a block; blur.cu reads it from blockDim
AXIS_WEIGHTS = Kernel("blur", "axis_weights", (THREADS,))
BLUR_AXIS = Kernel("blur", "blur_axis", (THREADS,))


def gaussian_blur(images: Array, size: int, sigma: float, *, layout: Layout = "channels_first") -> Array:
    """
    Blur each channel of each image with a Gaussian.

    The kernel is ``exp(-i^2 / (2 sigma^2))`` at the whole numbers within ``size // 2``, scaled to the sum 1.

    Parameters
    ----------
    images : Array of float32 or float64, shape (N, C, H, W) or (N, H, W, C)
        Any values, any memory layout; float16 is computed in float32.
    size : int
        Side of the kernel in pixels, odd.
    sigma : float
        Standard deviation in pixels, above 0.
    layout : {"channels_first", "channels_last"}
        Where the axis of the channels is.

    Returns
    -------
    Array, shape of `images`
        The blurred images, same unit and side (host or device) as `images`; always a new array.

    Raises
    ------
    ShapeError
        If `images` is not of rank 4 and a real floating type.
    InputError
        If `size` is not an odd number, `sigma` is not positive, or `layout` is unknown.

    Notes
    -----
    Cost: ``2 * size`` multiplications a value. On the GPU three launches, no host synchronisation. A NaN or infinity
    spoils the pixels within the kernel's reach, not the whole image.

    References
    ----------
    Group-CAM blurs with size 51 and sigma 50 (Zhang et al. 2021, arXiv:2103.13859).

    Examples
    --------
    >>> image = np.array([0.0, 0.0, 4.0, 0.0]).reshape(1, 1, 1, 4)
    >>> gaussian_blur(image, 3, 1e3).round(3).ravel()  # a wide Gaussian weighs its three pixels alike
    array([0.   , 1.333, 1.333, 2.667])
    """
    return _blur(images, "gaussian", size, sigma, layout)


def box_blur(images: Array, size: int, *, layout: Layout = "channels_first") -> Array:
    """
    Replace each pixel by the mean of the square around it, mirrored at the border.

    Parameters
    ----------
    images : Array of float32 or float64, shape (N, C, H, W) or (N, H, W, C)
        Any values, any memory layout; float16 is computed in float32.
    size : int
        Side of the square in pixels, odd.
    layout : {"channels_first", "channels_last"}
        Where the axis of the channels is.

    Returns
    -------
    Array, shape of `images`
        The blurred images, as from `gaussian_blur`.

    Raises
    ------
    ShapeError
        If `images` is not of rank 4 and a real floating type.
    InputError
        If `size` is not an odd number or `layout` is unknown.

    Notes
    -----
    Cost: that of `gaussian_blur`.

    Examples
    --------
    >>> box_blur(np.array([0.0, 3.0, 6.0]).reshape(1, 1, 1, 3), 3).round(12).ravel()
    array([2., 3., 4.])
    """
    return _blur(images, "box", size, 1.0, layout)


def rise_blur(images: Array, size: int = 11, sigma: float = 5.0, *, layout: Layout = "channels_first") -> Array:
    """
    Blur each channel of each image as RISE does before it inserts pixels; zeros lie around the image.

    RISE's kernel is what a Gaussian filter makes of a single point in a window of `size`, whose edges reflect: the
    Gaussian, cut at four `sigma`, folded into the window. It is flatter than `gaussian_blur`'s and sums to 1 as well.

    Parameters
    ----------
    images : Array of float32 or float64, shape (N, C, H, W) or (N, H, W, C)
        Any values, any memory layout; float16 is computed in float32.
    size : int, default 11
        Side of the window in pixels, odd.
    sigma : float, default 5
        Standard deviation in pixels, above 0.
    layout : {"channels_first", "channels_last"}
        Where the axis of the channels is.

    Returns
    -------
    Array, shape of `images`
        The blurred images, as from `gaussian_blur`; darker towards the border of an image above zero.

    Raises
    ------
    ShapeError
        If `images` is not of rank 4 and a real floating type.
    InputError
        If `size` is not an odd number, `sigma` is not positive, or `layout` is unknown.

    Notes
    -----
    Cost: that of `gaussian_blur`.

    References
    ----------
    Petsiuk, Das & Saenko 2018 (arXiv:1806.07421), whose code has size 11 and sigma 5; CA-Stream's has size 5.

    Examples
    --------
    >>> rise_blur(np.array([0.0, 0.0, 3.0]).reshape(1, 1, 1, 3), 1, 2.0).ravel()
    array([0., 0., 3.])
    """
    return _blur(images, "rise", size, sigma, layout)


def _blur(images: Array, window: Window, size: int, sigma: float, layout: Layout) -> Array:
    """Check what the blurs are given and dispatch."""
    dtype = computing_dtype("images", images, "(N, C, H, W)" if layout == "channels_first" else "(N, H, W, C)")
    if layout not in get_args(Layout):
        raise InputError(
            f"layout must be 'channels_first' or 'channels_last', got {layout!r}; say where the channels are"
        )
    side, width = _checked_kernel(size, sigma)
    axes = (3, 2) if layout == "channels_first" else (2, 1)
    if is_cupy(images):
        return _on_gpu(images, window, side, width, axes, dtype, Gpu.of(images))
    return _on_numpy(images, _weights(window, side, width, dtype), window != "rise", axes)


def _checked_kernel(size: int, sigma: float) -> tuple[int, float]:
    """Return `size` as an odd Python integer and `sigma` as a positive float."""
    try:
        side, width = index(size), float(sigma)
    except (TypeError, ValueError):
        raise InputError(f"size and sigma must be an odd integer and a number, got {size!r} and {sigma!r}") from None
    if side < 1 or side % 2 == 0:
        raise InputError(f"size must be odd and at least 1, got {side}; a kernel has a pixel in the middle")
    if not (isfinite(width) and width > 0):
        raise InputError(f"sigma must be above 0, got {width}; it is the Gaussian's standard deviation in pixels")
    return side, width


@lru_cache(maxsize=64)
def _weights(window: Window, size: int, sigma: float, dtype: DType) -> Array:
    """Return the kernel along one axis; a folded Gaussian adds up its value at all mirror images of the centre."""
    places, centre = np.arange(size), size // 2
    if window == "gaussian":
        powers = np.exp(-((places - centre) ** 2) / (2 * sigma * sigma))
    elif window == "rise":
        reach = int(4 * sigma + 0.5)
        offsets = np.arange(-reach, reach + 1)
        period = 2 * size  # of the window and its reflection, in which the edge pixel is repeated
        seen = (centre + offsets) % period
        powers = np.bincount(np.minimum(seen, period - 1 - seen), np.exp(-(offsets**2) / (2 * sigma * sigma)), size)
    else:
        powers = np.ones(size)
    weights: Array = (powers / powers.sum()).astype(dtype)
    weights.flags.writeable = False
    return weights


def _passes(shape: tuple[int, ...], axes: tuple[int, ...]) -> Iterator[tuple[int, int, int]]:
    """Give ``(outer, length, inner)`` for each axis to be blurred."""
    return ((prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])) for axis in axes)


def _on_numpy(images: Array, weights: Array, mirrored: bool, axes: tuple[int, ...]) -> Array:
    """Blur image by image, which keeps the work in the cache; the first weight first."""
    blurred = np.array(images, weights.dtype, order="C")
    reach = len(weights) // 2
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite stays visible
        for image in blurred:
            for outer, length, inner in _passes((1, *image.shape), axes):
                source = image.reshape(outer, length, inner)
                if mirrored:
                    wide = source[:, _mirrored(np.arange(-reach, length + reach), length)]
                else:
                    wide = np.pad(source, ((0, 0), (reach, reach), (0, 0)))
                total, term = wide[:, :length] * weights[0], np.empty_like(source)
                for i, weight in enumerate(weights[1:], 1):
                    total += np.multiply(wide[:, i : i + length], weight, out=term)
                source[:] = total
    return blurred


def _mirrored(position: Array, length: int) -> Array:
    """Return the pixel seen at each position, inside or outside an axis."""
    last = length - 1
    pixel: Array = abs((position + last) % max(2 * last, 1) - last)
    return pixel


def _on_gpu(
    images: Array, window: Window, size: int, sigma: float, axes: tuple[int, ...], dtype: DType, gpu: Gpu
) -> Array:
    """Blur with the kernels of blur.cu: the weights, then one launch an axis."""
    weights = gpu.empty((size,), dtype)
    gpu.launch(AXIS_WEIGHTS, dtype, 1, (weights, size, sigma, get_args(Window).index(window)))
    blurred, mirrored = gpu.contiguous(images, dtype), int(window != "rise")
    for _, length, inner in _passes(images.shape, axes):
        source, blurred = blurred, gpu.empty(images.shape, dtype)
        n_values = int(images.size)
        sizes = (n_values, length, inner, size, mirrored)
        gpu.launch(BLUR_AXIS, dtype, -(-n_values // THREADS), (source, weights, blurred, *sizes))
    return blurred
