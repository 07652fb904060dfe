"""What strangers send, to a real server on a real socket: it refuses, holds no more memory, and lives on."""

from __future__ import annotations

import gzip
import io
import json
import re
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from camrt.server.settings import Settings
from tests.engine.server.checking import One, check_answer
from tests.engine.server.mutants import documents, mutants, pictures
from tests.engine.server.running import PATIENCE, Live, Outside, inside, outside
from tests.engine.server.small import served

NAME = "camrt-demo"
INFER = f"/v2/models/{NAME}/infer"
GROWTH = 30 * 2**20  # bytes; what bombs unfold to is ten times that
MUTANTS = 100  # of each protocol


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    """Return a server in this process with the tiny model."""
    with inside(Settings(port=0, timeout=20), registry=One(served())) as live:
        yield live


@pytest.fixture(scope="module")
def process() -> Iterator[Outside]:
    """Return a server in a process of its own."""
    with outside(log_level="error") as live:
        yield live


@contextmanager
def bounded(process: Outside, growth: int = GROWTH) -> Iterator[None]:
    """Fail where the process takes more memory at any time meanwhile than it did before."""
    folder = Path("/proc") / str(process.process.pid)
    if not (folder / "clear_refs").exists():
        yield
        return
    (folder / "clear_refs").write_text("5")  # the high-water mark starts anew
    before = peak(folder)
    yield
    assert peak(folder) - before < growth


def peak(folder: Path) -> int:
    """Return the most memory a process has held."""
    found = re.search(r"VmHWM:\s*(\d+) kB", (folder / "status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def ask(live: Live, path: str, body: bytes, headers: dict[str, str] | None = None) -> int:
    """Return the status, of an answer that is as all answers are."""
    status, told, got = live.ask("POST", path, body, headers)
    check_answer(status, told, got)
    return status


def alive(live: Live) -> bool:
    return live.ask("GET", "/v2/health/ready")[0] == 200


# ---- bombs -----------------------------------------------------------------------------------------------------------


def bomb(width: int, height: int) -> bytes:
    """Return a PNG of a few kilobytes whose pixels are all zero."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    machine = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    rows = b"".join(machine.compress(row) for _ in range(height)) + machine.flush()
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def file_of(kind: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, kind)
    return file.getvalue()


FITS = b"SIMPLE  =                    T".ljust(2880)
GZIP = gzip.compress(bytes(50 * 2**20), 9)


@pytest.mark.parametrize(
    ("path", "body", "headers", "statuses"),
    [
        ("/explain", bomb(9000, 9000), {}, {413}),
        ("/explain", bomb(60000, 10), {}, {413}),
        (INFER, bomb(9000, 9000), {"inference-header-content-length": "0"}, {413}),
        ("/explain", GZIP, {"content-encoding": "gzip"}, {413}),
        (INFER, GZIP, {"content-encoding": "deflate"}, {413}),
        ("/explain", b"x", {"content-encoding": "br"}, {415}),
        ("/explain", file_of("GIF"), {}, {415}),
        ("/explain", file_of("TIFF"), {}, {415}),
        ("/explain", file_of("BMP"), {}, {415}),
        ("/explain", FITS, {}, {415}),
        (INFER, b"[" * 2**24, {}, {400, 413}),
        (INFER, b"[" * 10_000 + b"]" * 10_000, {}, {400}),
        (f"/v1/models/{NAME}:explain", b'{"instances":[' + b"[]," * 2**22 + b"[]]}", {}, {413}),
    ],
    ids=[
        "pixels",
        "side",
        "pixels raw",
        "gzip",
        "deflate",
        "brotli",
        "gif",
        "tiff",
        "bmp",
        "fits",
        "brackets",
        "depth",
        "lists",
    ],
)
def test_bombs_are_refused_before_they_unfold(
    process: Outside, path: str, body: bytes, headers: dict[str, str], statuses: set[int]
) -> None:
    with bounded(process, GROWTH + 2 * len(body)):
        assert ask(process, path, body, headers) in statuses
    assert alive(process)


def talk(live: Live, *parts: bytes, until: bytes = b"") -> bytes:
    """Send parts on one connection, and return what comes until the other side closes it or says something."""
    host, port = live.host.split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as opened:
        got = b""
        try:
            for part in parts:
                opened.sendall(part)
        except OSError:  # refused, and closed, while we were still sending
            pass
        try:
            while not (until and until in got) and (data := opened.recv(65536)):
                got += data
        except ConnectionResetError:
            pass
        return got


def head(path: str, *lines: str, verb: str = "POST") -> bytes:
    return "\r\n".join([f"{verb} {path} HTTP/1.1", "host: x", "connection: close", *lines, "", ""]).encode()


def status_of(answer: bytes) -> int:
    """Return the status of one raw answer, checked."""
    top, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = top.decode().split("\r\n")
    told = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    status = int(first.split()[1])
    check_answer(status, told, body)
    return status


def test_a_body_that_is_too_long_is_refused_by_its_length_alone(live: Live) -> None:
    answer = talk(live, head("/explain", f"content-length: {2**40}"), until=b"}")
    assert status_of(answer) == 413  # before a byte of the body was sent


def test_a_body_that_is_too_long_in_chunks_is_refused() -> None:
    with inside(Settings(port=0, max_body=100_000), registry=One(served())) as live:
        chunk = b"%x\r\n%s\r\n" % (50_000, bytes(50_000))
        start = head("/explain", "transfer-encoding: chunked")
        assert status_of(talk(live, start, *[chunk] * 3, until=b"}")) == 413
        assert status_of(talk(live, start, chunk, b"0\r\n\r\n", until=b"}")) == 400  # no picture, but short enough
        assert alive(live)


def test_a_body_that_does_not_come_is_waited_for_no_longer_than_is_set() -> None:
    with inside(Settings(port=0, body_timeout=0.2), registry=One(served())) as live:
        assert status_of(talk(live, head("/explain", "content-length: 10"), b"12345", until=b"}")) == 408


def test_the_time_a_body_takes_is_the_requests_own(live: Live, photo: bytes) -> None:
    host, port = live.host.split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as opened:
        opened.sendall(head("/explain?timeout=0.05", f"content-length: {len(photo)}") + photo[:-1])
        time.sleep(0.1)  # longer than the timeout; however much longer, the answer is the same
        opened.sendall(photo[-1:])
        assert opened.recv(65536).startswith(b"HTTP/1.1 504")


def test_a_full_queue_is_told_before_the_body_comes(live: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from camrt.server.faults import BusyError

    def full() -> None:
        raise BusyError("the queue is full", 7)

    monkeypatch.setattr(live.app.state.scheduler, "check_room", full)
    answer = talk(live, head("/explain", "content-length: 1000000"), until=b"}")
    assert status_of(answer) == 429 and b"retry-after: 7" in answer.lower()


@pytest.mark.parametrize(
    "path", ["//v2", "/\x01", "/v2/models/\xff\xfe", "*", "/%00", "/v2/models/%ff%fe/infer", "/" + "a" * 20_000]
)
def test_an_odd_address_gets_an_answer(live: Live, path: str) -> None:
    raw = b"GET " + path.encode("latin-1") + b" HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    answer = talk(live, raw)
    assert 400 <= int(answer.split()[1]) < 500 and json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    assert alive(live)


# ---- mutants ---------------------------------------------------------------------------------------------------------


def hostile(count: int) -> Iterator[tuple[str, bytes, dict[str, str]]]:
    """Yield requests of every protocol with something wrong in them: path, body, headers."""
    for length, body in mutants(count):
        given = {} if length is None else {"Inference-Header-Content-Length": length}
        yield "/v2/models/tiny/infer", body, {k: v for k, v in given.items() if v.isascii()}
    for body in documents(count):
        yield "/v1/models/tiny:explain", body, {}
    for body in pictures(count):
        yield "/explain?timeout=5", body, {}


def test_mutated_requests_get_no_fault_of_the_servers(live: Live) -> None:
    counts: dict[int, int] = {}
    connection = live.connect()
    for path, body, headers in hostile(MUTANTS):
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        got = answer.read()
        told = {name.lower(): value for name, value in answer.getheaders()}
        check_answer(answer.status, told, got)
        counts[answer.status] = counts.get(answer.status, 0) + 1
        if told.get("connection") == "close":
            connection.close()
    connection.close()
    assert set(counts) <= {200, 400, 404, 413, 415, 501, 504}, counts
    assert counts[200] > 10 and counts[400] > 50, counts
    assert alive(live)


def test_mutated_headers_get_no_fault_of_the_servers(live: Live, rng: np.random.Generator) -> None:
    good = (
        head("/explain", "content-length: 4", "accept: image/png", "content-encoding: gzip", "x-request-id: a")
        + b"abcd"
    )
    for _ in range(MUTANTS):
        raw = bytearray(good)
        for at in rng.integers(0, len(raw), rng.integers(1, 5)):
            raw[at] = rng.integers(0, 256)
        answer = talk(live, bytes(raw) + b"\r\n\r\n", until=b"}")
        assert not answer or 400 <= int(answer.split()[1]) < 500, (bytes(raw), answer)
    assert alive(live)
