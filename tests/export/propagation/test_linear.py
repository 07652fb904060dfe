"""What relevance and DeepLIFT share: a node again, its transpose, and division that is guarded."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from camrt.export.propagation.linear import NEGLIGIBLE, again, back, guarded, quotient
from camrt.export.vjp.emit import Emit


def start(*names: str, shape: tuple[int, ...] = (2, 3)) -> tuple[Emit, list[ir.Value]]:
    """Return an emitter and the inputs of an empty graph."""
    values = [ir.Value(name=n, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.DOUBLE)) for n in names]
    return Emit(ir.Graph(values, [], nodes=[], opset_imports={"": 18}, name="g")), values


def evaluate(e: Emit, value: ir.Value, **feeds: Any) -> np.ndarray:
    """Evaluate one value."""
    e.graph.outputs.append(value)
    return np.asarray(ReferenceEvaluator(ir.to_proto(ir.Model(e.graph, ir_version=9))).run(None, feeds)[0])


def test_a_node_again_keeps_attributes_and_shape_and_takes_other_operands(rng: np.random.Generator) -> None:
    e, (x, other) = start("x", "other")
    w = e.const(rng.normal(size=(4, 3)))
    first = e.Gemm(x, w, transB=1, alpha=3.0)
    first.shape = ir.Shape([2, 4])
    node = first.producer()
    assert node is not None
    made = again(e, node, [other, w], alpha=2.0)
    assert made.shape == first.shape
    arrays = {name: rng.normal(size=(2, 3)) for name in ("x", "other")}
    got = evaluate(e, made, **arrays)
    np.testing.assert_allclose(got, 2 * arrays["other"] @ w.const_value.numpy().T, atol=1e-12)  # type: ignore[union-attr]


@pytest.mark.parametrize("place", [0, 1])
def test_back_is_the_transpose_of_one_operand(rng: np.random.Generator, place: int) -> None:
    e, (x, g) = start("x", "g", shape=(3, 3))
    w = e.const(rng.normal(size=(3, 3)))
    y = e.MatMul(*((x, w) if place == 0 else (w, x)))
    y.shape = ir.Shape([3, 3])
    cotangent, array = rng.normal(size=(3, 3)), w.const_value.numpy()  # type: ignore[union-attr]
    got = evaluate(e, back(e, y, g, place), x=np.zeros((3, 3)), g=cotangent)
    np.testing.assert_allclose(got, cotangent @ array.T if place == 0 else array.T @ cotangent, atol=1e-12)


def test_a_quotient_is_zero_where_nothing_is_left_to_divide_by() -> None:
    e, (a, b, scale) = start("a", "b", "scale", shape=(4,))
    arrays = {"a": np.array([1.0, 1, 1, 1]), "scale": np.full(4, 2.0)}
    arrays["b"] = np.array([4.0, 0, 2.1 * NEGLIGIBLE, -1.9 * NEGLIGIBLE])
    got = evaluate(e, quotient(e, a, b, scale), **arrays)
    np.testing.assert_allclose(got, [0.25, 0, 1 / (2.1 * NEGLIGIBLE), 0])
    e, (a, b) = start("a", "b", shape=(4,))
    got = evaluate(e, quotient(e, a, b), a=arrays["a"], b=np.array([4.0, 0, 1e-300, -2.0]))
    np.testing.assert_allclose(got, [0.25, 0, 1e300, -0.5])


def test_what_stands_where_a_divisor_is_too_small_is_given() -> None:
    e, (a, b) = start("a", "b", shape=(3,))
    least = e.const(np.array(0.5))
    got = evaluate(e, guarded(e, a, b, least, a), a=np.array([1.0, 2, 3]), b=np.array([2.0, 0.5, -0.6]))
    np.testing.assert_allclose(got, [0.5, 2, -5])
