"""One coroutine a request: it gets its answer, hears of its deadline, notices who leaves, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from camrt.errors import CancelledError, DeadlineError, NumericError
from camrt.server.asks import Ask
from camrt.server.faults import BusyError, UnreadyError
from camrt.server.scheduler import Scheduler
from camrt.server.tickets import Answer
from camrt.server.waiting import wait_for
from tests import tiny
from tests.engine.server.watched import PATIENCE, Watched, ask, rows, settings


@pytest.fixture
def watched() -> Iterator[Watched]:
    """Return a served model; all its leases are released in the end."""
    made = Watched()
    yield made
    assert made.leased == 0


@pytest.fixture
def scheduler(watched: Watched) -> Iterator[Scheduler]:
    """Return a scheduler that holds nothing in the end."""
    made = Scheduler(settings())
    yield made
    watched.open.set()
    assert made.drain(PATIENCE)
    assert made.held == 0
    made.close()


async def stays() -> None:
    """Be a client that never leaves."""
    await asyncio.Event().wait()


async def soon(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.001)


async def waiting(
    scheduler: Scheduler, watched: Watched, request: Ask, gone: Callable[[], Awaitable[None]] = stays
) -> Answer:
    """Wait for a request, and see that nothing but this task is left of it."""
    before = asyncio.all_tasks()
    try:
        return await wait_for(scheduler, watched.lease(), request, gone)
    finally:
        await soon(lambda: asyncio.all_tasks() <= before)


def test_an_answer_comes_back_to_the_loop(scheduler: Scheduler, watched: Watched) -> None:
    async def main() -> list[Answer]:
        thread = threading.current_thread()
        answers = await asyncio.gather(
            *(wait_for(scheduler, watched.lease(), ask(rows(1, seed)), stays) for seed in range(20))
        )
        assert threading.current_thread() is thread
        return list(answers)

    for seed, answer in enumerate(asyncio.run(main())):
        assert answer.explanation is not None
        assert_allclose(answer.explanation.heatmaps, watched.explain(rows(1, seed)).heatmaps, atol=1e-5)


def test_what_the_engine_says_is_raised(scheduler: Scheduler, watched: Watched) -> None:
    with pytest.raises(NumericError):
        asyncio.run(waiting(scheduler, watched, ask(np.full((1, 3, *tiny.SIZE), 3e38, np.float32))))


def test_a_refusal_is_raised_and_nobody_is_watched(watched: Watched) -> None:
    scheduler, watches = Scheduler(settings()), 0
    scheduler.drain(PATIENCE)

    async def counted() -> None:
        nonlocal watches
        watches += 1

    with pytest.raises(UnreadyError):
        asyncio.run(waiting(scheduler, watched, ask(), counted))
    assert watches == 0
    scheduler.close()


def test_the_deadline_comes_even_if_the_run_goes_on_for_others(scheduler: Scheduler, watched: Watched) -> None:
    watched.open.clear()

    async def main() -> None:
        first = asyncio.create_task(waiting(scheduler, watched, ask(method="fem")))
        await soon(lambda: len(watched.calls) == 1)
        patient = asyncio.create_task(waiting(scheduler, watched, ask(rows(1, 1))))
        hasty = asyncio.create_task(waiting(scheduler, watched, ask(rows(1, 2), timeout=1.0)))
        await soon(lambda: len(scheduler._held) == 3)
        gate, watched.open = watched.open, threading.Event()
        gate.set()
        await soon(lambda: len(watched.calls) == 2)
        with pytest.raises(DeadlineError):
            await hasty
        assert not patient.done()
        watched.open.set()
        assert (await patient).batch == 2
        await first

    asyncio.run(main())


@pytest.mark.parametrize("method", ["gradcam", "scorecam"])
def test_a_client_that_leaves_ends_its_run(method: str, scheduler: Scheduler, watched: Watched) -> None:
    """The engine is held up for good, unless it is told to end."""
    watched.open.clear()

    async def main() -> None:
        left = asyncio.Event()

        async def gone() -> None:
            await left.wait()

        task = asyncio.create_task(waiting(scheduler, watched, ask(method=method), gone))
        await soon(lambda: len(watched.calls) == 1)
        left.set()
        with pytest.raises(CancelledError, match="left"):
            await task
        await soon(lambda: scheduler.held == 0)

    asyncio.run(main())


def test_a_connection_that_fails_is_one_that_left(scheduler: Scheduler, watched: Watched) -> None:
    watched.open.clear()

    async def fails() -> None:
        raise ConnectionResetError("on purpose")

    with pytest.raises(CancelledError, match="left"):
        asyncio.run(waiting(scheduler, watched, ask(), fails))


def test_a_task_that_is_cancelled_ends_its_run(scheduler: Scheduler, watched: Watched) -> None:
    watched.open.clear()

    async def main() -> None:
        task = asyncio.create_task(waiting(scheduler, watched, ask()))
        await soon(lambda: len(watched.calls) == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await soon(lambda: scheduler.held == 0)

    asyncio.run(main())


def test_a_loop_that_ends_first_is_not_called(scheduler: Scheduler, watched: Watched) -> None:
    watched.open.clear()

    async def main() -> None:
        task = asyncio.create_task(wait_for(scheduler, watched.lease(), ask(), stays))
        await soon(lambda: len(watched.calls) == 1)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())

    asyncio.run(main())  # cancels what is left of it
    watched.open.set()
    assert scheduler.drain(PATIENCE)


def test_a_thousand_comings_and_goings_leave_nothing(watched: Watched) -> None:
    scheduler = Scheduler(settings(queue_work=40.0))
    rng = np.random.default_rng(0)

    async def one(kind: int, delay: float) -> str:
        async def gone() -> None:
            await asyncio.sleep(delay if kind % 2 else PATIENCE)

        request = ask(rows(1, kind), method=("gradcam", "scorecam")[kind % 5 == 0], timeout=0.02 if kind % 3 else 60)
        try:
            await wait_for(scheduler, watched.lease(), request, gone)
        except (BusyError, CancelledError, DeadlineError) as error:
            return type(error).__name__
        return "answered"

    async def main() -> list[str]:
        found: list[str] = []
        for _ in range(25):
            delays = rng.uniform(0, 0.01, 40)
            found += await asyncio.gather(
                *(one(int(kind), d) for kind, d in zip(rng.integers(0, 30, 40), delays, strict=True))
            )
        await soon(lambda: scheduler.held == 0)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return found

    found = asyncio.run(main())
    assert len(found) == 1000
    assert found.count("answered") > 0
    assert scheduler.drain(PATIENCE)
    assert not scheduler._held
    assert watched.leased == 0
    scheduler.close()


def test_an_error_leads_back_to_nothing(scheduler: Scheduler, watched: Watched) -> None:
    """By counting references alone: when the error is dropped, so is the request with its images."""

    class Weakly(np.ndarray[Any, Any]):
        """An array that can be watched."""

    async def main() -> None:
        images = rows(1).view(Weakly)
        images[:] = 3e38
        watch = weakref.ref(images)
        try:
            await wait_for(scheduler, watched.lease(), ask(images), stays)
        except NumericError:
            del images
        await soon(lambda: watch() is None)  # when the thread has left its run

    gc.disable()
    try:
        asyncio.run(main())
    finally:
        gc.enable()
