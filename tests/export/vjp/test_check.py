"""The check itself: it must not pass rules that are wrong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import pytest

from camrt.export.vjp.emit import Emit
from camrt.export.vjp.table import RULES, Rule
from tests.export.vjp.check import check_rule, spaced


def doubled(e: Emit, node: ir.Node, g: ir.Value) -> Sequence[ir.Value | None]:
    """Return twice the right gradient of Identity."""
    return (e.Add(g, g),)


def nothing(e: Emit, node: ir.Node, g: ir.Value) -> Sequence[ir.Value | None]:
    """Return no gradient."""
    return (None,)


def controlled(e: Emit, node: ir.Node, g: ir.Value) -> Sequence[ir.Value | None]:
    """Return the right gradient by an operator that providers for GPUs lack."""
    e.NonZero(g)
    return (g,)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (doubled, "input 0 is off by .* from finite differences"),
        (nothing, "from finite differences"),
        (controlled, "NonZero: its shape depends on data"),
    ],
)
def test_wrong_rules_are_caught(rule: Rule, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, "Identity", Rule(rule))
    with pytest.raises(AssertionError, match=message):
        check_rule("Identity", [np.ones((2, 3))])


def test_wrong_rules_are_caught_by_autograd_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, "Identity", Rule(doubled))
    with pytest.raises(AssertionError, match="off by 1 from torch's autograd"):
        check_rule("Identity", [np.ones((2, 3))], torch_forward=lambda x: x)


def test_an_oracle_of_another_function_is_caught() -> None:
    with pytest.raises(AssertionError, match="the test compares different functions"):
        check_rule("Identity", [np.ones((2, 3))], torch_forward=lambda x: x + 1)


@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_spaced_values_keep_their_distance_from_each_other_and_from_zero(size: int, rng: np.random.Generator) -> None:
    values = np.sort(np.append(spaced(rng, size), 0.0))
    assert np.diff(values).min() >= 0.5 / size
    assert np.abs(values).max() < 1.5
