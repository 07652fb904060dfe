"""How many calls are made and timed; how long they take is nobody's oracle."""

from __future__ import annotations

import pytest

from bench.stopwatch import BURST, MOST, burst_length, time_calls


@pytest.mark.parametrize(("calls", "made"), [(1, 1), (2, 3), (5, 6)])
def test_one_more_call_goes_untimed_before_several(calls: int, made: int) -> None:
    seen: list[None] = []
    seconds = time_calls(lambda: seen.append(None), calls)
    assert (len(seconds), len(seen)) == (calls, made)
    assert min(seconds) >= 0


def test_a_turn_is_about_as_long_whatever_a_call_takes() -> None:
    assert burst_length(BURST / 10) == 10
    assert burst_length(100 * BURST) == 1
    assert burst_length(0.0) == MOST
