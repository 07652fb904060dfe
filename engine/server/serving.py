"""
The server's process: where it listens, how it starts, and how it stops without losing a request it took.

::

    start:  address --listen--> socket --create_app--> application --uvicorn--> alive --models, in a thread--> ready
    stop:   signal --> not ready, answers close their connections --drain_delay--> nobody new, then listens no more
                   --> requests under way are answered --> models closed --> exit code 0

uvicorn reads and writes HTTP; its own stop is replaced, because it leaves by the signal and resets connections whose
request is on its way. A second signal ends the process at once, and so does ``graceful_timeout``.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import signal
import socket
import stat
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import structlog
import uvicorn
from fastapi import FastAPI
from prometheus_client import disable_created_metrics, start_http_server

from ..errors import InputError
from .app import create_app
from .fence import fenced
from .gauges import Gauges
from .keys import check_bind
from .logs import open_log
from .settings import Settings

__all__ = ["Server", "listen", "serve", "url_of"]

SIGNALS = (signal.SIGTERM, signal.SIGINT)
BACKLOG = 2048  # connections the kernel holds until they are accepted
KEEP_ALIVE = 65  # seconds an idle connection is kept: longer than the 60 of common gateways, so that they close first
SETTLE = 0.05  # seconds in which connections that were begun are accepted
LINGER = 0.5  # seconds in which a request that is on its way to a connection of ours still arrives
TICK = 0.02  # seconds between looks at what is left
SPARE = 0.5  # seconds after `graceful_timeout` at which whatever hangs is left behind
CLOSING = 5.0  # seconds in which the application ends; a model that is still being loaded is not waited for
ATTACH_FILTER = 26  # SO_ATTACH_FILTER of Linux
NO_SYN = (  # a socket filter: the operation, jumps if true and false, its number
    (0x30, 0, 0, 13),  # load the byte of TCP's flags
    (0x54, 0, 0, 0x02),  # keep SYN
    (0x15, 0, 1, 0),  # if it is not set
    (0x06, 0, 0, 0xFFFFFFFF),  # let the packet pass
    (0x06, 0, 0, 0),  # else drop it
)
CLOSE = (b"connection", b"close")


def serve(settings: Settings, announce: Callable[[str], None] = print) -> None:
    """
    Serve until a signal says to stop.

    Parameters
    ----------
    settings : Settings
        Everything.
    announce : callable, default print
        Told the address, in one line, once connections are taken.

    Raises
    ------
    InputError
        If it cannot listen there, or the models' repository cannot be used.
    """
    sockets = listen(settings)
    open_log(settings)
    disable_created_metrics()  # type: ignore[no-untyped-call]
    gauges = Gauges(settings.providers)
    app = create_app(settings, gauges=gauges)
    server = Server(app, settings)
    with _metrics(settings, gauges):
        announce(f"camrt serves at {url_of(sockets[0])}")
        server.run(sockets)
    if app.state.mistake is not None:
        raise app.state.mistake
    if server.is_late:
        os._exit(0)  # Python's own end would take what is left, and more


class Server(uvicorn.Server):
    """
    uvicorn's server, with our start and stop.

    Parameters
    ----------
    app : FastAPI
        The application; its state holds ``registry``, ``scheduler`` and ``draining``.
    settings : Settings
        Limits and times.
    """

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        http: Any = fenced(settings.header_timeout)
        super().__init__(
            uvicorn.Config(
                app, http=http, loop="uvloop" if sys.platform != "win32" else "auto", ws="none", lifespan="on",
                log_config=None, access_log=False, server_header=False, proxy_headers=False, backlog=BACKLOG,
                limit_concurrency=settings.connections, timeout_keep_alive=KEEP_ALIVE,
            )
        )  # fmt: skip
        self._app, self._settings = app, settings
        self._log = structlog.get_logger("camrt.server")
        self._asked: float | None = None  # when the stop was asked for, by time.monotonic
        self._timers: list[threading.Timer] = []

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """
        Serve until the end.

        Parameters
        ----------
        sockets : list of socket
            From `listen`.
        """
        try:
            super().run(sockets)
        finally:
            for timer in self._timers:
                timer.cancel()

    @property
    def is_late(self) -> bool:
        """Whether the time for stopping is over."""
        return self._asked is not None and time.monotonic() > self._asked + self._settings.graceful_timeout

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take the signals that stop a process while the loop runs; none is raised again afterwards."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """
        Stop in order at the first signal, and at once at the second.

        Parameters
        ----------
        sig : int
            Which.
        frame : object
            Where the process was; of no interest.
        """
        if self._asked is not None:
            os._exit(128 + sig)
        self._leave_after(self._settings.graceful_timeout + SPARE)
        self.stop()

    def stop(self) -> None:
        """Begin to stop: from now on not ready, and every answer closes its connection. May be called by any thread."""
        self._asked = time.monotonic()
        self._app.state.draining = True
        self.config.encoded_headers.append(CLOSE)  # of requests to come
        self.server_state.default_headers.append(CLOSE)  # of those under way too

    async def on_tick(self, counter: int) -> bool:
        """
        Look, ten times a second, whether a stop was asked for and its delay is over, or no model can be.

        Parameters
        ----------
        counter : int
            How many times uvicorn looked.

        Returns
        -------
        bool
            True to stop.
        """
        is_over = self._asked is not None and time.monotonic() >= self._asked + self._settings.drain_delay
        if is_over or self._app.state.mistake is not None:
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """
        Stop in the order that loses nothing.

        Parameters
        ----------
        sockets : list of socket
            Where it listened.
        """
        if self._asked is None:
            self.stop()
        assert self._asked is not None
        self._log.info("stopping", connections=len(self.server_state.connections), tasks=len(self.server_state.tasks))
        # 1. Let nobody begin a connection; take those that are begun, and the requests that are on their way.
        for opened in sockets or ():
            _turn_away(opened)
        await asyncio.sleep(SETTLE)
        await self._until(self._nothing_idle, time.monotonic() + LINGER)
        # 2. Listen no more.
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        # 3. Answer what was taken, as long as there is time.
        end = self._asked + self._settings.graceful_timeout
        if not await self._until(self._nothing_left, end):
            # 4. Tell the rest that there was not enough.
            self._log.error("stopped before every answer", requests=len(self.server_state.tasks))
            asyncio.get_running_loop().run_in_executor(None, self._app.state.scheduler.close)
            await self._until(self._nothing_left, end + SPARE / 2)
        # 5. uvicorn cancels what is still there, and ends the application.
        self._leave_after(CLOSING)
        self.config.timeout_graceful_shutdown = None if self._nothing_left() else 0
        await super().shutdown(sockets)
        self._log.info("stopped", seconds=round(time.monotonic() - self._asked, 3))

    async def _until(self, is_so: Callable[[], bool], end: float) -> bool:
        """Wait until something is so, or a time comes."""
        while not is_so():
            if time.monotonic() >= end:
                return False
            await asyncio.sleep(TICK)
        return True

    def _nothing_idle(self) -> bool:
        """Say whether each connection left has a request under way."""
        cycles: list[Any] = [getattr(connection, "cycle", None) for connection in self.server_state.connections]
        return all(cycle is not None and not cycle.response_complete for cycle in cycles)

    def _nothing_left(self) -> bool:
        """Say whether every answer is out."""
        return not (self.server_state.connections or self.server_state.tasks)

    def _leave_after(self, seconds: float) -> None:
        """End the process where something then still hangs that nobody can interrupt: a run, a model being loaded."""
        if threading.current_thread() is threading.main_thread():
            timer = threading.Timer(seconds, self._leave)
            timer.daemon = True
            timer.start()
            self._timers.append(timer)

    def _leave(self) -> None:
        """End the process."""
        self._log.error("left with work unfinished")
        os._exit(0)


def listen(settings: Settings) -> list[socket.socket]:
    """
    Open the sockets; from then on the kernel holds connections until they are taken.

    Parameters
    ----------
    settings : Settings
        ``host``, ``port``, and what makes the place allowed.

    Returns
    -------
    list of socket
        One for each address of the host; with port 0, all on the port that the first was given.

    Raises
    ------
    InputError
        If the place is not allowed, taken, or not this machine's.
    """
    sockets: list[socket.socket] = []
    port, places = settings.port, check_bind(settings)
    for family, address in places:
        try:
            sockets.append(_bound(family, address, port))
        except OSError as error:
            if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT) and len(places) > 1 and sockets:
                continue  # a name with an IPv6 address where there is no IPv6
            for opened in sockets:
                opened.close()
            where = address if family == socket.AF_UNIX else f"{settings.host} port {port}"
            raise InputError(f"cannot listen at {where}: {error.strerror or error}; choose another --port") from None
        port = port or sockets[0].getsockname()[1]
    return sockets


def _bound(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    """Return a socket that listens."""
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family == socket.AF_UNIX:
            _clear(address)
            opened.bind(address)
        else:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address != "::"))  # :: is IPv4 as well
            opened.bind((address, port))
        opened.listen(BACKLOG)
    except BaseException:
        opened.close()
        raise
    return opened


def _clear(path: str) -> None:
    """Remove a unix socket that a dead process left behind; whatever else is there is for `bind` to refuse."""
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asked:
        if stat.S_ISSOCK(os.stat(path).st_mode):
            try:
                asked.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)


def _turn_away(opened: socket.socket) -> None:
    """
    Let the kernel drop the first packet of every new connection, where it can (Linux).

    Closing a listening socket resets whoever was connected and not yet accepted. Without newcomers none is left: they
    try again a second later, and find nobody or a successor.
    """
    if opened.family == socket.AF_UNIX or not sys.platform.startswith("linux"):
        return
    program = b"".join(struct.pack("HBBI", *step) for step in NO_SYN)
    held = ctypes.create_string_buffer(program)
    with suppress(OSError):  # a kernel without socket filters; the queue is then as long as it is
        opened.setsockopt(socket.SOL_SOCKET, ATTACH_FILTER, struct.pack("HL", len(NO_SYN), ctypes.addressof(held)))


def url_of(opened: socket.socket) -> str:
    """
    Say where a socket listens.

    Parameters
    ----------
    opened : socket
        From `listen`.

    Returns
    -------
    str
        ``http://127.0.0.1:8080``, or ``unix:/path``.
    """
    if opened.family == socket.AF_UNIX:
        return f"unix:{opened.getsockname()}"
    address, port = opened.getsockname()[:2]
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"


@contextmanager
def _metrics(settings: Settings, gauges: Gauges) -> Iterator[None]:
    """Answer metrics on a port of their own, where there is one."""
    if settings.metrics_port is None:
        yield
        return
    family, address = check_bind(settings)[0]
    address = "127.0.0.1" if family == socket.AF_UNIX else address
    try:
        server, thread = start_http_server(settings.metrics_port, address, gauges.collectors)
    except OSError as error:
        raise InputError(
            f"cannot listen at {address} port {settings.metrics_port}: {error.strerror}; choose another metrics_port"
        ) from None
    structlog.get_logger("camrt.server").info("metrics", port=server.server_port)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
