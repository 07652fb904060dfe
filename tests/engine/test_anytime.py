"""Budgets: what is refused, when rounds end, and that a budget that is not met changes nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import camrt
from camrt.anytime import Budget
from camrt.errors import InputError, MethodError
from tests import tiny


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({}, "a budget needs forwards, seconds or stability"),
        ({"forwards": 0}, "forwards of a budget must be a number above 0; got 0"),
        ({"seconds": float("nan")}, "seconds of a budget"),
        ({"seconds": "1"}, "seconds of a budget"),
        ({"stability": 1.5}, "above 0 and at most 1; got 1.5"),
        ({"forwards": True}, "forwards of a budget"),
    ],
)
def test_budgets_out_of_range_are_refused(limits: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Budget(**limits)


def test_a_method_without_masked_forwards_has_no_budget() -> None:
    with pytest.raises(MethodError, match="gradcam has none to leave out"):
        camrt.load(tiny.mlp(), preprocess="half").explain(tiny.images(1), budget=Budget(forwards=3))


@pytest.fixture
def explainer() -> camrt.Explainer:
    """Open a tiny model."""
    return camrt.load(tiny.mlp(), preprocess="half")


@pytest.mark.parametrize(
    "budget", [Budget(forwards=1000), Budget(seconds=1000.0), Budget(stability=1.0, seconds=1000.0)]
)
def test_a_budget_that_is_not_met_gives_the_exact_map(budget: Budget, explainer: camrt.Explainer) -> None:
    x = tiny.images(2)
    exact = explainer.explain(x, method="scorecam", target=[1, 3])
    found = explainer.explain(x, method="scorecam", target=[1, 3], budget=budget)
    assert_allclose(found.raw, exact.raw, atol=1e-6)
    if budget.stability is None:
        assert found.flags["complete"].all()


def test_a_budget_of_forwards_runs_so_many_and_says_so(explainer: camrt.Explainer) -> None:
    x = tiny.images(2)
    found = explainer.explain(x, method="scorecam", budget=Budget(forwards=2))
    assert not found.flags["complete"].any()
    assert_array_equal(found.flags["forwards"], [[2], [2]])
    acts = explainer.activations(x)
    (layer,) = acts
    deviation = acts[layer].reshape(2, tiny.CHANNELS, -1).std(2)
    exact = explainer.explain(x, method="scorecam")
    for i in range(2):  # the map holds the two most varied channels, and the bound covers what the others could add
        left = exact.raw[i, 0] - found.raw[i, 0]
        assert np.abs(left).max() <= found.flags["bound"][i, 0] * np.abs(found.raw[i, 0]).max() * (1 + 1e-6)
        assert deviation[i].max() > 0


def test_time_ends_the_rounds_after_the_first(explainer: camrt.Explainer) -> None:
    x = tiny.images(1)
    found = explainer.explain(x, method="rise", options={"n": 4000}, budget=Budget(seconds=1e-6))
    assert not found.flags["complete"].any()
    assert found.flags["forwards"][0, 0] == 250  # a sixteenth


def test_stable_maps_end_the_rounds(explainer: camrt.Explainer) -> None:
    x = tiny.images(1)
    found = explainer.explain(x, method="rise", options={"n": 4000}, budget=Budget(stability=0.05))
    assert not found.flags["complete"].any()
    assert found.flags["stability"][0, 0] >= 0.05
    assert found.flags["forwards"][0, 0] in (500, 1000, 2000)
