"""
The application: routes, what they share, and how errors are answered.

::

    Access (access.py)  ->  errors as {"error": ...}  ->  a route (routes_*.py)  ->  answering.py  ->  scheduler

Each router asks for its key on the route that was matched, never by looking at a path.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

import orjson
import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from ..errors import CamrtError, InputError
from . import routes_health, routes_models, routes_page, routes_plain, routes_v1, routes_v2
from .access import Access, refusal, report
from .faults import BusyError, TooLargeError
from .gauges import Gauges
from .heap import trim_when_quiet
from .openapi import ERROR, JSON
from .registry import Registry
from .scheduler import Scheduler
from .settings import Settings
from .statistics import Statistics

__all__ = ["create_app"]

PROBES = ("/v2/health/live", "/v2/health/ready", "/ping", "/metrics")
KEYS = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


def create_app(
    settings: Settings,
    *,
    registry: Registry | None = None,
    scheduler: Scheduler | None = None,
    gauges: Gauges | None = None,
) -> FastAPI:
    """
    Make the application.

    Parameters
    ----------
    settings : Settings
        Everything that can be set.
    registry : Registry, optional
        Models that the caller opens and closes; otherwise those that the settings name are opened, in a thread, when the
        application starts, and closed when it ends.
    scheduler : Scheduler, optional
        Who runs them; the caller closes it.
    gauges : Gauges, optional
        Who counts.

    Returns
    -------
    FastAPI
        An ASGI application. Its state holds ``settings``, ``registry``, ``scheduler``, ``gauges``, ``statistics``,
        ``draining`` (set while the process stops) and ``mistake`` (why the models could not be opened).

    Examples
    --------
    >>> sorted(route for route in create_app(Settings()).openapi()["paths"] if route.startswith("/v1"))
    ['/v1/models', '/v1/models/{model}', '/v1/models/{model}:explain', '/v1/models/{model}:predict']
    """
    counting = gauges or Gauges(settings.providers)
    models = registry or Registry(settings)
    counting.follow(models)
    app = FastAPI(
        title="camrt",
        summary="Class activation maps over HTTP.",
        version=version("camrt"),
        openapi_url="/openapi.json" if settings.docs else None,
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,  # a redirect repeats the Host header of whoever asks
        lifespan=_life(owned=registry is None, closes=scheduler is None),
        exception_handlers={
            HTTPException: _route_error,
            RequestValidationError: _unreadable,
            CamrtError: _refused,
        },
        telemetry=_telemetry(settings),
        generate_unique_id_function=_operation,
    )
    app.state.settings, app.state.registry, app.state.gauges = settings, models, counting
    app.state.scheduler = scheduler or Scheduler(settings, counting)
    app.state.statistics, app.state.draining, app.state.mistake = Statistics(), False, None
    app.add_middleware(Access, count=counting.request, check_room=lambda: app.state.scheduler.check_room())
    for router in (
        routes_v2.router,  # looked through in this order: what must be quick comes first
        routes_v1.router,
        routes_plain.router,
        routes_health.probes,
        *(() if settings.metrics_port is not None else (routes_health.metrics,)),
        routes_models.router,
        routes_page.router(settings),
    ):
        app.include_router(router)
    _describe(app)
    return app


def _life(*, owned: bool, closes: bool) -> Any:
    """Return what happens while the application runs: models are opened while it already answers probes."""

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        state = app.state
        opening = asyncio.create_task(_open(state)) if owned else None
        tidying = asyncio.create_task(trim_when_quiet(lambda: state.scheduler.taken, lambda: state.scheduler.held))
        try:
            yield
        finally:
            tidying.cancel()
            if closes:
                await asyncio.to_thread(state.scheduler.close)
            if opening is not None:
                await asyncio.to_thread(state.registry.close)
                await opening

    return life


async def _open(state: Any) -> None:
    """Open the models, or say why not; the process decides what follows."""
    try:
        await asyncio.to_thread(state.registry.open)
    except Exception as error:  # noqa: BLE001  whatever it is, nothing will ever be ready
        state.mistake = error
        if isinstance(error, InputError):
            structlog.get_logger("camrt.server").error("models", reason=str(error))
        else:
            report(error, "")


def _telemetry(settings: Settings) -> Any:
    """Return FastAPI's settings of OpenTelemetry: all of it, probes excepted, or nothing."""
    on = settings.telemetry
    return {
        "tracing": on,
        "metrics": on,
        "logs": on,
        "operation_spans": on,
        "auto_configure": False,
        "exclude": lambda scope: scope.get("path") in PROBES,
    }


def _operation(route: APIRoute) -> str:
    """Name an operation for clients that are made of the OpenAPI document."""
    words = re.findall(r"\w+", route.path)
    return "_".join([min(route.methods or {""}).lower(), *(words or ["front"])])


async def _refused(request: Request, error: Exception) -> Response:
    """Answer an error of ours; what its text says is logged where the answer does not say it."""
    answer = refusal(error)
    if isinstance(error, TooLargeError):
        request.app.state.gauges.rejected("too_large")
    if answer.status_code in (500, 503) and not isinstance(error, BusyError):
        report(error, request.state.request_id)
    return answer


async def _unreadable(request: Request, error: Exception) -> Response:
    """Answer a parameter that does not fit its type."""
    return refusal(InputError("a parameter of the path or the query cannot be read"))


async def _route_error(request: Request, error: Exception) -> Response:
    """Answer a path or a verb that there is none of; Allow and the like go with it."""
    assert isinstance(error, HTTPException)
    text = {404: "there is nothing at this address", 405: "this address does not take this verb"}
    body = orjson.dumps({"error": text.get(error.status_code, error.detail)})
    return Response(body, error.status_code, error.headers, JSON)


def _describe(app: FastAPI) -> None:
    """Add to the OpenAPI document what all routes refer to."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            parts = made().setdefault("components", {})
            parts.setdefault("schemas", {})["Error"] = dict(ERROR)
            parts["securitySchemes"] = KEYS
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
