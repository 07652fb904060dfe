"""
uvicorn's reader of HTTP, with the fences it lacks: how long and how large a request's headers may be.

uvicorn keeps a connection that says nothing, half a header, or half a body after its answer, for ever, and its parser
takes headers of any size. Here such a connection is closed, with a status and ``{"error": ...}`` where it has no answer
yet. What a client still sends after a refusal is read and thrown away, for as long as headers may take: closing with
bytes unread resets the connection, and the client may never read why.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.flow_control import service_unavailable
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

__all__ = ["fenced"]

HEADERS = 64 * 2**10  # bytes of a request's line and headers; what is read at once, at most 256 KiB, may go beyond


class _Fence(HttpToolsProtocol):
    """One connection, and the timer of what it owes: headers, or the rest of a request that was answered."""

    def __init__(self, *args: Any, header_timeout: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._header_timeout = header_timeout
        self._timer: asyncio.TimerHandle | None = None
        self._came = 0  # bytes of headers that are not complete
        self._owes_body = False
        self._is_refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing."""
        self._rest()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Begin to wait, unless the connection itself began it."""
        self._unset_keepalive_if_required()
        if self._timer is None:
            self._wait()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Wait no more; the application reads the body in a time of its own."""
        self._rest()
        self._owes_body = True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Keep the connection, as uvicorn does after its answers, if this was the rest of a request that has its own."""
        super().on_message_complete()
        self._owes_body = False
        if self.cycle.response_complete:
            self._rest()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_response_complete(self) -> None:
        """Begin to wait for the rest of a request that was answered before its end."""
        super().on_response_complete()
        if self._owes_body and self.cycle.response_complete:
            self._wait()

    def data_received(self, data: bytes) -> None:
        """Read, and count what belongs to headers that do not end."""
        if self._is_refused:
            return
        super().data_received(data)
        if self._timer is not None and not self._owes_body:
            self._came += len(data)
            if self._came > HEADERS:
                self._refuse(431, f"a request's headers may be {HEADERS} bytes")

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP."""
        self._refuse(400, msg)

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        answers: Any = _crowded if app is service_unavailable else app
        super()._start_asgi_task(cycle, answers)

    def _wait(self) -> None:
        self._came = 0
        self._timer = self.loop.call_later(self._header_timeout, self._too_slow)

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        """Close a connection whose headers did not come; one that never said anything, or has its answer, gets none."""
        if self._came and not self._is_refused:
            self._refuse(408, f"a request's headers may take {self._header_timeout:g} seconds")
        else:
            self._rest()
            self.transport.close()

    def _refuse(self, code: int, text: str) -> None:
        """Answer by hand, since no request exists, and close once the client has."""
        self._rest()
        self._is_refused = True
        if self.transport.is_closing():
            return
        is_busy = self.cycle is not None and not self.cycle.response_complete
        if is_busy and (self.pipeline or not self._owes_body):  # what came before this is answered first
            self.cycle.keep_alive = False
            return
        body = orjson.dumps({"error": text})
        self.transport.write(
            STATUS_LINE[code]
            + b"content-type: application/json\r\nx-content-type-options: nosniff\r\nconnection: close\r\n"
            + b"content-length: %d\r\n\r\n%s" % (len(body), body)
        )
        if is_busy:  # the request whose body is broken: closing tells the application, too
            self.transport.close()
            return
        if self.transport.can_write_eof():  # not within TLS
            self.transport.write_eof()
        self._wait()


async def _crowded(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer on a connection more than there may be."""
    body = orjson.dumps({"error": "too many connections are open; try again later"})
    headers = {"retry-after": "1", "connection": "close", "x-content-type-options": "nosniff"}
    await Response(body, 503, headers, "application/json")(scope, receive, send)


def fenced(header_timeout: float) -> Callable[..., asyncio.Protocol]:
    """
    Return what uvicorn makes its connections with.

    Parameters
    ----------
    header_timeout : float
        Seconds from the connection, or from a later request's first byte, to the end of its headers; from a refusal, or
        an answer given before a request's end, until the client has sent the rest.

    Returns
    -------
    callable
        Makes a protocol of uvicorn's arguments.
    """
    return partial(_Fence, header_timeout=header_timeout)
