"""The emitter: constants are shared and keep their rank, result types follow the operator, broadcasting is undone."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from camrt.export.vjp.emit import Emit, constant, dims


def value(name: str, shape: list[int | str], dtype: ir.DataType = ir.DataType.DOUBLE) -> ir.Value:
    """Return a graph input."""
    return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype))


def graph(*inputs: ir.Value) -> ir.Graph:
    """Return an empty graph."""
    return ir.Graph(list(inputs), [], nodes=[], opset_imports={"": 18}, name="g")


def evaluate(g: ir.Graph, output: ir.Value, feeds: dict[str, np.ndarray]) -> np.ndarray:
    """Run a graph in the reference evaluator."""
    g.outputs.append(output)
    model = ir.to_proto(ir.Model(g, ir_version=9))
    return np.asarray(ReferenceEvaluator(model).run(None, feeds)[0])


def test_a_scalar_constant_has_rank_zero_and_equal_constants_are_one() -> None:
    x = value("x", ["N", 3])
    e = Emit(graph(x))
    half = e.scalar(0.5, x)
    assert dims(half) == ()
    assert e.scalar(0.5, x) is half
    assert e.const([1, 2]) is e.const([1, 2])
    assert e.const([1, 2]) is not e.const([2, 1])
    held = constant(half)
    assert held is not None
    assert held.dtype == np.float64


@pytest.mark.parametrize(
    ("op", "expected"),
    [("Shape", ir.DataType.INT64), ("Greater", ir.DataType.BOOL), ("Mul", ir.DataType.DOUBLE)],
)
def test_the_element_type_follows_the_operator(op: str, expected: ir.DataType) -> None:
    x = value("x", ["N", 3])
    e = Emit(graph(x))
    made = getattr(e, op)(x) if op == "Shape" else getattr(e, op)(x, x)
    assert made.dtype == expected


def test_names_that_are_no_operator_are_attribute_errors() -> None:
    with pytest.raises(AttributeError):
        Emit(graph()).lower_case  # noqa: B018


def test_an_unknown_shape_is_said_and_not_guessed() -> None:
    with pytest.raises(ValueError, match="unknown"):
        dims(ir.Value(name="x"))


@given(st.data())
def test_summing_back_is_the_transpose_of_broadcasting(data: st.DataObject) -> None:
    full = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    drop = data.draw(st.integers(0, len(full) - 1))
    small = [1 if data.draw(st.booleans()) else d for d in full[drop:]]
    like, g = value("like", list(small)), value("g", list(full))
    made = graph(g)
    e = Emit(made)
    summed = e.sum_to(g, tuple(full), like)
    if summed is g:
        summed = e.Identity(g)
    rng = np.random.default_rng(0)
    cotangent, direction = rng.normal(size=full), rng.normal(size=small)
    got = evaluate(made, summed, {"g": cotangent})
    assert got.shape == tuple(small)
    # <broadcast(direction), cotangent> = <direction, sum(cotangent)>
    np.testing.assert_allclose((np.broadcast_to(direction, full) * cotangent).sum(), (direction * got).sum(), atol=1e-9)
