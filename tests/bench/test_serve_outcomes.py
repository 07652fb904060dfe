"""What became of requests, and what that says."""

from __future__ import annotations

import math
import statistics
from itertools import pairwise

import pytest

from bench.serve_outcomes import BROKEN, KINDS, Outcome, arrivals, counted, drift, goodput, kind_of, quantile, slope


def outcome(
    status: int = 200, *, due: float = 0.0, done: float = 1.0, retry: bool = False, right: bool = True
) -> Outcome:
    """Return a request that was sent when it was due."""
    return Outcome(due, due, done, status, retry, "1", right)


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        (outcome(200), "answered"),
        (outcome(200, right=False), "wrong"),
        (outcome(429, retry=True), "refused"),
        (outcome(429), "faulty"),  # it does not say when to come again
        (outcome(503, retry=True), "unready"),
        (outcome(503), "faulty"),
        (outcome(504), "late"),
        (outcome(500), "faulty"),
        (outcome(400), "faulty"),
        (outcome(BROKEN), "broken"),
    ],
)
def test_what_became_of_a_request(made: Outcome, kind: str) -> None:
    assert kind_of(made) == kind


def test_every_kind_is_counted_also_those_that_did_not_happen() -> None:
    found = counted([outcome(200), outcome(200), outcome(504)])
    assert found == {**dict.fromkeys(KINDS, 0), "answered": 2, "late": 1}


def test_latency_begins_when_a_request_was_due_and_service_when_it_was_sent() -> None:
    late = Outcome(due=1.0, sent=3.0, done=4.5, status=200)
    assert (late.latency, late.service) == (3.5, 1.5)


def test_arrivals_are_a_poisson_process() -> None:
    times = arrivals(50.0, 400.0, seed=3)
    assert times == sorted(times)
    assert 0 < times[0] < times[-1] < 400
    assert len(times) == pytest.approx(20_000, abs=5 * math.sqrt(20_000))  # a Poisson count: its variance is its mean
    gaps = [after - before for before, after in pairwise(times)]
    assert statistics.mean(gaps) == pytest.approx(1 / 50, rel=0.05)
    assert statistics.stdev(gaps) == pytest.approx(1 / 50, rel=0.05)  # an exponential's deviation is its mean
    assert sum(gap > 1 / 50 for gap in gaps) / len(gaps) == pytest.approx(math.exp(-1), abs=0.02)


def test_arrivals_repeat_by_their_seed() -> None:
    assert arrivals(10.0, 5.0, seed=1) == arrivals(10.0, 5.0, seed=1)
    assert arrivals(10.0, 5.0, seed=1) != arrivals(10.0, 5.0, seed=2)


@pytest.mark.parametrize(("rate", "seconds"), [(0.0, 1.0), (1.0, 0.0), (-1.0, 1.0)])
def test_no_rate_and_no_time_are_refused(rate: float, seconds: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        arrivals(rate, seconds)


def test_quantiles_lie_between_neighbours_and_nothing_has_none() -> None:
    assert quantile([4.0, 1.0, 3.0, 2.0], 0.5) == 2.5
    assert quantile(range(101), 0.99) == pytest.approx(99.0)
    assert math.isnan(quantile([], 0.5))


def test_goodput_counts_right_answers_that_came_while_the_load_lasted() -> None:
    seen = [
        outcome(200, done=1.0),
        outcome(200, done=10.0),
        outcome(200, done=10.1),  # later
        outcome(200, done=2.0, right=False),
        outcome(429, done=3.0, retry=True),
    ]
    assert goodput(seen, 10.0) == 0.2


def test_the_slope_of_a_line_is_found_under_what_cancels_out() -> None:
    times = [10.0, 11.0, 12.0, 13.0]
    assert slope(times, [5.0, 7.0, 9.0, 11.0]) == pytest.approx(2.0)
    assert slope(times, [6.0, 6.0 - 1.0, 6.0 - 1.0, 6.0]) == pytest.approx(0.0, abs=1e-12)
    with pytest.raises(ValueError, match="two points"):
        slope([1.0], [1.0])
    with pytest.raises(ValueError, match="two points"):
        slope([1.0, 2.0], [1.0])


def test_drift_compares_the_last_third_with_the_first() -> None:
    seen = [outcome(due=at, done=at + (2.0 if at < 10 else 50.0 if at < 20 else 3.0)) for at in range(30)]
    seen.append(outcome(429, due=29.0, done=99.0, retry=True))  # a refusal is no latency
    assert drift(seen, 0.99, 30.0) == pytest.approx(0.5)
    assert math.isnan(drift(seen[:5], 0.5, 30.0))
