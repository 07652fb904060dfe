"""
What the server tells Prometheus: one table of names, each with its labels and buckets.

In: what the scheduler reports (`Observer`), what the routes report (`Gauges.request`), and, whenever it is read, what
the models' registry says. Out: the text that ``/metrics`` answers. Labels take few values: names that clients make up
are counted as ``unknown``. One registry an application, so that two in one process do not mix.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import version
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ..errors import CamrtError
from ..methods import METHODS
from ..session import runtime
from .observing import Observer

if TYPE_CHECKING:
    from .registry import Registry

__all__ = ["CONTENT_TYPE", "Gauges"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = tuple(ms / 1e3 for ms in (0.5, 1, 2, 3, 5, 8, 12, 20, 35, 60, 100, 250, 1000, 5000))
IMAGES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
UNKNOWN = "unknown"  # a name that is no model's or method's
NONE = "none"  # the request came to no model, or asked for no explanation


class Gauges(Observer):
    """
    Counts what happens.

    Parameters
    ----------
    providers : str
        What the models run on, as `camrt.load` takes it.
    """

    def __init__(self, providers: str = "cpu") -> None:
        self.collectors = collectors = CollectorRegistry()
        self._registry: Registry | None = None
        self._models: set[str] = set()

        def counter(name: str, help: str, *labels: str) -> Counter:
            return Counter(name, help, labels, registry=collectors)

        def seconds(name: str, help: str, *labels: str) -> Histogram:
            return Histogram(name, help, labels, buckets=SECONDS, registry=collectors)

        self._requests = counter("camrt_requests_total", "Requests answered.", "model", "method", "code")
        self._duration = seconds(
            "camrt_request_duration_seconds", "From a request's headers to its answer.", "model", "method"
        )
        self._explain = seconds("request_explain_seconds", "Explanations answered, as KServe names it.", "model_name")
        self._queue = seconds("camrt_queue_duration_seconds", "From a request's admission to its run.")
        self._stage = seconds(
            "camrt_stage_duration_seconds",
            "One step of a request. Forward and backward are one graph here: run stands for both, and for the map.",
            "stage",
        )
        self._batch = Histogram("camrt_batch_size", "Images a run.", buckets=IMAGES, registry=collectors)
        self._work = Gauge("camrt_queue_work", "Forward-equivalents that wait or run.", registry=collectors)
        self._rejected = counter("camrt_rejected_total", "Requests that were not taken.", "reason")
        self._cancelled = counter("camrt_cancelled_total", "Requests whose client left.", "where")
        build = Gauge("camrt_build_info", "Always 1.", ("version", "ort", "cuda", "ep"), registry=collectors)
        ort = runtime()
        build.labels(version("camrt"), ort.__version__, getattr(ort, "cuda_version", None) or NONE, providers).set(1)
        ProcessCollector(registry=collectors)
        if any(name in providers.lower() for name in ("cuda", "tensorrt")):
            collectors.register(_Memory())

    def follow(self, registry: Registry) -> None:
        """
        Ask this registry, whenever the metrics are read, which models there are.

        Parameters
        ----------
        registry : Registry
            The application's.
        """
        self._registry = registry
        self.collectors.register(_Models(registry))

    def request(self, model: str, method: str, code: int, seconds: float) -> None:
        """
        Count a request that is over.

        Parameters
        ----------
        model, method : str
            As the request came to them; empty where it came to none.
        code : int
            The status; 499 where the client left.
        seconds : float
            From its headers to its answer.
        """
        names = self._model(model), self._method(method)
        self._requests.labels(*names, str(code)).inc()
        self._duration.labels(*names).observe(seconds)
        if method and code == 200:
            self._explain.labels(names[0]).observe(seconds)

    def _model(self, name: str) -> str:
        """Return a model's label."""
        if name and name not in self._models and self._registry is not None:
            self._models = set(self._registry.names())
        return (name if name in self._models else UNKNOWN) if name else NONE

    @staticmethod
    def _method(name: str) -> str:
        """Return a method's label."""
        return (name if name in METHODS else UNKNOWN) if name else NONE

    def work(self, held: float) -> None:
        """
        Set what waits or runs.

        Parameters
        ----------
        held : float
            Forward-equivalents.
        """
        self._work.set(held)

    def waited(self, seconds: float) -> None:
        """
        Count a wait.

        Parameters
        ----------
        seconds : float
            From admission to the run.
        """
        self._queue.observe(seconds)

    def ran(self, images: int, model: str, method: str, seconds: float) -> None:
        """
        Count a run.

        Parameters
        ----------
        images : int
            How many it took.
        model, method : str
            Whose.
        seconds : float
            How long it took; `stage` counts it.
        """
        self._batch.observe(images)

    def stage(self, stage: str, seconds: float) -> None:
        """
        Count a step.

        Parameters
        ----------
        stage : str
            ``decode``, ``run`` or ``encode``.
        seconds : float
            How long it took.
        """
        self._stage.labels(stage).observe(seconds)

    def rejected(self, reason: str) -> None:
        """
        Count a refusal.

        Parameters
        ----------
        reason : str
            ``full``, ``deadline`` or ``too_large``.
        """
        self._rejected.labels(reason).inc()

    def cancelled(self, where: str) -> None:
        """
        Count a client that left.

        Parameters
        ----------
        where : str
            ``queue`` or ``run``.
        """
        self._cancelled.labels(where).inc()

    def exposition(self) -> bytes:
        """
        Write everything in Prometheus' text format.

        Returns
        -------
        bytes
            Of `CONTENT_TYPE`.
        """
        return generate_latest(self.collectors)


class _Models(Collector):
    """Says which models are ready, and how long they took to load."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        """Ask the registry."""
        labels = ("model", "version")
        ready = GaugeMetricFamily("camrt_model_ready", "1 where requests are taken.", labels=labels)
        took = GaugeMetricFamily("camrt_model_load_seconds", "To open, check and warm up.", labels=labels)
        for row in self._registry.index():
            names = [str(row["name"]), str(row["version"])]
            ready.add_metric(names, float(row["state"] == "READY"))
            with suppress(CamrtError), self._registry.lease(*names) as lease:  # it may have gone since
                took.add_metric(names, lease.served.load_seconds)
        yield ready
        yield took


class _Memory(Collector):
    """Says what of the devices' memory is taken, and what of that CuPy holds."""

    def collect(self) -> Iterator[Metric]:
        """Ask CUDA, through CuPy."""
        import cupy

        memory = GaugeMetricFamily("camrt_gpu_memory_bytes", "Memory of a device.", labels=("device", "kind"))
        for index in range(cupy.cuda.runtime.getDeviceCount()):
            with cupy.cuda.Device(index):
                free, total = cupy.cuda.runtime.memGetInfo()
                pool = cupy.get_default_memory_pool().total_bytes()
            for kind, count in (("total", total), ("used", total - free), ("cupy", pool)):
                memory.add_metric([str(index), kind], float(count))
        yield memory
