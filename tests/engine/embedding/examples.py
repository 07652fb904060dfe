"""The examples that modules show in their docstrings, and processes that run them."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import camrt

PATIENCE = 90.0  # seconds until something has failed


def examples_of(name: str) -> list[str]:
    """Return the code blocks of the docstring of a module of camrt.embedding, without importing it."""
    source = Path(camrt.__path__[0], "embedding", f"{name}.py").read_text("utf-8")
    text = ast.get_docstring(ast.parse(source)) or ""
    return [textwrap.dedent(block) for block in re.findall(r"::\n\n((?:    .*\n|\n)+)", text)]


def installed(*modules: str) -> bool:
    """Tell whether modules are there, without importing them."""
    return all(importlib.util.find_spec(module) for module in modules)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def run(code: str, folder: Path) -> str:
    """Run an example to its end in a folder; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def running(code: str, folder: Path, health: str, *arguments: str) -> Iterator[None]:
    """Run an example's server as a script in a folder until its health is good; stop it afterwards."""
    script = folder / "server.py"
    script.write_text(code, "utf-8")
    log = folder / "server.log"
    with log.open("w") as file:
        server = subprocess.Popen(
            [sys.executable, str(script), *arguments],
            cwd=folder,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,  # with the processes that it starts
        )
    try:
        until(lambda: server.poll() is not None or healthy(health))
        assert server.poll() is None, log.read_text()
        yield
    finally:
        server.terminate()
        with suppress(subprocess.TimeoutExpired):
            server.wait(PATIENCE)
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def until(true: Callable[[], bool]) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def healthy(url: str) -> bool:
    """Tell whether a URL answers with 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def post(url: str, body: bytes, **headers: str) -> tuple[int, bytes, str]:
    """Send a body; return status, body and content type."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, body, named, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            return response.status, response.read(), response.headers["content-type"]
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), error.headers["content-type"]
