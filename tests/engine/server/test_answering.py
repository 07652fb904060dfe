"""A request on its way: what happens to the lease, the body and the counts when something goes wrong."""

from __future__ import annotations

import asyncio
import io
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from camrt.server.answering import INLINE, aside
from camrt.server.faults import UnreadyError
from camrt.server.registry import Registry
from camrt.server.served import Lease
from camrt.server.settings import Settings
from tests import tiny
from tests.engine.server.checking import Client, One
from tests.engine.server.conftest import NAME
from tests.engine.server.running import PATIENCE, inside
from tests.engine.server.watched import Watched


@pytest.fixture
def leases(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> list[Lease]:
    """Return every lease that is taken."""
    taken: list[Lease] = []
    lease = registry.lease

    def leased(*which: Any) -> Lease:
        taken.append(lease(*which))
        return taken[-1]

    monkeypatch.setattr(registry, "lease", leased)
    return taken


def is_over(lease: Lease) -> bool:
    try:
        lease.served  # noqa: B018  a released one raises
    except RuntimeError:
        return True
    return False


@pytest.mark.parametrize(
    ("query", "body", "status"),
    [("", b"no picture", 400), ("?method=nothing", b"x", 400), ("?layer=x", b"x", 404), ("", b"", 400)],
)
def test_a_lease_ends_with_its_request(
    client: Client, leases: list[Lease], query: str, body: bytes, status: int
) -> None:
    assert client.post(f"/explain{query}", content=body).status_code == status
    assert len(leases) == 1 and is_over(leases[0])


def test_a_lease_ends_when_the_answer_is_out(client: Client, leases: list[Lease], photo: bytes) -> None:
    assert client.post("/explain", content=photo).status_code == 200
    assert len(leases) == 1 and is_over(leases[0])


def test_a_model_that_is_not_there_is_told_before_the_body_is_read(client_of: Callable[..., Client]) -> None:
    client = client_of(max_body=10)
    assert client.post(f"/v2/models/{NAME}/infer", content=b"x" * 11).status_code == 413
    assert client.post("/v2/models/nothing/infer", content=b"x" * 11).status_code == 404


def test_a_server_that_stops_takes_nothing(client_of: Callable[..., Client], photo: bytes) -> None:
    client = client_of()
    assert client.app.state.scheduler.drain(10)  # type: ignore[attr-defined]
    answer = client.post("/explain", content=photo)
    assert answer.status_code == 503 and int(answer.headers["retry-after"]) >= 1
    with pytest.raises(UnreadyError):
        client.app.state.scheduler.check_room()  # type: ignore[attr-defined]


def test_probes_are_answered_during_a_run_and_a_client_that_leaves_frees_what_it_held() -> None:
    watched = Watched()
    watched.open.clear()
    with inside(Settings(port=0), registry=One(watched.served)) as live:
        scheduler = live.app.state.scheduler
        for path, accept in (("/explain", "*/*"), ("/explain?method=scorecam", "image/png")):
            leaving = live.connect()
            file = io.BytesIO()
            np.save(file, tiny.images(1))
            leaving.request("POST", path, file.getvalue(), {"accept": accept})
            assert watched.entered.acquire(timeout=PATIENCE)
            assert live.ask("GET", "/v2/health/live")[0] == 200 and scheduler.held > 0
            leaving.close()
            end = time.monotonic() + PATIENCE
            while scheduler.held and time.monotonic() < end:
                live.ask("GET", "/v2/health/live")
            assert scheduler.held == 0
        gauges = live.gauges()
        assert gauges['camrt_requests_total{code="499",method="scorecam",model="tiny"}'] == 1
        assert gauges['camrt_cancelled_total{where="run"}'] == 2 and gauges["camrt_queue_work"] == 0
        watched.open.set()


def test_what_takes_long_runs_in_a_thread() -> None:
    async def where(size: int) -> bool:
        return await aside(size, threading.get_ident) == threading.get_ident()

    assert asyncio.run(where(INLINE)) and not asyncio.run(where(INLINE + 1))
