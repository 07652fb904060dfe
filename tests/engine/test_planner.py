"""The stream of masked forwards, with a model that adds up its rows: every row once, whoever asked, whatever fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from camrt.errors import CancelledError, MemoryBoundError
from camrt.limits import UNLIMITED, Cancellation, Limits
from camrt.planner import Job, Planner, chunk_of

Array = Any


def model(buffer: Array, limits: Limits = UNLIMITED) -> Array:
    """Return (sum, double sum) of each row."""
    total = buffer.sum(1)
    return np.stack([total, 2 * total], 1)


def empty(rows: int) -> Array:
    """Make a buffer full of what must never be read."""
    return np.full((rows, 3), np.nan)


def job(values: Array, limits: Limits = UNLIMITED, until: float = float("inf")) -> tuple[Job, Array, Array]:
    """Return a job over rows of values, where its answers go, and how often each row was answered."""
    answer, times = np.zeros((len(values), 2)), np.zeros(len(values), int)

    def fill(buffer: Array, start: int, stop: int) -> None:
        buffer[:] = values[start:stop]

    def take(start: int, stop: int, logits: Array) -> None:
        answer[start:stop] = logits
        times[start:stop] += 1

    return Job(len(values), fill, take, limits, until), answer, times


@pytest.mark.parametrize("chunk", [1, 3, 4, 7, 500])
@pytest.mark.parametrize("rows", [0, 1, 4, 257])
def test_every_row_is_answered_once_whatever_the_chunk(chunk: int, rows: int, rng: np.random.Generator) -> None:
    values = rng.normal(size=(rows, 3))
    sizes: list[int] = []

    def run(buffer: Array, limits: Limits) -> Array:
        sizes.append(len(buffer))
        return model(buffer)

    mine, answer, times = job(values)
    Planner(run, empty, chunk).run(mine)
    assert_array_equal(answer, model(values))
    assert_array_equal(times, 1)
    assert sizes == [chunk] * (rows // chunk) + [rows % chunk] * bool(rows % chunk)


@pytest.mark.parametrize("lanes", [1, 3])
def test_callers_share_chunks_and_get_their_own_rows(lanes: int, rng: np.random.Generator) -> None:
    sizes: list[int] = []
    gate = threading.Barrier(17)

    def run(buffer: Array, limits: Limits) -> Array:
        sizes.append(len(buffer))
        time.sleep(0.001)
        return model(buffer)

    planner = Planner(run, empty, 8, lanes)
    wanted = [rng.normal(size=(n, 3)) for n in rng.integers(1, 60, 16)]

    def ask(values: Array) -> tuple[Array, Array]:
        mine, answer, times = job(values)
        gate.wait()
        planner.run(mine)
        return answer, times

    with ThreadPoolExecutor(16) as pool:
        asked = [pool.submit(ask, values) for values in wanted]
        gate.wait()
        for values, future in zip(wanted, asked, strict=True):
            answer, times = future.result(60)
            assert_array_equal(answer, model(values))
            assert_array_equal(times, 1)
    total = sum(len(values) for values in wanted)
    assert sum(sizes) == total
    assert len(sizes) < sum(-(-len(values) // 8) for values in wanted)  # alone they would need more runs


def test_a_small_job_does_not_wait_for_a_large_one(rng: np.random.Generator) -> None:
    runs = 0
    started, entered = threading.Event(), threading.Event()

    def run(buffer: Array, limits: Limits) -> Array:
        nonlocal runs
        runs += 1
        started.set()
        entered.wait(60)
        return model(buffer)

    planner = Planner(run, empty, 4)
    large, *_ = job(rng.normal(size=(400, 3)))
    values = rng.normal(size=(4, 3))
    small, answer, _ = job(values)
    take, after = small.take, list[int]()

    def noted(start: int, stop: int, logits: Array) -> None:
        take(start, stop, logits)
        after.append(runs)

    small.take = noted
    for future in together(planner, [large, small], entered, started):
        future.result(60)
    assert_array_equal(answer, model(values))
    assert after == [2, 3]  # of 101 runs, half of each of the next two chunks


def test_memory_that_runs_out_halves_the_chunk_and_changes_no_number(rng: np.random.Generator) -> None:
    tried: list[int] = []

    def run(buffer: Array, limits: Limits) -> Array:
        tried.append(len(buffer))
        if len(buffer) > 3:
            raise RuntimeError("Failed to allocate memory for requested buffer of size 1")
        return model(buffer)

    values = rng.normal(size=(20, 3))
    mine, answer, times = job(values)
    planner = Planner(run, empty, 16)
    planner.run(mine)
    assert tried[:4] == [16, 8, 4, 2]
    assert planner.chunk == 2
    assert_array_equal(answer, model(values))
    assert_array_equal(times, 1)


def test_a_single_row_without_memory_is_an_error_and_the_planner_goes_on(rng: np.random.Generator) -> None:
    full = True

    def run(buffer: Array, limits: Limits) -> Array:
        if full:
            raise MemoryError("no")
        return model(buffer)

    planner, values = Planner(run, empty, 4), rng.normal(size=(5, 3))
    with pytest.raises(MemoryBoundError, match="no memory left for a single masked forward"):
        planner.run(job(values)[0])
    assert not planner._buffers
    full = False
    mine, answer, _ = job(values)
    planner.run(mine)
    assert_array_equal(answer, model(values))


def test_a_model_that_fails_tells_everybody_who_waits_for_it(rng: np.random.Generator) -> None:
    gate = threading.Barrier(3)

    def run(buffer: Array, limits: Limits) -> Array:
        raise OSError("the device is gone")

    planner = Planner(run, empty, 4)

    def ask() -> None:
        gate.wait()
        planner.run(job(rng.normal(size=(9, 3)))[0])

    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(ask) for _ in range(2)]
        gate.wait()
        for future in asked:
            with pytest.raises(OSError, match="the device is gone"):
                future.result(60)
    assert not planner._jobs
    assert not planner._buffers


def together(planner: Planner, jobs: list[Job], hold: threading.Event, started: threading.Event) -> list[Any]:
    """Run jobs in threads of their own; `hold` is released when all of them wait."""
    pool = ThreadPoolExecutor(len(jobs))
    first = pool.submit(planner.run, jobs[0])
    started.wait(60)
    rest = [pool.submit(planner.run, one) for one in jobs[1:]]
    while len(planner._jobs) < len(jobs):
        time.sleep(0.001)
    hold.set()
    pool.shutdown(wait=False)
    return [first, *rest]


def gated(hold: threading.Event, started: threading.Event) -> Callable[[Array, Limits], Array]:
    """Return a model whose first run waits."""

    def run(buffer: Array, limits: Limits) -> Array:
        started.set()
        hold.wait(60)
        return model(buffer)

    return run


def test_a_job_that_cannot_write_its_rows_fails_alone(rng: np.random.Generator) -> None:
    hold, started = threading.Event(), threading.Event()
    values = rng.normal(size=(9, 3))
    good, answer, _ = job(values)

    def broken(buffer: Array, start: int, stop: int) -> None:
        raise ZeroDivisionError("mine alone")

    bad = Job(9, broken, lambda start, stop, logits: None)
    first, second = together(Planner(gated(hold, started), empty, 4), [good, bad], hold, started)
    with pytest.raises(ZeroDivisionError, match="mine alone"):
        second.result(60)
    first.result(60)
    assert_array_equal(answer, model(values))


@pytest.mark.parametrize("cancelled", [0, 1])
def test_who_cancels_is_free_and_the_other_gets_its_rows(cancelled: int, rng: np.random.Generator) -> None:
    """The first job's thread runs the chunk when the switch is pulled, the second's waits for it."""
    hold, started, switch = threading.Event(), threading.Event(), Cancellation()
    values = [rng.normal(size=(40, 3)) for _ in range(2)]
    with Limits(None, switch) as limits:
        made = [job(v, limits if i == cancelled else UNLIMITED) for i, v in enumerate(values)]
        released = threading.Event()

        def run(buffer: Array, limits: Limits) -> Array:
            started.set()
            hold.wait(60)
            if not released.is_set():
                released.set()
                switch.cancel()
            return model(buffer)

        futures = together(Planner(run, empty, 4), [m[0] for m in made], hold, started)
        with pytest.raises(CancelledError):
            futures[cancelled].result(60)
        futures[1 - cancelled].result(60)
    assert_array_equal(made[1 - cancelled][1], model(values[1 - cancelled]))
    assert made[cancelled][2].sum() <= 8  # no further chunk was begun for it


def test_a_run_is_ended_inside_only_where_all_its_rows_are_of_one_job(rng: np.random.Generator) -> None:
    given: list[bool] = []
    hold, started = threading.Event(), threading.Event()

    def run(buffer: Array, limits: Limits) -> Array:
        given.append(limits.can_stop)
        started.set()
        hold.wait(60)
        return model(buffer)

    with Limits(None, Cancellation()) as one, Limits(None, Cancellation()) as two:
        jobs = [job(rng.normal(size=(8, 3)), limits)[0] for limits in (one, two)]
        for future in together(Planner(run, empty, 4), jobs, hold, started):
            future.result(60)
    assert given == [True, False, False, True] or given == [True, False, False, False]


def test_a_soft_deadline_keeps_what_is_ready(rng: np.random.Generator) -> None:
    values = rng.normal(size=(40, 3))
    until = time.monotonic() + 0.05
    mine, answer, times = job(values, until=until)

    def run(buffer: Array, limits: Limits) -> Array:
        time.sleep(0.02)
        return model(buffer)

    Planner(run, empty, 4).run(mine)
    assert 0 < times.sum() < 40
    assert_array_equal(answer[times == 1], model(values)[times == 1])
    assert_array_equal(np.flatnonzero(times), np.arange(times.sum()))  # the first rows, in order


def test_a_thread_that_is_told_to_end_hands_its_rows_on(rng: np.random.Generator) -> None:
    hold, started, first_run = threading.Event(), threading.Event(), True

    def run(buffer: Array, limits: Limits) -> Array:
        nonlocal first_run
        started.set()
        hold.wait(60)
        if first_run:
            first_run = False
            return model(buffer)
        if threading.current_thread() is driver[0]:
            raise KeyboardInterrupt
        return model(buffer)

    driver: list[threading.Thread] = []
    values = rng.normal(size=(6, 3))
    mine, answer, times = job(values)
    doomed = job(rng.normal(size=(400, 3)))[0]
    planner = Planner(run, empty, 4)
    ended: list[BaseException] = []

    def drive() -> None:
        try:
            planner.run(doomed)
        except KeyboardInterrupt as error:
            ended.append(error)

    driver.append(threading.Thread(target=drive))
    driver[0].start()
    started.wait(60)
    other = threading.Thread(target=planner.run, args=[mine])
    other.start()
    while len(planner._jobs) < 2:
        time.sleep(0.001)
    hold.set()
    other.join(60)
    driver[0].join(60)
    assert ended
    assert_array_equal(answer, model(values))
    assert_array_equal(times, 1)
    assert not planner._driving


@pytest.mark.parametrize("lanes", [1, 3])
def test_who_waits_is_told_in_its_own_thread_and_may_ask_for_more(lanes: int, rng: np.random.Generator) -> None:
    planner = Planner(model, empty, 4, lanes)

    def ask(values: Array) -> None:
        mine, answer, _ = job(values)
        told: list[int] = []

        def tell(rows: int) -> None:
            assert threading.current_thread() is me
            told.append(rows)
            other, found, _ = job(values[:3])  # with a lane still held this would wait for itself
            planner.run(other)
            assert_array_equal(found, model(values[:3]))

        me, mine.tell = threading.current_thread(), tell
        planner.run(mine)
        assert_array_equal(answer, model(values))
        assert told == sorted(set(told))
        assert told[-1] == len(values)

    with ThreadPoolExecutor(8) as pool:
        for asked in [pool.submit(ask, rng.normal(size=(n, 3))) for n in range(20, 28)]:
            asked.result(60)


def test_what_is_raised_while_being_told_ends_that_job_alone(rng: np.random.Generator) -> None:
    planner, values = Planner(model, empty, 4), rng.normal(size=(9, 3))
    mine, *_ = job(values)

    def tell(rows: int) -> None:
        raise KeyError("mine")

    mine.tell = tell
    with pytest.raises(KeyError, match="mine"):
        planner.run(mine)
    assert not planner._jobs
    assert not planner._driving
    other, answer, _ = job(values)
    planner.run(other)
    assert_array_equal(answer, model(values))


def test_the_chunk_follows_the_memory_and_says_what_one_row_needs() -> None:
    assert chunk_of(4, 10 * 2**20, 2**30) == 4
    assert chunk_of(128, 10 * 2**20, 55 * 2**20) == 5
    assert chunk_of(4, 0, 2**20) == 4
    with pytest.raises(MemoryBoundError, match=r"needs about 10 MB, and 5 MB are allowed: allow at least 10 MB"):
        chunk_of(4, 10 * 2**20, 5 * 2**20)
