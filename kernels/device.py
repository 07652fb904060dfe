"""
The GPU in four verbs: make an array contiguous, make an empty one, sort, launch a kernel.

In goes a `Kernel` (a ``.cu`` file of this folder and the name of a function in it) with its number of blocks and its
arguments; out comes the result in the arrays given. Sources are real files, read as package data and compiled by
NVRTC through CuPy at first use, once a device and floating type; CuPy also keeps the binaries on disk for the next
process. The idea of real sources behind one cached loader is cuCIM's.

Three conventions hold for every kernel. ``REAL`` in the source is the floating type, defined on the compiler's
command line. Python integers arrive as ``long long``, Python floats as ``double``, arrays as pointers. Multiplications
and additions are not fused, so that a kernel which does the same operations as NumPy gives the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np

from .array import Array, DType

__all__ = ["Gpu", "Kernel", "compiler_options", "read_source"]


@dataclass(frozen=True)
class Kernel:
    """
    One ``__global__`` function: where it stands and how it is called.

    Attributes
    ----------
    source : str
        The ``.cu`` file of this folder, without suffix.
    name : str
        The function's name; it is declared ``extern "C"``.
    block : tuple of int
        Threads a block; the source relies on these numbers.
    """

    source: str
    name: str
    block: tuple[int, ...]


@dataclass(frozen=True)
class Gpu:
    """
    A CUDA device through CuPy.

    Work is queued on the device's current stream; nothing here waits for it.

    Attributes
    ----------
    index : int
        The device's number.
    """

    index: int

    @classmethod
    def of(cls, array: Array) -> Gpu:
        """
        Return the device that holds an array.

        Parameters
        ----------
        array : Array
            A CuPy array.

        Returns
        -------
        Gpu
            Its device.
        """
        device: Any = array.device
        return cls(int(device.id))

    def contiguous(self, array: Array, dtype: DType) -> Array:
        """
        Return an array in C order and of a given type.

        Parameters
        ----------
        array : Array
            A CuPy array of any layout and type.
        dtype : dtype
            The type wanted.

        Returns
        -------
        Array
            The array itself where it is so already, else a copy.
        """
        import cupy

        with cupy.cuda.Device(self.index):
            contiguous: Array = cupy.ascontiguousarray(array, dtype)
        return contiguous

    def empty(self, shape: tuple[int, ...], dtype: DType) -> Array:
        """
        Return a new array with arbitrary content.

        Parameters
        ----------
        shape : tuple of int
            Its shape.
        dtype : dtype
            Its type.

        Returns
        -------
        Array
            A CuPy array on this device.
        """
        import cupy

        with cupy.cuda.Device(self.index):
            empty: Array = cupy.empty(shape, dtype)
        return empty

    def stable_order(self, keys: Array) -> Array:
        """
        Sort each row and return where its values came from.

        Parameters
        ----------
        keys : Array of float32 or float64, shape (B, n)
            A CuPy array; NaN come last.

        Returns
        -------
        Array of int64, shape (B, n)
            The index of each row's smallest value, of the next and so on; equal values in their order.
        """
        import cupy

        with cupy.cuda.Device(self.index):
            order: Array = cupy.argsort(keys, axis=1, kind="stable")
        return order

    def launch(self, kernel: Kernel, dtype: DType, n_blocks: int, arguments: tuple[Array | int | float, ...]) -> None:
        """
        Start a kernel on a row of blocks; zero blocks start nothing.

        Parameters
        ----------
        kernel : Kernel
            The kernel.
        dtype : dtype
            What ``REAL`` is: float32 or float64.
        n_blocks : int
            The length of the grid, which has one dimension.
        arguments : tuple of Array, int or float
            In the order of the kernel's declaration; arrays C-contiguous and on this device.
        """
        import cupy

        if n_blocks > 0:
            with cupy.cuda.Device(self.index):
                _function(kernel, dtype)((n_blocks,), kernel.block, arguments)


def read_source(name: str) -> str:
    """
    Return the text of a CUDA source of this package.

    Parameters
    ----------
    name : str
        The file's name without ``.cu``.

    Returns
    -------
    str
        The source.
    """
    return (files(__name__.rpartition(".")[0]) / f"{name}.cu").read_text(encoding="utf-8")


def compiler_options(dtype: DType) -> tuple[str, ...]:
    """
    Return NVRTC's options for kernels over one floating type.

    Parameters
    ----------
    dtype : dtype
        What ``REAL`` is: float32 or float64.

    Returns
    -------
    tuple of str
        The options; the architecture is added by who compiles.
    """
    return ("--std=c++17", "--fmad=false", f"-DREAL={'double' if dtype == np.float64 else 'float'}")


@lru_cache(maxsize=64)
def _function(kernel: Kernel, dtype: DType) -> Any:
    """Return the CuPy function of `kernel`; it compiles itself once on each device it is called on."""
    import cupy

    module = cupy.RawModule(code=read_source(kernel.source), options=compiler_options(dtype))
    return module.get_function(kernel.name)
