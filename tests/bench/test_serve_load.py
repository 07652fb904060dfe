"""Load generators against a server of a few lines that does as it is told."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from bench.serve_load import ask_openly, closed, leave, open_loop
from bench.serve_outcomes import Outcome, kind_of
from bench.serve_requests import get, tensor_request

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BUSY = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
Answering = Callable[[int, bytes], Awaitable[bytes | None]]  # which request it is, and the request; None hangs up


class Stub:
    """Counts requests and connections."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering
        self.requests = self.connections = 0
        self.address = ""
        self.over = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection until it ends."""
        self.connections += 1
        with suppress(asyncio.IncompleteReadError, OSError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")]
                body = await reader.readexactly(int(length[0].split(b":")[1])) if length else b""
                self.requests += 1
                answer = await self._answering(self.requests, body)
                if answer is None:
                    break
                writer.write(answer)
                await writer.drain()
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


@contextmanager
def stub(answering: Answering) -> Iterator[Stub]:
    """Serve in a thread of its own."""
    made, started = Stub(answering), threading.Event()
    loop = asyncio.new_event_loop()

    async def main() -> None:
        server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
        made.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        started.set()
        await made.over.wait()
        await asyncio.sleep(0)  # what was accepted becomes a task
        server.close()
        while others := asyncio.all_tasks() - {asyncio.current_task()}:  # clients have left, so these end by themselves
            await asyncio.wait(others)

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()))
    thread.start()
    started.wait()
    try:
        yield made
    finally:
        loop.call_soon_threadsafe(made.over.set)
        thread.join()
        loop.close()


async def fine(_number: int, _body: bytes) -> bytes:
    return OK


def kinds(outcomes: list[Outcome]) -> list[str]:
    """Return what became of each."""
    return [kind_of(outcome) for outcome in outcomes]


def test_an_open_loop_does_not_wait_for_answers() -> None:
    all_came = asyncio.Event()

    async def held(number: int, _body: bytes) -> bytes:
        if number == 12:
            all_came.set()
        await all_came.wait()  # a closed loop would wait for ever
        return OK

    with stub(held) as server:
        outcomes = asyncio.run(ask_openly(server.address, [get(server.address, "/")], [0.0] * 12))
    assert kinds(outcomes) == ["answered"] * 12
    assert server.connections == 12


def test_an_open_loop_keeps_connections() -> None:
    with stub(fine) as server:
        first = asyncio.run(ask_openly(server.address, [get(server.address, "/")], [0.02 * i for i in range(8)]))
    assert kinds(first) == ["answered"] * 8
    assert server.connections < 8


def test_an_open_loop_tells_what_became_of_each_request() -> None:
    async def one_of_each(number: int, _body: bytes) -> bytes | None:
        return {1: OK, 2: BUSY, 3: None}[number]

    with stub(one_of_each) as server:
        outcomes = asyncio.run(ask_openly(server.address, [get(server.address, "/")], [0.0, 0.1, 0.2]))
    assert kinds(outcomes) == ["answered", "refused", "broken"]
    assert [outcome.due for outcome in outcomes] == [0.0, 0.1, 0.2]
    assert all(outcome.due <= outcome.sent <= outcome.done for outcome in outcomes)


def test_requests_to_nobody_are_broken() -> None:
    with stub(fine) as server:
        address = server.address
    assert kinds(asyncio.run(ask_openly(address, [get(address, "/")], [0.0, 0.0]))) == ["broken"] * 2


def test_every_answer_is_compared_with_that_of_its_version(tmp_path: Path, rng: np.random.Generator) -> None:
    maps = {version: rng.random((1, 1, 4, 4), np.float32) for version in ("1", "2")}
    np.savez(tmp_path / "expected.npz", **maps)

    def answer(version: str, heat: np.ndarray) -> bytes:
        parameters = {"binary_data_size": heat.nbytes}
        output = {"name": "cam", "datatype": "FP32", "shape": list(heat.shape), "parameters": parameters}
        text = json.dumps({"model_version": version, "outputs": [output]}).encode()
        lengths = f"Content-Length: {len(text) + heat.nbytes}\r\nInference-Header-Content-Length: {len(text)}"
        return f"HTTP/1.1 200 OK\r\n{lengths}\r\n\r\n".encode() + text + heat.tobytes()

    async def versions(number: int, _body: bytes) -> bytes:
        mixed = np.concatenate([maps["1"][..., :2], maps["2"][..., 2:]], -1)
        given = [("1", maps["1"]), ("2", maps["2"]), ("1", maps["2"]), ("2", mixed), ("3", maps["1"])]
        return answer(*given[(number - 1) % len(given)])

    with stub(versions) as server:
        (tmp_path / "a.http").write_bytes(tensor_request(server.address, "net", np.zeros((1, 3, 4, 4), np.float32)))
        told = open_loop(
            server.address, [str(tmp_path / "a.http")], 200.0, 0.5, expected=str(tmp_path / "expected.npz")
        )
    outcomes = [Outcome(*one) for one in told["outcomes"]]
    assert {(outcome.version, kind_of(outcome)) for outcome in outcomes} == {
        ("1", "answered"),
        ("2", "answered"),
        ("1", "wrong"),
        ("2", "wrong"),
        ("3", "wrong"),
    }


def test_clients_of_a_closed_loop_ask_one_thing_at_a_time(tmp_path: Path) -> None:
    under_way, most = [0], [0]

    async def counting(_number: int, _body: bytes) -> bytes:
        under_way[0] += 1
        most[0] = max(most)
        most.append(under_way[0])
        await asyncio.sleep(0)
        under_way[0] -= 1
        return OK

    with stub(counting) as server:
        (tmp_path / "a.http").write_bytes(get(server.address, "/"))
        told = closed(server.address, [str(tmp_path / "a.http")], 3, 0.3)
    assert server.connections == 3
    assert max(most) <= 3
    assert len(told["outcomes"]) == server.requests >= 3
    assert set(kinds([Outcome(*one) for one in told["outcomes"]])) == {"answered"}


def test_a_closed_loop_tells_of_connections_that_end(tmp_path: Path) -> None:
    async def hang_up(number: int, _body: bytes) -> bytes | None:
        return OK if number < 5 else None

    with stub(hang_up) as server:
        (tmp_path / "a.http").write_bytes(get(server.address, "/"))
        told = closed(server.address, [str(tmp_path / "a.http")], 2, 60.0)
    assert kinds([Outcome(*one) for one in told["outcomes"]]).count("broken") == 2


@pytest.mark.parametrize("longest", [0.0, 0.05])
def test_leaving_clients_leave(longest: float, tmp_path: Path) -> None:
    async def silent(_number: int, _body: bytes) -> None:
        await server.over.wait()

    with stub(silent) as server:
        (tmp_path / "a.http").write_bytes(tensor_request(server.address, "net", np.zeros((1, 3, 64, 64), np.float32)))
        told = leave(server.address, [str(tmp_path / "a.http")], 40, 8, longest)
    assert sum(told.values()) == 40
    assert told["failed"] == told["late"] == 0
    assert told["early"] > 0
    assert told["waiting"] > 0
