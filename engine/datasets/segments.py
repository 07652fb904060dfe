"""
Masks written as outlines or run lengths, as COCO writes them: polygons, and RLE both plain and compressed.

A polygon's pixel is inside where its centre is, by the even-odd rule. COCO's own decoder rounds outlines to a fifth of a
pixel first, so single pixels on the outline may differ from it. RLE is exact: runs of 0 and 1 by turns, column by column.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ImageError
from ..image import MAX_PIXELS

__all__ = ["fill_polygon", "read_rle", "read_segment"]


def read_segment(segment: Any, height: int, width: int) -> npt.NDArray[np.bool_]:
    """
    Decode one object's segmentation.

    Parameters
    ----------
    segment : list of list of float, or mapping
        Polygons ``[x0, y0, x1, y1, ...]`` whose union is the object; or ``{"size": [height, width], "counts": ...}`` with
        a list of runs or COCO's compressed text.
    height, width : int
        Size of the picture.

    Returns
    -------
    ndarray of bool, shape (height, width)
        The object's pixels.

    Raises
    ------
    ImageError
        If it is neither, or of another size than the picture.
    """
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise ImageError(f"a mask of {width} x {height} pixels is empty or above the limit of {MAX_PIXELS}")
    if isinstance(segment, Mapping):
        return read_rle(segment, height, width)
    if not isinstance(segment, list):
        raise ImageError(f"a segmentation must be a list of polygons or an RLE object; got {type(segment).__name__}")
    mask = np.zeros((height, width), bool)
    for polygon in segment:
        mask |= fill_polygon(polygon, height, width)
    return mask


def fill_polygon(polygon: Sequence[float], height: int, width: int) -> npt.NDArray[np.bool_]:
    """
    Return the pixels whose centres lie in a polygon.

    Parameters
    ----------
    polygon : sequence of float
        ``x0 y0 x1 y1 ...`` in pixels, closed by itself; parts outside the picture are cut off.
    height, width : int
        Size of the picture.

    Returns
    -------
    ndarray of bool, shape (height, width)
        By the even-odd rule.

    Raises
    ------
    ImageError
        If it has less than three finite points.

    Notes
    -----
    Every edge crosses the lines through the centres of some columns; each crossing turns all pixels below it over.

    Examples
    --------
    >>> fill_polygon([1, 0, 3, 0, 3, 1, 1, 1], 2, 4).astype(int).tolist()
    [[0, 1, 1, 0], [0, 0, 0, 0]]
    """
    try:
        points = np.asarray(polygon, np.float64)
    except (TypeError, ValueError) as error:
        raise ImageError("a polygon must be a list of numbers x0, y0, x1, y1, ...") from error
    if points.ndim != 1 or points.size < 6 or points.size % 2 or not np.isfinite(points).all():
        raise ImageError(f"a polygon needs at least three finite points x, y; got {points.size} numbers")
    start = points.reshape(-1, 2)
    stop = np.roll(start, -1, 0)
    low, high = np.minimum(start[:, 0], stop[:, 0]), np.maximum(start[:, 0], stop[:, 0])
    first = np.clip(np.ceil(low - 0.5), 0, width).astype(np.int64)  # columns whose centres lie in [low, high)
    last = np.clip(np.ceil(high - 0.5), 0, width).astype(np.int64)
    counts = last - first
    edge = np.repeat(np.arange(len(start)), counts)
    column = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    run, rise = (stop - start)[edge].T
    y = start[edge, 1] + (column + 0.5 - start[edge, 0]) * rise / run
    row = np.clip(np.ceil(y - 0.5), 0, height).astype(np.int64)
    turns = np.zeros((height + 1, width), bool)
    np.logical_xor.at(turns, (row, column), True)
    inside: npt.NDArray[np.bool_] = np.logical_xor.accumulate(turns[:height], 0)
    return inside


def read_rle(rle: Mapping[str, Any], height: int, width: int) -> npt.NDArray[np.bool_]:
    """
    Decode run lengths.

    Parameters
    ----------
    rle : mapping
        ``size`` and ``counts``, a list of runs or the compressed text.
    height, width : int
        Size of the picture.

    Returns
    -------
    ndarray of bool, shape (height, width)
        The pixels of every second run, counted down the columns.

    Raises
    ------
    ImageError
        If the size is another, or the runs do not fill it.

    References
    ----------
    COCO API, ``maskApi.h``: the format. In text every run is base 32 in characters from ``0`` (48), lowest digit first, bit
    5 saying that more follow, bit 4 of the last being the sign; from the fourth run on it is the difference to the run two
    before.

    Examples
    --------
    >>> read_rle({"size": [2, 2], "counts": [1, 2, 1]}, 2, 2).astype(int).tolist()
    [[0, 1], [1, 0]]
    """
    size, counts = rle.get("size"), rle.get("counts")
    if not isinstance(size, list | tuple) or list(size) != [height, width]:
        raise ImageError(f"an RLE mask of size {size} lies on a picture of height {height} and width {width}")
    try:
        runs = _runs(counts.encode("ascii")) if isinstance(counts, str) else np.asarray(counts, np.int64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ImageError("RLE counts must be a list of whole numbers or COCO's compressed text") from error
    total = height * width
    if runs.ndim != 1 or not runs.size or runs.min() < 0 or runs.max() > total or runs.sum() != total:
        raise ImageError(f"RLE counts must be runs from 0 that sum to {total} pixels; this mask is damaged")
    values = np.arange(runs.size) % 2 == 1
    filled: npt.NDArray[np.bool_] = np.repeat(values, runs).reshape(width, height).T
    return filled


def _runs(text: bytes) -> npt.NDArray[np.int64]:
    """Read the compressed text."""
    runs: list[int] = []
    value = shift = 0
    for letter in text:
        digit = letter - 48
        if not 0 <= digit < 64 or shift > 35:
            raise ValueError("not compressed RLE")
        value |= (digit & 31) << shift
        shift += 5
        if not digit & 32:
            signed = value - (1 << shift) if digit & 16 else value
            runs.append(signed + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("cut off")
    return np.array(runs, np.int64)
