"""Fused attention, against ONNX Runtime's own kernels; other forms are left to ONNX's definition, or refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from camrt.export.fusions import standard_names, take_apart
from tests.export.fusions.runs import (
    CONTRIB,
    TOKENS,
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

MHA = {"num_heads": 3}
CASES: list[Case] = [
    ("Attention", "", [TOKENS, normal(12, 36), normal(36)], MHA),
    ("Attention", "widths", [TOKENS, normal(12, 48), normal(48)], {**MHA, "qkv_hidden_sizes": [12, 12, 24]}),
    ("Attention", "scale", [TOKENS, normal(12, 36), normal(36)], {**MHA, "scale": 0.7}),
    ("Attention", "biased", [TOKENS, normal(12, 36), normal(36), None, None, normal(2, 3, 5, 5)], MHA),
    ("MultiHeadAttention", "", [TOKENS, normal(2, 7, 12), normal(2, 7, 12)], MHA),
    ("MultiHeadAttention", "bias", [TOKENS, normal(2, 7, 12), normal(2, 7, 24), normal(48)], MHA),
    ("MultiHeadAttention", "biased",
     [TOKENS, normal(2, 7, 12), normal(2, 7, 12), None, None, normal(1, 3, 5, 7)], {**MHA, "scale": 0.4}),
]  # fmt: skip


@over_opsets(CASES)
def test_what_is_taken_apart_computes_the_same(
    op: str, name: str, inputs: Sequence[Array | None], attributes: Mapping[str, Any], opset: int
) -> None:
    assert_same(op, inputs, attributes, opset)


def test_every_operator_is_compared_with_its_kernel() -> None:
    assert {f"{CONTRIB}::{op}" for op, *_ in CASES} | {"Attention"} == rows_of("attention")


HEADS, FEW = normal(2, 3, 5, 4), normal(2, 3, 7, 4)


@pytest.mark.parametrize("opset", [23, 24])
@pytest.mark.parametrize(
    ("inputs", "attributes"),
    [
        ([HEADS, FEW, normal(2, 3, 7, 6)], {}),
        ([HEADS, FEW, FEW], {"scale": 0.3, "is_causal": 0}),
        ([TOKENS, normal(2, 7, 12), normal(2, 7, 24)], {"q_num_heads": 3, "kv_num_heads": 3}),
    ],
)
def test_plain_attention_of_onnx_becomes_two_products_and_a_softmax(
    inputs: list[Array], attributes: Mapping[str, Any], opset: int
) -> None:
    model, feeds = one_node("Attention", inputs, attributes, opset=opset, domain="")
    found = take_apart(standard_names(model))
    counts = Counter(node.op_type for node in found.graph.node)
    assert (counts["MatMul"], counts["Softmax"], counts["Attention"]) == (2, 1, 0)
    (want,), (got,) = run(model, feeds), run(found, feeds)
    np.testing.assert_allclose(got, want, rtol=0, atol=3e-6 * np.abs(want).max())


def test_a_mask_is_added_at_opset_23() -> None:
    """From 24 on a short mask stands for a longer one, which is left to ONNX's definition."""
    inputs = [HEADS, FEW, FEW, normal(5, 7)]
    model, feeds = one_node("Attention", inputs, {}, opset=23, domain="")
    found = take_apart(standard_names(model))
    assert "Attention" not in {node.op_type for node in found.graph.node}
    np.testing.assert_allclose(run(found, feeds)[0], run(model, feeds)[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("inputs", "attributes", "opset"),
    [
        ([HEADS, FEW, FEW], {"is_causal": 1}, 23),
        ([HEADS, FEW, FEW], {"softcap": 2.0}, 23),
        ([HEADS, FEW, FEW, normal(5, 7)], {}, 24),
        ([HEADS, FEW, FEW, np.ones((5, 7), bool)], {}, 23),
        ([normal(2, 6, 5, 4), FEW, FEW], {}, 23),
        ([normal(2, 5, 24), normal(2, 7, 12), normal(2, 7, 12)], {"q_num_heads": 6, "kv_num_heads": 3}, 23),
    ],
)
def test_other_attention_is_left_to_onnx_definition(
    inputs: list[Array], attributes: Mapping[str, Any], opset: int
) -> None:
    model, _ = one_node("Attention", inputs, attributes, opset=opset, domain="")
    assert [node.op_type for node in take_apart(standard_names(model)).graph.node] == ["Identity", "Attention"]


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "reason"),
    [
        ("Attention", [TOKENS, normal(12, 36), normal(36)], {**MHA, "unidirectional": 1}, "unidirectional"),
        ("Attention", [TOKENS, normal(12, 36), None, np.int32([5, 5])], MHA, r"input 3 \('i3'\) is given"),
        ("MultiHeadAttention", [normal(2, 5, 3, 3, 4)], MHA, "packed in one"),
    ],
)
def test_what_is_not_covered_is_refused_with_its_node(
    op: str, inputs: list[Array | None], attributes: Mapping[str, Any], reason: str
) -> None:
    assert_refused(op, inputs, attributes, reason)
