"""A small application with the state that `Server` looks at, whose slow answers end when the test says so."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from camrt.server.serving import Server, listen, url_of
from camrt.server.settings import Settings
from tests.engine.server.running import PATIENCE, Live


class Stub(Live):
    """
    A running stub.

    Attributes
    ----------
    server : Server
        What is tested.
    app : Starlette
        With ``/quick``, ``/slow`` and ``/echo``.
    """

    def __init__(self, settings: Settings) -> None:
        self.begun = threading.Semaphore(0)  # one for each slow request that arrived
        self.closed = threading.Event()  # the scheduler was
        self.ended = threading.Event()  # the lifespan did
        self._go = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        routes = [
            Route("/v2/health/ready", self._ready),
            Route("/quick", self._quick),
            Route("/slow", self._slow),
            Route("/echo", self._echo, methods=["POST"]),
        ]
        self.app = Starlette(routes=routes, lifespan=self._life)
        self.app.state.draining, self.app.state.mistake, self.app.state.scheduler = False, None, self
        self._sockets = listen(settings)
        super().__init__(url_of(self._sockets[0]))
        self.server = Server(self.app, settings)  # type: ignore[arg-type]
        self.thread = threading.Thread(target=self.server.run, args=(self._sockets,))

    def close(self) -> None:
        """End what waits, as a scheduler does."""
        self.closed.set()
        self._go.set()

    def go(self) -> None:
        """Let the slow answers be given."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._go.set)

    @asynccontextmanager
    async def _life(self, app: Starlette) -> AsyncIterator[None]:
        self._loop = asyncio.get_running_loop()
        yield
        self.ended.set()

    async def _ready(self, request: Request) -> Response:
        return JSONResponse({}, 503 if self.app.state.draining else 200)

    async def _quick(self, request: Request) -> Response:
        return PlainTextResponse("quick")

    async def _slow(self, request: Request) -> Response:
        self.begun.release()
        await self._go.wait()
        return PlainTextResponse("closed" if self.closed.is_set() else "slow")

    async def _echo(self, request: Request) -> Response:
        return PlainTextResponse(str(len(await request.body())))


@contextmanager
def stub(**settings: object) -> Iterator[Stub]:
    """Run a stub, and stop it."""
    made = Stub(Settings.model_validate({"port": 0, **settings}))
    made.thread.start()
    try:
        yield made
    finally:
        if made._loop is not None and not made._loop.is_closed():
            made.go()
        made.server.stop()
        made.thread.join(PATIENCE)
        assert not made.thread.is_alive()
