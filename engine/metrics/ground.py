"""
What is known of the pictures, as metrics use it: regions of pixels, boxes, and how many images count.

In: boxes and masks of some images, from `Ground` or from a caller. Out: arrays checked and clipped to the picture. Boxes
and masks stand for each other: the region of boxes is their union, the box of a mask its tight box. An image of which
nothing is known, or whose boxes lie outside the picture, is not counted: its values are zero, its count is zero, and a
mean over images divides the one mean by the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..errors import InputError, ShapeError
from .case import Ground

__all__ = ["boxes_of", "counted", "known_ground", "pixels_of", "regions_of", "shares"]

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def known_ground(boxes: Sequence[Any] | None, masks: Sequence[Any] | None) -> Ground:
    """
    Take boxes and masks from a caller.

    Parameters
    ----------
    boxes : sequence of array_like or None
        For each image, boxes (B, 4) or one box (4,).
    masks : sequence of array_like or None
        For each image, a mask (H, W).

    Returns
    -------
    Ground
        With both; they are checked where they are used.

    Raises
    ------
    InputError
        If there are neither.
    """
    if boxes is None and masks is None:
        raise InputError("boxes or masks are needed, one entry an image; got neither")
    return Ground(
        boxes=None if boxes is None else [None if b is None else np.asarray(b) for b in boxes],
        masks=None if masks is None else [None if m is None else np.asarray(m) for m in masks],
    )


def boxes_of(ground: Ground, n: int, size: tuple[int, int]) -> list[Floats]:
    """
    Return each image's boxes, clipped to the picture.

    Parameters
    ----------
    ground : Ground
        Boxes or masks; boxes are preferred where an image has both.
    n : int
        How many images.
    size : tuple of int
        Height and width of the pictures.

    Returns
    -------
    list of ndarray of float64, shape (B, 4)
        ``x0 y0 x1 y1``, half-open; none where nothing is known. Boxes wholly outside the picture are left out.

    Raises
    ------
    ShapeError
        If boxes are not finite numbers (B, 4) with x0 < x1 and y0 < y1, or a mask has another size.
    """
    found = []
    for i in range(n):
        boxes = _entry(ground.boxes, i)
        mask = _entry(ground.masks, i)
        if boxes is not None and np.size(boxes):
            found.append(_clipped(boxes, i, size))
        elif mask is not None and _checked(mask, i, size).any():
            rows, columns = (np.flatnonzero((mask != 0).any(axis)) for axis in (1, 0))
            found.append(np.array([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]], np.float64))
        else:
            found.append(np.zeros((0, 4)))
    return found


def pixels_of(boxes: Floats) -> npt.NDArray[np.int64]:
    """
    Return the pixels of boxes: those whose centres lie in them.

    Parameters
    ----------
    boxes : ndarray of float64, shape (B, 4)
        Half-open, clipped.

    Returns
    -------
    ndarray of int64, shape (B', 4)
        Half-open in whole pixels; boxes that hold no centre are left out.

    Examples
    --------
    >>> pixels_of(np.array([[0.4, 0.6, 2.5, 3.0], [0.6, 0, 1.4, 1]])).tolist()
    [[0, 1, 2, 3]]
    """
    whole = np.ceil(boxes - 0.5).astype(np.int64)
    return whole[(whole[:, 0] < whole[:, 2]) & (whole[:, 1] < whole[:, 3])]


def regions_of(
    ground: Ground, n: int, size: tuple[int, int], prefer: Literal["boxes", "masks"] = "masks"
) -> tuple[Bools, Bools]:
    """
    Return each image's region as pixels, and which pixels count.

    Parameters
    ----------
    ground : Ground
        Boxes or masks, and pixels to leave out.
    n : int
        How many images.
    size : tuple of int
        Height and width of the pictures.
    prefer : {"boxes", "masks"}
        Which is taken where an image has both.

    Returns
    -------
    regions : ndarray of bool, shape (N, H, W)
        The union of the boxes' pixels, or the mask, without pixels that are left out.
    valid : ndarray of bool, shape (N, H, W)
        Pixels that are not left out.

    Raises
    ------
    ShapeError
        As `boxes_of`.
    """
    regions, valid = np.zeros((n, *size), bool), np.ones((n, *size), bool)
    for i in range(n):
        boxes, mask = _entry(ground.boxes, i), _entry(ground.masks, i)
        if mask is not None and (prefer == "masks" or boxes is None or not np.size(boxes)):
            regions[i] = _checked(mask, i, size)
        elif boxes is not None and np.size(boxes):
            for x0, y0, x1, y1 in pixels_of(_clipped(boxes, i, size)):
                regions[i, y0:y1, x0:x1] = True
        ignored = _entry(ground.ignored, i)
        if ignored is not None:
            valid[i] = ~_checked(ignored, i, size)
    return regions & valid, valid


def counted(values: Mapping[str, Array], name: str) -> Floats:
    """
    Return a metric's values where every image must count.

    Parameters
    ----------
    values : mapping of str to ndarray
        What a metric gave, with ``name.counts``.
    name : str
        The metric.

    Returns
    -------
    ndarray of float64, shape (N,)
        Its main values.

    Raises
    ------
    InputError
        If an image does not count.
    """
    left_out = np.flatnonzero(values[f"{name}.counts"] == 0)
    if len(left_out):
        raise InputError(
            f"{name} needs a box or mask inside each picture; image {left_out[0]} has none "
            f"({len(left_out)} of {len(values[name])}): leave such images out"
        )
    return values[name]


def shares(means: Mapping[str, Array], name: str, *fields: str) -> dict[str, Array]:
    """
    Divide means over all images by the share of images that count.

    Parameters
    ----------
    means : mapping of str to ndarray
        Means with any leading axes, ``name.counts`` among them.
    name : str
        The metric.
    *fields : str
        Which means to divide; curves have one axis more than the counts.

    Returns
    -------
    dict of str to ndarray
        Means over the images that count; NaN where there are none.
    """
    count = np.asarray(means[f"{name}.counts"], np.float64)
    found = {}
    for field in fields:
        mean = np.asarray(means[field], np.float64)
        share = count.reshape(count.shape + (1,) * (mean.ndim - count.ndim))
        found[field] = np.divide(mean, share, out=np.full(mean.shape, np.nan), where=share > 0)
    return found


def _entry(listed: Sequence[Any] | None, i: int) -> Array | None:
    """Return what is known of one image."""
    return None if listed is None or listed[i] is None else np.asarray(listed[i])


def _clipped(boxes: Array, i: int, size: tuple[int, int]) -> Floats:
    """Check an image's boxes and clip them."""
    rows = boxes[None] if boxes.ndim == 1 else boxes
    if rows.ndim != 2 or rows.shape[1] != 4 or rows.dtype.kind not in "fiu" or not np.isfinite(rows).all():
        raise ShapeError(
            f"boxes of image {i} must be finite numbers x0 y0 x1 y1, (B, 4); got {boxes.dtype} {boxes.shape}"
        )
    bad = rows[(rows[:, 0] >= rows[:, 2]) | (rows[:, 1] >= rows[:, 3])]
    if len(bad):
        raise ShapeError(f"boxes of image {i} must have x0 < x1 and y0 < y1, half-open; got {bad[0].tolist()}")
    inside = np.clip(rows.astype(np.float64), 0, [size[1], size[0], size[1], size[0]])
    return inside[(inside[:, 0] < inside[:, 2]) & (inside[:, 1] < inside[:, 3])]


def _checked(mask: Array, i: int, size: tuple[int, int]) -> Bools:
    """Check an image's mask."""
    if mask.shape != size or mask.dtype.kind not in "biuf":
        raise ShapeError(
            f"the mask of image {i} must be as large as its heatmap, {size}; got {mask.dtype} {mask.shape}"
        )
    there: Bools = mask != 0
    return there
