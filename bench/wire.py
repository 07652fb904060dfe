"""
Requests to a worker process, one line of JSON each, over its standard input and output.

::

    {"do": "time", "with": {"calls": 20}}   -->   {"result": [0.0029, ...]}   or   {"error": "one line"}

Standard library only: the peers' interpreter imports it too. A worker keeps its model loaded between requests, so that
libraries that cannot share an interpreter can take turns within one run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

__all__ = ["Worker", "WorkerError", "answer", "serve"]

ROOT = Path(__file__).parents[1]

Handlers = Mapping[str, Callable[..., object]]


class WorkerError(Exception):
    """A worker could not do what it was asked; the message is one line."""


def answer(handlers: Handlers, requests: TextIO, replies: TextIO) -> None:
    """
    Answer requests until there are no more.

    Parameters
    ----------
    handlers : mapping of str to callable
        What can be asked; each takes the request's ``with`` by name and returns what JSON can hold.
    requests, replies : text stream
        One line each way. A request that fails is answered with an error, and its traceback goes to standard error.
    """
    for line in requests:
        try:
            request = json.loads(line)
            reply: dict[str, object] = {"result": handlers[request["do"]](**request["with"])}
        except Exception as error:  # noqa: BLE001 - whatever a library raises belongs to the asker
            traceback.print_exc()
            reply = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def serve(handlers: Handlers, memory: int | None = None) -> None:
    """
    Answer on this process's standard output, and send whatever libraries print there to standard error.

    Parameters
    ----------
    handlers : mapping of str to callable
        As in `answer`.
    memory : int, optional
        The most bytes of data this process may hold, files mapped into memory aside; an allocation beyond fails. Linux.
    """
    if memory is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as replies:
        os.dup2(2, 1)
        answer(handlers, sys.stdin, replies)


class Worker:
    """
    A worker process, and what it answers.

    Parameters
    ----------
    name : str
        For messages.
    interpreter : str
        The Python that runs it.
    module : str
        A module of this package that calls `serve`.
    quiet : bool, default True
        Keep its standard error to itself.
    """

    def __init__(self, name: str, interpreter: str, module: str, *, quiet: bool = True) -> None:
        self.name = name
        command = [interpreter, "-W", "ignore", "-m", f"bench.{module}"]
        self._process = _start(command, quiet)

    def ask(self, do: str, arguments: Mapping[str, object] | None = None, seconds: float | None = None) -> Any:
        """
        Ask for one thing and wait for it.

        Parameters
        ----------
        do : str
            A handler's name.
        arguments : mapping, optional
            What it takes, by name.
        seconds : float, optional
            How long it may take; the process is ended then.

        Returns
        -------
        object
            What the handler returned.

        Raises
        ------
        WorkerError
            If it failed, took too long, or the process ended.
        """
        late = threading.Event()
        if seconds is None:
            return self._ask(do, arguments, late)
        timer = threading.Timer(seconds, self._end, [late])
        timer.start()
        try:
            return self._ask(do, arguments, late)
        finally:
            timer.cancel()

    def _end(self, late: threading.Event) -> None:
        """End a process that takes too long."""
        late.set()
        self._process.kill()

    def _ask(self, do: str, arguments: Mapping[str, object] | None, late: threading.Event) -> Any:
        """Write a request and read the reply."""
        requests, replies = self._process.stdin, self._process.stdout
        if requests is None or replies is None:
            raise AssertionError("the worker was started without pipes")
        try:
            requests.write(json.dumps({"do": do, "with": dict(arguments or {})}) + "\n")
            requests.flush()
            line = replies.readline()
        except OSError:
            line = ""
        if not line and late.is_set():
            raise WorkerError(f"{self.name} took too long at {do!r} and was ended")
        if not line:
            raise WorkerError(f"{self.name} ended at {do!r} with exit code {self._process.wait()}; see --verbose")
        reply = json.loads(line)
        if "error" in reply:
            raise WorkerError(f"{self.name} failed at {do!r}: {reply['error']}")
        return reply["result"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):  # it ended before it read the request
                    pipe.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _start(command: Sequence[str], quiet: bool) -> subprocess.Popen[str]:
    """Start a process that finds this package, whatever the current directory is."""
    return subprocess.Popen(
        command,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL if quiet else None,
        text=True,
        encoding="utf-8",
    )
