"""What of a tensor reaches the logits, against where autograd's gradient is not zero; and where all paths meet."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

from camrt.export.load import load
from camrt.export.reach import bottlenecks, reaching
from camrt.export.vjp.emit import dims
from tests.export.onnx_in_torch import gradients
from tests.export.onnx_text import CONV, tiny

START = "a = Mul(x, two)"
PLACES = "f = Flatten(s)  y = Gemm(f, last, b2)"
WEIGHTS: dict[str, Any] = {
    "two": np.float32(2), "w8": (8, 8), "g": (8,), "one": np.array([1]), "three": np.array([3]), "all": np.array([9]),
    "first": np.array(0), "some": np.array([6, 1]), "back": np.array([-9]), "minus": np.array([-2]),
    "two_axes": np.array([1, 2]), "starts": np.array([1, 2]), "ends": np.array([2, 7]), "axis": np.array([2]),
    "parts": np.array([2, 5, 1]), "shape": np.array([0, 24, 8]), "wide": np.array([1, 3, 8, 8]),
    "b3": (3,), "v3": np.array([1, 2, 3], np.float32), "zero": np.array([0]), "channels": (3, 3, 1, 1),
}  # fmt: skip

EXACT = {
    "slice": "s = Slice(a, starts, ends, two_axes)",
    "slice_steps": "s = Slice(a, one, all, axis, three)",
    "slice_backwards": "s = Slice(a, three, back, axis, minus)",
    "gather": "s = Gather<axis=2>(a, some)",
    "gather_one": "s = Gather<axis=3>(a, first)",
    "split": "u, s, v = Split<axis=3>(a, parts)",
    "split_two_read": "u, r, v = Split<axis=3>(a, parts) s = Concat<axis=3>(v, u)",
    "concat": "t = Sigmoid(a) r = Concat<axis=2>(t, x) s = Slice(r, three, all, axis)",
    "transpose_reshape": "t = Transpose<perm=[0, 2, 3, 1]>(a) r = Reshape(t, shape) s = Gather<axis=1>(r, some)",
    "softmax": "t = Softmax<axis=3>(a) s = Gather<axis=2>(t, first)",
    "softmax_elsewhere": "t = Softmax<axis=2>(a) s = Gather<axis=3>(t, some)",
    "layer_norm": "t = LayerNormalization<axis=-1>(a, g, g) s = Slice(t, starts, ends, two_axes)",
    "linear": "t = MatMul(a, w8) s = Slice(t, starts, ends, two_axes)",
    "attention": "q = Slice(a, starts, ends, two_axes) k = Tanh(a) t = Slice(k, one, three, one) z = MatMul(q, t) s = Gather<axis=2>(z, first)",
    "columns": "t = MatMul(w8, a) s = Gather<axis=3>(t, some)",
    "mean_of_rows": "t = ReduceMean<keepdims=0>(a, axis) s = Gather<axis=2>(t, some)",
    "mean_kept": "t = ReduceMean(a, axis) s = Gather<axis=3>(t, first)",
    "broadcast": "t = ReduceMean(a, axis) r = Add(t, x) q = Mul(r, a) s = Gather<axis=3>(q, some)",
    "batch_norm": "t = BatchNormalization(a, b3, b3, b3, v3) s = Slice(t, starts, ends, two_axes)",
    "expand": "t = Slice(a, zero, one, axis) r = Expand(t, wide) s = Gather<axis=3>(r, first)",
}


@pytest.mark.parametrize("name", EXACT)
def test_what_reaches_the_logits_is_where_autograds_gradient_is_not_zero(name: str) -> None:
    found, oracle = _masks(f"{START} {EXACT[name]}")
    assert np.array_equal(found, oracle)
    assert not oracle.all()
    assert oracle.any()


def test_an_operator_without_a_rule_of_its_own_is_taken_to_need_everything() -> None:
    found, oracle = _masks(f"{START} c = Conv(a, channels) s = Gather<axis=2>(c, first)")
    assert found.all()
    assert not oracle.all()


def test_rounding_to_bytes_and_back_changes_no_place() -> None:
    levels = {"unit": np.float32(0.1), "origin": np.uint8(128), "two": np.float32(2), "last": (72, 5)}
    bytes_ = "q = QuantizeLinear(a, unit, origin) r = DequantizeLinear(q, unit, origin)"
    for inside in (bytes_, "r = Sigmoid(a)"):
        body = f"a = Mul(x, two) {inside} s = Slice(r, one, all, axis, three) f = Flatten(s) y = Gemm(f, last, b2)"
        graph = load(tiny(body, weights={**WEIGHTS, **levels})).model.graph
        values, _ = reaching(graph, graph.outputs[0])
        (mask,) = (values[v] for v in values if v.name == "a")
        assert np.flatnonzero(np.broadcast_to(mask, (1, 3, 8, 8)).any(axis=(0, 1, 3))).tolist() == [1, 4, 7]


def test_what_only_a_shape_is_read_of_does_not_reach() -> None:
    body = (
        f"{CONV} s = Shape(a) e = Expand(row, s) d = Conv(x, pick) m = Add(e, d) f = Flatten(m) y = Gemm(f, last, b2)"
    )
    given = {"row": (1, 4, 8, 8), "last": (256, 5), "pick": (4, 3, 1, 1)}
    model = load(tiny(body, weights=given)).model
    values, _ = reaching(model.graph, model.graph.outputs[0])
    names = {value.name for value in values}
    assert "d" in names
    assert not names & {"a", "c"}


def _masks(body: str) -> tuple[Any, Any]:
    """Return the mask of ``a`` and where its gradient is not zero, for one image."""
    probe = tiny(f"{body} y = Flatten(s)", y="float[N,D] y", weights=WEIGHTS)
    length = load(probe).classes
    data = tiny(f"{body} {PLACES}", weights={**WEIGHTS, "last": (length, 5)})
    classifier = load(data)
    values, _ = reaching(classifier.model.graph, classifier.logits)
    (a,) = (v for v in values if v.name == "a")
    x = np.random.default_rng(3).normal(size=(1, 3, 8, 8)).astype(np.float32)
    oracle = gradients(onnx.load_from_string(data), x, [2], ["a"], "y", torch.float64)
    shape = [d if isinstance(d, int) else 1 for d in dims(a)]
    return np.broadcast_to(values[a], shape), oracle.layers["a"] != 0


# where paths meet --------------------------------------------------------------------------------------------------

DIAMOND = (
    "a = Relu(x) b = Sigmoid(a) c = Tanh(a) d = Add(b, c) e = Mul(d, a) p = GlobalAveragePool(e) f = Flatten(p) "
    "y = Gemm(f, w5, b2)"
)


def test_a_tensor_is_followed_by_where_all_its_paths_meet() -> None:
    named = _following(lambda value, edge: True)
    assert {k: named[k] for k in "xabcdepf"} == {
        "x": "a", "a": "e", "b": "d", "c": "d", "d": "e", "e": "p", "p": "f", "f": "y",
    }  # fmt: skip


def test_a_dead_edge_is_no_path() -> None:
    named = _following(lambda value, edge: (value.name, edge[0].op_type) != ("a", "Mul"))
    assert named["a"] == "d"
    named = _following(lambda value, edge: edge[0].op_type != "Add")
    assert named["a"] == "e"
    assert not {"b", "c"} & set(named)


def _following(alive: Any) -> dict[str, str]:
    """Return the names of what follows each tensor of the diamond."""
    classifier = load(tiny(DIAMOND, weights={"w5": (3, 5)}))
    graph: ir.Graph = classifier.model.graph
    found = bottlenecks(graph, classifier.logits, alive)
    return {str(k.name): str(v.name) for k, v in found.items()}
