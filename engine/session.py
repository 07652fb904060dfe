"""
One ONNX Runtime session: a program on the providers that were asked for, and on no others.

In: a `Program` and a provider list. Out: named arrays. ONNX Runtime falls back to the CPU silently when a provider
cannot load; here that is an error, always (the providers of the finished session are compared with the request), and
unless the CPU is among the providers asked for, so is a single node that would run there. Sessions are opened on first
use and shared by all threads: ``run`` keeps no state of its own. The arrays given decide where a run's arrays lie:
CuPy's stay on the device (`camrt.device`).
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from camrt.export.manifest import Program, Source
from camrt.kernels import is_cupy

from .device import Device, Port, on_host
from .errors import InputError, MissingExtraError, NumericError, ProviderError
from .libraries import missing_libraries, preload, refusal
from .limits import UNLIMITED, Limits
from .methods.arrays import namespace
from .providers import CPU, CUDA, TENSORRT, Provider
from .tensorrt import NOTE, tensorrt_for

__all__ = ["Session", "Sessions", "check_logits", "require", "runtime"]

Array = npt.NDArray[Any]


def runtime() -> Any:
    """
    Import ONNX Runtime.

    Returns
    -------
    module
        ``onnxruntime``.

    Raises
    ------
    MissingExtraError
        If it is not installed; the message names the extra that brings it.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError(
            "ONNX Runtime is not installed: pip install 'camrt[cpu]' (or 'camrt[gpu]' for NVIDIA, never both)"
        ) from error
    return onnxruntime


def require(ort: Any, providers: tuple[Provider, ...]) -> None:
    """
    Refuse a provider that this ONNX Runtime does not have.

    Parameters
    ----------
    ort : module
        ``onnxruntime``.
    providers : tuple of Provider
        As asked for.

    Raises
    ------
    ProviderError
        If one is not among those available; the message lists them.
    """
    available = ort.get_available_providers()
    lacking = [p.name for p in providers if p.name not in available]
    if lacking:
        raise ProviderError(
            f"execution provider {lacking[0]} was asked for; this ONNX Runtime {ort.__version__} has "
            f"{', '.join(available)}: install the extra that brings it (gpu, openvino) in a fresh environment, because "
            "ONNX Runtime's builds overwrite each other, or ask for cpu"
        )


class Session:
    """
    A program, loaded.

    Parameters
    ----------
    program : Program
        The graph: bytes, or a file whose weights lie beside it.
    providers : tuple of Provider
        As `camrt.providers.parse_providers` gives them.
    threads : int, optional
        Threads within one run; None leaves it to ONNX Runtime (the physical cores).
    device : Device, optional
        The device whose stream the CUDA provider works on; without it arrays go in and out through the host.
    spin : bool, optional
        Whether the threads of a run spin while they wait for each other, which is quicker where no other run takes their
        cores. Unless told otherwise they do where they are not counted. Between runs they never do.

    Raises
    ------
    MissingExtraError
        If ONNX Runtime is not installed.
    ProviderError
        If a provider that was asked for is not available or did not take the model.
    """

    def __init__(
        self,
        program: Program,
        providers: tuple[Provider, ...],
        threads: int | None = None,
        device: Device | None = None,
        spin: bool | None = None,
    ) -> None:
        ort = runtime()
        self.program = replace(program, model=b"")  # not the graph; weights that lie beside it are the session's too
        require(ort, providers)
        options = ort.SessionOptions()
        options.log_severity_level = 3
        spinning = threads is None if spin is None else spin
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
        # threads that spin on after a run keep the core from NumPy and from other sessions
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if threads is not None:
            options.intra_op_num_threads = threads
        asked = [p.name for p in providers]
        if {CUDA, TENSORRT} & set(asked):
            preload(ort)
        if CPU not in asked:
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        on_device = {} if device is None else {CUDA: device.options}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the check below says the same as an error
                self._session = program.open_in(
                    ort,
                    options,
                    providers=asked,
                    provider_options=[{**p.options, **on_device.get(p.name, {})} for p in providers],
                    enable_fallback=0,
                )
        except Exception as error:
            detail = " ".join(str(error).split())[:400]
            why = _unloadable(ort, asked) or f"{', '.join(asked)} cannot run the {program.kind} program: {detail}"
            strict = "fallback to CPU EP" in detail and why.endswith(detail)
            raise ProviderError(why + strict * " Ask for cpu behind it to let those nodes run there") from error
        self.providers = tuple(self._session.get_providers())
        missing = [name for name in asked if name not in self.providers]
        if missing:
            raise ProviderError(
                _unloadable(ort, missing)
                or f"{missing[0]} was asked for, ONNX Runtime fell back to {', '.join(self.providers)} and says why in its "
                "log alone: see there, or ask for cpu"
            )
        graphs = any(p.options.get("enable_cuda_graph", "0") not in ("0", "False") for p in providers)
        self._port = None if device is None else Port(self._session, device, program.outputs, graphs=graphs)

    def run(self, feeds: Mapping[str, Array], limits: Limits = UNLIMITED) -> dict[str, Array]:
        """
        Run the program once.

        Parameters
        ----------
        feeds : mapping of str to ndarray
            Every input of the program, C-contiguous or not. One on the device is enough to keep the outputs there.
        limits : Limits, optional
            What may end the run before it is done.

        Returns
        -------
        dict of str to ndarray
            Every output, by name; on the device their numbers may still be on their way.

        Raises
        ------
        ProviderError
            If ONNX Runtime fails; out of memory included.
        DeadlineError, CancelledError
            If a limit was met.
        """
        limits.check()
        on_device = self._port is not None and any(is_cupy(feeds[name]) for name in self.program.inputs)
        given = feeds if on_device else {name: np.ascontiguousarray(feeds[name]) for name in self.program.inputs}
        try:
            if self._port is not None and on_device:
                with limits.run_options(runtime().RunOptions()) as options:
                    return self._port.run(given, options)
            if limits.can_stop:
                with limits.run_options(runtime().RunOptions()) as options:
                    outputs = self._session.run(None, given, options)
            else:
                outputs = self._session.run(None, given)
        except Exception as error:
            limits.check()
            detail = " ".join(str(error).split())[:240]
            raise ProviderError(f"the {self.program.kind} program failed on {self.providers[0]}: {detail}") from error
        return dict(zip(self.program.outputs, outputs, strict=True))


_UNDER_WAY: set[object] = set()  # one entry a run, of all models that share cores; a set's own steps are atomic


class Sessions:
    """
    The sessions of one model, each opened when it is first needed.

    Parameters
    ----------
    source : Source
        Where programs come from.
    providers : tuple of Provider
        As `camrt.providers.parse_providers` gives them.
    threads : int, optional
        As in `Session`; at least 1.
    precision : str, default "float32"
        What `source` and `providers` were arranged for (`camrt.precision.arrange`); results say so.
    threads_beside : int, optional
        Threads within a run on the host that begins while others of such models are under way, in a session of its own;
        a run that begins alone then has `threads`, and they spin. None: every run is like any other.

    Raises
    ------
    InputError
        If a number of threads is below 1.
    """

    def __init__(
        self,
        source: Source,
        providers: tuple[Provider, ...],
        threads: int | None = None,
        precision: str = "float32",
        threads_beside: int | None = None,
    ) -> None:
        for name, count in (("threads", threads), ("threads_beside", threads_beside)):
            if count is not None and count < 1:
                raise InputError(f"{name} must be at least 1, got {count}; or leave it out")
        self.source = source
        self.providers = providers
        self.precision = precision
        self.threads = threads
        self._beside = threads_beside if providers[0].name == CPU else None
        self._device: Device | None = None
        self._open: dict[tuple[str, tuple[str, ...]], Session] = {}
        self._open_beside: dict[tuple[str, tuple[str, ...]], Session] = {}
        self._lock = threading.Lock()

    def of(self, source: Source) -> Sessions:
        """
        Prepare to run another model in the same way.

        Parameters
        ----------
        source : Source
            Arranged for the same precision and providers.

        Returns
        -------
        Sessions
            Its own, on the same device and stream; none is open.
        """
        other = Sessions(source, self.providers, self.threads, self.precision, self._beside)
        other._device = self.device
        return other

    @property
    def device(self) -> Device | None:
        """The device that arrays may stay on from one run to the next; None where the first provider is not CUDA."""
        first = self.providers[0]
        if first.name != CUDA or self._device is not None:
            return self._device
        ort = runtime()
        require(ort, self.providers)
        with self._lock:
            if self._device is None:
                self._device = Device(int(first.options.get("device_id", "0")))
            return self._device

    @contextmanager
    def place(self) -> Iterator[Callable[[Array], Array]]:
        """
        Keep a request's arrays where its runs are.

        Yields
        ------
        callable
            Copies a batch to the device, whose stream is the thread's own while the context lasts, or to the host where
            the runs are there; what is in place stays.
        """
        device = self.device
        if device is None:
            yield on_host
            return
        with device.current():
            yield device.upload

    @property
    def lanes(self) -> int:
        """How many runs at a time keep the machine busy: one, unless each is held to fewer threads than there are cores."""
        return 1 if self.threads is None else max(1, (os.cpu_count() or 1) // max(1, self.threads))

    def run(
        self, kind: str, layers: Sequence[str], feeds: Mapping[str, Array], limits: Limits = UNLIMITED
    ) -> dict[str, Array]:
        """
        Run one program, in chunks where the model has a fixed batch.

        Parameters
        ----------
        kind : str
            The program, as in `camrt.export.manifest.Program`.
        layers : sequence of str
            Its layers.
        feeds : mapping of str to ndarray
            Its inputs; the first axis of each is the batch.
        limits : Limits, optional
            What may end the run before it is done.

        Returns
        -------
        dict of str to ndarray
            Its outputs for the whole batch.

        Raises
        ------
        NumericError
            If the logits hold NaN or infinity.
        DeadlineError, CancelledError
            If a limit was met.
        """
        named = self.run_unchecked(kind, layers, feeds, limits)
        if "logits" in named and not is_cupy(named["logits"]):  # those are checked when they are fetched
            check_logits(named["logits"])
        return named

    def run_unchecked(
        self, kind: str, layers: Sequence[str], feeds: Mapping[str, Array], limits: Limits = UNLIMITED
    ) -> dict[str, Array]:
        """
        Do as `run`, and leave NaN to the caller, who knows better what each row was.

        Parameters
        ----------
        kind : str
            The program, as in `camrt.export.manifest.Program`.
        layers : sequence of str
            Its layers.
        feeds : mapping of str to ndarray
            Its inputs; the first axis of each is the batch.
        limits : Limits, optional
            What may end the run before it is done.

        Returns
        -------
        dict of str to ndarray
            Its outputs for the whole batch.
        """
        batch = self.source.manifest.batch
        with self.under_way() as others:
            session = self._session(kind, tuple(layers), beside=others)
            return session.run(feeds, limits) if batch is None else _run_chunks(session, feeds, batch, limits)

    @property
    def shares_cores(self) -> bool:
        """Whether a run that begins beside others has threads of its own number."""
        return self._beside is not None

    @contextmanager
    def under_way(self) -> Iterator[bool]:
        """
        Count as a run while the context lasts, so that runs which begin meanwhile leave it its cores.

        Yields
        ------
        bool
            Whether others are under way; never where every run is like any other.
        """
        if not self.shares_cores:
            yield False
            return
        place = object()
        others = bool(_UNDER_WAY)
        _UNDER_WAY.add(place)
        try:
            yield others
        finally:
            _UNDER_WAY.discard(place)

    def _completed(self, program: Program) -> tuple[Provider, ...]:
        """Return the providers with what TensorRT (untested by this project) must be told of one program."""
        if all(p.name != TENSORRT for p in self.providers):
            return self.providers
        ort = runtime()
        require(ort, self.providers)
        preload(ort)
        if why := _unloadable(ort, [TENSORRT]):
            raise ProviderError(f"{NOTE}; {why}")
        facts = {"onnxruntime": ort.__version__, "gpu": _gpu_name(), "precision": self.precision}
        return tuple(
            tensorrt_for(p, self.source.manifest, program, **facts) if p.name == TENSORRT else p for p in self.providers
        )

    def _session(self, kind: str, layers: tuple[str, ...], *, beside: bool) -> Session:
        """Return the session of one program, opening it the first time, and with it that for runs beside others."""
        key = (kind, layers)
        opened = self._open_beside if beside else self._open
        found = opened.get(key)
        if found is not None:
            return found
        device = self.device
        with self._lock:
            if key not in opened:
                program = self.source.program(kind, layers)
                providers = self._completed(program)
                if self._beside is None:
                    self._open[key] = Session(program, providers, self.threads, device)
                else:
                    self._open_beside[key] = Session(program, providers, self._beside, spin=False)
                    self._open[key] = Session(program, providers, self.threads, spin=True)
            return opened[key]


def _unloadable(ort: Any, asked: Sequence[str]) -> str:
    """Say for want of which libraries the first such provider does not load; nothing where all are there."""
    lacking = ((name, missing_libraries(ort, name)) for name in asked)
    return next((refusal(name, missing) for name, missing in lacking if missing), "")


def _gpu_name() -> str:
    """Return the GPU's name, which a TensorRT engine is built for; nothing where CuPy does not tell."""
    try:
        import cupy

        return str(cupy.cuda.runtime.getDeviceProperties(0)["name"])
    except (ImportError, RuntimeError):  # CuPy's errors of driver and runtime are of the latter
        return ""


def check_logits(logits: Array) -> None:
    """
    Refuse logits that are not finite.

    Parameters
    ----------
    logits : ndarray, shape (N, C)
        On the host.

    Raises
    ------
    NumericError
        If one is NaN or infinite; the message names the image.
    """
    if not np.isfinite(logits).all():
        bad = sorted({int(i) for i in np.argwhere(~np.isfinite(logits))[:, 0]})
        raise NumericError(
            f"the model gives NaN or infinite logits for image {bad[0]}: check its weights and the input's range"
        )


def _run_chunks(session: Session, feeds: Mapping[str, Array], size: int, limits: Limits) -> dict[str, Array]:
    """Run a fixed-batch program over a batch of any length; the last chunk is filled up with its own last row."""
    n = len(next(iter(feeds.values())))
    pieces: list[dict[str, Array]] = []
    for start in range(0, n, size):
        rows = np.minimum(np.arange(start, start + size), n - 1)
        found = session.run({k: v[rows] for k, v in feeds.items()}, limits)
        pieces.append({k: v[: n - start] for k, v in found.items()})
    return {name: namespace(whole).concatenate([piece[name] for piece in pieces]) for name, whole in pieces[0].items()}
