"""Deadlines and cancelling: who is told, when, and that nobody is told twice."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from camrt.errors import CancelledError, DeadlineError, InputError
from camrt.limits import UNLIMITED, Cancellation, Limits


def test_a_switch_stops_every_request_that_holds_it_and_those_that_come_later() -> None:
    switch = Cancellation()
    with Limits(None, switch) as first, Limits(None, switch) as second, Limits(None, Cancellation()) as other:
        first.check()
        switch.cancel()
        for limits in (first, second):
            with pytest.raises(CancelledError, match="cancelled by its caller"):
                limits.check()
        other.check()
    with Limits(None, switch) as later, pytest.raises(CancelledError):
        later.check()


def test_a_request_that_has_ended_is_not_stopped_any_more() -> None:
    switch = Cancellation()
    with Limits(None, switch) as limits:
        pass
    switch.cancel()
    limits.check()


def test_the_deadline_comes_by_itself_and_the_first_reason_counts() -> None:
    switch, told = Cancellation(), threading.Event()
    with Limits(0.01, switch) as limits, limits.watch(told.set):
        assert told.wait(30)
        switch.cancel()
        with pytest.raises(DeadlineError, match=r"0\.01 s"):
            limits.check()


def test_a_watcher_is_called_once_and_only_while_it_watches() -> None:
    calls: list[int] = []
    switch = Cancellation()
    with Limits(None, switch) as limits:
        with limits.watch(lambda: calls.append(1)):
            pass
        with limits.watch(lambda: calls.append(2)):
            switch.cancel()
            switch.cancel()
        with limits.watch(lambda: calls.append(3)):  # too late: told at once
            pass
    assert calls == [2, 3]


def test_a_signals_handler_may_cancel_wherever_its_thread_is() -> None:
    """A handler runs in the main thread between two steps of anything, so that locks of that thread may be held."""
    switch = Cancellation()

    def interrupted() -> None:
        with Limits(None, switch) as limits, switch._lock, limits._lock:
            switch.cancel()

    thread = threading.Thread(target=interrupted, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    assert switch.cancelled


def test_a_run_gets_its_terminate_flag() -> None:
    class Options:
        terminate = False

    options, switch = Options(), Cancellation()
    with Limits(None, switch) as limits, limits.run_options(options) as given:
        assert given is options
        assert not options.terminate
        switch.cancel()
        assert options.terminate


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), "1", True])
def test_a_timeout_is_a_number_of_seconds(seconds: Any) -> None:
    with pytest.raises(InputError, match="timeout must be a number of seconds above 0"):
        Limits(seconds)


def test_a_switch_is_a_cancellation() -> None:
    wrong: Any = threading.Event()
    with pytest.raises(InputError, match=r"cancel must be a camrt\.Cancellation or None; got Event"):
        Limits(None, wrong)


def test_without_limits_nothing_ends() -> None:
    assert not UNLIMITED.can_stop
    UNLIMITED.check()
