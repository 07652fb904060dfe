"""
What counts as an array in this package, and the checks that every kernel shares.

A kernel accepts NumPy and CuPy arrays of real floating type with at least one element an image. CuPy comes without
types, so type checkers see its arrays as NumPy ones.
"""

from __future__ import annotations

import sys
import threading
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from camrt.errors import InputError, ShapeError

__all__ = [
    "Array",
    "DType",
    "Scratch",
    "computing_dtype",
    "is_cupy",
    "require_indices",
    "require_same_side",
    "tolerance",
]

Array: TypeAlias = npt.NDArray[Any]
DType: TypeAlias = np.dtype[Any]


def is_cupy(array: object) -> bool:
    """
    Tell whether `array` is a CuPy array, without importing CuPy.

    Parameters
    ----------
    array : object
        Anything.

    Returns
    -------
    bool
        True for an instance of ``cupy.ndarray``; always False while CuPy is not imported.

    Examples
    --------
    >>> is_cupy(np.zeros(3))
    False
    """
    cupy = sys.modules.get("cupy")
    return cupy is not None and isinstance(array, cupy.ndarray)


def computing_dtype(name: str, array: Array, axes: str) -> DType:
    """
    Check one argument of a kernel and return the type to compute in.

    Parameters
    ----------
    name : str
        The argument's name, for the message.
    array : Array
        The argument.
    axes : str
        The shape wanted, such as ``"(N, h, w)"``; the first axis alone may be empty.

    Returns
    -------
    dtype
        float64 for float64, float32 for float32 and float16 (whose sums and squares would overflow at 65504).

    Raises
    ------
    ShapeError
        If `array` is not an array, not of a real floating type, of another rank, or without elements.
    """
    if not (isinstance(array, np.ndarray) or is_cupy(array)):
        raise ShapeError(f"{name} must be a NumPy or CuPy array {axes}, got {type(array).__name__}; convert it first")
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise ShapeError(f"{name} must be float32 or float64 {axes}, got {array.dtype}; use astype('float32')")
    if array.ndim != axes.count(",") + 1:
        raise ShapeError(f"{name} must have the shape {axes}, got {array.shape}; add or join axes with reshape")
    if 0 in array.shape[1:]:
        raise ShapeError(f"{name} {axes} has an empty axis: {array.shape}; every axis but the first needs a length")
    return np.promote_types(array.dtype, np.float32)


def require_same_side(name: str, array: Array, other_name: str, other: Array) -> None:
    """
    Refuse a NumPy array beside a CuPy array: the kernels never copy between host and device.

    Parameters
    ----------
    name : str
        The name of an argument, for the message.
    array : Array
        That argument.
    other_name : str
        The name of the other argument.
    other : Array
        The other argument.

    Raises
    ------
    ShapeError
        If one is a CuPy array and the other is not.
    """
    if is_cupy(array) != is_cupy(other):
        sides = [
            f"{who} on the {'GPU' if is_cupy(what) else 'host'}" for who, what in ((name, array), (other_name, other))
        ]
        raise ShapeError(
            f"{name} and {other_name} must lie on one side, got {', '.join(sides)}; use cupy.asarray on one"
        )


def require_indices(name: str, indices: Array, n_rows: int, n_choices: int) -> None:
    """
    Refuse indices that are not one int64 a row or that lie outside.

    Parameters
    ----------
    name : str
        The argument's name, for the message.
    indices : Array
        The argument.
    n_rows : int
        How many there must be.
    n_choices : int
        What each must lie below; a GPU's are not read back and not held against it.

    Raises
    ------
    ShapeError
        If `indices` is not int64 of shape (n_rows,).
    InputError
        If one is negative or too large.
    """
    if indices.shape != (n_rows,) or indices.dtype != np.int64:
        raise ShapeError(f"{name} must be int64 ({n_rows},), one a row, got {indices.dtype} {indices.shape}")
    if not is_cupy(indices) and n_rows and not 0 <= indices.min() <= indices.max() < n_choices:
        raise InputError(f"{name} must be between 0 and {n_choices - 1}, got {indices.min()} to {indices.max()}")


def tolerance(dtype: DType) -> float:
    """
    Return the share of a map's own size below which its variation is rounding.

    Parameters
    ----------
    dtype : dtype
        float32 or float64.

    Returns
    -------
    float
        1e-6 in float32, 1e-12 in float64.
    """
    return 1e-12 if dtype == np.float64 else 1e-6


class Scratch(threading.local):
    """
    Planes that each thread uses again: to have fresh ones mapped for every chunk takes longer than to fill them.

    Parameters
    ----------
    most : int
        Bytes that a thread keeps; larger planes are given back after each call.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: Array = np.empty(0)

    def planes(self, count: int, size: tuple[int, ...], dtype: DType) -> Array:
        """
        Return planes with arbitrary content.

        Parameters
        ----------
        count : int
            How many.
        size : tuple of int
            The shape of each.
        dtype : dtype
            Their type.

        Returns
        -------
        Array, shape (count, ``*size``)
            C-contiguous; the next call of this thread hands out the same memory.
        """
        if self._kept.shape == (count, *size) and self._kept.dtype == dtype:
            return self._kept
        planes = np.empty((count, *size), dtype)
        if planes.nbytes <= self._most:
            self._kept = planes
        return planes
