"""
Real servers on real sockets, for tests and benchmarks: in a thread of this process, or as ``camrt serve``.

Both listen on a port the system chooses, are ready when they are handed out, and are gone afterwards.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI

from camrt.server.app import create_app
from camrt.server.serving import Server, listen, url_of
from camrt.server.settings import Settings

PATIENCE = 60.0  # seconds for what takes one or two; a busy machine is no failure


class Live:
    """
    A server to talk to.

    Attributes
    ----------
    url : str
        ``http://127.0.0.1:PORT``.
    host : str
        Without the scheme: what tritonclient takes.
    """

    def __init__(self, url: str) -> None:
        self.url, self.host = url, urlsplit(url).netloc

    def connect(self, timeout: float = PATIENCE) -> http.client.HTTPConnection:
        """Return a connection, to be closed by whoever asked."""
        return http.client.HTTPConnection(self.host, timeout=timeout)

    def ask(
        self, verb: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers (names in lower case) and body of one request on a connection of its own."""
        connection = self.connect()
        try:
            connection.request(verb, path, body, dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def json(self, verb: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> tuple[int, Any]:
        """Return status and document of one request."""
        status, _, got = self.ask(verb, path, None if body is None else json.dumps(body).encode(), headers)
        return status, json.loads(got)

    def gauges(self) -> dict[str, float]:
        """Return every sample of ``/metrics`` by its name with labels, as it is written there."""
        lines = self.ask("GET", "/metrics")[2].decode().splitlines()
        return {name: float(value) for name, value in (n.rsplit(" ", 1) for n in lines if not n.startswith("#"))}

    def until_ready(self, patience: float = PATIENCE) -> None:
        """Wait until the models are there."""
        end = time.monotonic() + patience
        while self.ask("GET", "/v2/health/ready")[0] != 200:
            if time.monotonic() > end:
                raise TimeoutError("the server did not become ready")
            time.sleep(0.05)


class Inside(Live):
    """
    A server in a thread of this process.

    Attributes
    ----------
    app : FastAPI
        Its application, with everything in ``app.state``.
    server : Server
        uvicorn's, with our start and stop.
    """

    def __init__(self, url: str, app: FastAPI, server: Server) -> None:
        super().__init__(url)
        self.app, self.server = app, server


@contextmanager
def inside(settings: Settings | None = None, *, ready: bool = True, **parts: Any) -> Iterator[Inside]:
    """
    Run a server in a thread.

    Parameters
    ----------
    settings : Settings, optional
        The embedded model on 127.0.0.1 where absent. Give ``port=0``.
    ready : bool
        Wait for the models.
    **parts
        As `camrt.server.app.create_app` takes them: ``registry``, ``scheduler``, ``gauges``.
    """
    settings = Settings(port=0) if settings is None else settings
    sockets = listen(settings)
    app = create_app(settings, **parts)
    server = Server(app, settings)
    thread = threading.Thread(target=server.run, args=(sockets,), name="server")
    thread.start()
    try:
        live = Inside(url_of(sockets[0]), app, server)
        if ready:
            live.until_ready()
        yield live
    finally:
        server.stop()
        thread.join(PATIENCE)
        assert not thread.is_alive(), "the server did not stop"


class Outside(Live):
    """
    A server that is a process of its own.

    Attributes
    ----------
    process : subprocess.Popen
        Send it signals; `finish` waits for its end.
    """

    def __init__(self, url: str, process: subprocess.Popen[str]) -> None:
        super().__init__(url)
        self.process = process
        self.lines: list[str] = []  # of its log, so far
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)

    def finish(self) -> int:
        """Wait for the end, and return the exit code."""
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()
        return code


def command(*words: str) -> list[str]:
    """Return the words that run ``camrt serve`` on a port the system chooses."""
    return [sys.executable, "-m", "camrt", "serve", "--port", "0", *words]


def environment(**variables: str) -> dict[str, str]:
    """Return this process's environment without its own settings of camrt, and with these."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CAMRT_")}
    return kept | {f"CAMRT_{name.upper()}": value for name, value in variables.items()}


@contextmanager
def outside(*words: str, ready: bool = True, **variables: str) -> Iterator[Outside]:
    """
    Run ``camrt serve``.

    Parameters
    ----------
    *words
        More of its command line.
    ready : bool
        Wait for the models.
    **variables
        Settings by their environment variables: ``log_level="debug"``.
    """
    process = subprocess.Popen(
        command(*words), env=environment(**variables), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stderr is not None
    said = process.stdout.readline()
    found = re.search(r"http://\S+", said)
    if found is None:
        process.kill()
        _, error = process.communicate()
        raise RuntimeError(f"the server did not start: {error}")
    live = Outside(found.group(), process)
    try:
        if ready:
            live.until_ready()
        yield live
    finally:
        if process.poll() is None:
            process.kill()
        live.finish()
