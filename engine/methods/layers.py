"""Maps of several layers, brought to the size of the largest before they are joined."""

from __future__ import annotations

from collections.abc import Sequence

from camrt import kernels

from ..errors import ShapeError
from .arrays import Array


def to_largest(maps: Sequence[Array]) -> list[Array]:
    """
    Resize maps of several layers to the largest height and width among them.

    Parameters
    ----------
    maps : sequence of ndarray of float, shape (N, h_l, w_l)
        One array a layer, for the same images.

    Returns
    -------
    list of ndarray of float, shape (N, h, w)
        The resized maps, in the same order.

    Raises
    ------
    ShapeError
        If no map is given, or the numbers of images differ.
    """
    if not maps or len({len(array) for array in maps}) != 1:
        images = [len(array) for array in maps]
        raise ShapeError(f"joining layers takes one map an image from each layer; got this many images: {images}")
    size = max(array.shape[1] for array in maps), max(array.shape[2] for array in maps)
    return [array if array.shape[1:] == size else kernels.resize(array, size) for array in maps]
