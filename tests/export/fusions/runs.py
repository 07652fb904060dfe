"""Models of one fused operator, run on ONNX Runtime as they are and taken apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from camrt.errors import MissingRuleError
from camrt.export.fusions import FUSIONS, standard_names, take_apart

__all__ = [
    "CONTRIB", "RNG", "TOKENS", "Array", "Case", "assert_refused", "assert_same", "normal", "one_node", "over_opsets",
    "rows_of", "run",
]  # fmt: skip

Array = np.ndarray[Any, Any]
Case = tuple[str, str, Sequence[Array | None], Mapping[str, Any]]  # operator, what is special, inputs, attributes
CONTRIB = "com.microsoft"
RNG = np.random.default_rng(5)


def normal(*shape: int) -> Array:
    """Return normal random float32 numbers."""
    return RNG.normal(size=shape).astype(np.float32)


TOKENS = normal(2, 5, 12)


def run(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    """Run a model on ONNX Runtime as it is."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [np.asarray(y) for y in session.run(None, dict(feeds))]


def one_node(
    op: str,
    inputs: Sequence[Array | None],
    attributes: Mapping[str, Any],
    outputs: Sequence[str] = ("y",),
    *,
    opset: int,
    domain: str = CONTRIB,
    shaped: bool = True,
) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """Return a model of one node that reads "x", the first array; the others are weights. Not `shaped` hides x's axes."""
    names = ["" if a is None else f"i{i}" for i, a in enumerate(inputs)]
    node = onnx.helper.make_node(op, names, list(outputs), name="the_node", domain=domain, **attributes)
    assert inputs[0] is not None
    source = onnx.helper.make_node("Identity", ["x"], ["i0"])
    if not shaped:  # behind an operator whose shapes onnx does not know
        source = onnx.helper.make_node("QuickGelu", ["x"], ["i0"], domain=CONTRIB)
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, inputs[0].shape)
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs if name]
    weights = [onnx.numpy_helper.from_array(a, f"i{i}") for i, a in enumerate(inputs) if i and a is not None]
    graph = onnx.helper.make_graph([source, node], "fused", [x], ends, weights)
    opsets = [onnx.helper.make_opsetid("", opset), onnx.helper.make_opsetid(CONTRIB, 1)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), {"x": inputs[0]}


def over_opsets(cases: Sequence[Case]) -> pytest.MarkDecorator:
    """Run a test over cases at opsets before, between and behind those that brought Gelu and the norms."""
    rows = [(*case, opset) for case in cases for opset in (11, 15, 20, 23)]
    names = [f"{op}-{name}-{opset}" for op, name, _, _, opset in rows]
    return pytest.mark.parametrize(("op", "name", "inputs", "attributes", "opset"), rows, ids=names)


def rows_of(family: str) -> set[str]:
    """Return the operators that a family has a row for."""
    return {op for op, function in FUSIONS.items() if function.__module__ == f"camrt.export.fusions.{family}"}


def assert_same(
    op: str, inputs: Sequence[Array | None], attributes: Mapping[str, Any], opset: int, domain: str = CONTRIB
) -> None:
    """Assert that an operator and what it is taken apart into, ONNX's own, give the same."""
    model, feeds = one_node(op, inputs, attributes, opset=opset, domain=domain)
    found = take_apart(standard_names(model))
    assert not {node.domain for node in found.graph.node} - {""}
    assert [o.domain for o in found.opset_import] == [""]
    (want,), (got,) = run(model, feeds), run(found, feeds)
    np.testing.assert_allclose(got, want, rtol=0, atol=3e-6 * np.abs(want).max())


def assert_refused(
    op: str,
    inputs: Sequence[Array | None],
    attributes: Mapping[str, Any],
    reason: str,
    outputs: Sequence[str] = ("y",),
    *,
    shaped: bool = True,
) -> None:
    """Assert that an operator is refused by the name of its node, in one line."""
    model, _ = one_node(op, inputs, attributes, outputs, opset=17, shaped=shaped)
    with pytest.raises(MissingRuleError, match=rf"com\.microsoft::{op} at node 'the_node' .*{reason}") as caught:
        take_apart(standard_names(model))
    assert "\n" not in str(caught.value)
