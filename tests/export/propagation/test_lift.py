"""DeepLIFT: contributions sum to the change of the logits, whatever lies behind the layer."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from torch.nn import functional as F

from camrt.errors import MissingRuleError
from camrt.export.live import Live, open_model
from tests.export.judge import errors, run_program
from tests.export.onnx_in_torch import run
from tests.export.onnx_text import CONV, HEAD, tiny, tokens
from tests.export.propagation.runs import CHAIN, MODELS, SEED, WEIGHTS, behind, picture, tail

CURVED = {
    "gate": f"{CONV} s = Sigmoid(a) k = Mul(a, s) {HEAD.replace('(a)', '(k)')}",
    "squeeze": f"{CONV} o = GlobalAveragePool(a) q = Conv(o, w5) g = Sigmoid(q) k = Mul(a, g) {HEAD.replace('(a)', '(k)')}",
    "curves": f"{CONV} t = Tanh(a) u = Exp(t) v = Softplus(u) k = Pow(v, two) {HEAD.replace('(a)', '(k)')}",
    "quotient": f"{CONV} s = Sigmoid(a) k = Div(a, s) {HEAD.replace('(a)', '(k)')}",
    "product": f"{CONV} u = Transpose<perm=[0, 1, 3, 2]>(a) s = Tanh(u) k = MatMul(a, s) {HEAD.replace('(a)', '(k)')}",
    "pools": f"{CONV} d = Conv(a, w3, b3) h = MaxPool<kernel_shape=[3, 3], strides=[1, 1]>(d) {HEAD.replace('(a)', '(h)')}",
    "tallest": f"{CONV} d = Conv(a, w3, b3) p = GlobalMaxPool(d) f = Flatten(p) y = Gemm(f, w2, b2)",
    "around": f"{CONV} d = Conv<pads=[1, 1, 1, 1]>(a, w3, b3) e = Tanh(d) h = Mul(a, e) {HEAD.replace('(a)', '(h)')}",
}
EXTRA = {**WEIGHTS, "two": np.float32(2), "w5": (4, 4, 1, 1)}
EVERY = MODELS | {name: tiny(body, weights=EXTRA) for name, body in CURVED.items()}


def contributions(live: Live, layer: str) -> np.ndarray:
    """Return DeepLIFT's contributions at a layer."""
    return run_program(live.program("lift", [layer]), **behind(live, layer), seed=SEED)["contributions.0"]


@pytest.mark.parametrize("name", EVERY)
def test_contributions_sum_to_the_change_of_the_logits_from_activations_of_zero(name: str) -> None:
    live = open_model(EVERY[name])
    for layer in (item.name for item in live.manifest.layers):
        feeds = behind(live, layer)
        ends = [tail(live, layer, {**feeds, "activations__0": feeds["activations__0"] * f}) for f in (1, 0)]
        change = ((ends[0] - ends[1]).astype(np.float64) * SEED).sum(1)
        got = contributions(live, layer).sum((1, 2, 3), dtype=np.float64)
        np.testing.assert_allclose(got, change, atol=2e-4 * abs(ends[0]).max(), err_msg=layer)


@pytest.mark.parametrize("layer", ["a", "c"])
def test_through_a_linear_tail_they_are_gradient_times_activation(layer: str) -> None:
    live = open_model(MODELS["gap"] if layer == "a" else tiny(CONV.replace("a = Relu", "a = Identity") + HEAD))
    feeds = behind(live, layer)
    gradient = run_program(live.program("tail_gradient", [layer]), **feeds, seed=SEED)["gradients.0"]
    np.testing.assert_allclose(contributions(live, layer), gradient * feeds["activations__0"], atol=1e-6)


@pytest.mark.parametrize("bias", [(-1, -1, -1, -1), (9, -1, 15, 4)], ids=["rises", "falls"])
def test_behind_a_kink_they_are_the_rescale_rule_written_out(bias: tuple[int, ...]) -> None:
    data = tiny(CHAIN, weights={**WEIGHTS, "b3": np.float32(bias)})
    live, model = open_model(data), onnx.load_from_string(data)
    w = {t.name: torch.tensor(onnx.numpy_helper.to_array(t), dtype=torch.float64) for t in model.graph.initializer}
    a = run(model, torch.tensor(picture(live), dtype=torch.float64))["a"]
    pre = [F.conv2d(z, w["w3"], w["b3"], stride=2, padding=1) for z in (a, a * 0)]
    post = [F.relu(z) for z in pre]
    pooled = [F.max_pool2d(z, 3, 2, 1, return_indices=True) for z in post]
    assert bool((pooled[0][0] < pooled[1][0]).any()) is (max(bias) > 0)  # the maximum falls below the reference's
    per_cell = (torch.tensor(SEED, dtype=torch.float64) @ w["w2"].T).reshape(3, 4, 1, 1) / pooled[0][0][0, 0].numel()
    moved = torch.zeros_like(post[0])  # what each cell in front of the pool gives to the change behind it
    for sign, (values, places) in zip((1, -1), pooled, strict=True):
        gain = sign * (values - pooled[sign == 1][0]).clamp(min=0)
        flat = moved.flatten(2)
        flat.scatter_add_(2, places.flatten(2), (per_cell * gain).flatten(2))
    between = [one - two for one, two in ((post[0], post[1]), (pre[0], pre[1]))]
    multipliers = torch.where(between[0] != 0, moved / between[0], 0) * between[0] / between[1]
    want = a * F.conv_transpose2d(multipliers, w["w3"], stride=2, padding=1, output_padding=1)
    assert errors(contributions(live, "a"), want.numpy()).max() <= 1e-4


def test_a_second_run_keeps_what_goes_around_the_layer() -> None:
    live = open_model(EVERY["around"])
    feeds = behind(live, "e")
    assert set(feeds) == {"activations__0", "context__0"}
    np.testing.assert_allclose(  # h = a e: linear in e with a held, so the contribution is the gradient's
        contributions(live, "e"),
        run_program(live.program("tail_gradient", ["e"]), **feeds, seed=SEED)["gradients.0"] * feeds["activations__0"],
        atol=1e-6,
    )


def test_what_differs_between_the_runs_may_not_set_a_functions_shape() -> None:
    live = open_model(tiny(f"{CONV} m = ReduceMean<keepdims=0>(a) k = PRelu(a, m) {HEAD.replace('(a)', '(k)')}"))
    with pytest.raises(MissingRuleError, match=r"PRelu.*computed from the model's input"):
        live.program("lift", ["a"])


def test_attention_is_refused() -> None:
    with pytest.raises(MissingRuleError, match=r"Softmax at node .* has no DeepLIFT rule.*gradcam"):
        open_model(tokens()).program("lift", ["n0"])


def test_where_nothing_changes_the_derivative_stands_for_the_quotient() -> None:
    """Two equal channels with opposite weights: each gives something, and what they give cancels."""
    kernels = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    kernels[1] = kernels[0]
    opposite = np.tile(np.float32([1, -1, 0, 0]).reshape(1, 4, 1, 1), (4, 1, 1, 1))
    body = f"{CONV} d = Conv(a, w5) e = Sigmoid(d) {HEAD.replace('(a)', '(e)')}"
    live = open_model(tiny(body, weights={"w1": kernels, "b1": np.zeros(4, np.float32), "w5": opposite}))
    feeds = behind(live, "a")
    gradient = run_program(live.program("tail_gradient", ["a"]), **feeds, seed=SEED)["gradients.0"]
    found = contributions(live, "a")
    np.testing.assert_allclose(found, gradient * feeds["activations__0"], atol=1e-6)
    assert abs(found).max() > 1e-3
