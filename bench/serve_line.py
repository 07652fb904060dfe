"""
Kept-alive HTTP connections, as lean as can be: a blocking one for a thread, and one for asyncio.

In: requests as bytes. Out: replies. A connection carries one request at a time.
"""

from __future__ import annotations

import asyncio
import socket
from typing import cast

from .serve_requests import Reply, Splitter

__all__ = ["PIECE", "Line", "Peer", "peer_of"]

PIECE = 2**18  # bytes read at a time
PATIENCE = 60.0  # seconds for an answer
STALE = 2.0  # seconds after which an idle connection is not used again: the server may be about to close it


class Line:
    """
    One kept-alive connection, used by one thread.

    Parameters
    ----------
    address : str
        ``host:port``.
    patience : float
        Seconds for an answer.
    """

    def __init__(self, address: str, patience: float = PATIENCE) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=patience)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._splitter = Splitter()

    def ask(self, request: bytes) -> Reply:
        """
        Send a request and read its answer.

        Parameters
        ----------
        request : bytes
            All of it.

        Returns
        -------
        Reply
            The answer.

        Raises
        ------
        OSError
            If the connection ends before.
        """
        self._socket.sendall(request)
        while True:
            data = self._socket.recv(PIECE)
            if not data:
                raise ConnectionError("the server closed the connection before it answered")
            reply = self._splitter.add(data)
            if reply is not None:
                return reply

    def close(self) -> None:
        """End the connection."""
        self._socket.close()


class Peer(asyncio.Protocol):
    """One connection of an open loop, which carries one request at a time."""

    def __init__(self) -> None:
        self._splitter = Splitter()
        self._answer: asyncio.Future[Reply] | None = None
        self._transport: asyncio.Transport | None = None
        self.used = 0.0

    @property
    def open(self) -> bool:
        """Whether another request may be sent."""
        return self._transport is not None and not self._transport.is_closing()

    async def ask(self, request: bytes) -> Reply:
        """Send a request and wait for the answer."""
        if self._transport is None:
            raise ConnectionError("the connection is closed")
        loop = asyncio.get_running_loop()
        self._answer = loop.create_future()
        self._transport.write(request)
        try:
            reply = await self._answer
        finally:
            self._answer, self.used = None, loop.time()
        if reply.headers.get("connection", "").lower() == "close":
            self.close()
        return reply

    def close(self) -> None:
        """End the connection."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        """Hand over an answer that is complete."""
        try:
            reply = self._splitter.add(data)
        except ValueError as error:
            self._end(error)
            return
        if reply is not None and self._answer is not None and not self._answer.done():
            self._answer.set_result(reply)

    def connection_lost(self, error: Exception | None) -> None:
        """Tell whoever waits."""
        self._transport = None
        self._end(error or ConnectionError("the server closed the connection before it answered"))

    def _end(self, error: Exception) -> None:
        """Fail what is awaited."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)


async def peer_of(loop: asyncio.AbstractEventLoop, address: str, idle: list[Peer]) -> Peer:
    """Take the connection that was used last, or open one."""
    while idle:
        peer = idle.pop()
        if peer.open and loop.time() - peer.used < STALE:
            return peer
        peer.close()
    host, _, port = address.rpartition(":")
    _, peer = await loop.create_connection(Peer, host, int(port))
    return peer
