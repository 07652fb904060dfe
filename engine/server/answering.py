"""
One request on its way: model, body, `Ask`, `Answer`; the same for every protocol.

::

    --lease--> model --read_body--> bytes --read--> Ask --wait_for--> Answer --write--> response
    (404,503)       (413, 415)           (400)         (429, 504, 499)

Where there is no room at all it is refused before that (`camrt.server.access`).

The loop only passes things on: what takes longer than a fraction of a millisecond goes to a thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from .asks import Ask
from .bodies import read_body
from .waiting import wait_for

if TYPE_CHECKING:
    from .served import Lease, Served
    from .tickets import Answer

__all__ = ["answered", "aside"]

INLINE = 32 * 1024  # bytes that are read or written on the loop: less than 0.2 ms of JSON

T = TypeVar("T")
W = TypeVar("W")
P = ParamSpec("P")


async def aside(size: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """
    Call a function here if that is quick, in a thread otherwise.

    Parameters
    ----------
    size : int
        Bytes it goes through.
    function : callable
        What is called.
    *args, **kwargs : object
        Its arguments.

    Returns
    -------
    object
        Its result.
    """
    if size <= INLINE:
        return function(*args, **kwargs)
    return await run_in_threadpool(function, *args, **kwargs)


async def answered(
    request: Request,
    name: str,
    version: str | None,
    read: Callable[[bytes, Served], tuple[Ask, W]],
    write: Callable[[Answer, W], Response],
    *,
    parsed: Callable[[bytes], int] = len,
    written: Callable[[Answer, W], int],
) -> Response:
    """
    Take a request from its first header to its answer.

    Parameters
    ----------
    request : Request
        Its body has not been read.
    name : str
        The model's name.
    version : str or None
        One of its versions; the one that is served where None.
    read : callable
        Makes an `Ask` of the body, and whatever `write` has to know.
    write : callable
        Makes the response.
    parsed : callable
        How many bytes of a body are text to be parsed; all of them unless told otherwise.
    written : callable
        How many bytes of text, or of pictures, the response takes.

    Returns
    -------
    Response
        What the client gets.

    Raises
    ------
    BusyError, NotFoundError, UnreadyError, TooLargeError, MediaTypeError, InputError, DeadlineError, CancelledError
        As `camrt.server.faults` lists them.
    """
    arrived = time.monotonic()
    state, told = request.app.state, request.state.told
    lease = state.registry.lease(name, version)
    model = lease.served.name, lease.served.version
    told.update(model=model[0], version=model[1])
    try:
        ask, wanted = await _asked(request, lease, read, parsed)
        ask = replace(ask, arrived=arrived)  # the time that its body took is the request's own
        told.update(method=ask.wish.method if ask.wish else "", images=ask.count)
        answer = await wait_for(state.scheduler, lease, ask, lambda: _gone(request))
        told.update(batch=answer.batch, queue_ms=_ms(answer.queue_seconds), run_ms=_ms(answer.run_seconds))
        begun = time.perf_counter()
        response = await aside(written(answer, wanted), write, answer, wanted)
        ended = time.perf_counter()
    except BaseException:
        state.statistics.fail(*model, time.perf_counter() - request.state.started)
        raise
    state.gauges.stage("encode", ended - begun)
    state.statistics.record(answer, ask.count, ended - begun, ended - request.state.started)
    return response


async def _asked(
    request: Request, lease: Lease, read: Callable[[bytes, Served], tuple[Ask, W]], parsed: Callable[[bytes], int]
) -> tuple[Ask, W]:
    """Receive the body and read it; the lease ends where that fails."""
    try:
        body = await read_body(request.receive, request.headers, request.app.state.settings)
        return await aside(parsed(body), read, body, lease.served)
    except BaseException:
        lease.release()
        raise


async def _gone(request: Request) -> None:
    """Return when the client has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _ms(seconds: float) -> float:
    """Return milliseconds, to the microsecond."""
    return round(seconds * 1e3, 3)
