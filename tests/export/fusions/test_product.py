"""Fused convolutions and products, against ONNX Runtime's own kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from camrt.export.fusions import standard_names, take_apart
from tests.export.fusions.runs import (
    CONTRIB,
    Array,
    Case,
    assert_refused,
    assert_same,
    normal,
    one_node,
    over_opsets,
    rows_of,
    run,
)

X, W, B = normal(2, 4, 5, 6), normal(3, 4, 3, 3), normal(3)
SQUARE, MATRIX = normal(2, 3, 5, 5), normal(6, 4)
CASES: list[Case] = [
    ("FusedConv", "relu", [X, W, B], {"activation": "Relu", "pads": [1, 1, 1, 1]}),
    ("FusedConv", "no_bias", [X, W], {"activation": "Tanh", "strides": [2, 1], "kernel_shape": [3, 3]}),
    ("FusedConv", "clip", [X, W, B], {"activation": "Clip", "activation_params": [0.0, 0.5]}),
    ("FusedConv", "leaky", [X, W, B], {"activation": "LeakyRelu", "activation_params": [0.3]}),
    ("FusedConv", "sigmoid", [X, W, B], {"activation": "Sigmoid"}),
    ("FusedConv", "hard", [X, W, B], {"activation": "HardSigmoid", "activation_params": [0.25, 0.4]}),
    ("FusedConv", "residual", [X, W, B, normal(2, 3, 3, 4)], {"activation": "Relu"}),
    ("FusedGemm", "relu", [normal(5, 6), MATRIX, normal(4)], {"activation": "Relu", "alpha": 0.5, "beta": 2.0}),
    ("FusedGemm", "leaky", [normal(6, 5), MATRIX], {"activation": "LeakyRelu", "activation_alpha": 0.2, "transA": 1}),
    ("FusedMatMul", "scaled", [normal(2, 3, 6), MATRIX], {"alpha": 0.3}),
    ("FusedMatMul", "right", [normal(2, 3, 6), normal(4, 6)], {"transB": 1}),
    ("FusedMatMul", "both", [SQUARE, normal(2, 3, 7, 5)], {"transA": 1, "transB": 1, "alpha": 2.0}),
    ("FusedMatMul", "batch", [normal(4, 2, 3, 5), normal(2, 3, 5, 6)], {"transBatchA": 1}),
    ("FusedMatMul", "batch_and_last", [normal(5, 2, 3, 4), normal(2, 3, 5, 6)], {"transBatchA": 1, "transA": 1}),
]  # fmt: skip


@over_opsets(CASES)
def test_what_is_taken_apart_computes_the_same(
    op: str, name: str, inputs: Sequence[Array | None], attributes: Mapping[str, Any], opset: int
) -> None:
    assert_same(op, inputs, attributes, opset)


def test_every_operator_is_compared_with_its_kernel() -> None:
    assert {f"{CONTRIB}::{op}" for op, *_ in CASES} | {f"{CONTRIB}::TransposeMatMul"} == rows_of("product")


def test_axes_are_turned_even_where_their_number_is_not_known() -> None:
    model, feeds = one_node("FusedMatMul", [SQUARE, normal(2, 3, 5, 4)], {"transA": 1}, opset=17, shaped=False)
    found = take_apart(standard_names(model))
    assert "Einsum" in {node.op_type for node in found.graph.node}
    np.testing.assert_allclose(run(found, feeds)[0], run(model, feeds)[0], rtol=0, atol=1e-4)


def test_another_activation_and_batches_of_an_unknown_number_of_axes_are_refused() -> None:
    assert_refused("FusedConv", [X, W], {"activation": "Softsign"}, "its activation 'Softsign'")
    reason = "number of axes it turns is not known"
    assert_refused("FusedMatMul", [SQUARE, SQUARE], {"transBatchA": 1}, reason, shaped=False)
