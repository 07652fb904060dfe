"""
Masked images: maps become masks of the image and are multiplied in, straight into a model's input buffer.

In go images, maps (B, h, w) at any resolution, and for each map the image that it masks; out come masked images in a
buffer that the caller keeps. An image-sized mask exists for one row at a time. With `up` the bilinear resize and
``span = max - min``, taken after the resize or, for "before", of the map::

    after    (up(map) - min) / (span + eps)          range    up(map) / (span + eps)
    before   up((map - min) / (span + eps))          none     up(map)

    m = gain * scaled, or 1 - gain * scaled where inverted, plus the mask's noise
    out = image * m + hidden * (1 - m), plus the image's noise

The order of operations is the same on both sides, so NumPy and CUDA give the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal, TypeAlias, get_args

import numpy as np

from camrt.errors import InputError, NumericError, ShapeError

from .array import Array, DType, Scratch, computing_dtype, is_cupy, require_indices, require_same_side, tolerance
from .device import Gpu, Kernel
from .resizing import Align, Samples, resize_plane

__all__ = ["NoiseOn", "Scaling", "as_bytes", "axis_steps", "checked_buffer", "fill_masks"]

Scaling: TypeAlias = Literal["after", "before", "range", "none"]
NoiseOn: TypeAlias = Literal["mask", "input"]

COLUMNS, ROWS = 32, 16  # threads a block, which owns one row; masking.cu has them too
PIXELS = ("float16", "float32", "float64", "uint8")
KEPT_BYTES = 16 * 2**20  # four planes of 1024 x 1024 in float32; larger ones are given back after each call
FILL_MASKS = Kernel("masking", "fill_masks", (COLUMNS, ROWS))


@dataclass(frozen=True, eq=False)
class _Recipe:
    """What makes a mask of a map and a masked image of a mask: the keywords of `fill_masks`."""

    scaling: Scaling
    eps: float
    align: Align
    gain: float
    inverted: bool
    noise: Array | None
    noise_on: NoiseOn
    noise_of: Array | None
    hidden: Array | None
    channels_last: bool

    def planes(self, images: Array) -> Array:
        """Return a view of images (N, ...) as (N, C, H, W)."""
        return np.moveaxis(images, -1, 1) if self.channels_last else images


def fill_masks(
    out: Array,
    images: Array,
    which: Array,
    maps: Array,
    *,
    scaling: Scaling = "after",
    eps: float = 0.0,
    align: Align = "half_pixel",
    gain: float = 1.0,
    inverted: bool = False,
    noise: Array | None = None,
    noise_on: NoiseOn = "mask",
    noise_of: Array | None = None,
    hidden: Array | None = None,
    channels_last: bool = False,
) -> Array:
    """
    Write masked images into a buffer, and tell which maps were constant.

    A map is constant by the rule of `min_max`: ``span <= 1e-6 * max(|max|, |min|)`` (1e-12 in float64). Its mask is
    zero everywhere before `gain`, so that the row shows `hidden` alone, or with `inverted` the image. With "none"
    nothing is divided by the span and no map counts as constant.

    Parameters
    ----------
    out : Array of float16, float32, float64 or uint8, shape (B, C, H, W) or (B, H, W, C)
        Where the rows go, C-contiguous. Values for uint8 are rounded to nearest, ties to even, and clipped.
    images : Array, shape (N, C, H, W) or (N, H, W, C)
        The images, of the type of `out`.
    which : Array of int64, shape (B,)
        For each row, the image it masks.
    maps : Array of float32 or float64, shape (B, h, w)
        The maps; float16 is computed in float32. Larger or smaller than the image.
    scaling : {"after", "before", "range", "none"}, default "after"
        How a map becomes a mask; see the top of this module.
    eps : float, default 0
        Added to the span in the denominator.
    align : {"half_pixel", "corners"}, default "half_pixel"
        The sampling grid, as in `resize`.
    gain : float, default 1
        What the scaled map is multiplied by.
    inverted : bool, default False
        Whether the mask is one minus that.
    noise : Array of float, shape (F, H, W), or (F, ...) with the shape of an image, optional
        Added to the finished mask, or to the finished masked image, as `noise_on` says.
    noise_on : {"mask", "input"}, default "mask"
        What the noise is added to.
    noise_of : Array of int64, shape (B,), optional
        For each row, which of the F noises; wanted with `noise`.
    hidden : Array of float, broadcastable to the shape of `images`, optional
        What is seen where the mask is 0: zero where None, a colour, or an image for each image.
    channels_last : bool, default False
        Whether `images` and `out` are (..., H, W, C).

    Returns
    -------
    Array of bool, shape (B,)
        True where the map was constant, on the side (host or device) of `out`.

    Raises
    ------
    ShapeError
        If shapes, types or sides do not fit each other, or `out` is not contiguous.
    InputError
        If a word is unknown, or an index lies outside its array (the latter on the host alone).
    NumericError
        If `out` is uint8, which has no NaN, and a map is not finite.

    Notes
    -----
    Where the span is not finite, because of a NaN or an infinity, the mask is NaN throughout. With "none" only the
    pixels are that sample the NaN.

    Everything is computed in float32, or in float64 if `out` or `maps` is, and rounded once at the end. A row does
    not depend on its neighbours, to the bit. Beyond `out` the host needs four planes of (H, W), which a thread keeps
    for its next call, up to 16 MB.

    Cost: ``H*W`` interpolations and ``C*H*W`` multiplications a row. On the GPU one launch, a block a row, which
    samples the map twice and keeps nothing; no host synchronisation, except for uint8.

    References
    ----------
    Wang et al., "Score-CAM", arXiv:1910.01279, equations 5 and 6.

    Examples
    --------
    >>> out = np.empty((1, 1, 1, 4), np.float32)
    >>> fill_masks(out, np.full_like(out, 8), np.array([0]), np.array([[[1, 5]]], np.float32))
    array([False])
    >>> out
    array([[[[0., 2., 6., 8.]]]], dtype=float32)
    """
    dtype = np.promote_types(computing_dtype("maps", maps, "(B, h, w)"), checked_buffer(out, images))
    recipe = _Recipe(scaling, eps, align, gain, inverted, noise, noise_on, noise_of, hidden, channels_last)
    _check_words(recipe)
    if len(maps) != len(out):
        raise ShapeError(f"maps {maps.shape} do not fit out {out.shape}; give one map a row")
    require_indices("which", which, len(out), len(images))
    if noise is not None:
        _check_noise(recipe, noise, out)
    if hidden is not None:
        _check_hidden(hidden, images)
    others = {"images": images, "which": which, "maps": maps, "noise": noise, "noise_of": noise_of, "hidden": hidden}
    for name, other in others.items():
        if other is not None:
            require_same_side("out", out, name, other)
    if out.dtype == np.uint8:
        _check_finite(maps)
    if is_cupy(out):
        return _on_gpu(out, images, which, maps, recipe, dtype, Gpu.of(out))
    return _on_numpy(out, images, which, np.asarray(maps, dtype), recipe)


def checked_buffer(out: Array, images: Array) -> DType:
    """
    Refuse a buffer of rows that cannot be written in place or does not fit the images.

    Parameters
    ----------
    out : Array
        The buffer, (B, C, H, W) or (B, H, W, C).
    images : Array
        The images, of its type and shape but for the first axis.

    Returns
    -------
    dtype
        The type of the pixels.

    Raises
    ------
    ShapeError
        If they do not fit, or `out` is not contiguous or not of a pixel's type.
    """
    if out.dtype.name not in PIXELS or out.ndim != 4 or 0 in out.shape[1:]:
        raise ShapeError(
            f"out must be (B, C, H, W) or (B, H, W, C) of {', '.join(PIXELS)}, got {out.dtype} {out.shape}"
        )
    if not out.flags.c_contiguous:
        raise ShapeError(
            "out must be C-contiguous, because it is written in place; give a whole buffer or its first rows"
        )
    if images.dtype != out.dtype or images.shape[1:] != out.shape[1:]:
        raise ShapeError(
            f"images {images.dtype} {images.shape} do not fit out {out.dtype} {out.shape}; "
            "give the same type and the same shape but for the first axis"
        )
    return out.dtype


def _check_words(recipe: _Recipe) -> None:
    """Refuse a keyword that does not exist."""
    given = (
        ("scaling", recipe.scaling, Scaling),
        ("align", recipe.align, Align),
        ("noise_on", recipe.noise_on, NoiseOn),
    )
    for name, word, words in given:
        if word not in get_args(words):
            raise InputError(f"{name} must be one of {', '.join(get_args(words))}, got {word!r}")


def _check_noise(recipe: _Recipe, noise: Array, out: Array) -> None:
    """Refuse noise that does not fit what it is added to."""
    pixels = out.shape[1:3] if recipe.channels_last else out.shape[2:]
    wanted = pixels if recipe.noise_on == "mask" else out.shape[1:]
    if noise.dtype.kind != "f" or noise.shape[1:] != wanted:
        raise ShapeError(
            f"noise on the {recipe.noise_on} must be float (F, *{wanted}), got {noise.dtype} {noise.shape}"
        )
    if recipe.noise_of is None:
        raise ShapeError("noise needs noise_of: for each row, which of the noises it gets")
    require_indices("noise_of", recipe.noise_of, len(out), len(noise))


def _check_hidden(hidden: Array, images: Array) -> None:
    """Refuse a fill that cannot be broadcast to the images."""
    sides = zip(hidden.shape[::-1], images.shape[::-1], strict=False)
    if hidden.dtype.kind != "f" or hidden.ndim > 4 or any(side not in (1, whole) for side, whole in sides):
        raise ShapeError(
            f"hidden must be float and broadcastable to the images {images.shape}, got {hidden.dtype} {hidden.shape}"
        )


def _check_finite(maps: Array) -> None:
    """Refuse maps whose masks would be NaN."""
    with np.errstate(invalid="ignore", over="ignore"):
        finite = np.isfinite(maps.max((1, 2)) - maps.min((1, 2)))
    if not bool(finite.all()):
        raise NumericError(
            f"{int((~finite).sum())} of {len(maps)} maps hold a NaN or an infinity, and a uint8 image has none; "
            "leave these maps out"
        )


def _on_numpy(out: Array, images: Array, which: Array, maps: Array, recipe: _Recipe) -> Array:
    """Compute `fill_masks` row by row and channel by channel, so that a few planes stay in the cache."""
    dtype = maps.dtype
    targets, sources = recipe.planes(out), recipe.planes(images)
    hidden = (
        None
        if recipe.hidden is None
        else recipe.planes(np.broadcast_to(np.asarray(recipe.hidden, dtype), images.shape))
    )
    noise = None if recipe.noise is None else np.asarray(recipe.noise, dtype)
    noise_of = np.zeros(len(out), np.int64) if recipe.noise_of is None else recipe.noise_of
    size = targets.shape[2:]
    samples = Samples.of(maps.shape[1:], size, recipe.align, dtype)
    mask, rest, value, spare = _SCRATCH.planes(4, size, dtype)
    constant = np.zeros(len(out), bool)
    with np.errstate(invalid="ignore", over="ignore"):  # the non-finite cases end as NaN, on purpose
        for row, image in enumerate(which):
            constant[row] = _make_mask(mask, spare, maps[row], samples, recipe)
            if noise is not None and recipe.noise_on == "mask":
                mask += noise[noise_of[row]]
            if hidden is not None:
                np.subtract(1, mask, out=rest)
            for channel, target in enumerate(targets[row]):
                masked = target if target.dtype == dtype else value
                np.multiply(sources[image, channel], mask, out=masked, dtype=dtype)
                if hidden is not None:
                    masked += np.multiply(hidden[image, channel], rest, out=spare)
                if noise is not None and recipe.noise_on == "input":
                    masked += recipe.planes(noise)[noise_of[row], channel]
                if masked is value:
                    target[:] = value if target.dtype.kind == "f" else np.rint(value, out=value).clip(0, 255, out=value)
    return constant


_SCRATCH = Scratch(KEPT_BYTES)


def _make_mask(mask: Array, spare: Array, values: Array, samples: tuple[Samples, Samples], recipe: _Recipe) -> bool:
    """Write the mask of one map, without noise, and tell whether the map was constant."""
    constant = False
    if recipe.scaling == "before":
        values = values.copy()
        constant = _scale(values, recipe)
    if values.shape == mask.shape and np.isfinite(values.sum()):  # what is not finite spreads as it does in a resize
        mask[:] = values
    else:
        resize_plane(mask, spare, values, *samples)
    if recipe.scaling in ("after", "range"):
        constant = _scale(mask, recipe)
    if recipe.gain != 1:
        mask *= mask.dtype.type(recipe.gain)
    if recipe.inverted:
        np.subtract(1, mask, out=mask)
    return constant


def _scale(values: Array, recipe: _Recipe) -> bool:
    """Scale one map in place; a constant one becomes zero, one that is not finite becomes NaN."""
    low, high = values.min(), values.max()
    span = high - low
    if not np.isfinite(span):
        values.fill(np.nan)
        return False
    if span <= values.dtype.type(tolerance(values.dtype)) * max(abs(low), abs(high)):
        values.fill(0)
        return True
    if recipe.scaling != "range":
        values -= low
    values /= span + values.dtype.type(recipe.eps)
    return False


def _on_gpu(out: Array, images: Array, which: Array, maps: Array, recipe: _Recipe, dtype: DType, gpu: Gpu) -> Array:
    """Compute `fill_masks` with the kernel of masking.cu."""
    nothing = gpu.empty((1,), dtype), gpu.empty((1,), np.dtype(np.int64))  # a pointer that is not read
    constant = gpu.empty((len(out),), np.dtype(bool))
    noise, noise_of = nothing
    if recipe.noise is not None and recipe.noise_of is not None:
        noise, noise_of = gpu.contiguous(recipe.noise, dtype), gpu.contiguous(recipe.noise_of, np.dtype(np.int64))
    hidden = nothing[0] if recipe.hidden is None else gpu.contiguous(recipe.hidden, dtype)
    shape = () if recipe.hidden is None else recipe.hidden.shape
    *_, channels, height, width = recipe.planes(out).shape
    arguments = (
        *(as_bytes(out), as_bytes(gpu.contiguous(images, out.dtype)), gpu.contiguous(which, np.dtype(np.int64))),
        *(gpu.contiguous(maps, dtype), noise, noise_of, hidden, constant),
        *(_pixel_kind(out.dtype, dtype), channels, height, width, int(recipe.channels_last)),
        *(*maps.shape[1:], int(recipe.align == "corners"), get_args(Scaling).index(recipe.scaling)),
        *(float(recipe.eps), float(recipe.gain), int(recipe.inverted)),
        *(0 if recipe.noise is None else 1 + get_args(NoiseOn).index(recipe.noise_on), tolerance(dtype)),
        *(int(recipe.hidden is not None), *axis_steps(shape, recipe.channels_last)),
    )
    gpu.launch(FILL_MASKS, dtype, len(out), arguments)
    return constant


def as_bytes(pixels: Array) -> Array:
    """
    View pixels of any type as bytes, which a kernel without their type's header takes.

    Parameters
    ----------
    pixels : Array
        C-contiguous.

    Returns
    -------
    Array of uint8
        A flat view.
    """
    return pixels.reshape(-1).view(np.uint8)


def _pixel_kind(pixel: DType, computed: DType) -> int:
    """Return what masking.cu calls a pixel's type; REAL is the type computed in."""
    return 0 if pixel == computed else {"float32": 1, "float16": 2, "uint8": 3}[pixel.name]


def axis_steps(shape: tuple[int, ...], channels_last: bool) -> tuple[int, ...]:
    """
    Return how a kernel walks an array that is broadcast to images.

    Parameters
    ----------
    shape : tuple of int
        Of the array, four axes at most; axes are added in front.
    channels_last : bool
        Whether the images are (N, H, W, C).

    Returns
    -------
    tuple of int
        Elements from one image, channel, row and column to the next; 0 along an axis that is broadcast.
    """
    shape = (1,) * (4 - len(shape)) + shape
    steps = [0 if side == 1 else prod(shape[axis + 1 :]) for axis, side in enumerate(shape)]
    if channels_last:
        steps.insert(1, steps.pop())
    return tuple(steps)
