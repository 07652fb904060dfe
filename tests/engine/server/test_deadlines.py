"""Deadlines: those that come are called once and in order, those called off never, and nothing is left lying about."""

from __future__ import annotations

import threading
import time

import pytest

from camrt.server import deadlines as module
from camrt.server.deadlines import Deadlines

PATIENCE = 60


def test_what_is_due_is_called_in_order_and_what_was_called_off_is_not() -> None:
    deadlines, called, last = Deadlines(), list[int](), threading.Event()
    now = time.monotonic()
    numbers = {}
    for delay in (40, 10, 30, 20, 25):  # milliseconds; the second is sooner than what is slept for
        numbers[delay] = deadlines.add(now + 0.2 + delay / 1000, lambda delay=delay: called.append(delay))  # type: ignore[misc]
    deadlines.add(now + 0.3, last.set)
    deadlines.call_off(numbers[30])
    deadlines.call_off(numbers[30])
    assert last.wait(PATIENCE)
    assert called == [10, 20, 25, 40]
    assert len(deadlines) == 0
    deadlines.close()


def test_a_deadline_that_has_passed_comes_at_once() -> None:
    deadlines, come = Deadlines(), threading.Event()
    deadlines.add(time.monotonic() + 3600, lambda: None)
    deadlines.add(time.monotonic() - 1, come.set)
    assert come.wait(PATIENCE)
    deadlines.close()


def test_a_callback_that_fails_does_not_keep_the_others(caplog: pytest.LogCaptureFixture) -> None:
    deadlines, come = Deadlines(), threading.Event()

    def fail() -> None:
        raise RuntimeError("on purpose")

    now = time.monotonic()
    deadlines.add(now, fail)
    deadlines.add(now + 0.01, come.set)
    assert come.wait(PATIENCE)
    deadlines.close()
    assert "on purpose" in caplog.text


def test_what_was_called_off_is_forgotten() -> None:
    deadlines = Deadlines()
    far = time.monotonic() + 3600
    for _ in range(10 * module.SPARE):
        deadlines.call_off(deadlines.add(far, lambda: None))
    kept = [deadlines.add(far, lambda: None) for _ in range(10)]
    assert len(deadlines) == 10
    assert len(deadlines._times) <= 2 * len(kept) + module.SPARE + 1
    deadlines.close()
    assert not deadlines._thread.is_alive()
