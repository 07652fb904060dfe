"""
The steps of `bench.gpu_first`: each asks one thing of a GPU, and raises where the answer is wrong.

In: `Settings`. Out: one line, and figures for the file. What only a measurement can tell (differences by precision, images
a second) is a figure; what must hold is checked. No step relies on another.
"""

from __future__ import annotations

import ctypes
import gc
import json
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from time import perf_counter, sleep
from typing import Any

import numpy as np
import numpy.typing as npt

from . import pictures
from .machine import facts

__all__ = ["STEPS", "NotRun", "Settings", "Step", "absence", "machine"]

Array = npt.NDArray[Any]
Answer = tuple[str, dict[str, Any]]

ROOT = Path(__file__).parents[1]
CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
PACKAGES = ("onnxruntime-gpu", "onnxruntime", "cupy-cuda13x", "torch", "nvidia-cublas", "nvidia-cudnn-cu13")
LOGITS = 1e-4  # largest relative difference of float32 without TF32 from the CPU; sums are taken in another order
TESTING = 500  # seconds for the kernels' tests: less than a step may take, so that nothing is left behind
ITERATIONS = 1000
BATCHES = (1, 4, 16, 32, 64, 128, 256)
RELOADS = 20
GROWTH = 64 * 2**20  # bytes that reloading may leave on the device: one arena's slack
PATIENCE = 5.0  # seconds that a cancelled request may take to end


class NotRun(Exception):
    """A step that cannot be run here; the message says why."""


@dataclass(frozen=True)
class Settings:
    """The classifier, and whether few repetitions will do."""

    model: Path | None
    quick: bool = False

    @property
    def file(self) -> str:
        """The classifier's path."""
        assert self.model is not None
        return str(self.model)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """The shape of one image."""
        shape = pictures.input_shape(Path(self.file))["shape"]
        assert isinstance(shape, list)
        return tuple(shape)

    def x(self, n: int) -> Array:
        """Return `n` prepared images."""
        return pictures.batch((n, *self.shape))


@dataclass(frozen=True)
class Step:
    """What is asked, and whether ONNX Runtime's CUDA provider is needed beside the device."""

    run: Callable[[Settings], Answer]
    needs_provider: bool = True


# where we are ----------------------------------------------------------------------------------------------------


def absence(*, needs_provider: bool) -> str:
    """
    Say why a step cannot be run here.

    Parameters
    ----------
    needs_provider : bool
        Whether ONNX Runtime must have its CUDA provider.

    Returns
    -------
    str
        Nothing where it can.
    """
    try:
        import cupy

        if cupy.cuda.runtime.getDeviceCount() < 1:
            return "no device: CuPy finds none"
    except (ImportError, RuntimeError) as error:  # CuPy's errors of driver and runtime are of the latter
        return " ".join(f"no device: {error}".split())[:200]
    if needs_provider:
        ort = _ort()
        if CUDA not in ort.get_available_providers():
            return f"no provider: this ONNX Runtime {ort.__version__} has {', '.join(ort.get_available_providers())}"
    return ""


def machine() -> dict[str, Any]:
    """
    Describe the machine, its GPU and the libraries of both.

    Returns
    -------
    dict
        As `bench.machine.facts`, with the device, the driver, CUDA, cuDNN and the packages that use them.
    """
    found = facts()
    found["versions"] |= {name: known for name in PACKAGES if (known := _version(name))}
    query = "name,driver_version,memory.total,compute_cap,clocks.max.sm,power.limit"
    found["gpu"] = _printed(["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"])
    found["cudnn"] = _cudnn_version()
    if not absence(needs_provider=False):
        import cupy

        found["cuda"] = {
            "runtime": cupy.cuda.runtime.runtimeGetVersion(),
            "driver": cupy.cuda.runtime.driverGetVersion(),
        }
    return found


def _version(name: str) -> str | None:
    """Return an installed package's version."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _printed(command: Sequence[str]) -> str | None:
    """Return what a program prints, where it is there."""
    if shutil.which(command[0]) is None:
        return None
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or None


def _cudnn_version() -> int | None:
    """Return cuDNN's own number, once its library is loaded."""
    try:
        return int(ctypes.CDLL("libcudnn.so.9").cudnnGetVersion())
    except (OSError, AttributeError):
        return None


# tools -----------------------------------------------------------------------------------------------------------


def _ort() -> Any:
    """Return ONNX Runtime with CUDA's libraries loaded."""
    import onnxruntime

    from camrt.libraries import preload

    preload(onnxruntime)
    return onnxruntime


def _session(
    model: bytes | str, options: Mapping[str, Any] | None = None, config: Mapping[str, str] | None = None
) -> Any:
    """Open a session on CUDA alone, where no node may fall back to the CPU."""
    ort = _ort()
    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    for name, value in {"session.disable_cpu_ep_fallback": "1", **(config or {})}.items():
        settings.add_session_config_entry(name, value)
    told = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC", **(options or {})}
    session = ort.InferenceSession(
        model, settings, providers=[CUDA], provider_options=[{k: str(v) for k, v in told.items()}], enable_fallback=0
    )
    if session.get_providers()[0] != CUDA:
        raise RuntimeError(f"CUDA was asked for, the session is on {session.get_providers()}")
    return session


def _explainer(settings: Settings, providers: Any, precision: str = "float32") -> Any:
    """Open the classifier."""
    import camrt

    return camrt.load(settings.file, preprocess="imagenet", providers=providers, precision=precision)


def _program(settings: Settings, kind: str, precision: str = "float32") -> bytes:
    """Return one program of the classifier, at its default layer."""
    from camrt.export.half import Half
    from camrt.export.live import open_model
    from camrt.export.programs import WITHOUT_LAYER

    live = open_model(settings.file)
    layers = () if kind in WITHOUT_LAYER else (live.manifest.default_layer.name,)
    model = (Half(live) if precision == "float16" else live).program(kind, layers).model
    assert isinstance(model, bytes)
    return model


def _small(op: str, **attributes: Any) -> bytes:
    """Return a model of Conv, MaxPool, Gemm and Softmax, or of one operator with a (4, 4, 3, 3) weight."""
    from onnx import TensorProto, checker, helper, numpy_helper

    rng = np.random.default_rng(0)
    shapes = {"w": (4, 4, 3, 3), "v": (64, 5)}
    weights = [numpy_helper.from_array(rng.standard_normal(s).astype(np.float32), n) for n, s in shapes.items()]
    nodes = [helper.make_node(op, ["x", "w"], ["y"], **attributes)]
    if op == "Conv":
        nodes = [
            helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
            helper.make_node("MaxPool", ["c"], ["m"], kernel_shape=[2, 2], strides=[2, 2]),
            helper.make_node("Flatten", ["m"], ["f"]),
            helper.make_node("Gemm", ["f", "v"], ["g"]),
            helper.make_node("Softmax", ["g"], ["y"], axis=1),
        ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4, 8, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "c"] if op == "Conv" else ["n", "c", "h", "w"])
    held = [w for w in weights if any(w.name in node.input for node in nodes)]
    graph = helper.make_graph(nodes, "small", [x], [y], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    checker.check_model(model)
    return bytes(model.SerializeToString())


def _on_cpu(model: bytes, feeds: Mapping[str, Array]) -> list[Array]:
    """Run a model on the CPU."""
    ort = _ort()
    return [np.asarray(y) for y in ort.InferenceSession(model, providers=[CPU]).run(None, dict(feeds))]


def _difference(got: Array, want: Array) -> dict[str, float]:
    """Return the largest difference, and that relative to the largest value."""
    apart = float(np.abs(np.asarray(got, np.float64) - want).max())
    return {"max_abs": apart, "max_rel": apart / max(float(np.abs(want).max()), 1e-30)}


def _bind(session: Any, arrays: Mapping[str, Any], results: Mapping[str, Any]) -> Any:
    """Bind arrays on the device; the caller keeps them alive."""
    binding = session.io_binding()
    for name, array in arrays.items():
        binding.bind_input(name, "cuda", 0, array.dtype.type, array.shape, array.data.ptr)
    for name, array in results.items():
        binding.bind_output(name, "cuda", 0, array.dtype.type, array.shape, array.data.ptr)
    return binding


def _logits_like(session: Any, n: int) -> dict[str, Any]:
    """Return room on the device for the logits of `n` images."""
    import cupy

    (output,) = session.get_outputs()
    return {output.name: cupy.empty((n, output.shape[1]), np.float32)}


def _wall(call: Callable[[], object], calls: int) -> float:
    """Return the median seconds of a call that waits for the device itself, after two to warm up."""
    seconds = []
    for turn in range(calls + 2):
        start = perf_counter()
        call()
        if turn >= 2:
            seconds.append(perf_counter() - start)
    return median(seconds)


# the steps -------------------------------------------------------------------------------------------------------


def kernels(_: Settings) -> Answer:
    """Every kernel on the device against its NumPy path: the suite's own tests, those marked gpu."""
    return _pytest([])


def sanitizer(_: Settings) -> Answer:
    """The same under compute-sanitizer, for memory and for races."""
    if shutil.which("compute-sanitizer") is None:
        raise NotRun("compute-sanitizer is not installed")
    figures = {}
    for tool in ("memcheck", "racecheck"):
        figures[tool] = _pytest(["compute-sanitizer", "--tool", tool, "--error-exitcode", "9"])[1]
    return "memcheck and racecheck find nothing", figures


def _pytest(before: Sequence[str]) -> Answer:
    """Run the kernels' tests that need a device, under another program where one is named."""
    command = [*before, sys.executable, "-m", "pytest", "tests/kernels", "-m", "gpu", "-q", "-p", "no:cacheprovider"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=TESTING)
    counts = {what: int(n) for n, what in re.findall(r"(\d+) (passed|failed|skipped|error)", ended.stdout)}
    if "No module named pytest" in ended.stderr:
        raise NotRun("pytest is not installed: pip install 'camrt[test]'")
    if ended.returncode or not counts.get("passed") or counts.get("skipped"):
        raise RuntimeError(f"{counts}, status {ended.returncode}: {(ended.stdout + ended.stderr).strip()[-1500:]}")
    return f"{counts['passed']} tests", counts


def provider(_: Settings) -> Answer:
    """The CUDA provider loads; a Conv, a MaxPool, a Gemm and a Softmax run on it and on nothing else."""
    x = {"x": np.random.default_rng(1).standard_normal((2, 4, 8, 8)).astype(np.float32)}
    session = _session(_small("Conv"))
    apart = _difference(session.run(None, x)[0], _on_cpu(_small("Conv"), x)[0])
    if apart["max_rel"] > LOGITS:
        raise RuntimeError(f"it differs from the CPU by {apart}")
    build = getattr(_ort(), "get_build_info", lambda: None)()
    return "loads and agrees with the CPU", {**apart, "build": build}


def cudnn(_: Settings) -> Answer:
    """Convolutions with cuDNN and without it."""
    x = {"x": np.random.default_rng(1).standard_normal((2, 4, 8, 8)).astype(np.float32)}
    want, figures = _on_cpu(_small("Conv"), x)[0], dict[str, Any](version=_cudnn_version())
    for enabled in (1, 0):
        try:
            figures[f"enable_cudnn={enabled}"] = _difference(
                _session(_small("Conv"), {"enable_cudnn": enabled}).run(None, x)[0], want
            )
        except Exception as problem:  # noqa: BLE001 - without cuDNN kernels may say that they are not implemented
            figures[f"enable_cudnn={enabled}"] = " ".join(str(problem).split())[:300]
    with_it = figures["enable_cudnn=1"]
    if "max_rel" not in with_it or with_it["max_rel"] > LOGITS:
        raise RuntimeError(f"cuDNN {figures['version']} does not run a Conv as the CPU does: {with_it}")
    return f"cuDNN {figures['version']}", figures


def parity(settings: Settings) -> Answer:
    """Logits, gradients and heatmaps on CUDA against the CPU: float32, TF32 and float16."""
    from camrt.agreement import agreement

    x = settings.x(4)
    reference = _explainer(settings, "cpu")
    classes = reference.logits(x).argmax(1)
    want = reference.explain(x, target=classes[:, None])
    (gradients,) = reference.gradients(x, target=classes[:, None]).values()
    figures: dict[str, Any] = {}
    for precision in ("float32", "tf32", "float16"):
        explainer = _explainer(settings, "cuda", precision)
        got = explainer.explain(x, target=classes[:, None])
        (slopes,) = explainer.gradients(x, target=classes[:, None]).values()
        near = [agreement(a, b).to_dict() for a, b in zip(got.heatmaps[:, 0], want.heatmaps[:, 0], strict=True)]
        figures[precision] = {
            "logits": _difference(got.logits, want.logits),
            "gradients": _difference(slopes, gradients),
            "heatmaps": near,
        }
    worst = max(figures["float32"][what]["max_rel"] for what in ("logits", "gradients"))
    if worst > LOGITS:
        raise RuntimeError(f"float32 without TF32 differs from the CPU by {worst:.2g}, relative; {figures}")
    apart = ", ".join(f"{name} {figures[name]['logits']['max_rel']:.1e}" for name in figures)
    return f"logits differ, relative: {apart}", figures


def assignment(settings: Settings) -> Answer:
    """Every node of every program is CUDA's, no copies; a ConvTranspose falls to the CPU by its pads alone."""
    from camrt.export.live import open_model
    from camrt.export.programs import KINDS, WITHOUT_LAYER

    live = open_model(settings.file)
    layer = (live.manifest.default_layer.name,)
    elsewhere, refused = {}, {}
    for kind in KINDS:
        model = live.program(kind, () if kind in WITHOUT_LAYER else layer).model
        assert isinstance(model, bytes)
        found = _elsewhere(model)
        if found:
            elsewhere[kind] = found
        try:
            _session(model)
        except Exception as problem:  # noqa: BLE001 - a node that would fall back
            refused[kind] = " ".join(str(problem).split())[:200]
    pads = {
        "symmetric": _elsewhere(_small("ConvTranspose", strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1])),
        "asymmetric": _elsewhere(_small("ConvTranspose", strides=[2, 2], pads=[0, 0, 1, 1])),
    }
    figures = {"elsewhere": elsewhere, "refused": refused, "conv_transpose": pads}
    if elsewhere or refused or pads["symmetric"]:
        raise RuntimeError(f"nodes are not on CUDA: {figures}")
    dropped = "falls to the CPU" if pads["asymmetric"] else "stays on CUDA by now: the rule may go"
    return f"{len(KINDS)} programs on CUDA alone; an asymmetric ConvTranspose {dropped}", figures


def _elsewhere(model: bytes) -> dict[str, int]:
    """Count the nodes that CUDA leaves to another provider, by operator, and the copies that this makes."""
    config = {"session.disable_cpu_ep_fallback": "0", "session.record_ep_graph_assignment_info": "1"}
    parts = _session(model, config=config).get_provider_graph_assignment_info()
    return dict(
        Counter(
            node.op_type
            for part in parts
            for node in part.get_nodes()
            if part.ep_name != CUDA or node.op_type.startswith("Memcpy")
        )
    )


def streams(settings: Settings) -> Answer:
    """CuPy's work and the sessions' in the order of one stream, without waiting; and what happens without that."""
    import cupy

    model, x = _program(settings, "forward"), settings.x(4)
    turns = ITERATIONS // 10 if settings.quick else ITERATIONS
    wrong = {}
    for shared in (True, False):
        stream = cupy.cuda.Stream(non_blocking=True)
        session = _session(model, {"user_compute_stream": stream.ptr} if shared else {})
        wrong["shared" if shared else "apart"] = _races(session, stream, x, turns)
    figures = {"iterations": turns, "wrong": wrong}
    if wrong["shared"]:
        raise RuntimeError(f"results differ although the stream is shared: {figures}")
    return f"0 of {turns} wrong on one stream, {wrong['apart']} without it", figures


def _races(session: Any, stream: Any, x: Array, turns: int) -> int:
    """Write the input by a kernel and run at once, again and again; count the results that are not what they should be."""
    import cupy

    ort = _ort()
    options = ort.RunOptions()
    options.add_run_config_entry("disable_synchronize_execution_providers", "1")
    with stream:
        base, scales = cupy.asarray(x), [1.0, 0.25]
        given, results = {"x": cupy.empty_like(base)}, _logits_like(session, len(x))
        (logits,) = results.values()
        binding, wants = _bind(session, given, results), []
        for scale in scales:
            cupy.multiply(base, np.float32(scale), out=given["x"])
            stream.synchronize()
            session.run_with_iobinding(binding)
            wants.append(logits.copy())
        wrong = cupy.zeros((), np.int64)
        for turn in range(turns):
            cupy.multiply(base, np.float32(scales[turn % 2]), out=given["x"])
            session.run_with_iobinding(binding, options)
            near = cupy.abs(logits - wants[turn % 2]).max() <= 1e-3 * cupy.abs(wants[turn % 2]).max()
            wrong += ~near
        stream.synchronize()
        return int(wrong)


def dlpack(settings: Settings) -> Answer:
    """Arrays pass between CuPy and ONNX Runtime without a copy, and outlive the session."""
    import cupy

    ort = _ort()
    array = cupy.arange(24, dtype=np.float32).reshape(4, 6)
    value = ort.OrtValue.from_dlpack(array)
    back = cupy.from_dlpack(value)
    if not value.data_ptr() == array.data.ptr == back.data.ptr:
        raise RuntimeError(f"it was copied: {array.data.ptr}, {value.data_ptr()}, {back.data.ptr}")
    session = _session(_program(settings, "forward"))
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", ort.OrtValue.from_dlpack(cupy.asarray(settings.x(2))))
    cupy.cuda.Device().synchronize()  # the session's stream is its own
    binding.bind_output("logits", "cuda")
    session.run_with_iobinding(binding)
    (made,) = binding.get_outputs()
    kept, before = cupy.from_dlpack(made), made.numpy().copy()
    del session, binding, made, value
    gc.collect()
    if not np.array_equal(cupy.asnumpy(kept), before):
        raise RuntimeError("an output changed when its session was dropped")
    return "the same addresses; outputs outlive their session", {}


def graphs(settings: Settings) -> Answer:
    """CUDA graphs, one a batch size: a replay equals an eager run, from whichever thread it is asked for."""
    import cupy

    eager, recorded = (_explainer(settings, [("cuda", {"enable_cuda_graph": on})]) for on in (0, 1))
    figures: dict[str, Any] = {}
    for n in (1, 3, 4, 16):
        x = settings.x(n)
        want = eager.explain(x).heatmaps
        apart = [_difference(recorded.explain(x).heatmaps, want)["max_abs"] for _ in range(6)]
        figures[str(n)] = apart
        if max(apart) > 1e-3:
            raise RuntimeError(f"a replay differs from an eager run by {max(apart):.2g} at batch {n}")
    threads = [threading.Thread(target=recorded.explain, args=(settings.x(4),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    figures["free_before_release"] = cupy.cuda.runtime.memGetInfo()[0]
    figures["released"] = _released(settings)
    figures["free_after_release"] = cupy.cuda.runtime.memGetInfo()[0]
    return "replays equal eager runs at 4 batch sizes", figures


def _released(settings: Settings) -> str:
    """Record one graph by hand and let go of it again."""
    import cupy

    ort, x = _ort(), settings.x(4)
    session = _session(_program(settings, "forward"), {"enable_cuda_graph": 1})
    given, results = {"x": cupy.asarray(x)}, _logits_like(session, len(x))
    binding = _bind(session, given, results)
    cupy.cuda.Device().synchronize()  # the session's stream is its own
    for graph in ("-1", "-1", "4", "4"):
        options = ort.RunOptions()
        options.add_run_config_entry("gpu_graph_id", graph)
        session.run_with_iobinding(binding, options)
    before = cupy.cuda.runtime.memGetInfo()[0]
    session.release_captured_graph(4)
    return f"{cupy.cuda.runtime.memGetInfo()[0] - before} bytes came free"


def throughput(settings: Settings) -> Answer:
    """Images a second of the forward pass, by precision, batch, layout and search; from events on the device."""
    figures: dict[str, dict[str, Any]] = {}
    for name, precision, options, batches in _settings_of(settings):
        try:
            figures[name] = dict(_rates(settings, precision, options, batches))
        except Exception as problem:  # noqa: BLE001 - one setting that this build refuses says nothing of the others
            figures[name] = {"refused": " ".join(str(problem).split())[:200]}
    rates = [rate for found in figures.values() for n, rate in found.items() if n != "refused"]
    if not rates:
        raise RuntimeError(f"no setting ran: {figures}")
    return f"up to {max(rates):.0f} images/s", figures


def _settings_of(settings: Settings) -> Iterator[tuple[str, str, dict[str, str], Sequence[int]]]:
    """Name what is measured."""
    every = (1, 16) if settings.quick else BATCHES
    for precision in ("float32", "tf32", "float16"):
        tf32 = {"use_tf32": str(int(precision == "tf32"))}
        for nhwc in ("0", "1"):
            yield f"{precision}, prefer_nhwc={nhwc}", precision, {**tf32, "prefer_nhwc": nhwc}, every
        searched = {**tf32, "cudnn_conv_algo_search": "EXHAUSTIVE"}
        yield f"{precision}, EXHAUSTIVE", precision, searched, every[::3]


def _rates(
    settings: Settings, precision: str, options: Mapping[str, str], batches: Sequence[int]
) -> Iterator[tuple[str, float]]:
    """Measure one setting at every batch size: the median of repeated runs, after some to warm up."""
    import cupy

    stream = cupy.cuda.Stream(non_blocking=True)
    session = _session(_program(settings, "forward", precision), {**options, "user_compute_stream": str(stream.ptr)})
    for n in batches:
        with stream:
            given, results = {"x": cupy.asarray(settings.x(n))}, _logits_like(session, n)
            binding = _bind(session, given, results)
            times = []
            for turn in range(8 if settings.quick else 40):
                start, end = cupy.cuda.Event(), cupy.cuda.Event()
                start.record(stream)
                session.run_with_iobinding(binding)
                end.record(stream)
                end.synchronize()
                if turn >= 4:
                    times.append(cupy.cuda.get_elapsed_time(start, end) / 1000)
        yield str(n), n / median(times)


def product(settings: Settings) -> Answer:
    """Grad-CAM over the forward pass, Score-CAM's images a second, what an upload costs, and where the time goes."""
    import cupy

    calls = 5 if settings.quick else 30
    figures: dict[str, Any] = {}
    for precision in ("float32", "tf32", "float16"):
        explainer = _explainer(settings, "cuda", precision)
        for n in (1, 16):
            forward = _wall(partial(explainer.logits, settings.x(n)), calls)
            cam = _wall(partial(explainer.explain, settings.x(n)), calls)
            figures[f"gradcam, {precision}, batch {n}"] = {"seconds": cam, "over_logits": cam / forward}
        score = _wall(partial(explainer.explain, settings.x(1), method="scorecam"), 1 if settings.quick else 3)
        figures[f"scorecam, {precision}"] = {"images_per_second": 1 / score}
    for kind in (np.uint8, np.float32):
        host = np.zeros(settings.x(64).shape, kind)

        def upload(host: Array = host) -> None:
            cupy.asarray(host).astype(np.float32)
            cupy.cuda.Device().synchronize()

        figures[f"upload of 64, {np.dtype(kind).name}"] = {"seconds": _wall(upload, calls)}
    figures["profile"] = _profile(settings)
    best = figures["gradcam, float32, batch 16"]["over_logits"]
    return f"Grad-CAM takes {best:.2f} of the logits' time at batch 16", figures


def _profile(settings: Settings) -> dict[str, float]:
    """Return the share of time by operator, the ten largest, of Grad-CAM's program."""
    ort, x = _ort(), settings.x(16)
    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.enable_profiling, options.profile_file_prefix = True, str(Path(folder) / "profile")
        session = ort.InferenceSession(
            _program(settings, "gradient"),
            options,
            providers=[CUDA],
            provider_options=[{"use_tf32": "0"}],
            enable_fallback=0,
        )
        for _ in range(10):
            session.run(None, {"x": x, "target": np.full(len(x), -1, np.int64)})
        events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
    spent: Counter[str] = Counter()
    for event in events:
        if event.get("cat") in ("Node", "Kernel") and "dur" in event:
            spent[f"{event['cat']} {event.get('args', {}).get('op_name', event['name'])}"] += event["dur"]
    whole = sum(spent.values()) or 1
    return {name: duration / whole for name, duration in spent.most_common(10)}


def stopping(settings: Settings) -> Answer:
    """A request that is cancelled ends soon, and the sessions serve the next one."""
    import camrt

    explainer, x = _explainer(settings, "cuda"), settings.x(8)
    want = explainer.explain(x).heatmaps
    switch, pulled = camrt.Cancellation(), []

    def pull() -> None:
        sleep(0.5)
        pulled.append(perf_counter())
        switch.cancel()

    threading.Thread(target=pull).start()
    try:
        explainer.explain(x, method="scorecam", cancel=switch)
    except camrt.errors.CancelledError:
        took = perf_counter() - pulled[0]
    else:
        raise NotRun("Score-CAM of 8 images was done before it could be cancelled")
    after = _difference(explainer.explain(x).heatmaps, want)["max_abs"]
    if took > PATIENCE or after > 1e-3:
        raise RuntimeError(f"it took {took:.2f} s to end, and the next result is off by {after:.2g}")
    return f"it ended {took * 1000:.0f} ms after the call", {"seconds": took, "next_off_by": after}


def memory(settings: Settings) -> Answer:
    """Limits are kept, and opening a model again and again leaves nothing on the device."""
    import cupy

    def used() -> int:
        free, whole = cupy.cuda.runtime.memGetInfo()
        return int(whole - free)

    def once() -> int:
        explainer = _explainer(settings, [("cuda", {"gpu_mem_limit": 4 * 2**30})])
        explainer.explain(settings.x(4))
        del explainer
        gc.collect()
        cupy.get_default_memory_pool().free_all_blocks()
        return used()

    before = used()
    levels = [once() for _ in range(4 if settings.quick else RELOADS)]
    figures: dict[str, Any] = {"before": before, "after_each": levels, "refused": {}}
    for name, providers in {"gpu_mem_limit": [("cuda", {"gpu_mem_limit": 2**20})]}.items():
        try:
            _explainer(settings, providers).explain(settings.x(4))
            raise RuntimeError(f"{name} of 1 MB was not kept")
        except Exception as problem:
            if "was not kept" in str(problem):
                raise
            figures["refused"][name] = " ".join(str(problem).split())[:300]
    pool = cupy.get_default_memory_pool()
    pool.set_limit(size=2**20)
    try:
        cupy.zeros(2**20, np.float32)
        raise RuntimeError("CuPy's pool limit of 1 MB was not kept")
    except cupy.cuda.memory.OutOfMemoryError as problem:
        figures["refused"]["pool"] = str(problem)[:300]
    finally:
        pool.set_limit(size=0)
    grown = levels[-1] - levels[1]
    if grown > GROWTH:
        raise RuntimeError(f"reloading leaves {grown / 2**20:.0f} MB on the device: {levels}")
    return f"{grown / 2**20:.0f} MB after {len(levels)} reloads; limits are kept", figures


def tensorrt(settings: Settings) -> Answer:
    """Asking for TensorRT without its libraries is camrt's own error, which names them, and no fallback."""
    import camrt
    from camrt.libraries import missing_libraries
    from camrt.providers import TENSORRT
    from camrt.tensorrt import NOTE

    if TENSORRT not in _ort().get_available_providers():
        raise NotRun("this ONNX Runtime is built without TensorRT")
    missing = missing_libraries(_ort(), TENSORRT)
    if not missing:
        raise NotRun("TensorRT is installed here, so its refusal cannot be seen")
    figures = {"missing": missing}
    for providers in ("tensorrt", "tensorrt,cuda", "tensorrt,cuda,cpu"):
        try:
            _explainer(settings, providers).logits(settings.x(1))
        except camrt.errors.ProviderError as error:
            figures[providers] = [str(error)]
            if NOTE not in str(error) or missing[0] not in str(error):
                raise RuntimeError(f"{providers}: the error does not say what is missing: {error}") from error
        else:
            raise RuntimeError(f"{providers} was served by something else")
    return f"refused for want of {', '.join(missing)}", figures


STEPS: dict[str, Step] = {
    "kernels": Step(kernels, needs_provider=False),
    "sanitizer": Step(sanitizer, needs_provider=False),
    "provider": Step(provider),
    "cudnn": Step(cudnn),
    "parity": Step(parity),
    "assignment": Step(assignment),
    "streams": Step(streams),
    "dlpack": Step(dlpack),
    "graphs": Step(graphs),
    "throughput": Step(throughput),
    "product": Step(product),
    "stopping": Step(stopping),
    "memory": Step(memory),
    "tensorrt": Step(tensorrt),
}
