"""Gradients of Softmax and LogSoftmax, against finite differences."""

from __future__ import annotations

import numpy as np
import pytest

from tests.export.vjp.check import check_rule

SPECS = [((3, 5), None), ((1, 4), -1), ((2, 3, 4, 5), 1), ((2, 3, 4), -1), ((3, 4, 2), 0), ((2, 2, 3, 3), 2)]


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize(("shape", "axis"), SPECS)
def test_softmax_gradient_equals_finite_differences(
    op: str, shape: tuple[int, ...], axis: int | None, rng: np.random.Generator
) -> None:
    attributes = {} if axis is None else {"axis": axis}
    check_rule(op, [3 * rng.standard_normal(shape)], attributes=attributes, symbolic_batch=axis != 0)


@pytest.mark.parametrize(("op", "size"), [("Softmax", 1000.0), ("LogSoftmax", 30.0)])
def test_softmax_gradients_of_extreme_logits_are_finite(op: str, size: float) -> None:
    check_rule(op, [np.array([[size, -size, 0.0], [5.0, 5.0, 5.0]])])
