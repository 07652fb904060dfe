"""A client of the application that looks at every answer it gets, whatever the test is about."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
from starlette.testclient import TestClient

import camrt
from camrt.server.faults import NotFoundError
from camrt.server.served import Lease, Served

PLACES = (str(Path(camrt.__file__).resolve().parent), sys.prefix, tempfile.gettempdir(), str(Path.home()))
LEAKS = re.compile(
    r"Traceback|\bFile \"|\bline \d+, in\b|\.py\b|0x[0-9a-f]{6,}|object at\b|site-packages|<class|"
    r"(?<![\w.])/(home|usr|var|etc|opt|proc|dev|mnt|srv|root|tmp)\b"
)


def check_answer(status: int, headers: Mapping[str, str], body: bytes) -> None:
    """Hold an answer to what is true of all: an id, no sniffing; of errors one line that gives nothing away."""
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.:/+=-]{0,127}", headers["x-request-id"])
    assert headers["x-content-type-options"] == "nosniff"
    if status < 400:
        return
    assert headers["content-type"] == "application/json"
    if status == 503 and b'"ready"' in body:
        return  # what probes are told
    told = orjson.loads(body)
    assert list(told) == ["error"]
    text = told["error"]
    assert isinstance(text, str) and text and "\n" not in text and len(text) < 2000
    assert not LEAKS.search(text) and not any(place in text for place in PLACES), text
    if status == 429:
        assert int(headers["retry-after"]) >= 1


class One:
    """A registry of one model."""

    ready = True

    def __init__(self, served: Served) -> None:
        self.served = served

    def lease(self, name: str, version: str | None = None) -> Lease:
        """Return a lease on the model, or say that there is no other."""
        if name != self.served.name or version not in (None, self.served.version):
            raise NotFoundError("there is no such model")
        return Lease(self.served)

    def names(self) -> list[str]:
        """Return its name."""
        return [self.served.name]

    def index(self) -> list[dict[str, str]]:
        """Return its state."""
        return [{"name": self.served.name, "version": self.served.version, "state": "READY", "reason": ""}]


class Client(TestClient):
    """Starlette's client, with the check."""

    def request(self, *args: Any, **kwargs: Any) -> Any:
        """Ask, and check the answer."""
        answer = super().request(*args, **kwargs)
        check_answer(answer.status_code, answer.headers, answer.content)
        return answer
