"""
A CUDA device under a session: one stream that ONNX Runtime and CuPy share, and runs that never leave it.

In: CuPy arrays. Out: CuPy arrays, whose numbers may still be on their way; nothing waits for the device, and nothing is
copied to the host before the caller fetches a result. ONNX Runtime's own streams are not ordered with CuPy's, so every
session of a device gets the same non-blocking stream, CuPy's kernels are queued on it too, and the order of the calls is
the order of the work. A stream belongs to one run at a time: a lock keeps it so.

CUDA graphs are opt-in (``providers=[("cuda", {"enable_cuda_graph": 1})]``): batches are filled up to the next of a few
sizes, each recorded once and replayed, from fixed buffers and from one thread, as ONNX Runtime's provider asks.

Not yet run on a GPU: tests drive this module with stand-ins for CuPy and ONNX Runtime that count copies and check
addresses, shapes and lifetimes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from .errors import MissingExtraError, ProviderError
from .providers import BUCKETS, bucket_of

__all__ = ["Device", "Port", "on_host"]

Array = npt.NDArray[Any]
T = TypeVar("T")

WARM_UPS = 2  # runs before a graph is recorded: the first allocate from the arena, which a recording must not
NO_GRAPH = "-1"  # gpu_graph_id of a run that is neither recorded nor replayed
TYPES = {
    "tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64, "tensor(bool)": np.bool_,
    "tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(uint8)": np.uint8, "tensor(int8)": np.int8,
}  # fmt: skip


class Device:
    """
    A CUDA device and its stream.

    Parameters
    ----------
    index : int, default 0
        Its number.

    Raises
    ------
    MissingExtraError
        If CuPy is not installed.
    ProviderError
        If CuPy finds no such device.
    """

    def __init__(self, index: int = 0) -> None:
        try:
            import cupy
        except ImportError as error:
            raise MissingExtraError("CuPy is needed beside cuda: pip install 'camrt[gpu]'") from error
        self._cupy = cupy
        self.index = index
        try:
            with cupy.cuda.Device(index):
                self.stream = cupy.cuda.Stream(non_blocking=True)
        except Exception as error:
            detail = " ".join(str(error).split())[:240]
            raise ProviderError(
                f"CUDA device {index} cannot be used: {detail}; cuda needs a GPU and NVIDIA's driver for CUDA 13: ask for cpu "
                "where they are not"
            ) from error
        self._lock = threading.Lock()
        self._worker: ThreadPoolExecutor | None = None

    @property
    def options(self) -> dict[str, str]:
        """The CUDA provider's options that put a session on this device and stream."""
        return {"device_id": str(self.index), "user_compute_stream": str(self.stream.ptr)}

    @contextmanager
    def current(self) -> Iterator[None]:
        """Let CuPy's work of this thread go to this device and stream."""
        with self._cupy.cuda.Device(self.index), self.stream:
            yield

    def upload(self, array: Array) -> Array:
        """
        Copy an array to the device; one that is there stays.

        Parameters
        ----------
        array : ndarray
            On either side.

        Returns
        -------
        ndarray
            On the device, in C order.
        """
        with self.current():
            return self._cupy.ascontiguousarray(self._cupy.asarray(array))  # type: ignore[no-any-return]

    def alone(self, work: Callable[[], T], *, same_thread: bool) -> T:
        """
        Do work while no other work is queued by this class.

        Parameters
        ----------
        work : callable
            Queues work on the stream.
        same_thread : bool
            Whether it must be the thread that all such work runs in, as graphs must.

        Returns
        -------
        object
            What `work` returned.
        """

        def queued() -> T:
            """Do the work in the stream's turn."""
            with self._lock, self.current():
                return work()

        if not same_thread:
            return queued()
        with self._lock:
            if self._worker is None:
                self._worker = ThreadPoolExecutor(1, "camrt-cuda-graph")
        return self._worker.submit(queued).result()


class Port:
    """
    How device arrays get into one session and out of it.

    Parameters
    ----------
    session : onnxruntime.InferenceSession
        On `device`'s stream.
    device : Device
        Where the arrays lie.
    names : sequence of str
        The outputs, in order.
    graphs : bool
        Whether the session records CUDA graphs.
    """

    def __init__(self, session: Any, device: Device, names: Sequence[str], *, graphs: bool = False) -> None:
        self._session, self._device, self._graphs = session, device, graphs
        self._inputs = {given.name: np.dtype(TYPES[given.type]) for given in session.get_inputs()}
        made = {output.name: output for output in session.get_outputs()}
        self._outputs = {name: (np.dtype(TYPES[made[name].type]), tuple(made[name].shape)) for name in names}
        self._batched = all(shape and all(isinstance(d, int) for d in shape[1:]) for _, shape in self._outputs.values())
        self._held: dict[int, tuple[dict[str, Array], dict[str, Array]]] = {}  # fixed buffers, by batch size
        self._runs: dict[int, int] = {}

    def run(self, feeds: Mapping[str, Array], options: Any) -> dict[str, Array]:
        """
        Run the session once.

        Parameters
        ----------
        feeds : mapping of str to ndarray
            Every input; those on the host are uploaded.
        options : onnxruntime.RunOptions
            Gets entries of this class.

        Returns
        -------
        dict of str to ndarray
            Every output, on the device, by name.

        Notes
        -----
        Cost: the run; where graphs are recorded, a copy of inputs and outputs on the device, and rows that fill up the
        batch. No synchronisation.
        """
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        work = self._replayed if self._graphs else self._plain
        return self._device.alone(lambda: work(feeds, options), same_thread=self._graphs)

    def _plain(self, feeds: Mapping[str, Array], options: Any) -> dict[str, Array]:
        """Run on the caller's own arrays, into fresh ones."""
        given = {name: self._taken(feeds[name], dtype) for name, dtype in self._inputs.items()}
        outputs = self._empty(len(next(iter(given.values()))))
        self._bound(given, outputs, options)
        return outputs

    def _replayed(self, feeds: Mapping[str, Array], options: Any) -> dict[str, Array]:
        """Run on fixed arrays of the next batch size, recording the run once it has been warmed up."""
        n = len(next(iter(feeds.values())))
        size = bucket_of(n)
        if size not in BUCKETS or not self._batched or any(len(feed) != n for feed in feeds.values()):
            options.add_run_config_entry("gpu_graph_id", NO_GRAPH)
            return self._plain(feeds, options)
        given, outputs = self._held.pop(size) if size in self._held else self._buffers(feeds, size)
        for name, buffer in given.items():
            buffer[:n] = self._taken(feeds[name], self._inputs[name])
            buffer[n:] = buffer[n - 1 : n]
        done = self._runs[size] = self._runs.get(size, 0) + 1
        options.add_run_config_entry("gpu_graph_id", str(size) if done > WARM_UPS else NO_GRAPH)
        self._bound(given, outputs, options)
        self._held[size] = given, outputs  # not after a failure: a graph that may be broken keeps no buffers
        return {name: array[:n].copy() for name, array in outputs.items()}

    def _buffers(self, feeds: Mapping[str, Array], size: int) -> tuple[dict[str, Array], dict[str, Array]]:
        """Return fixed arrays for a batch size, and forget what was recorded on others."""
        self._runs[size] = 0
        empty = self._device._cupy.empty
        return {name: empty((size, *feeds[name].shape[1:]), d) for name, d in self._inputs.items()}, self._empty(size)

    def _taken(self, feed: Array, dtype: np.dtype[Any]) -> Array:
        """Return a feed on the device, of the type that the graph takes."""
        cupy = self._device._cupy
        return cupy.ascontiguousarray(cupy.asarray(feed), dtype)  # type: ignore[no-any-return]

    def _empty(self, n: int) -> dict[str, Array]:
        """Return arrays for the outputs of `n` rows; what is not a number in their shape is the batch."""
        return {
            name: self._device._cupy.empty(tuple(d if isinstance(d, int) else n for d in shape), dtype)
            for name, (dtype, shape) in self._outputs.items()
        }

    def _bound(self, given: Mapping[str, Array], outputs: Mapping[str, Array], options: Any) -> None:
        """Run between the arrays given; they outlive the queued work, because the stream's pool frees in its order."""
        binding = self._session.io_binding()
        for bind, arrays in ((binding.bind_input, given), (binding.bind_output, outputs)):
            for name, array in arrays.items():
                pointer: Any = array.data
                bind(name, "cuda", self._device.index, array.dtype.type, array.shape, pointer.ptr)
        self._session.run_with_iobinding(binding, options)


def on_host(array: Array) -> Array:
    """
    Return an array on the host; this waits for the device.

    Parameters
    ----------
    array : ndarray
        On either side.

    Returns
    -------
    ndarray
        A NumPy array; the same one where it was on the host.
    """
    fetch = getattr(array, "get", None)
    fetched: Array = array if fetch is None else fetch()
    return fetched
