"""Connections that say little, slowly, too much or nonsense are closed; the others are left alone."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator

import pytest

from camrt.server import fence, serving
from tests.engine.server.running import PATIENCE
from tests.engine.server.stub import Stub, stub

HEAD = b"GET /quick HTTP/1.1\r\nhost: x\r\n"


@pytest.fixture(scope="module")
def live() -> Iterator[Stub]:
    """Return a server that gives headers little time."""
    with stub(header_timeout=0.3) as made:
        yield made


def talk(live: Stub, *parts: bytes) -> bytes:
    """Send parts on one connection and return everything that comes until the server closes it."""
    host, port = live.host.split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as opened:
        for part in parts:
            opened.sendall(part)
        got = b""
        try:
            while data := opened.recv(65536):
                got += data
        except ConnectionResetError:  # closed while we were still sending
            pass
        return got


def split(answer: bytes) -> tuple[int, dict[str, str]]:
    """Return status and document of a refusal."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"connection: close" in head
    return int(head.split()[1]), json.loads(body)


def test_half_a_header_is_answered_and_closed(live: Stub) -> None:
    code, said = split(talk(live, HEAD))
    assert code == 408 and "0.3 seconds" in said["error"]


def test_a_connection_that_says_nothing_is_closed(live: Stub) -> None:
    assert talk(live) == b""


def test_a_second_request_gets_the_same_time(live: Stub) -> None:
    answer = talk(live, HEAD + b"\r\n", HEAD)
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.count(b"HTTP/1.1") == 2
    assert b"HTTP/1.1 408" in answer


def test_a_slow_body_is_not_the_fence_s(live: Stub) -> None:
    host, port = live.host.split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as opened:
        opened.sendall(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\nconnection: close\r\n\r\nab")
        threading.Event().wait(0.6)  # twice the time that headers have
        opened.sendall(b"cd")
        got = b""
        while data := opened.recv(65536):
            got += data
    assert got.startswith(b"HTTP/1.1 200") and got.endswith(b"\r\n\r\n4")


@pytest.mark.parametrize(
    "part", [b"x: " + b"a" * 2_000_000, b"".join(b"x%d: y\r\n" % i for i in range(200_000))], ids=["long", "many"]
)
def test_headers_without_end_are_refused_though_the_client_goes_on_sending(live: Stub, part: bytes) -> None:
    code, said = split(talk(live, HEAD, part))
    assert code == 431 and "65536 bytes" in said["error"]


def until_closed(opened: socket.socket) -> bytes:
    """Return what comes until the server closes the connection."""
    got = b""
    while data := opened.recv(65536):
        got += data
    return got


def test_a_client_that_keeps_sending_after_a_refusal_is_closed(live: Stub) -> None:
    host, port = live.host.split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as opened:
        opened.sendall(b"nonsense\r\n\r\n")
        assert until_closed(opened).startswith(b"HTTP/1.1 400")
        with pytest.raises(ConnectionError):
            while True:
                opened.sendall(b"more")
                threading.Event().wait(0.01)


def test_what_follows_a_refusal_is_thrown_away_and_resets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    refused, refuse = list[int](), fence._Fence._refuse

    def noted(connection: fence._Fence, code: int, text: str) -> None:
        refused.append(code)
        refuse(connection, code, text)

    monkeypatch.setattr(fence._Fence, "_refuse", noted)
    with stub(header_timeout=PATIENCE) as live:
        host, port = live.host.split(":")
        with socket.create_connection((host, int(port)), timeout=PATIENCE) as opened:
            opened.sendall(b"nonsense\r\n\r\n")
            assert until_closed(opened).count(b"HTTP/1.1 400") == 1
            for _ in range(5):
                opened.sendall(b"nonsense\r\n\r\n")
                threading.Event().wait(0.02)  # a reset would have come back before the last
    assert refused == [400]


def test_the_rest_of_an_answered_request_has_the_time_of_headers(live: Stub) -> None:
    host, port = live.host.split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as opened:
        opened.sendall(b"GET /quick HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\na")
        assert b"quick" in opened.recv(65536)
        opened.sendall(b"b")  # and then nothing
        assert until_closed(opened) == b""


def test_a_connection_whose_answered_request_ends_is_kept(live: Stub) -> None:
    host, port = live.host.split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as opened:
        for _ in range(2):
            opened.sendall(b"GET /quick HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\na")
            assert b"quick" in opened.recv(65536)
            opened.sendall(b"bcd")
        threading.Event().wait(0.6)  # twice the time that a rest has
        opened.sendall(HEAD + b"connection: close\r\n\r\n")
        assert until_closed(opened).startswith(b"HTTP/1.1 200")


def test_it_is_kept_as_long_as_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "KEEP_ALIVE", 1)
    with stub() as live:
        host, port = live.host.split(":")
        with socket.create_connection((host, int(port)), timeout=PATIENCE) as opened:
            opened.sendall(b"GET /quick HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\na")
            assert b"quick" in opened.recv(65536)
            opened.sendall(b"bcd")
            assert until_closed(opened) == b""


def test_nonsense_behind_a_request_leaves_it_its_answer() -> None:
    with stub(header_timeout=0.3) as live:
        host, port = live.host.split(":")
        with socket.create_connection((host, int(port)), timeout=PATIENCE) as opened:
            opened.sendall(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n")
            assert live.begun.acquire(timeout=PATIENCE)
            opened.sendall(b"nonsense\r\n\r\n")
            threading.Event().wait(0.6)  # twice the time that a rest has
            live.go()
            got = until_closed(opened)
    assert got.startswith(b"HTTP/1.1 200") and got.endswith(b"slow") and got.count(b"HTTP/1.1") == 1


def test_a_broken_body_is_said(live: Stub) -> None:
    head = b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    code, said = split(talk(live, head + b"zz\r\n"))
    assert code == 400 and set(said) == {"error"}


@pytest.mark.parametrize(
    "bytes_", [b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", b"GET /\xff HTTP/1.1\r\n\r\n", b"\x00" * 64]
)
def test_what_is_not_http_is_said_in_json(live: Stub, bytes_: bytes) -> None:
    code, said = split(talk(live, bytes_))
    assert code == 400 and set(said) == {"error"}


def test_requests_of_a_kept_connection_are_served(live: Stub) -> None:
    connection = live.connect()
    for _ in range(5):
        connection.request("GET", "/quick")
        assert connection.getresponse().read() == b"quick"
    connection.close()


def test_a_connection_too_many_is_told_so() -> None:
    with stub(connections=2) as live:
        kept = live.connect()
        kept.connect()
        status, headers, body = live.ask("GET", "/quick")
        assert (status, headers["retry-after"], headers["connection"]) == (503, "1", "close")
        assert "too many connections" in json.loads(body)["error"]
        while len(live.server.server_state.connections) > 1:
            threading.Event().wait(0.01)
        kept.request("GET", "/quick")
        assert kept.getresponse().read() == b"quick"
        kept.close()
