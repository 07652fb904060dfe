"""Prometheus metrics: the names that dashboards rely on, and labels that clients cannot multiply."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from camrt.server.faults import UnreadyError
from camrt.server.gauges import Gauges
from camrt.server.served import Lease

MS = [
    "0.0005",
    "0.001",
    "0.002",
    "0.003",
    "0.005",
    "0.008",
    "0.012",
    "0.02",
    "0.035",
    "0.06",
    "0.1",
    "0.25",
    "1.0",
    "5.0",
]
NAMES = {  # as operators are promised them: type and labels
    "camrt_requests": ("counter", {"model", "method", "code"}),
    "camrt_request_duration_seconds": ("histogram", {"model", "method"}),
    "request_explain_seconds": ("histogram", {"model_name"}),
    "camrt_queue_duration_seconds": ("histogram", set()),
    "camrt_stage_duration_seconds": ("histogram", {"stage"}),
    "camrt_batch_size": ("histogram", set()),
    "camrt_queue_work": ("gauge", set()),
    "camrt_rejected": ("counter", {"reason"}),
    "camrt_cancelled": ("counter", {"where"}),
    "camrt_model_ready": ("gauge", {"model", "version"}),
    "camrt_model_load_seconds": ("gauge", {"model", "version"}),
    "camrt_build_info": ("gauge", {"version", "ort", "cuda", "ep"}),
}


class Models:
    """Two models, one of which is being loaded."""

    def index(self) -> list[dict[str, str]]:
        """List both."""
        return [
            {"name": "cats", "version": "2", "state": "READY", "reason": ""},
            {"name": "dogs", "version": "1", "state": "LOADING", "reason": ""},
        ]

    def names(self) -> list[str]:
        """List the one that answers."""
        return ["cats"]

    def lease(self, name: str, version: str) -> Lease:
        """Give the one that answers."""
        if name != "cats":
            raise UnreadyError("it loads", 5.0)
        return Lease(SimpleNamespace(load_seconds=1.5))  # type: ignore[arg-type]


@pytest.fixture
def gauges() -> Gauges:
    """Return gauges to which everything has happened once."""
    made = Gauges("cpu")
    made.follow(Models())  # type: ignore[arg-type]
    made.request("cats", "gradcam", 200, 0.004)
    made.work(12.5)
    made.waited(0.0007)
    made.ran(5, "cats", "gradcam", 0.01)
    made.stage("run", 0.01)
    made.rejected("full")
    made.cancelled("queue")
    return made


def samples(gauges: Gauges) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return every sample by name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(gauges.exposition().decode())
        for sample in family.samples
    }


def test_names_types_and_labels_are_as_promised(gauges: Gauges) -> None:
    families = {f.name: f for f in text_string_to_metric_families(gauges.exposition().decode())}
    for name, (kind, labels) in NAMES.items():
        assert families[name].type == kind, name
        found = {label for sample in families[name].samples for label in sample.labels} - {"le"}
        assert found == labels, name
    assert "forward and backward" in families["camrt_stage_duration_seconds"].documentation.lower()


@pytest.mark.parametrize(
    "name", [name for name, (kind, _) in NAMES.items() if kind == "histogram" and "batch" not in name]
)
def test_times_have_fine_buckets(gauges: Gauges, name: str) -> None:
    bounds = {dict(labels)["le"] for sample, labels in samples(gauges) if sample == f"{name}_bucket"}
    assert bounds == {*MS, "+Inf"}


def test_what_happens_is_counted_where_it_belongs(gauges: Gauges) -> None:
    said = samples(gauges)
    who = (("method", "gradcam"), ("model", "cats"))
    assert said["camrt_requests_total", (("code", "200"), *who)] == 1
    assert said["camrt_request_duration_seconds_sum", who] == 0.004
    assert said["camrt_request_duration_seconds_bucket", (("le", "0.003"), *who)] == 0
    assert said["camrt_request_duration_seconds_bucket", (("le", "0.005"), *who)] == 1
    assert said["request_explain_seconds_count", (("model_name", "cats"),)] == 1
    assert said["camrt_queue_work", ()] == 12.5
    assert said["camrt_queue_duration_seconds_bucket", (("le", "0.001"),)] == 1
    assert said["camrt_batch_size_sum", ()] == 5
    assert said["camrt_stage_duration_seconds_count", (("stage", "run"),)] == 1
    assert said["camrt_rejected_total", (("reason", "full"),)] == 1
    assert said["camrt_cancelled_total", (("where", "queue"),)] == 1
    assert said["camrt_model_ready", (("model", "cats"), ("version", "2"))] == 1
    assert said["camrt_model_ready", (("model", "dogs"), ("version", "1"))] == 0
    assert said["camrt_model_load_seconds", (("model", "cats"), ("version", "2"))] == 1.5
    assert ("camrt_model_load_seconds", (("model", "dogs"), ("version", "1"))) not in said


def test_names_that_clients_make_up_share_one_label(gauges: Gauges) -> None:
    before = len(samples(gauges))
    for i in range(50):
        gauges.request(f"made-up-{i}", f"cam{i}", 404, 0.001)
        gauges.request("cats", f"cam{i}", 400, 0.001)
        gauges.request("", "", 200, 0.001)
    said = samples(gauges)
    requests: dict[Any, float] = {
        labels: value for (name, labels), value in said.items() if name == "camrt_requests_total"
    }
    assert requests == {
        (("code", "200"), ("method", "gradcam"), ("model", "cats")): 1,
        (("code", "404"), ("method", "unknown"), ("model", "unknown")): 50,
        (("code", "400"), ("method", "unknown"), ("model", "cats")): 50,
        (("code", "200"), ("method", "none"), ("model", "none")): 50,
    }
    assert len(said) - before < 80
    assert said["request_explain_seconds_count", (("model_name", "cats"),)] == 1


def test_two_applications_count_apart(gauges: Gauges) -> None:
    assert samples(Gauges())["camrt_queue_work", ()] == 0


def test_a_device_s_memory_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class On:
        def __init__(self, index: int) -> None:
            pass

        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None: ...

    runtime = SimpleNamespace(getDeviceCount=lambda: 1, memGetInfo=lambda: (30, 100))
    pool = SimpleNamespace(total_bytes=lambda: 7)
    cupy = SimpleNamespace(cuda=SimpleNamespace(runtime=runtime, Device=On), get_default_memory_pool=lambda: pool)
    monkeypatch.setitem(__import__("sys").modules, "cupy", cupy)
    said = samples(Gauges("cuda,cpu"))
    kinds = {dict(labels)["kind"]: value for (name, labels), value in said.items() if name == "camrt_gpu_memory_bytes"}
    assert kinds == {"total": 100, "used": 70, "cupy": 7}
