"""Gradients of products, against finite differences, and of attention against torch's float64 autograd."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from camrt.errors import MissingRuleError
from camrt.export.backward import sweep
from camrt.export.vjp import RULES
from tests.export.vjp.check import check_rule


@dataclass(frozen=True)
class Spec:
    """One product: the shapes of its inputs, which of them are differentiated, which begin with the batch."""

    name: str
    shapes: tuple[tuple[int, ...], ...]
    wrt: tuple[int, ...] = (0,)
    batch: tuple[int, ...] = (0,)
    attributes: dict[str, Any] = field(default_factory=dict)
    ops: tuple[str, ...] | None = None


MATMULS = [
    Spec("linear", ((3, 4), (4, 5)), ops=("Gemm",)),
    Spec("linear_one_image", ((1, 4), (4, 5))),
    Spec("tokens", ((2, 3, 4), (4, 5)), ops=("Transpose", "MatMul")),
    Spec("batched", ((2, 3, 4), (2, 4, 5)), (0, 1), (0, 1)),
    Spec("attention", ((2, 3, 4, 5), (2, 3, 5, 4)), (0, 1), (0, 1), ops=("Transpose", "MatMul", "Transpose", "MatMul")),
    Spec("both_linear", ((3, 4), (4, 5)), (0, 1), (0,), ops=("Gemm", "Gemm")),
    Spec("left_constant", ((5, 4), (2, 4, 3)), (1,), (1,)),
    Spec("left_broadcast", ((1, 3, 4, 5), (2, 1, 5, 4)), (0, 1), (1,)),
    Spec("left_lower_rank", ((4, 5), (2, 3, 5, 2)), (0, 1), (1,)),
    Spec("right_lower_rank", ((2, 3, 4, 5), (3, 5, 2)), (0, 1), (0,)),
    Spec("right_matrix", ((2, 3, 4, 5), (5, 2)), (0, 1), (0,)),
    Spec("vector_vector", ((4,), (4,)), (0, 1), ()),
    Spec("vector_matrix", ((4,), (4, 3)), (0, 1), ()),
    Spec("vector_batch", ((4,), (2, 4, 3)), (0, 1), (1,)),
    Spec("vector_tokens", ((4,), (2, 3, 4, 2)), (0, 1), (1,)),
    Spec("matrix_vector", ((3, 4), (4,)), (0, 1), (0,)),
    Spec("batch_vector", ((2, 3, 4), (4,)), (0, 1), (0,)),
]


@pytest.mark.parametrize("spec", MATMULS, ids=lambda spec: spec.name)
def test_matmul_gradient_equals_finite_differences(spec: Spec, rng: np.random.Generator) -> None:
    inputs = [rng.standard_normal(shape) for shape in spec.shapes]
    checked = check_rule("MatMul", inputs, wrt=spec.wrt, symbolic_batch=spec.batch)
    assert spec.ops is None or checked.ops == list(spec.ops)


@pytest.mark.parametrize("wrt", [(0,), (1,), (0, 1)])
@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
def test_gemm_gradient_equals_finite_differences(
    trans_a: int, trans_b: int, wrt: tuple[int, ...], rng: np.random.Generator
) -> None:
    a = rng.standard_normal((4, 3) if trans_a else (3, 4))
    b = rng.standard_normal((5, 4) if trans_b else (4, 5))
    attributes = {"transA": trans_a, "transB": trans_b, "alpha": 0.5, "beta": 2.0}
    checked = check_rule("Gemm", [a, b, rng.standard_normal(5)], attributes=attributes, wrt=wrt, symbolic_batch=False)
    assert checked.ops == ["Gemm"] * len(wrt)


@pytest.mark.parametrize("shape", [(3, 5), (5,), (1, 5), (3, 1), (1,), ()])
def test_the_added_term_of_gemm_gets_its_share(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    inputs = [rng.standard_normal((3, 4)), rng.standard_normal((4, 5)), rng.standard_normal(shape)]
    check_rule("Gemm", inputs, attributes={"beta": -0.5}, wrt=(0, 2), symbolic_batch=[0])


def test_the_added_term_of_gemm_counts_once_by_default(rng: np.random.Generator) -> None:
    inputs = [rng.standard_normal(shape) for shape in ((3, 4), (4, 5), (3, 5))]
    assert check_rule("Gemm", inputs, wrt=(2,)).ops == []


def test_gemm_needs_no_third_input(rng: np.random.Generator) -> None:
    check_rule("Gemm", [rng.standard_normal((3, 4)), rng.standard_normal((5, 4))], attributes={"transB": 1})


EINSUMS = [
    Spec("product", ((2, 3), (3, 4)), (0, 1), (0,), {"equation": "ij,jk->ik"}),
    Spec("implicit", ((2, 3), (3, 4)), (0, 1), (0,), {"equation": "ij, jk"}),
    Spec("attention", ((2, 3, 2, 4), (2, 5, 2, 4)), (0, 1), (0, 1), {"equation": "bqhd,bkhd->bhqk"}),
    Spec("constant_factor", ((2, 3, 4), (4, 2, 5)), (0,), (0,), {"equation": "btd,dhe->bhte"}),
    Spec("transposed", ((2, 3, 4),), (0,), (0,), {"equation": "bij->bji"}),
    Spec("summed", ((2, 3, 4),), (0,), (0,), {"equation": "bij->bj"}),
    Spec("summed_and_moved", ((2, 3, 4, 2),), (0,), (0,), {"equation": "bijk->kbi"}),
    Spec("index_of_one_factor", ((2, 3, 4), (2, 5)), (0, 1), (0, 1), {"equation": "bij,bk->bik"}),
    Spec("outer", ((2, 3), (2, 4)), (0, 1), (0, 1), {"equation": "bi,bj->bij"}),
    Spec("three_factors", ((2, 3), (3, 4), (2, 4)), (0, 1, 2), (0, 2), {"equation": "bi,ij,bj->b"}),
    Spec("ellipsis", ((2, 3, 4, 5), (2, 3, 5, 2)), (0, 1), (0, 1), {"equation": "...ij,...jk->...ik"}),
    Spec("ellipsis_ones", ((2, 1, 4, 5), (2, 3, 5, 2)), (0, 1), (0, 1), {"equation": "...ij,...jk->...ik"}),
    Spec("ellipsis_in_the_middle", ((2, 3, 4, 5), (5, 2)), (0,), (0,), {"equation": "b...j,jk->bk..."}),
    Spec("ellipsis_in_one_factor", ((2, 3, 4, 5), (5, 2)), (0, 1), (0,), {"equation": "...j,jk->...k"}),
]


@pytest.mark.parametrize("spec", EINSUMS, ids=lambda spec: spec.name)
def test_einsum_gradient_equals_finite_differences(spec: Spec, rng: np.random.Generator) -> None:
    inputs = [rng.standard_normal(shape) for shape in spec.shapes]
    check_rule("Einsum", inputs, attributes=spec.attributes, wrt=spec.wrt, symbolic_batch=spec.batch)


@pytest.mark.parametrize("term", ["bii", "...ii"])
def test_a_diagonal_in_einsum_is_refused(term: str, rng: np.random.Generator) -> None:
    with pytest.raises(MissingRuleError, match=f"{term!r} takes a diagonal"):
        check_rule("Einsum", [rng.standard_normal((2, 3, 3))], attributes={"equation": f"{term}->{term[:-1]}"})


def test_attention_gradient_equals_autograd(rng: np.random.Generator) -> None:
    """softmax(q k^T / sqrt(d)) v, k transposed by a node of its own, which the gradient reads from before it."""
    shape, names = (2, 3, 4, 5), ("q", "k", "v")
    nodes = [
        onnx.helper.make_node("Transpose", ["k"], ["kt"], perm=[0, 1, 3, 2]),
        onnx.helper.make_node("MatMul", ["q", "kt"], ["s"]),
        onnx.helper.make_node("Softmax", ["s"], ["p"]),
        onnx.helper.make_node("MatMul", ["p", "v"], ["y"]),
    ]
    values = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.DOUBLE, ["N", *shape[1:]]) for n in (*names, "g")]
    graph = onnx.helper.make_graph(nodes, "attention", values, [onnx.helper.make_empty_tensor_value_info("y")])
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto, strict_mode=True))
    inputs = {value.name: value for value in model.graph.inputs}
    found = sweep(model.graph, {model.graph.outputs[0]: inputs["g"]}, [inputs[n] for n in names], RULES)
    assert sum(node.op_type == "Transpose" for node in model.graph) == 5  # not 6: one of them is k itself
    model.graph.outputs.extend(value for value in found if value is not None)
    feeds = {name: rng.standard_normal(shape) for name in (*names, "g")}
    got = ReferenceEvaluator(ir.to_proto(model)).run(None, feeds)
    tensors = {name: torch.from_numpy(feeds[name]).requires_grad_() for name in names}
    y = torch.softmax(tensors["q"] @ tensors["k"].mT, -1) @ tensors["v"]
    wanted = torch.autograd.grad((y * torch.from_numpy(feeds["g"])).sum(), list(tensors.values()))
    for gradient, want in zip(list(got)[1:], wanted, strict=True):
        np.testing.assert_allclose(gradient, want.numpy(), rtol=0, atol=1e-12)
