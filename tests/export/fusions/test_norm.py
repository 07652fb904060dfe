"""Fused normalisations, against ONNX Runtime's own kernels."""

from __future__ import annotations

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

CASES: list[Case] = [
    ("SkipLayerNormalization", "", [TOKENS, normal(2, 5, 12), normal(12), normal(12)], {"epsilon": 0.02}),
    ("SkipLayerNormalization", "bias", [TOKENS, normal(2, 5, 12), normal(12), normal(12), normal(12)], {}),
    ("SkipLayerNormalization", "no_beta", [TOKENS, normal(2, 5, 12), normal(12)], {}),
    ("SkipSimplifiedLayerNormalization", "", [TOKENS, normal(2, 5, 12), normal(12)], {"epsilon": 0.02}),
    ("SkipSimplifiedLayerNormalization", "bias", [TOKENS, normal(2, 5, 12), normal(12), normal(12)], {}),
]  # fmt: skip


@over_opsets(CASES)
def test_what_is_taken_apart_computes_the_same(
    op: str, name: str, inputs: Sequence[Array | None], attributes: Mapping[str, Any], opset: int
) -> None:
    assert_same(op, inputs, attributes, opset)


def test_every_operator_is_compared_with_its_kernel() -> None:
    assert {f"{CONTRIB}::{op}" for op, *_ in CASES} | {
        f"{CONTRIB}::{op}" for op in ("LayerNormalization", "SimplifiedLayerNormalization")
    } == rows_of("norm")


@pytest.mark.parametrize("opset", [11, 16])
@pytest.mark.parametrize(
    ("op", "inputs", "attributes"),
    [
        ("LayerNormalization", [TOKENS, normal(12), normal(12)], {"epsilon": 0.02, "axis": -1}),
        ("LayerNormalization", [TOKENS, normal(5, 12)], {"axis": 1}),
        ("SimplifiedLayerNormalization", [TOKENS, normal(12)], {"epsilon": 0.02, "axis": -1}),
    ],
)
def test_operators_that_pass_for_onnx_own_are_too(
    op: str, inputs: list[Array], attributes: Mapping[str, Any], opset: int
) -> None:
    model, feeds = one_node(op, inputs, attributes, opset=opset, domain="")
    found = take_apart(standard_names(model))
    (want,), (got,) = run(model, feeds), run(found, feeds)
    np.testing.assert_allclose(got, want, rtol=0, atol=3e-6 * np.abs(want).max())


def test_the_sum_that_a_skip_normalisation_gives_away_is_kept() -> None:
    inputs = [TOKENS, normal(2, 5, 12), normal(12), normal(12), normal(12)]
    model, feeds = one_node("SkipLayerNormalization", inputs, {}, ["y", "", "", "sum"], opset=17)
    found = take_apart(standard_names(model))
    assert [value.name for value in found.graph.output] == ["y", "sum"]
    for got, want in zip(run(found, feeds), run(model, feeds), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)


def test_a_mean_that_is_used_is_refused() -> None:
    inputs = [TOKENS, TOKENS, normal(12)]
    assert_refused("SkipLayerNormalization", inputs, {}, "its output 'mean' is used", ["y", "mean"])
