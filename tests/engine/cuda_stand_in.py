"""
A stand-in for a CUDA machine: CuPy's arrays and stream, and an ONNX Runtime whose CUDA provider works on them.

`make` returns the two modules and a `World` that counts what passes between host and device. The arrays are wrappers,
no NumPy arrays: what CuPy refuses (NumPy arrays among its operands, implicit conversion, functions that it lacks) is
refused here too, and so is any work outside the one stream. ONNX Runtime's sessions are real ones on the CPU, reached through addresses, which must
belong to arrays that are still alive, of the bound shape and type. Kernels are the real ``.cu`` files through a C++
compiler.
"""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any, Self

import numpy as np
import onnxruntime

from tests.kernels import cupy_on_cpu

STREAM = 0xCA3  # the address that the one stream claims to have
LACKING = {
    "asmatrix", "block", "bmat", "einsum_path", "errstate", "frompyfunc", "fromregex", "geomspace", "histogram_bin_edges",
    "insert", "isnat", "matvec", "nanpercentile", "nanquantile", "nested_iters", "polyder", "polydiv", "polyint", "spacing",
    "unstack", "vecdot", "vecmat",
}  # fmt: skip  # what NumPy has and CuPy 14.2 has not


@dataclass
class World:
    """What happened between host and device."""

    fetched: list[tuple[int, ...]] = field(default_factory=list)  # shapes copied to the host
    uploaded: list[tuple[int, ...]] = field(default_factory=list)  # shapes copied to the device
    masked: int = 0  # indexings by a mask: the host waits for the number of its pixels
    host_runs: list[str] = field(default_factory=list)  # runs whose arrays went through the host
    device_runs: list[RunOptions] = field(default_factory=list)
    sessions: list[InferenceSession] = field(default_factory=list)
    alive: dict[int, Any] = field(default_factory=dict)
    local: threading.local = field(default_factory=threading.local)
    fails: bool = False  # whether the device is lost

    def queue(self) -> None:
        """Refuse work outside the stream: it would race with ONNX Runtime's."""
        assert getattr(self.local, "stream", None) == STREAM, "work was queued on another stream than the sessions'"


class DeviceArray(np.lib.mixins.NDArrayOperatorsMixin):
    """A CuPy array, as far as it matters."""

    world: World

    def __init__(self, inside: np.ndarray) -> None:
        """Wrap numbers that count as the device's."""
        self.inside = inside

    shape = property(lambda self: self.inside.shape)
    dtype = property(lambda self: self.inside.dtype)
    ndim = property(lambda self: self.inside.ndim)
    size = property(lambda self: self.inside.size)
    nbytes = property(lambda self: self.inside.nbytes)
    itemsize = property(lambda self: self.inside.itemsize)
    T = property(lambda self: DeviceArray(self.inside.T))
    flags = property(lambda self: self.inside.flags)
    device = property(lambda self: cupy_on_cpu.Device(0))

    @property
    def data(self) -> Any:
        """Return something with an address, for as long as the array lives."""
        self.world.alive[self.inside.ctypes.data] = weakref.ref(self)
        return SimpleNamespace(ptr=self.inside.ctypes.data)

    def get(self) -> np.ndarray:
        """Copy to the host."""
        self.world.fetched.append(self.shape)
        return np.array(self.inside)

    def __array__(self, *_: Any, **__: Any) -> Any:
        """Refuse what CuPy refuses."""
        raise TypeError("Implicit conversion to a NumPy array is not allowed")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        """Compute on the device."""
        return self._computed(getattr(ufunc, method), inputs, options)

    def __array_function__(self, function: Any, _: Any, inputs: Any, options: Any) -> Any:
        """Compute on the device, where CuPy can."""
        return NotImplemented if function.__name__ in LACKING else self._computed(function, inputs, options)

    @classmethod
    def _computed(cls, function: Any, inputs: Any, options: Any) -> Any:
        cls.world.queue()
        return _wrapped(function(*map(_unwrapped, inputs), **{name: _unwrapped(v) for name, v in options.items()}))

    def __getattr__(self, name: str) -> Any:
        """Return a method of arrays."""
        if name.startswith("__"):
            raise AttributeError(name)
        method = getattr(self.inside, name)
        if name in ("item", "tolist"):
            self.world.fetched.append(self.shape)
            return method
        return lambda *inputs, **options: self._computed(method, inputs, options)

    def _scalar(self, kind: Any) -> Any:
        self.world.fetched.append(self.shape)
        return kind(self.inside)

    def __bool__(self) -> bool:
        """Wait for the device."""
        return bool(self._scalar(bool))

    def __float__(self) -> float:
        """Wait for the device."""
        return float(self._scalar(float))

    def __int__(self) -> int:
        """Wait for the device."""
        return int(self._scalar(int))

    def __len__(self) -> int:
        """Return the length of the first axis."""
        return len(self.inside)

    def __getitem__(self, place: Any) -> Any:
        """Return a part; CuPy takes NumPy indices, and copies them to the device."""
        self.world.queue()
        taken = self.inside[_index(place, self.world)]
        return DeviceArray(taken if isinstance(taken, np.ndarray) else np.asarray(taken))

    def __setitem__(self, place: Any, value: Any) -> None:
        """Write a part."""
        self.world.queue()
        self.inside[_index(place, self.world)] = _unwrapped(value)


def _index(place: Any, world: World) -> Any:
    """Return an index; NumPy arrays may stand in one."""
    if isinstance(place, tuple):
        return tuple(_index(part, world) for part in place)
    if isinstance(place, np.ndarray):
        world.uploaded.append(place.shape)
    if isinstance(place, np.ndarray | DeviceArray) and place.dtype == np.bool_:
        world.masked += 1
    return place.inside if isinstance(place, DeviceArray) else place


def _unwrapped(value: Any) -> Any:
    """Return an operand's numbers; refuse a NumPy array, as CuPy does."""
    if isinstance(value, DeviceArray):
        return value.inside
    if isinstance(value, list | tuple):
        return type(value)(map(_unwrapped, value))
    if isinstance(value, np.ndarray) and value.ndim:
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    return value


def _wrapped(value: Any) -> Any:
    """Return what was computed, on the device; scalars stay there too."""
    if isinstance(value, tuple | list):
        return type(value)(map(_wrapped, value))
    return DeviceArray(np.asarray(value)) if isinstance(value, np.ndarray | np.generic) else value


class Stream:
    """The one stream."""

    def __init__(self, world: World, *, non_blocking: bool) -> None:
        """Be a stream that the default one does not wait for."""
        assert non_blocking
        self.world, self.ptr = world, STREAM

    def __enter__(self) -> Self:
        """Become the thread's own."""
        local = self.world.local
        local.before = [*getattr(local, "before", []), getattr(local, "stream", None)]
        local.stream = self.ptr
        return self

    def __exit__(self, *_: object) -> None:
        """Give way to the stream before."""
        self.world.local.stream = self.world.local.before.pop()


class RunOptions:
    """A run's options, remembered."""

    def __init__(self) -> None:
        """Be empty."""
        self.entries: dict[str, str] = {}
        self.terminate = False
        self.thread, self.addresses = "", ()

    def add_run_config_entry(self, name: str, value: str) -> None:
        """Remember an entry."""
        self.entries[name] = value


class InferenceSession:
    """A session that claims to run on the device, and takes addresses."""

    world: World

    def __init__(
        self, model: Any, options: Any, *, providers: Any, provider_options: Any, enable_fallback: int
    ) -> None:
        """Open a real session on the CPU."""
        assert enable_fallback == 0
        plain = onnxruntime.SessionOptions()
        plain.log_severity_level = 3
        self._real = onnxruntime.InferenceSession(model, plain, providers=["CPUExecutionProvider"])
        self.asked, self.provider_options = providers, provider_options
        self.strict = options.get_session_config_entry("session.disable_cpu_ep_fallback") if _has(options) else "0"
        self.get_inputs, self.get_outputs = self._real.get_inputs, self._real.get_outputs
        self.recorded: dict[str, tuple[Any, str]] = {}
        self.world.sessions.append(self)

    def get_providers(self) -> list[str]:
        """Return what was asked for."""
        return list(self.asked)

    def run(self, *arguments: Any) -> Any:
        """Run through the host, and remember it."""
        self.world.host_runs.append("run")
        return self._real.run(*arguments[:2])

    def io_binding(self) -> Binding:
        """Return a fresh binding."""
        return Binding()

    def run_with_iobinding(self, binding: Binding, options: RunOptions) -> None:
        """Run between addresses, or replay what was recorded on them."""
        if self.world.fails:
            raise RuntimeError("CUDA failure 700: an illegal memory access was encountered")
        self.world.queue()
        addresses = tuple(sorted((name, place[-1]) for name, place in (binding.inputs | binding.outputs).items()))
        options.thread, options.addresses = threading.current_thread().name, addresses
        graph = options.entries.get("gpu_graph_id", "-1")
        if graph != "-1":
            known = self.recorded.setdefault(graph, (addresses, options.thread))
            assert known == (addresses, options.thread), "a graph is replayed on other arrays or in another thread"
        feeds = {name: self._at(*place) for name, place in binding.inputs.items()}
        made = self._real.run(list(binding.outputs), feeds)
        for (name, place), array in zip(binding.outputs.items(), made, strict=True):
            assert array.shape == tuple(place[3]), f"{name} has shape {array.shape}, {place[3]} was bound"
            self._at(*place)[...] = array
        self.world.device_runs.append(options)

    def _at(self, kind: str, index: int, dtype: Any, shape: Any, address: int) -> np.ndarray:
        """Return the array at an address."""
        assert (kind, index) == ("cuda", 0)
        found = self.world.alive[address]()
        assert found is not None, "an address outlived its array"
        assert (found.dtype, found.shape, found.flags.c_contiguous) == (np.dtype(dtype), tuple(shape), True)
        inside: np.ndarray = found.inside
        return inside


class Binding:
    """What a run reads and writes."""

    def __init__(self) -> None:
        """Bind nothing."""
        self.inputs: dict[str, Any] = {}
        self.outputs: dict[str, Any] = {}

    def bind_input(self, name: str, *place: Any) -> None:
        """Bind an input."""
        self.inputs[name] = place

    def bind_output(self, name: str, *place: Any) -> None:
        """Bind an output."""
        self.outputs[name] = place


def _has(options: Any) -> bool:
    """Tell whether an entry was made; asking for one that was not is an error."""
    try:
        options.get_session_config_entry("session.disable_cpu_ep_fallback")
    except RuntimeError:
        return False
    return True


def make(compiler: cupy_on_cpu.Compiler) -> tuple[Any, Any, World]:
    """Return stand-ins for ``cupy`` and ``onnxruntime``, and what they count."""
    world = World()
    DeviceArray.world = world
    kernels = cupy_on_cpu.make(compiler, reverse=False)

    def asarray(array: Any, dtype: Any = None) -> Any:
        world.queue()
        if not isinstance(array, DeviceArray):
            world.uploaded.append(np.shape(array))
        inside = array.inside if isinstance(array, DeviceArray) else np.array(array)
        if isinstance(array, DeviceArray) and dtype in (None, inside.dtype):
            return array
        return DeviceArray(inside.astype(dtype or inside.dtype))

    def ascontiguousarray(array: Any, dtype: Any = None) -> Any:
        placed = asarray(array, dtype)
        return placed if placed.flags.c_contiguous else DeviceArray(np.ascontiguousarray(placed.inside))

    def empty(shape: Any, dtype: Any = np.float64) -> Any:
        world.queue()
        return DeviceArray(cupy_on_cpu.empty((shape,) if isinstance(shape, int) else tuple(shape), dtype))

    class Module:
        def __init__(self, *, code: str, options: tuple[str, ...]) -> None:
            self.real = kernels.RawModule(code=code, options=options)

        def get_function(self, name: str) -> Any:
            function = self.real.get_function(name)

            def launch(grid: Any, block: Any, arguments: Any) -> None:
                world.queue()
                given = (a.inside.view(cupy_on_cpu.Array) if isinstance(a, DeviceArray) else a for a in arguments)
                function(grid, block, tuple(given))

            return launch

    class Cupy(ModuleType):
        def __getattr__(self, name: str) -> Any:
            if name.startswith("__") or name in LACKING:
                raise AttributeError(name)
            known = getattr(np, name)
            if isinstance(known, type) or not callable(known):
                return known
            return lambda *inputs, **options: DeviceArray._computed(known, inputs, options)

    cupy: Any = Cupy("cupy")
    cupy.ndarray, cupy.asarray, cupy.ascontiguousarray, cupy.empty = DeviceArray, asarray, ascontiguousarray, empty
    cupy.asnumpy = lambda array: array.get()
    cupy.RawModule = Module
    cupy.cuda = ModuleType("cupy.cuda")
    cupy.cuda.Device = cupy_on_cpu.Device
    cupy.cuda.Stream = lambda *, non_blocking: Stream(world, non_blocking=non_blocking)
    InferenceSession.world = world
    ort = SimpleNamespace(
        __version__="stand-in",
        get_available_providers=lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
        SessionOptions=onnxruntime.SessionOptions,
        RunOptions=RunOptions,
        InferenceSession=InferenceSession,
    )
    return cupy, ort, world
