"""Fused activations, against ONNX Runtime's own kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.export.fusions.runs import CONTRIB, TOKENS, Array, Case, assert_same, normal, over_opsets, rows_of

CASES: list[Case] = [
    ("Gelu", "", [TOKENS], {}),
    ("BiasGelu", "", [TOKENS, normal(12)], {}),
    ("FastGelu", "", [TOKENS], {}),
    ("FastGelu", "bias", [TOKENS, normal(12)], {}),
    ("QuickGelu", "", [TOKENS], {}),
    ("QuickGelu", "silu", [TOKENS], {"alpha": 1.0}),
]  # fmt: skip


@over_opsets(CASES)
def test_what_is_taken_apart_computes_the_same(
    op: str, name: str, inputs: Sequence[Array | None], attributes: Mapping[str, Any], opset: int
) -> None:
    assert_same(op, inputs, attributes, opset)


def test_every_operator_is_compared_with_its_kernel() -> None:
    assert {f"{CONTRIB}::{op}" for op, *_ in CASES} == rows_of("activation")
