"""Biases: which tensors receive one, and that with them the gradient is the whole logit."""

from __future__ import annotations

import numpy as np
import pytest

from camrt.export.live import open_model
from camrt.export.load import load
from camrt.export.propagation.biases import biases
from tests.export.judge import run_program
from tests.export.onnx_text import CONV, HEAD, tiny
from tests.export.propagation.runs import MODELS, SEED, behind, picture

LAST = (
    "t = Transpose<perm=[0, 3, 1, 2]>(x) c = Conv<pads=[1, 1, 1, 1]>(t, w1) u = Transpose<perm=[0, 2, 3, 1]>(c) "
    "v = Add(u, b1) a = Relu(v) axes = Constant<value_ints=[1, 2]>() f = ReduceMean<keepdims=0>(a, axes) "
    "y = Gemm<beta=0.5>(f, w2, b2)"
)
MORE = MODELS | {
    "channels_last": tiny(LAST, x="float[N,8,8,3] x"),
    "shifted": tiny(f"z = Sub(x, one) {CONV.replace('(x,', '(z,')} k = Sub(one, a) {HEAD.replace('(a)', '(k)')}", weights={"one": np.float32(1)}),
    "summed": tiny(f"{CONV} k = Sum(a, one, a, one) {HEAD.replace('(a)', '(k)')}", weights={"one": np.float32(1)}),
    "leftover": tiny(
        f"{CONV} d = Conv<pads=[1, 1, 1, 1]>(a, w3, b3) e = Relu(d) h = MaxPool<kernel_shape=[3, 3], strides=[3, 3]>(e) "
        "p = GlobalAveragePool(h) f = Flatten(p) y = Gemm(f, w6)", weights={"w3": (16, 4, 3, 3), "b3": (16,), "w6": (16, 5)}
    ),
    "spread": tiny(f"{CONV} d = ConvTranspose(a, w3, b3) e = Relu(d) {HEAD.replace('(a)', '(e)')}", weights={"w3": (4, 4, 2, 2), "b3": (4,)}),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(set(MORE) - {"average"}))  # whose Clip adds a constant where it saturates
def test_the_full_gradient_of_a_piecewise_linear_network_is_its_logit(name: str) -> None:
    """Equation 2 of the paper, within 1e-4 of the logit as the official code asks."""
    live = open_model(MORE[name])
    x = picture(live)
    found = run_program(live.program("bias_terms"), x=x, seed=SEED)
    terms = [array for key, array in found.items() if key.startswith("biases.")]
    assert terms
    whole = (x * found["input_gradient"].astype(np.float64)).sum((1, 2, 3))
    whole += sum(term.reshape(3, -1).sum(1, dtype=np.float64) for term in terms)
    np.testing.assert_allclose(whole, (found["logits"] * SEED).sum(1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", sorted(set(MORE) - {"average"}))
def test_behind_a_layer_gradient_times_activation_and_the_tails_biases_are_the_logit(name: str) -> None:
    live = open_model(MORE[name])
    feeds = behind(live, "a")
    found = run_program(live.program("tail_bias_terms", ["a"]), **feeds, seed=SEED)
    grads = run_program(live.program("tail_gradient", ["a"]), **feeds, seed=SEED)["gradients.0"]
    whole = (feeds["activations__0"] * grads.astype(np.float64)).sum((1, 2, 3))
    whole += sum(term.reshape(3, -1).sum(1, dtype=np.float64) for key, term in found.items() if key != "logits")
    np.testing.assert_allclose(whole, (found["logits"] * SEED).sum(1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["chain", "normal", "channels_last"])
def test_gradients_alone_are_the_terms_without_the_biases(name: str) -> None:
    live = open_model(MORE[name])
    x = picture(live)
    terms, grads = (run_program(live.program(kind), x=x, seed=SEED) for kind in ("bias_terms", "bias_gradients"))
    assert list(terms) == list(grads)
    np.testing.assert_array_equal(terms["input_gradient"], grads["input_gradient"])
    for key in (key for key in terms if key.startswith("biases.")):
        for channel in range(terms[key].shape[1]):
            term, grad = terms[key][:, channel].ravel(), grads[key][:, channel].ravel()
            ratio = term[abs(grad) > 1e-3] / grad[abs(grad) > 1e-3]
            assert np.ptp(ratio) <= 1e-4 * abs(ratio[0])
            assert ratio[0] != 1


def test_tensors_with_a_grid_come_with_their_channels_first() -> None:
    live = open_model(MORE["channels_last"])
    found = run_program(live.program("bias_terms"), x=picture(live), seed=SEED)
    assert found["biases.0"].shape == (3, 4, 8, 8)
    assert found["biases.1"].shape == (3, 5)


def test_a_normalisation_adds_what_is_left_of_its_mean() -> None:
    classifier = load(MODELS["normal"])
    found = {str(value.name): bias for value, bias in biases(classifier.model.graph).items()}
    assert {"c", "n", "y"} <= set(found)
    s, t, m, v = (
        next(value.const_value.numpy() for value in classifier.model.graph.initializers.values() if value.name == name)
        for name in ("scale", "shift", "mean", "variance")
    )
    np.testing.assert_allclose(found["n"].ravel(), t - m * s / np.sqrt(v + 1e-5), rtol=1e-6)


def test_what_adds_nothing_or_something_computed_is_no_bias() -> None:
    body = f"{CONV} z = Add(a, nil) k = Add(z, a) {HEAD.replace('(a)', '(k)')}"
    classifier = load(tiny(body, weights={"nil": np.zeros((4, 1, 1), np.float32)}))
    assert {str(value.name) for value in biases(classifier.model.graph)} == {"c", "y"}
