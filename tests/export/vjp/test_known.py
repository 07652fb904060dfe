"""What rules ask about a node, on nodes built by hand."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from camrt.errors import MissingRuleError, ModelError
from camrt.export.vjp.emit import Emit
from camrt.export.vjp.known import axis_of, given, integers, is_float, nothing, optional_input, refuse, size_of


def _node(*inputs: ir.Value | None, **attributes: int) -> ir.Node:
    return ir.node("Slice", list(inputs), attributes, name="cut")


def _constant(*numbers: int) -> ir.Value:
    tensor = ir.tensor(np.array(numbers, np.int64), name="numbers")
    return ir.Value(name="numbers", const_value=tensor)


def test_an_absent_input_is_none_wherever_it_is_absent() -> None:
    value = ir.Value(name="x")
    assert optional_input(_node(value), 0) is value
    assert optional_input(_node(value), 3) is None
    assert optional_input(_node(value, None), 1) is None
    with pytest.raises(MissingRuleError, match=r"Slice at node 'cut' .*input 1 is absent"):
        given(_node(value, None), 1)


def test_integers_are_read_from_constants_alone() -> None:
    node = _node(ir.Value(name="x"), _constant(3, -1))
    assert integers(node, 1, "starts") == [3, -1]
    assert integers(node, 2, "ends") is None
    with pytest.raises(MissingRuleError, match=r"Slice at node 'cut' .*its data are computed at run time \('x'\)"):
        integers(node, 0, "data")


def test_the_axis_counts_from_either_end() -> None:
    assert [axis_of(_node(axis=axis), 4) for axis in (0, 3, -1, -4)] == [0, 3, 3, 0]
    assert axis_of(_node(), 4, -1) == 3


def test_a_symbolic_length_is_refused_where_a_number_is_needed() -> None:
    assert size_of(_node(), ("N", 7), 1) == 7
    with pytest.raises(MissingRuleError, match="axis 0 is 'N'"):
        size_of(_node(), ("N", 7), 0)


@pytest.mark.parametrize(
    ("dtype", "real"),
    [("FLOAT", True), ("FLOAT16", True), ("BFLOAT16", True), ("DOUBLE", True), ("INT64", False), ("BOOL", False)],
)
def test_floating_types_are_told_from_others(dtype: str, real: bool) -> None:
    assert is_float(ir.Value(name="x", type=ir.TensorType(ir.DataType[dtype]))) is real
    assert not is_float(ir.Value(name="x"))


def test_nothing_gives_none_an_input() -> None:
    e = Emit(ir.Graph([], [], nodes=[], opset_imports={"": 18}))
    value = ir.Value(name="x")
    assert nothing(e, _node(value, value, None), value) == (None, None, None)
    assert len(e.graph) == 0


def test_a_refusal_is_one_line_that_names_the_operator_and_the_node() -> None:
    error = refuse(_node(), "because")
    assert isinstance(error, ModelError)
    assert str(error) == "Slice at node 'cut' has no gradient rule for this case: because"
