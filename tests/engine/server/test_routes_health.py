"""Probes and metrics."""

from __future__ import annotations

from collections.abc import Callable

from tests.engine.server.checking import Client
from tests.engine.server.conftest import NAME


def test_probes_of_a_server_that_is_ready(client: Client) -> None:
    assert client.get("/v2/health/live").json() == {"live": True}
    for path in ("/v2/health/ready", "/ping"):
        answer = client.get(path)
        assert answer.status_code == 200 and answer.json() == {"live": True, "ready": True}


def test_a_server_that_stops_is_alive_but_not_ready(client_of: Callable[..., Client]) -> None:
    client = client_of()
    client.app.state.draining = True  # type: ignore[attr-defined]
    assert client.get("/v2/health/live").status_code == 200
    for path in ("/v2/health/ready", "/ping"):
        answer = client.get(path)
        assert answer.status_code == 503 and answer.json() == {"live": False, "ready": False}


def test_metrics_count_requests_by_model_method_and_code(client_of: Callable[..., Client], photo: bytes) -> None:
    client = client_of()
    client.post("/explain?method=layercam", content=photo)
    client.post("/explain?method=nothing", content=photo)
    client.post("/v2/models/made-up/infer", content=b"{}")
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    lines = answer.text.splitlines()
    assert f'camrt_requests_total{{code="200",method="layercam",model="{NAME}"}} 1.0' in lines
    assert f'camrt_requests_total{{code="400",method="none",model="{NAME}"}} 1.0' in lines
    assert 'camrt_requests_total{code="404",method="none",model="none"} 1.0' in lines
    assert f'camrt_model_ready{{model="{NAME}",version="1"}} 1.0' in lines
    assert 'camrt_stage_duration_seconds_count{stage="encode"} 1.0' in lines
    assert "made-up" not in answer.text


def test_what_is_too_large_is_counted(client_of: Callable[..., Client], photo: bytes) -> None:
    client = client_of(max_body=1000)
    assert client.post("/explain", content=photo).status_code == 413
    assert 'camrt_rejected_total{reason="too_large"} 1.0' in client.get("/metrics").text.splitlines()
