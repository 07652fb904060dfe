"""The budget: sums against a plain model of it, refusals at their bounds by hand, the pace on a clock that is told the time."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camrt.server.admission import FOR_CHEAP, MEMORY, SURE, Admission, Outcome, Share
from camrt.server.faults import BusyError

FOREVER = 1e9
OUTCOMES: tuple[Outcome, ...] = ("done", "stopped", "dropped")


class Clock:
    """A time that is set."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def take(admission: Admission, work: float, *, heavy: bool = False, size: int = 1, remaining: float = FOREVER) -> Share:
    """Take work of a model of 10 forwards a second."""
    return admission.take(work, size, rate=10.0, heavy=heavy, remaining=remaining)


@given(st.lists(st.tuples(st.sampled_from(["light", "heavy", "back"]), st.integers(1, 40)), max_size=60))
def test_it_holds_what_was_taken_and_not_given_back(steps: list[tuple[str, int]]) -> None:
    admission, held = Admission(100.0, 10**6), list[tuple[int, bool, Share]]()
    for kind, number in steps:
        if kind == "back":
            if held:
                _, _, share = held.pop(number % len(held))
                assert admission.give_back(share, OUTCOMES[number % 3])
                assert not admission.give_back(share, "done")
        else:
            heavy = kind == "heavy"
            total = sum(work for work, _, _ in held)
            dear = sum(work for work, is_heavy, _ in held if is_heavy)
            fits = total + number <= 100 and not (heavy and dear and dear + number > 100 * (1 - FOR_CHEAP))
            if fits or not held:
                held.append((number, heavy, take(admission, number, heavy=heavy)))
            else:
                with pytest.raises(BusyError, match="queue is full"):
                    take(admission, number, heavy=heavy)
        assert admission.held == pytest.approx(sum(work for work, _, _ in held))
    for _, _, share in held:
        admission.give_back(share, "done")
    assert admission.held == 0


def test_an_empty_server_takes_whatever_comes() -> None:
    admission = Admission(100.0, 1000)
    dear = take(admission, 5000.0, heavy=True, size=10**9, remaining=0.001)
    with pytest.raises(BusyError):
        admission.check_room()
    admission.give_back(dear, "stopped")
    admission.check_room()


def test_what_has_no_room_for_one_forward_says_so_before_anything_is_read() -> None:
    admission = Admission(3.0, 1000)
    first = take(admission, 1.9)
    admission.check_room()
    second = take(admission, 0.2)
    with pytest.raises(BusyError, match="the queue is full"):  # 2.1 of 3
        admission.check_room()
    admission.give_back(second, "done")
    admission.check_room()
    admission.give_back(first, "done")


def test_bytes_are_bounded_too() -> None:
    admission = Admission(100.0, 1000)
    first = take(admission, 1, size=600)
    with pytest.raises(BusyError, match="queue is full"):
        take(admission, 1, size=500)
    second = take(admission, 1, size=400)
    with pytest.raises(BusyError, match="queue is full"):
        admission.check_room()
    for share in (first, second):
        admission.give_back(share, "done")
    admission.check_room()


def test_dear_requests_leave_room_for_cheap_ones() -> None:
    admission = Admission(80.0, 10**6)
    take(admission, 60, heavy=True)
    take(admission, 10, heavy=True)
    with pytest.raises(BusyError):
        take(admission, 1, heavy=True)
    for _ in range(10):
        take(admission, 1)
    with pytest.raises(BusyError):
        take(admission, 1)


def test_what_could_not_be_done_in_time_is_refused_with_the_time_that_the_line_takes() -> None:
    admission = Admission(1000.0, 10**6, Clock())
    take(admission, 30)  # 3 s
    with pytest.raises(BusyError, match="longer than the request's timeout") as caught:
        take(admission, 10, remaining=3.99 / SURE)
    assert caught.value.retry_after == pytest.approx(3.0)
    take(admission, 10, remaining=4.01 / SURE)
    take(admission, 10, heavy=True, remaining=0.1)  # another line, and it is empty


def test_the_pace_is_that_of_what_was_done() -> None:
    clock = Clock()
    admission = Admission(1000.0, 10**6, clock)
    for _ in range(200):  # every second of work takes two
        share = take(admission, 10)
        clock.now += 2
        admission.give_back(share, "done")
    assert admission._light.pace == pytest.approx(2, rel=1e-6)
    assert admission._heavy.pace == 1
    take(admission, 20)
    with pytest.raises(BusyError) as caught:
        take(admission, 10, remaining=5.9 / SURE)
    assert caught.value.retry_after == pytest.approx(4)
    take(admission, 10, remaining=6.1 / SURE)


def test_a_batch_counts_its_time_once_and_idle_time_not_at_all() -> None:
    clock = Clock()
    admission = Admission(1000.0, 10**6, clock)
    for _ in range(100):
        shares = [take(admission, 10) for _ in range(4)]
        clock.now += 2  # all four
        for share in shares:
            admission.give_back(share, "done")
        clock.now += 1000
    assert admission._light.pace == pytest.approx(0.5, rel=1e-6)


def test_the_pace_forgets_over_some_seconds() -> None:
    clock = Clock()
    admission = Admission(1000.0, 10**6, clock)
    for slowness in (5.0, 1.0):
        for _ in range(int(6 * MEMORY * 10 / slowness)):
            share = take(admission, 1)
            clock.now += 0.1 * slowness
            admission.give_back(share, "done")
        assert admission._light.pace == pytest.approx(slowness, rel=0.05)


def test_work_that_was_stopped_teaches_nothing() -> None:
    clock = Clock()
    admission = Admission(1000.0, 10**6, clock)
    for _ in range(50):
        left, stays = take(admission, 100), take(admission, 10)
        clock.now += 60
        admission.give_back(left, "stopped")
        clock.now += 1
        admission.give_back(stays, "done")
    assert admission._light.pace == pytest.approx(1, rel=1e-6)


def test_who_leaves_the_queue_does_not_make_the_others_look_fast() -> None:
    clock = Clock()
    admission = Admission(1000.0, 10**6, clock)
    for _ in range(50):
        left, stays = take(admission, 100), take(admission, 10)
        clock.now += 1.5
        admission.give_back(left, "dropped")
        clock.now += 0.5
        admission.give_back(stays, "done")
    assert admission._light.pace == pytest.approx(2, rel=1e-6)


def test_many_threads_leave_nothing_behind() -> None:
    admission = Admission(12.0, 10**6)
    start = threading.Barrier(8)

    def go(seed: int) -> int:
        chance, refused, held = random.Random(seed), 0, list[Share]()
        start.wait(60)
        for _ in range(500):
            try:
                held.append(take(admission, chance.uniform(0.1, 9), heavy=chance.random() < 0.5))
            except BusyError:
                refused += 1
            assert admission.held >= 0
            while len(held) > 3:
                admission.give_back(held.pop(chance.randrange(len(held))), chance.choice(OUTCOMES))
        for share in held:
            admission.give_back(share, "done")
        return refused

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(go, range(8))) > 0
    assert admission.held == 0
    admission.check_room()
