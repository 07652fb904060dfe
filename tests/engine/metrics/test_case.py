"""What a metric judges."""

from __future__ import annotations

import numpy as np

from camrt.metrics.case import Case, Scores


def test_a_probability_is_that_of_its_logarithm() -> None:
    scores = Scores(np.log([0.25, 1e-300]), np.log1p([-0.25, -1e-300]), np.array([True, False]))
    np.testing.assert_allclose(scores.p, [0.25, 1e-300])


def test_a_case_knows_its_size_and_has_its_maps_on_the_host() -> None:
    heat = np.random.default_rng(0).random((2, 4, 7))
    case = Case(heat, np.zeros(2, bool), np.zeros(2, np.int64), np.zeros(2, np.uint64), np.zeros((2, 3, 4, 7)))
    assert case.size == (4, 7)
    assert case.host is heat  # nothing is copied that is there


def test_what_metrics_share_is_made_once_for_each_case() -> None:
    heat, made = np.ones((2, 4, 7)), []
    one, other = (
        Case(heat, np.zeros(2, bool), np.zeros(2, np.int64), np.zeros(2, np.uint64), np.zeros((2, 3, 4, 7)))
        for _ in range(2)
    )

    def make() -> int:
        made.append(None)
        return len(made)

    assert [one.once("a", make), one.once("a", make), one.once("b", make), other.once("a", make)] == [1, 1, 2, 3]
