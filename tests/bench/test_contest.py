"""Turns, ratios and spreads, on times that are written down here."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from bench.contest import Spread, contest, ratios, spread


@pytest.mark.parametrize("values", [[3.0], [1.0, 2.0], [5.0, 1.0, 4.0], [2.0, 2.0, 9.0, 1.0, 7.5, 3.25]])
def test_a_spread_is_numpys_quartiles(values: list[float]) -> None:
    found = spread(values)
    want = np.quantile(values, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose([found.low, found.lower, found.median, found.upper, found.high], want)
    assert found.runs == len(values)


def test_whole_numbers_become_floats_so_that_json_is_the_same_either_way() -> None:
    assert spread([2]) == Spread(2.0, 2.0, 2.0, 2.0, 2.0, 1)
    assert isinstance(spread([2, 2]).low, float)


def test_a_spread_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one value"):
        spread([])


def test_contenders_take_turns_and_the_order_is_turned_round_after_every_round() -> None:
    played: list[str] = []

    def turn(name: str) -> float:
        played.append(name)
        return float(len(played))

    times = contest({name: partial(turn, name) for name in "abc"}, 3)
    assert "".join(played) == "abc" + "cba" + "abc"
    assert times == {"a": [1.0, 6.0, 7.0], "b": [2.0, 5.0, 8.0], "c": [3.0, 4.0, 9.0]}


def test_a_drift_that_hits_a_round_leaves_its_ratio_alone() -> None:
    slowness = iter([1.0, 1.0, 7.0, 7.0, 3.0, 3.0])
    times = contest({"floor": lambda: 2.0 * next(slowness), "ours": lambda: 3.0 * next(slowness)}, 3)
    assert ratios(times["ours"], times["floor"]) == [1.5, 1.5, 1.5]


def test_ratios_are_taken_round_by_round_and_not_between_medians() -> None:
    assert ratios([2.0, 30.0], [1.0, 10.0]) == [2.0, 3.0]
    with pytest.raises(ValueError, match="2 and 1 rounds"):
        ratios([1.0, 2.0], [1.0])


def test_a_contest_without_rounds_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one round"):
        contest({}, 0)
