"""
What every request passes, whatever its route: an id, one log line, one count, and the last fence.

In: an ASGI application. Out: the same, whose answers carry ``x-request-id`` and ``X-Content-Type-Options``, and whose
surprises are logged with their stack and told in a fixed sentence. Where there is no room for more work, requests that
bring some are refused here already: under overload most are, and to find a route takes longer than all the rest of it.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import secrets
import time
import traceback
from collections.abc import Callable
from typing import Any

import orjson
import structlog
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import CamrtError
from .faults import UnreadyError, headers_of, status_of, text_of
from .keys import check_key

__all__ = ["Access", "may_admin", "may_infer", "refusal", "report"]

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/+=-]{0,127}")  # nothing that a log or a header could be broken with
_WORK = re.compile(
    r"/explain|/invocations|/v1/models/.+:(explain|predict)|/v2/models/.+/infer"
)  # paths that bring work
_LEFT = 499  # the client went away before its answer


class Access:
    """
    The outermost part of the application.

    Parameters
    ----------
    app : ASGI application
        What it stands before.
    count : callable
        Called with model, method, code and seconds once a request; model and method are empty where none was reached.
    check_room : callable
        Raises a `CamrtError` where no more work is taken.
    """

    def __init__(
        self, app: ASGIApp, count: Callable[[str, str, int, float], None], check_room: Callable[[], None]
    ) -> None:
        self._app, self._count, self._check_room = app, count, check_room
        self._names = map(f"{secrets.token_hex(8)}{{:016x}}".format, itertools.count())
        self._log = structlog.get_logger("camrt.server")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and tell of it."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        started = time.perf_counter()
        given = Headers(scope=scope).get("x-request-id", "")
        name = given if _ID.fullmatch(given) else next(self._names)
        told: dict[str, Any] = {}  # routes add what they come to know
        scope.setdefault("state", {}).update(request_id=name, told=told, started=started)
        stamps = [(b"x-request-id", name.encode()), (b"x-content-type-options", b"nosniff")]
        code = sent = 0

        async def _stamped(message: Message) -> None:
            nonlocal code, sent
            if message["type"] == "http.response.start":
                code = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), *stamps]}
            else:
                sent += len(message.get("body", b""))
            await send(message)

        try:
            await self._taker(scope)(scope, receive, _stamped)
        except Exception as error:  # noqa: BLE001  the last fence: whatever it is, it is told in one sentence
            report(error, name)
            if code == 0:
                await refusal(error)(scope, receive, _stamped)
        except asyncio.CancelledError:  # the process stops, and the time for that is over
            if code == 0:
                await refusal(UnreadyError("the server is stopping", 5.0))(scope, receive, _stamped)
        finally:
            seconds = time.perf_counter() - started
            route = getattr(scope.get("route"), "path", "")
            facts = {"request_id": name, "verb": scope["method"], "route": route, "code": code or _LEFT, "bytes": sent}
            # in the loop's next turn: at the end of this one the answer goes out
            asyncio.get_running_loop().call_soon(self._tell, facts, seconds, told)

    def _taker(self, scope: Scope) -> ASGIApp:
        """Return who answers a request: the application, or a refusal where it brings work and there is no room."""
        if scope["method"] == "POST" and _WORK.fullmatch(scope["path"]):
            try:
                self._check_room()
            except CamrtError as error:
                return refusal(error)
        return self._app

    def _tell(self, facts: dict[str, Any], seconds: float, told: dict[str, Any]) -> None:
        """Count a request, and log it."""
        self._count(told.get("model", ""), told.get("method", ""), facts["code"], seconds)
        self._log.info("request", **facts, ms=round(seconds * 1e3, 3), **told)


async def may_infer(request: Request) -> None:
    """
    Let a request pass that may explain; a dependency of every route that does.

    Parameters
    ----------
    request : Request
        With a key, where the server has any.
    """
    check_key(request.headers, "infer", request.app.state.settings)


async def may_admin(request: Request) -> None:
    """
    Let a request pass that may load and unload models; a dependency of every route that does.

    Parameters
    ----------
    request : Request
        With a key.
    """
    check_key(request.headers, "admin", request.app.state.settings)


def report(error: BaseException, request_id: str) -> None:
    """
    Log an error whose text clients are not told.

    Parameters
    ----------
    error : BaseException
        What was raised.
    request_id : str
        Whose it was.
    """
    stack = "".join(traceback.format_exception(error))  # ours, since some loggers would print every variable with it
    structlog.get_logger("camrt.server").error("failed", request_id=request_id, exception=stack)


def refusal(error: BaseException) -> Response:
    """
    Return the answer to a request that failed.

    Parameters
    ----------
    error : BaseException
        What was raised.

    Returns
    -------
    Response
        ``{"error": ...}`` with the status and headers of `camrt.server.faults`.
    """
    body = orjson.dumps({"error": text_of(error)})
    return Response(body, status_of(error), headers_of(error), "application/json")
