"""Behind which tensors a model is piecewise linear."""

from __future__ import annotations

import pytest

from camrt.export.live import open_model
from camrt.export.load import load
from camrt.export.piecewise import piecewise_linear
from tests.export.onnx_text import CONV, HEAD, tiny, tokens
from tests.export.propagation.runs import MODELS


def straight(data: bytes) -> set[str]:
    """Return the names of layers behind which a model is piecewise linear."""
    return {layer.name for layer in open_model(data).manifest.layers if layer.piecewise}


@pytest.mark.parametrize("name", MODELS)
def test_rectifiers_pools_and_constants_keep_a_network_piecewise_linear(name: str) -> None:
    live = open_model(MODELS[name])
    assert straight(MODELS[name]) == {layer.name for layer in live.manifest.layers}


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (f"{CONV} k = Sigmoid(a) {HEAD.replace('(a)', '(k)')}", {"k"}),
        (f"{CONV} s = HardSigmoid(a) k = Mul(a, s) {HEAD.replace('(a)', '(k)')}", {"k"}),
        (f"{CONV} s = Tanh(a) k = Add(a, s) {HEAD.replace('(a)', '(k)')}", {"s", "k"}),
        (f"{CONV} d = Conv(a, w3, b3) n = Exp(d) k = Relu(n) {HEAD.replace('(a)', '(k)')}", {"n", "k"}),
        (
            f"{CONV} s = Shape(a) t = Cast<to=1>(s) m = ReduceSum<keepdims=0>(t) k = Mul(a, m) {HEAD.replace('(a)', '(k)')}",
            {"k"},
        ),
    ],
)
def test_curves_and_products_end_it(body: str, names: set[str]) -> None:
    assert straight(tiny(body, weights={"w3": (4, 4, 3, 3), "b3": (4,)})) == names


def test_attention_is_no_piecewise_linear_function() -> None:
    assert "n0" not in straight(tokens())


def test_a_branch_that_leads_nowhere_does_not_count() -> None:
    classifier = load(tiny(f"{CONV} d = Sigmoid(a) {HEAD}"))
    found = {str(value.name) for value in piecewise_linear(classifier.model.graph, classifier.logits)}
    assert {"x", "c", "a", "y"} <= found
