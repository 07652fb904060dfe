"""
Whether the process lives and is ready, and its metrics: for probes, without a key.
"""

from __future__ import annotations

import orjson
from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from .gauges import CONTENT_TYPE
from .openapi import JSON, described, mapping

__all__ = ["metrics", "probes"]

FLAG = {"type": "boolean"}

probes = APIRouter(tags=["health"])
metrics = APIRouter(tags=["health"])


@probes.get(
    "/v2/health/live",
    **described("Whether the process lives", {JSON: mapping({"live": FLAG})}, guarded=False),
)
async def _live(request: Request) -> Response:
    """Answer as long as the loop turns."""
    return _flags(200, live=True)


@probes.get(
    "/v2/health/ready",
    **described(
        "Whether every model is ready",
        {JSON: mapping({"live": FLAG, "ready": FLAG})},
        about="503 while models load and while the server stops.",
        guarded=False,
        also=(503,),
    ),
)
@probes.get(
    "/ping",
    **described("The same, for SageMaker", {JSON: mapping({"live": FLAG, "ready": FLAG})}, guarded=False, also=(503,)),
)
async def _ready(request: Request) -> Response:
    """
    Answer 200 where requests are taken, 503 otherwise.

    The protocol's text calls the flag ``live`` and its clients ``ready``; both are sent.
    """
    state = request.app.state
    is_ready = state.registry.ready and not state.draining
    return _flags(200 if is_ready else 503, live=is_ready, ready=is_ready)


@metrics.get(
    "/metrics",
    **described("Prometheus metrics", {"text/plain": {"type": "string"}}, guarded=False),
)
async def _exposition(request: Request) -> Response:
    """Give every metric."""
    return Response(await run_in_threadpool(request.app.state.gauges.exposition), media_type=CONTENT_TYPE)


def _flags(code: int, **flags: bool) -> Response:
    """Write flags."""
    return Response(orjson.dumps(flags), code, media_type=JSON)
