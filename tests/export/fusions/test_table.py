"""What the rows of the table share: the opset they write for, and sums of operands that may be absent."""

from __future__ import annotations

import numpy as np
import onnx.reference
import onnx_ir as ir
import pytest

from camrt.export.fusions.table import opset, summed
from camrt.export.vjp.emit import Emit


@pytest.mark.parametrize("there", ["a", "b", "ab", "cab"])
def test_a_sum_is_of_the_operands_that_are_there(there: str) -> None:
    kind = ir.TensorType(ir.DataType.FLOAT)
    values = {name: ir.Value(name=name, shape=ir.Shape([2]), type=kind) for name in "abc"}
    graph = ir.Graph(list(values.values()), [], nodes=[], opset_imports={"": 17}, name="sum")
    e = Emit(graph)
    assert opset(e) == 17
    total = summed(e, *(values[name] if name in there else None for name in "abc"))
    assert len(graph) == len(there) - 1  # nothing is added to nothing
    graph.outputs.append(e.Identity(total))
    feeds = {name: np.float32([10**i, i]) for i, name in enumerate("abc")}
    found = onnx.reference.ReferenceEvaluator(ir.to_proto(ir.Model(graph, ir_version=9))).run(None, feeds)[0]
    np.testing.assert_array_equal(found, sum(feeds[name] for name in there))
