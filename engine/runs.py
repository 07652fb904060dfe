"""
How much goes into one run of the model, and the streams that masked forwards share.

In: a model's sessions, and the memory that is allowed. Out: the size of a batch, the size of a chunk of masked forwards,
and one `Planner` for each shape of input, the same for every caller.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import numpy.typing as npt

from camrt.kernels import is_cupy

from .limits import Limits
from .methods.arrays import namespace
from .planner import Planner, chunk_of
from .providers import CPU
from .session import Sessions

__all__ = ["MEMORY", "Runs", "parts"]

Array = npt.NDArray[Any]

BATCH = 32  # images a run on a device; ResNet-50's activations and gradients then stay below 1 GB
CPU_BATCH = 4  # on a CPU: runs of 4 took 0.84 (MobileNetV2) to 0.97 (ResNet-50) of the time of one run of 16
CPU_GRADIENT_BATCH = 2  # of gradients at the image, which hold twice the tensors; runs of 4 took up to 1.09 of its time
DEVICE_CHUNK = 128  # masked forwards a run on a device
ARENA = 3  # what ONNX Runtime's arena holds, in multiples of the tensors alive: it grows by doubling
MEMORY = 400 * 2**20  # bytes that a chunk of masked forwards may take, unless told otherwise


class Runs:
    """
    The runs of one model.

    Parameters
    ----------
    sessions : Sessions
        The model's programs.
    memory : int
        Bytes that masked forwards may take at a time.
    """

    def __init__(self, sessions: Sessions, memory: int = MEMORY) -> None:
        self._sessions = sessions
        self.memory = memory
        self._planners: dict[tuple[Any, ...], Planner] = {}  # one for each shape of input
        self._opening = threading.Lock()

    @cached_property
    def batch(self) -> int:
        """How many images go into one run: what is fastest on the first provider; a fixed batch is filled."""
        return self._fixed or (CPU_BATCH if self._on_cpu else BATCH)

    @cached_property
    def gradient_batch(self) -> int:
        """How many images go into one run where the gradient at the image is wanted; it holds twice the tensors."""
        return self._fixed or (CPU_GRADIENT_BATCH if self._on_cpu else BATCH)

    @cached_property
    def chunk(self) -> int:
        """
        How many masked forwards go into one run.

        Raises
        ------
        MemoryBoundError
            If one does not fit the memory that is allowed.
        """
        bound = self.memory // self.lanes
        if self._fixed is not None:  # it is filled up, so that a part of it takes as much
            return self._fixed * chunk_of(1, self._fixed * self._row_memory, bound)
        return chunk_of(CPU_BATCH if self._on_cpu else DEVICE_CHUNK, self._row_memory, bound)

    @property
    def chunk_memory(self) -> int:
        """The bytes that masked forwards take on top of the opened model, whatever the number of masks."""
        return self.lanes * self.chunk * self._row_memory

    @property
    def lanes(self) -> int:
        """How many chunks may run at the same time: no more than fit the memory."""
        fitting = self.memory // max(1, (self._fixed or 1) * self._row_memory)
        return max(1, min(self._sessions.lanes, fitting))

    def planner(self, x: Array) -> Planner:
        """
        Return the stream that all masked forwards of inputs like these share.

        Parameters
        ----------
        x : ndarray, shape (N, ...)
            Prepared inputs.

        Returns
        -------
        Planner
            It runs the ``forward`` program; the same one for every caller.
        """
        key = (x.shape[1:], x.dtype.str, is_cupy(x))
        with self._opening:
            if key not in self._planners:
                self._planners[key] = Planner(_forward(self._sessions), _buffers_like(x), self.chunk, self.lanes)
            return self._planners[key]

    @property
    def _on_cpu(self) -> bool:
        """Whether the model runs on the host."""
        return self._sessions.providers[0].name == CPU

    @property
    def _fixed(self) -> int | None:
        """The batch that the model's file fixes."""
        return self._sessions.source.manifest.batch

    @property
    def _row_memory(self) -> int:
        """The bytes that one masked forward takes."""
        return ARENA * self._sessions.source.manifest.row_bytes


def parts(x: Array, size: int) -> Iterator[tuple[int, Array]]:
    """
    Cut a batch into runs.

    Parameters
    ----------
    x : ndarray, shape (N, ...)
        The batch.
    size : int
        Images a run; the last may have fewer.

    Yields
    ------
    start : int
        The place of the run's first image.
    part : ndarray
        Its images.
    """
    for start in range(0, len(x), size):
        yield start, x[start : start + size]


def _forward(sessions: Sessions) -> Callable[[Array, Limits], Array]:
    """Return a callable that runs a chunk and does not keep the sessions open: a planner may outlive its model."""
    known = weakref.proxy(sessions)

    def run(buffer: Array, limits: Limits) -> Array:
        logits: Array = known.run_unchecked("forward", (), {"x": buffer}, limits)["logits"]
        return logits

    return run


def _buffers_like(x: Array) -> Callable[[int], Array]:
    """Return a callable that makes buffers of many inputs like these."""
    shape, dtype, made_by = x.shape[1:], x.dtype, namespace(x)
    return lambda rows: made_by.empty((rows, *shape), dtype)
