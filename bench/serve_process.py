"""
The server under test: started, watched and stopped.

In: a repository of models and settings. Out: its address, and what the system and its own gauges say of it.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from .serve_line import Line
from .serve_requests import Reply, get, post
from .wire import ROOT, WorkerError

__all__ = ["KEY", "Server", "read_gauges", "total"]

KEY = "a-key-for-the-bench"
START = 180.0  # seconds until a server must be ready
STOP = 30.0
TICK = 0.002  # seconds between two looks whether it is ready
SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*(?:\{[^}]*\})?) (\S+)$", re.MULTILINE)


class Server:
    """
    ``camrt serve`` in a process of its own, on a free port of this machine; a context manager.

    Parameters
    ----------
    repository : Path
        The models.
    verbose : bool
        Let it write to standard error.
    **settings : object
        Of the server, by name.

    Raises
    ------
    WorkerError
        On entry, if it ends or is not ready in time.
    """

    def __init__(self, repository: Path, *, verbose: bool = False, **settings: object) -> None:
        self.address = ""  # known once it is started
        given = {"port": 0, "repository": repository, "admin_keys": f'["{KEY}"]', **settings}
        self._environment = {**os.environ, **{f"CAMRT_{name.upper()}": str(value) for name, value in given.items()}}
        self._verbose = verbose
        self._process: subprocess.Popen[str] | None = None
        self.seconds = 0.0  # from nothing to ready

    def __enter__(self) -> Self:
        start = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "camrt", "serve"],
            cwd=ROOT,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=None if self._verbose else subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        told = re.search(r"http://(\S+)", self._process.stdout.readline())  # its one line there
        if told is None:
            raise WorkerError(f"the server ended with exit code {self._process.wait()}; see --verbose")
        self.address = told[1]
        while not self._ready():
            if self._process.poll() is not None:
                raise WorkerError(f"the server ended with exit code {self._process.returncode}; see --verbose")
            if time.perf_counter() - start > START:
                self._stop()
                raise WorkerError(f"the server was not ready within {START:.0f} s; see --verbose")
            time.sleep(TICK)
        self.seconds = time.perf_counter() - start
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _ready(self) -> bool:
        """Ask once."""
        try:
            return self.ask(get(self.address, "/v2/health/ready")).status == 200
        except OSError:
            return False

    def _stop(self) -> None:
        """End it, kindly at first."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    @property
    def alive(self) -> bool:
        """Whether it runs and is ready."""
        return self._process is not None and self._process.poll() is None and self._ready()

    @property
    def pid(self) -> int:
        """Its process."""
        if self._process is None:
            raise WorkerError("the server was not started")
        return self._process.pid

    def ask(self, request: bytes) -> Reply:
        """
        Ask one thing on a connection of its own.

        Parameters
        ----------
        request : bytes
            As `bench.serve_requests` makes it.

        Returns
        -------
        Reply
            The answer.
        """
        line = Line(self.address)
        try:
            return line.ask(request)
        finally:
            line.close()

    def gauges(self) -> dict[str, float]:
        """
        Read its metrics.

        Returns
        -------
        dict of str to float
            By name with labels, as Prometheus reads them.
        """
        return read_gauges(self.ask(get(self.address, "/metrics")).body.decode())

    def load(self, model: str) -> None:
        """
        Have it load the highest version of a model that its repository holds now.

        Parameters
        ----------
        model : str
            The name.

        Raises
        ------
        WorkerError
            If it does not.
        """
        path = f"/v2/repository/models/{model}/load"
        reply = self.ask(post(self.address, path, b"{}", X_API_Key=KEY, Content_Type="application/json"))
        if reply.status != 200:
            raise WorkerError(f"the server did not load {model}: {reply.status} {reply.body[:200]!r}")

    def resident(self) -> float:
        """
        Return the memory it holds.

        Returns
        -------
        float
            Megabytes.
        """
        [kilobytes] = re.findall(r"^VmRSS:\s+(\d+) kB$", self._proc("status"), re.MULTILINE)
        return int(kilobytes) / 1024

    def cpu(self) -> float:
        """
        Return the processor time it took.

        Returns
        -------
        float
            Seconds since it began.
        """
        fields = self._proc("stat").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def files(self) -> int:
        """
        Count what it holds open: files, sockets, pipes.

        Returns
        -------
        int
            Descriptors.
        """
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def _proc(self, name: str) -> str:
        """Read what the system says of the process."""
        return Path(f"/proc/{self.pid}/{name}").read_text()


def read_gauges(text: str) -> dict[str, float]:
    """
    Read Prometheus' text format.

    Parameters
    ----------
    text : str
        What ``/metrics`` answers.

    Returns
    -------
    mapping of str to float
        Samples by name with labels.

    Examples
    --------
    >>> read_gauges('# HELP a What.\\na{b="c"} 2.0\\nd 1e3\\n')
    {'a{b="c"}': 2.0, 'd': 1000.0}
    """
    return {name: float(value) for name, value in SAMPLE.findall(text)}


def total(gauges: Mapping[str, float], name: str) -> float:
    """
    Add up a metric over its labels.

    Parameters
    ----------
    gauges : mapping of str to float
        As `read_gauges` gives them.
    name : str
        Without labels.

    Returns
    -------
    float
        The sum.
    """
    return sum(value for key, value in gauges.items() if key.partition("{")[0] == name)
