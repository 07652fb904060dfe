"""Operators that ONNX defines by others are written out: the result computes what ONNX Runtime computes for them whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from camrt.export.expand import expand, expandable
from camrt.export.vjp import RULES

Array = np.ndarray[Any, Any]


def model(op: str, arrays: dict[str, Array], attributes: dict[str, Any], opset: int) -> onnx.ModelProto:
    """Return a model of one node that reads the first array; the others are weights."""
    node = onnx.helper.make_node(op, list(arrays), ["y"], name="the_node", **attributes)
    x, *weights = arrays
    ends = [onnx.helper.make_tensor_value_info(name, 1, shape) for name, shape in ((x, arrays[x].shape), ("y", None))]
    held = [onnx.numpy_helper.from_array(arrays[name], name) for name in weights]
    graph = onnx.helper.make_graph([node], "one_node", [ends[0]], [ends[1]], held)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=10)


def run(proto: onnx.ModelProto, feeds: dict[str, Array]) -> Array:
    """Run a model on ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {value.name: feeds[value.name] for value in session.get_inputs()})[0])


HEADS = (2, 3, 5, 4)
ROTATION = (2, 5, 2)
CASES: list[tuple[str, dict[str, tuple[int, ...]], dict[str, Any], int]] = [
    ("MeanVarianceNormalization", {"x": (2, 3, 4, 5)}, {}, 18),
    ("Attention", {"x": HEADS, "k": HEADS, "v": HEADS}, {}, 23),
    ("Attention", {"x": HEADS, "k": HEADS, "v": HEADS, "mask": (5, 5)}, {"scale": 0.3, "softcap": 2.0}, 23),
    ("Attention", {"x": (2, 5, 12), "k": (2, 5, 12), "v": (2, 5, 12)}, {"q_num_heads": 3, "kv_num_heads": 3}, 24),
    ("Attention", {"x": HEADS, "k": HEADS, "v": HEADS}, {"is_causal": 1}, 24),
    ("RotaryEmbedding", {"x": HEADS, "cos": ROTATION, "sin": ROTATION}, {}, 23),
    ("RotaryEmbedding", {"x": HEADS, "cos": ROTATION, "sin": ROTATION}, {"interleaved": 1}, 23),
]


@pytest.mark.parametrize(("op", "shapes", "attributes", "opset"), CASES)
def test_what_is_written_out_computes_the_same(
    op: str, shapes: dict[str, tuple[int, ...]], attributes: dict[str, Any], opset: int, rng: np.random.Generator
) -> None:
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    given = model(op, arrays, attributes, opset)
    assert expandable(given) == [("", op)]
    want = run(given, arrays)
    opened = expand(onnx.shape_inference.infer_shapes(given))
    assert {node.op_type for node in opened.graph.node} <= set(RULES)
    np.testing.assert_allclose(run(opened, arrays), want, rtol=0, atol=1e-5 * np.abs(want).max())


def test_operators_with_a_rule_stay_whole(rng: np.random.Generator) -> None:
    given = model("Gelu", {"x": rng.normal(size=(2, 3)).astype(np.float32)}, {}, 20)
    assert expandable(given) == []
    assert expand(given) is given
