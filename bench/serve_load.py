"""
The load generators, in a process of their own: a worker as in `wire.py`.

::

    closed   some clients, each asks again as soon as it is answered: what a server can do at most
    open     requests come when they are due, whatever became of the others: what users do
    leave    clients that go away at any moment

Closed loops use threads and plain blocking sockets, the least a client can do. Open ones use asyncio, with as many
kept-alive connections as are busy at a time. Requests are files of bytes to be sent as they are.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from .serve_line import PIECE, Line, Peer, peer_of
from .serve_outcomes import BROKEN, Outcome, arrivals
from .serve_requests import Reply, heatmaps_of, version_of
from .wire import serve

__all__ = ["ask_openly", "closed", "leave", "main", "open_loop"]

FLUSH = 1.0  # seconds for what a leaving client has written to go out
PATIENCE = 60.0  # seconds for the last answers to come, once nothing is sent any more

SAME = 1e-4  # of a heatmap in [0, 1]: batches of other sizes sum in another order

Told = TypeVar("Told")
Expected = dict[str, npt.NDArray[np.float32]]  # heatmaps by version


def closed(
    address: str, requests: Sequence[str], clients: int, seconds: float, keep: str | None = None
) -> dict[str, Any]:
    """
    Let clients ask again and again.

    Parameters
    ----------
    address : str
        ``host:port``.
    requests : sequence of str
        Files; the clients share them out.
    clients : int
        How many ask at a time.
    seconds : float
        How long; what was begun is awaited.
    keep : str, optional
        An .npz file for the last heatmaps of each client, by its number.

    Returns
    -------
    dict
        ``outcomes``, the processor's ``cpu`` seconds of this process, and the ``seconds`` it took.
    """
    bodies = [Path(file).read_bytes() for file in requests]
    outcomes: list[list[Outcome]] = [[] for _ in range(clients)]
    last: dict[str, npt.NDArray[np.float32]] = {}
    lines = [Line(address) for _ in range(clients)]
    ready = threading.Barrier(clients + 1)

    def run(number: int) -> None:
        line, body = lines[number], bodies[number % len(bodies)]
        ready.wait()
        sent, reply = start[0], None
        try:
            while (sent := time.perf_counter()) < start[0] + seconds:
                reply = line.ask(body)
                done = time.perf_counter()
                outcomes[number].append(_outcome(sent - start[0], sent - start[0], done - start[0], reply))
        except OSError:
            outcomes[number].append(Outcome(sent - start[0], sent - start[0], time.perf_counter() - start[0], BROKEN))
        finally:
            line.close()
        if keep is not None and reply is not None and reply.status == 200:
            last[str(number)] = heatmaps_of(reply)

    threads = [threading.Thread(target=run, args=[number], daemon=True) for number in range(clients)]
    start, cpu = [0.0], time.process_time()
    for thread in threads:
        thread.start()
    start[0] = time.perf_counter()
    ready.wait()
    for thread in threads:
        thread.join()
    taken = time.perf_counter() - start[0]
    if keep is not None:
        np.savez(keep, **last)  # type: ignore[arg-type]
    return _told([outcome for one in outcomes for outcome in one], cpu, taken)


def open_loop(
    address: str, requests: Sequence[str], rate: float, seconds: float, seed: int = 0, expected: str | None = None
) -> dict[str, Any]:
    """
    Send requests when they are due.

    Parameters
    ----------
    address, requests
        As in `closed`; the files take turns.
    rate : float
        Requests a second, on average.
    seconds : float
        How long requests keep coming; answers are awaited after it.
    seed : int
        Of the times.
    expected : str, optional
        An .npz file of heatmaps by version: every answer is compared with the one of its version.

    Returns
    -------
    dict
        As `closed` gives it.
    """
    bodies = [Path(file).read_bytes() for file in requests]
    wanted = None if expected is None else dict(np.load(expected))
    cpu, start = time.process_time(), time.perf_counter()
    outcomes = _run(ask_openly(address, bodies, arrivals(rate, seconds, seed), wanted))
    return _told(outcomes, cpu, time.perf_counter() - start)


async def ask_openly(
    address: str, bodies: Sequence[bytes], times: Sequence[float], expected: Expected | None = None
) -> list[Outcome]:
    """
    Send one request at each of some times, and wait for all answers.

    Parameters
    ----------
    address : str
        ``host:port``.
    bodies : sequence of bytes
        Whole requests, which take turns.
    times : sequence of float
        Seconds from now, rising.
    expected : mapping of str to ndarray, optional
        Heatmaps by version.

    Returns
    -------
    list of Outcome
        In the order of `times`.
    """
    loop = asyncio.get_running_loop()
    idle: list[Peer] = []
    start = loop.time()

    async def one(due: float, body: bytes) -> Outcome:
        sent = loop.time() - start
        try:
            peer = await peer_of(loop, address, idle)
            reply = await peer.ask(body)
        except (OSError, ValueError):
            return Outcome(due, sent, loop.time() - start, BROKEN)
        done = loop.time() - start
        if peer.open:
            idle.append(peer)
        return _outcome(due, sent, done, reply, expected)

    tasks = []
    for number, due in enumerate(times):
        await asyncio.sleep(start + due - loop.time())
        tasks.append(asyncio.create_task(one(due, bodies[number % len(bodies)])))
    if tasks:
        await asyncio.wait(tasks, timeout=PATIENCE)
    outcomes = []
    for due, task in zip(times, tasks, strict=True):
        task.cancel()
        ended = task.done() and not task.cancelled()
        outcomes.append(task.result() if ended else Outcome(due, due, loop.time() - start, BROKEN))
    for peer in idle:
        peer.close()
    return outcomes


def leave(
    address: str, requests: Sequence[str], count: int, at_a_time: int, longest: float, seed: int = 0
) -> dict[str, Any]:
    """
    Let clients go away at any moment: in the middle of a request, while they wait, or while they are answered.

    Parameters
    ----------
    address, requests
        As in `closed`.
    count : int
        How many clients.
    at_a_time : int
        How many of them at once.
    longest : float
        The most seconds a client stays.
    seed : int
        Of the moments.

    Returns
    -------
    dict
        How many left before their request was sent (``early``), while they waited for an answer (``waiting``), and after
        the answer came (``late``); how many could not connect (``failed``).
    """
    bodies = [Path(file).read_bytes() for file in requests]
    return _run(_leave(address, bodies, count, at_a_time, longest, random.Random(seed)))


async def _leave(
    address: str, bodies: Sequence[bytes], count: int, at_a_time: int, longest: float, drawn: random.Random
) -> dict[str, int]:
    """Run the clients of `leave`."""
    host, _, port = address.rpartition(":")
    told = {"early": 0, "waiting": 0, "late": 0, "failed": 0}
    room = asyncio.Semaphore(at_a_time)

    async def one(body: bytes, share: float, stay: float, reset: bool) -> None:
        async with room:
            try:
                reader, writer = await asyncio.open_connection(host, int(port), limit=PIECE)
            except OSError:
                told["failed"] += 1
                return
            try:
                writer.write(body[: int(len(body) * share)])
                answered = await asyncio.wait_for(reader.read(1), stay)
                told["late" if answered else "waiting"] += 1
            except TimeoutError:
                told["early" if share < 1 else "waiting"] += 1
            except OSError:
                told["waiting"] += 1
            finally:
                if reset:
                    writer.transport.abort()
                writer.close()
                with suppress(OSError, TimeoutError):
                    await asyncio.wait_for(writer.wait_closed(), FLUSH)
                writer.transport.abort()

    await asyncio.gather(
        *(
            one(bodies[i % len(bodies)], drawn.choice([1.0, 1.0, drawn.random()]), drawn.uniform(0, longest), drawn.random() < 0.5)
            for i in range(count)
        )
    )  # fmt: skip
    return told


def _outcome(due: float, sent: float, done: float, reply: Reply, expected: Expected | None = None) -> Outcome:
    """Say what became of a request that was answered."""
    outcome = Outcome(due, sent, done, reply.status, "retry-after" in reply.headers)
    if expected is None or reply.status != 200:
        return outcome
    version = version_of(reply)
    wanted, heat = expected.get(version), heatmaps_of(reply)
    right = wanted is not None and heat.shape == wanted.shape and bool(np.abs(heat - wanted).max() <= SAME)
    return replace(outcome, version=version, right=right)


def _told(outcomes: Sequence[Outcome], cpu: float, seconds: float) -> dict[str, Any]:
    """Return what JSON can hold."""
    return {
        "outcomes": [astuple(outcome) for outcome in outcomes],
        "cpu": time.process_time() - cpu,
        "seconds": seconds,
    }


def _run(asked: Coroutine[Any, Any, Told]) -> Told:
    """Run on the leanest event loop there is."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None
    try:
        import uvloop

        factory = uvloop.new_event_loop
    except ModuleNotFoundError:
        factory = None
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(asked)


def main() -> None:
    """Answer until the pipe closes."""
    serve({"closed": closed, "open": open_loop, "leave": leave})


if __name__ == "__main__":
    main()
