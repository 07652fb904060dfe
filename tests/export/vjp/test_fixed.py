"""Which operands are the same in every run."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from camrt.errors import MissingRuleError
from camrt.export.vjp.emit import Emit
from camrt.export.vjp.fixed import is_fixed, require_fixed


def graph() -> tuple[Emit, ir.Value]:
    """Return an emitter and a graph input."""
    x = ir.Value(name="x", shape=ir.Shape(["N", 3]), type=ir.TensorType(ir.DataType.FLOAT))
    return Emit(ir.Graph([x], [], nodes=[], opset_imports={"": 18})), x


def test_what_initializers_decide_is_fixed_and_what_the_input_decides_is_not() -> None:
    e, x = graph()
    weights = e.const(np.ones((3, 3), np.float32))
    halves = e.Mul(weights, e.scalar(0.5, weights))
    assert is_fixed(None)
    assert is_fixed(weights)
    assert is_fixed(e.Transpose(halves))
    assert not is_fixed(x)
    assert not is_fixed(e.Mul(halves, x))


def test_what_shapes_decide_is_fixed() -> None:
    e, x = graph()
    assert is_fixed(e.Concat(e.Shape(x, end=1), e.const([5]), axis=0))
    assert is_fixed(e.Size(e.Mul(x, x)))
    assert not is_fixed(e.Expand(x, e.Shape(x)))


def test_random_numbers_are_not_fixed() -> None:
    e, _ = graph()
    assert not is_fixed(e.RandomNormal(shape=[3]))
    assert not is_fixed(e.RandomNormalLike(e.const(np.ones(3, np.float32))))


def test_a_refusal_names_the_node_and_the_operand() -> None:
    e, x = graph()
    product = e.Mul(x, x)
    node = ir.node("Conv", [x, product], name="dynamic")
    require_fixed(node, [None, e.const(np.ones(3))], "weights")
    with pytest.raises(
        MissingRuleError, match=r"Conv at node 'dynamic'.*its weights 'grad/Mul_1_output_0' are computed"
    ):
        require_fixed(node, [None, product], "weights")
