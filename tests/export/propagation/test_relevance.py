"""Relevance: conserved to the layer, and equal to rules written out with autograd's transposes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from camrt.errors import MissingRuleError
from camrt.export.live import open_model
from camrt.export.load import load
from camrt.export.propagation.relevance import never_negative
from tests.export.judge import errors, run_program
from tests.export.onnx_in_torch import run
from tests.export.onnx_text import CONV, HEAD, tiny, tokens
from tests.export.propagation.runs import CHAIN, MODELS, SEED, WEIGHTS, behind, picture

START = 1.2 * np.eye(5, dtype=np.float32)[[3, 0, 4]] - np.float32(0.2)  # 1 at a class, -1/5 elsewhere


def weights(data: bytes) -> dict[str, Tensor]:
    """Return a model's weights in float64."""
    graph = onnx.load_from_string(data).graph
    return {t.name: torch.tensor(onnx.numpy_helper.to_array(t), dtype=torch.float64) for t in graph.initializer}


def shared(x: Tensor, r: Tensor, *parts: tuple[Tensor, object], bias: Tensor | None = None) -> Tensor:
    """Return sum of part * (transposed map of R / sum of the maps of all parts), by autograd; a bias twice below."""
    leaves = [part.detach().requires_grad_() for part, _ in parts]
    made = [function(leaf) for leaf, (_, function) in zip(leaves, parts, strict=True)]  # type: ignore[operator]
    below = sum(made) if bias is None else sum(made) + 2 * bias
    ratio = torch.where(below != 0, r / below, 0).detach()
    grads = torch.autograd.grad((sum(made) * ratio).sum(), leaves)
    return sum(leaf.detach() * g for leaf, g in zip(leaves, grads, strict=True))  # type: ignore[return-value]


def chain(tensors: dict[str, Tensor], w: dict[str, Tensor], *, to: str, bias: bool = False) -> Tensor:
    """Write the rules out for CHAIN, from the logits to tensor `c` (before the ReLU) or `a`, whose relevance is the same."""
    r = torch.tensor(START, dtype=torch.float64)
    flat = tensors["f"]
    r = shared(flat, r, (flat, lambda t: t @ w["w2"].clamp(min=0)))
    h, e = tensors["h"], tensors["e"]
    r = shared(h, r.reshape(3, 4, 1, 1), (h, lambda t: t.mean((2, 3), keepdim=True)))
    leaf = e.detach().requires_grad_()
    (r,) = torch.autograd.grad((F.max_pool2d(leaf, 3, 2, 1) * r).sum(), leaf)
    a = tensors["a"]
    kernel = w["w3"].clamp(min=0)
    doubled = w["b3"].reshape(1, -1, 1, 1) if bias else None
    r = shared(a, r, (a, lambda t: F.conv2d(t, kernel, stride=2, padding=1)), bias=doubled)
    if to != "x":
        return r
    x, low, high = tensors["x"], w["w1"].clamp(max=0), w["w1"].clamp(min=0)
    return shared(
        x,
        r,
        (x.clamp(min=0), lambda t: F.conv2d(t, high, padding=1)),
        (x.clamp(max=0), lambda t: F.conv2d(t, low, padding=1)),
    )


@pytest.mark.parametrize("kind", ["relevance", "relevance_bias"])
@pytest.mark.parametrize("layer", ["a", "c"])
def test_it_is_the_rules_written_out(kind: str, layer: str) -> None:
    live = open_model(MODELS["chain"])
    tensors = run(onnx.load_from_string(MODELS["chain"]), torch.tensor(picture(live), dtype=torch.float64))
    want = chain(tensors, weights(MODELS["chain"]), to=layer, bias=kind == "relevance_bias").numpy()
    found = run_program(live.program(kind, [layer]), **behind(live, layer), seed=START)["relevance.0"]
    assert errors(found, want).max() <= 1e-4


def test_operands_of_both_signs_count_where_they_agree_with_the_weight() -> None:
    """The same chain seen from a signed layer before it: a product with one stands there."""
    data = tiny(
        "i = Mul(x, one) " + CHAIN.replace("(x,", "(i,"), weights={**WEIGHTS, "one": np.ones((1, 3, 1, 1), np.float32)}
    )
    live = open_model(data)
    tensors = run(onnx.load_from_string(data), torch.tensor(picture(live), dtype=torch.float64))
    want = chain(tensors, weights(data), to="x").numpy()
    found = run_program(live.program("relevance", ["i"]), **behind(live, "i"), seed=START)["relevance.0"]
    assert errors(found, want).max() <= 1e-4


def positive(data: bytes) -> bytes:
    """Return a model with some weights of each sign, whose every unit gets a positive contribution."""
    model = onnx.load_from_string(data)
    for tensor in model.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if tensor.name[0] == "w" and array.size > 1:
            array = np.where(array < -1.2, array, abs(array))
            tensor.CopyFrom(onnx.numpy_helper.from_array(array.astype(np.float32), tensor.name))
        if tensor.name[0] == "b" or tensor.name in ("scale", "shift", "mean"):
            sign = -1 if tensor.name == "mean" else 1
            tensor.CopyFrom(onnx.numpy_helper.from_array(sign * abs(array), tensor.name))
    return model.SerializeToString()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("seed", [START, SEED], ids=["contrast", "any"])
def test_relevance_is_conserved_where_every_unit_has_a_positive_contribution(name: str, seed: np.ndarray) -> None:
    live = open_model(positive(MODELS[name]))
    for layer in (item.name for item in live.manifest.layers):
        if name == "branches" and layer in ("d", "e"):
            continue  # one branch of two: its share is not the whole
        found = run_program(live.program("relevance", [layer]), **behind(live, layer), seed=seed)["relevance.0"]
        np.testing.assert_allclose(found.sum((1, 2, 3), dtype=np.float64), seed.sum(1), atol=1e-4 * abs(seed).sum())


def test_two_branches_share_what_their_sum_gets() -> None:
    live = open_model(positive(MODELS["branches"]))
    parts = {}
    for layer in ("h", "e"):
        parts[layer] = run_program(live.program("relevance", [layer]), **behind(live, layer), seed=START)["relevance.0"]
    tensors = run(onnx.load_from_string(positive(MODELS["branches"])), torch.tensor(picture(live), dtype=torch.float64))
    share = torch.where(tensors["h"] != 0, tensors["e"] / tensors["h"], 0).numpy()
    assert errors(parts["e"], parts["h"] * share).max() <= 1e-4


def test_biases_in_the_denominators_leak() -> None:
    live = open_model(positive(MODELS["chain"]))
    found = run_program(live.program("relevance_bias", ["a"]), **behind(live, "a"), seed=SEED)["relevance.0"]
    assert abs(found.sum((1, 2, 3)) - SEED.sum(1)).max() > 1e-2


def test_a_unit_without_a_positive_contribution_loses_its_relevance() -> None:
    live = open_model(tiny(weights={"w2": -np.ones((4, 5), np.float32)}))
    found = run_program(live.program("relevance", ["a"]), **behind(live, "a"), seed=START)["relevance.0"]
    np.testing.assert_array_equal(found, 0)


@pytest.mark.parametrize(
    ("joined", "op"), [("k = Mul(a, g)", "Mul"), ("k = Div(a, g)", "Div"), ("k = MatMul(a, g)", "MatMul")]
)
def test_a_product_of_two_computed_tensors_is_refused_by_name(joined: str, op: str) -> None:
    live = open_model(tiny(f"{CONV} g = Sigmoid(a) [gate] {joined} {HEAD.replace('(a)', '(k)')}"))
    with pytest.raises(MissingRuleError, match=f"{op} at node 'gate' has no relevance rule"):
        live.program("relevance", ["a"])


def test_behind_a_product_relevance_is_had() -> None:
    live = open_model(tiny(f"{CONV} g = Sigmoid(a) k = Mul(a, g) {HEAD.replace('(a)', '(k)')}"))
    found = run_program(live.program("relevance", ["k"]), **behind(live, "k"), seed=START)["relevance.0"]
    assert abs(found).max() > 0


def test_attention_is_refused() -> None:
    live = open_model(tokens(heads=2))
    with pytest.raises(MissingRuleError, match=r"Softmax at node .* has no relevance rule.*gradcam"):
        live.program("relevance", ["n0"])


@pytest.mark.parametrize(
    ("body", "known"),
    [
        ("k = Relu(c)", True),
        ("k = Sigmoid(c)", True),
        ("k = LeakyRelu(c)", False),
        ("k = Clip(c, zero)", True),
        ("k = Clip(c, minus)", False),
        ("k = Clip(c)", False),
        ("r = Relu(c) k = MaxPool<kernel_shape=[2, 2]>(r)", True),
        ("r = Relu(c) k = Concat<axis=1>(r, c)", False),
        ("r = Relu(c) q = Sigmoid(c) k = Concat<axis=1>(r, q)", True),
        ("k = Neg(c)", False),
    ],
)
def test_which_tensors_are_known_never_to_be_negative(body: str, known: bool) -> None:
    text = f"c = Conv<pads=[1, 1, 1, 1]>(x, w1, b1) {body} {HEAD.replace('(a)', '(k)').replace('Gemm(f, w2, b2)', 'MatMul(f, w7)')}"
    channels = 8 if "Concat" in body else 4
    data = tiny(text, weights={"w7": (channels, 5), "zero": np.float32(0), "minus": np.float32(-1)})
    value = next(v for n in load(data).model.graph for v in n.outputs if v.name == "k")
    assert never_negative(value) is known


def same(one: str, two: str, **more: object) -> None:
    """Assert that two ways to write one network share relevance alike."""
    found = []
    for body in (one, two):
        live = open_model(tiny(body, weights={**WEIGHTS, **more}))
        found.append(run_program(live.program("relevance", ["a"]), **behind(live, "a"), seed=START)["relevance.0"])
    assert errors(found[0], found[1]).max() <= 1e-5


def test_a_factor_of_a_product_counts_with_its_weights() -> None:
    turned = np.random.default_rng(3).normal(size=(4, 5)).astype(np.float32)
    tail = "p = GlobalAveragePool(a) f = Flatten(p)"
    same(f"{CONV} {tail} y = Gemm<alpha=-2.0>(f, w4)", f"{CONV} {tail} y = Gemm(f, w5)", w4=turned, w5=-2 * turned)
    same(f"{CONV} {tail} y = Gemm<transB=1>(f, w4)", f"{CONV} {tail} y = MatMul(f, w5)", w4=turned.T.copy(), w5=turned)


def test_what_is_subtracted_counts_with_its_sign() -> None:
    branch, head = "d = Conv<pads=[1, 1, 1, 1]>(a, w3, b3) e = Relu(d)", HEAD.replace("(a)", "(k)")
    same(f"{CONV} {branch} k = Sub(a, e) {head}", f"{CONV} {branch} n = Neg(e) k = Add(a, n) {head}")


def test_averages_of_signed_tensors_follow_their_rules() -> None:
    """A mean over the grid takes positive parts alone; a pool takes all, and gives nothing where they cancel."""
    body = f"{CONV} k = Conv(a, w3) {{0}} f = Flatten(p) y = Gemm(f, w2, b2)"
    for pool, positive in (("p = GlobalAveragePool(k)", True), ("p = AveragePool<kernel_shape=[6, 6]>(k)", False)):
        data = tiny(body.format(pool), weights=WEIGHTS)
        live, w = open_model(data), weights(data)
        k = run(onnx.load_from_string(data), torch.tensor(picture(live), dtype=torch.float64))["k"]
        x = k.clamp(min=0) if positive else k
        pooled = k.mean((2, 3))
        high, low = pooled.clamp(min=0), pooled.clamp(max=0)
        r = torch.tensor(START, dtype=torch.float64)
        r = shared(
            pooled, r, (high, lambda t, w=w: t @ w["w2"].clamp(min=0)), (low, lambda t, w=w: t @ w["w2"].clamp(max=0))
        )
        want = x * r[:, :, None, None] / x.sum((2, 3), keepdim=True)
        found = run_program(live.program("relevance", ["k"]), **behind(live, "k"), seed=START)["relevance.0"]
        assert errors(found, want.numpy()).max() <= 1e-3
