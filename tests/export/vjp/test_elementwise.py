"""Gradients of elementwise arithmetic against central finite differences, over every way that shapes broadcast."""

from __future__ import annotations

import numpy as np
import pytest

from tests.export.vjp.run import gradients
from tests.export.vjp.spec import Spec, between, rows

LONG = (2, 3, 2, 2)
SHAPES = {  # of the second operand, beside LONG
    "same": (2, 3, 2, 2),
    "channel": (3, 1, 1),
    "image": (1, 3, 1, 1),
    "pixel": (2, 1, 2, 2),
    "row": (2,),
    "one": (1, 1),
    "scalar": (),
}


def _values(low: float, high: float, shape: tuple[int, ...]) -> np.ndarray:
    """Return values of `shape`, also of rank 0."""
    return between(low, high, *shape) if shape else between(low, high, 1).reshape(())


def _pairs(op: str, first: tuple[float, float], second: tuple[float, float]) -> list[Spec]:
    """Return rows for each broadcast, either operand being the small one; both are differentiated."""
    found = []
    for name, shape in SHAPES.items():
        large, small = _values(*first, LONG), _values(*second, shape)
        symbolic = [0, 1] if name in ("same", "pixel") else [0]
        found.append(Spec(op, (large, small), name, wrt=(0, 1), symbolic_batch=symbolic))
        if name not in ("same", "pixel"):
            small, large = _values(*first, shape), _values(*second, LONG)
            found.append(Spec(op, (small, large), f"{name}_first", wrt=(0, 1), symbolic_batch=[1]))
    return found


X = between(-2, 2, *LONG)
A, B, C = between(-1, 1, *LONG), between(-0.99, 1.03, 3, 2, 2), between(-1.02, 0.97, 2, 1, 1, 1)
TRUTH = np.arange(24).reshape(LONG) % 3 > 0

SPECS = [
    *_pairs("Add", (-2, 2), (-2, 2)),
    *_pairs("Sub", (-2, 2), (-2, 2)),
    *_pairs("Mul", (-2, 2), (-2, 2)),
    *_pairs("Div", (-2, 2), (0.5, 2)),
    *_pairs("Pow", (0.3, 2), (-2, 2)),
    *_pairs("Max", (-1, 1), (-0.97, 1.01)),
    *_pairs("Min", (-1, 1), (-0.97, 1.01)),
    Spec("Add", (X, between(-1, 1, 3, 1, 1)), "bias", ops=()),
    Spec("Mul", (X, between(-1, 1, 3, 1, 1)), "weights", ops=("Mul",)),
    Spec("Mul", (between(-1, 1, 3, 1, 1), X), "weights_first", wrt=(1,), ops=("Mul",)),
    Spec("Sub", (X, np.array(0.5)), "constant", ops=()),
    Spec("Sub", (np.array(0.5), X), "from_constant", wrt=(1,), ops=("Neg",)),
    Spec("Div", (X, np.array([0.5])), "constant", ops=("Div",)),
    Spec("Div", (np.array(2.0), between(0.5, 2, *LONG)), "into_constant", wrt=(1,)),
    Spec("Pow", (X, np.array(2.0)), "square", ops=("Add", "Mul")),
    Spec("Pow", (X, np.array(3, np.int64)), "integer_exponent"),
    Spec("Pow", (X, np.array(0.0)), "zeroth"),
    Spec("Pow", (between(0.3, 2, *LONG), np.array(0.5)), "root"),
    Spec("Pow", (between(0.3, 2, *LONG), np.array(-1.5)), "negative_exponent"),
    Spec("Pow", (between(0.3, 2, *LONG), np.array([0.0, 2.5])), "exponents"),
    Spec("Pow", (np.array(1.7), X), "of_constant", wrt=(1,)),
    Spec("Pow", (X, np.full(LONG, 2, np.int64)), "runtime_integers", runtime=(1,)),
    Spec("Max", (X, np.array(0.02)), "constant"),
    Spec("Min", (np.array(0.02), X), "constant_first", wrt=(1,)),
    Spec("Max", (A, B, C), "three", wrt=(0, 1, 2), symbolic_batch=[0, 2]),
    Spec("Min", (A, B, C), "three", wrt=(0, 1, 2), symbolic_batch=[0, 2]),
    Spec("Max", (A,), "one"),
    Spec("Sum", (A, B, C), "three", wrt=(0, 1, 2), symbolic_batch=[0, 2]),
    Spec("Sum", (A, B), "two", wrt=(0, 1), symbolic_batch=[0]),
    Spec("Sum", (A,), "one", ops=()),
    Spec("Mean", (A, B, C), "three", wrt=(0, 1, 2), symbolic_batch=[0, 2]),
    Spec("Mean", (A,), "one"),
    Spec("Mod", (between(0.1, 0.9, *LONG) + TRUTH, np.array(1.0)), "constant", {"fmod": 1}, ops=()),
    Spec(
        "Mod", (between(2.1, 2.9, *LONG), between(0.98, 1.02, 3, 1, 1)), "both", {"fmod": 1}, (0, 1), symbolic_batch=[0]
    ),
    Spec("Where", (TRUTH, A, B), "both", wrt=(1, 2), symbolic_batch=[1]),
    Spec("Where", (TRUTH[:1, :1], A, np.array(0.0)), "masked", wrt=(1,)),
    Spec("Where", (TRUTH, np.array(0.0), B), "broadcast", wrt=(2,), symbolic_batch=False),
    Spec("Where", (TRUTH, A, C), "runtime_condition", wrt=(1, 2), runtime=(0,)),
]


@pytest.mark.parametrize(("spec", "opset"), rows(SPECS))
def test_the_gradient_equals_finite_differences(spec: Spec, opset: int) -> None:
    spec.check(opset)


@pytest.mark.parametrize("op", ["Max", "Min"])
def test_the_first_of_tied_inputs_takes_the_gradient(op: str) -> None:
    x = np.ones((2, 3), np.float32)
    first, second, third = gradients(op, [x, x, x], wrt=(0, 1, 2))
    np.testing.assert_array_equal(first, x)
    np.testing.assert_array_equal([second, third], np.zeros((2, 2, 3)))


def test_comparisons_pass_nothing_back() -> None:
    x, y = between(-1, 1, 6).astype(np.float32), between(-1.1, 0.9, 6).astype(np.float32)
    assert gradients("Greater", [x, y], wrt=(0, 1)) == [None, None]
