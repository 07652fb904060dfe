"""Gradients at layers against float64 autograd; what has none is refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch

from camrt.errors import LayerError, MissingRuleError
from camrt.export.live import open_model
from tests.export.judge import canonical, errors, run_program
from tests.export.onnx_in_torch import gradients
from tests.export.onnx_text import CONV, HEAD, tiny
from tests.export.programs.models import EVERY_LAYER, MODELS, SCORES, SEED, TARGET, picture

Array = np.ndarray[Any, Any]


@EVERY_LAYER
@pytest.mark.parametrize("kind", ["gradient", "seeded_gradient", "tail_gradient"])
def test_every_gradient_is_that_of_float64_autograd(name: str, layer: str, kind: str) -> None:
    live, given = open_model(MODELS[name]), onnx.load_from_string(MODELS[name])
    x = picture(live)
    want = canonical(
        live.resolve(layer), gradients(given, x, TARGET, [layer], SCORES[name], torch.float64).layers[layer]
    )
    feeds: dict[str, Array] = {"x": x, "target": TARGET} if kind == "gradient" else {"x": x, "seed": SEED}
    if kind == "tail_gradient":
        features = run_program(live.program("features", [layer]), x=x)
        feeds = {k.replace(".", "__"): v for k, v in features.items() if k != "logits"} | {"seed": SEED}
    found = run_program(live.program(kind, [layer]), **feeds)
    if not want.any():  # behind the last attention only the class token feeds the head
        assert not found["gradients.0"].any()
        return
    reached = np.abs(want).max((1, 2, 3)) > 0
    assert errors(found["gradients.0"][reached], want[reached]).max() <= 1e-4  # a softmax cancels a digit or two


def test_several_layers_come_in_the_order_asked_for_and_one_may_come_twice() -> None:
    live = open_model(MODELS["residual"])
    x = picture(live)
    many = run_program(live.program("gradient", ["k", "c", "k", "b"]), x=x, target=TARGET)
    for index, name in enumerate(["k", "c", "k", "b"]):
        one = run_program(live.program("gradient", [name]), x=x, target=TARGET)
        for what in ("activations", "gradients"):
            np.testing.assert_allclose(
                many[f"{what}.{index}"], one[f"{what}.0"], atol=1e-6, err_msg=f"{what} of {name}"
            )


def test_a_seed_may_be_any_vector_and_gradients_are_linear_in_it() -> None:
    live = open_model(MODELS["heads"])
    x, program = picture(live), live.program("seeded_gradient", ["n1"])
    rng = np.random.default_rng(0)
    one, two = (rng.normal(size=(3, 5)).astype(np.float32) for _ in range(2))
    a, b, both = (run_program(program, x=x, seed=s)["gradients.0"] for s in (one, two, 2 * one - two))
    np.testing.assert_allclose(both, 2 * a - b, atol=1e-5 * np.abs(both).max())


# what has no gradient ----------------------------------------------------------------------------------------------

FLAG = "m = ReduceMax<keepdims=0>(x) zero = Constant<value_float=0.0>() flag = Greater(m, zero)"
IF = (
    f"{CONV} {FLAG} [choice] b = If(flag) <then_branch = yes () => (float[N,4,8,8] t) {{ t = Relu(a) }}, "
    f"else_branch = no () => (float[N,4,8,8] e) {{ e = Neg(a) }}> {HEAD.replace('(a)', '(b)')}"
)
LOOP = (
    f"{CONV} rounds = Constant<value_int=3>() [again] b = Loop(rounds, , a) <body = step (int64 i, bool go, "
    "float[N,4,8,8] before) => (bool on, float[N,4,8,8] after) { on = Identity(go) after = Add(before, before) }> "
    + HEAD.replace("(a)", "(b)")
)


@pytest.mark.parametrize(("body", "op", "node"), [(IF, "If", "choice"), (LOOP, "Loop", "again")], ids=["If", "Loop"])
def test_control_flow_on_the_path_is_refused_by_name_and_may_stand_before_the_layer(
    body: str, op: str, node: str
) -> None:
    live = open_model(tiny(body))
    path = f"{op} -> GlobalAveragePool -> Flatten -> Gemm -> logits"
    for kind, layers in (
        ("gradient", ["a"]),
        ("seeded_gradient", ["c"]),
        ("tail_gradient", ["a"]),
        ("input_gradient", []),
    ):
        with pytest.raises(
            MissingRuleError, match=rf"operator {op} at node '{node}' has no gradient rule; .*: {path}"
        ) as caught:
            live.program(kind, layers)
        assert "\n" not in str(caught.value)
    x = picture(live)
    found = run_program(live.program("gradient", ["b"]), x=x, target=TARGET)
    plain = run_program(live.program("forward"), x=x)
    np.testing.assert_array_equal(found["logits"], plain["logits"])
    tail = run_program(live.program("features", ["a"]), x=x)
    feeds = {k.replace(".", "__"): v for k, v in tail.items() if k != "logits"}
    np.testing.assert_allclose(run_program(live.program("tail", ["a"]), **feeds)["logits"], plain["logits"], rtol=1e-5)


def test_every_operator_without_a_rule_is_listed_and_the_first_is_placed() -> None:
    body = f"{CONV} [second] d = Det(a) e = Reshape(d, to) [third] h = RandomNormalLike(e) {HEAD.replace('(a)', '(h)')}"
    live = open_model(tiny(body, weights={"to": np.array([-1, 4, 1, 1])}))
    said = r"Det at node 'second' has no gradient rule \(also without a rule: RandomNormalLike\); .*: Det -> Reshape -> Random"
    with pytest.raises(MissingRuleError, match=said):
        live.program("gradient", ["a"])


def test_a_layer_that_only_rounding_leads_away_from_has_no_gradient() -> None:
    live = open_model(tiny(f"{CONV} r = Floor(a) {HEAD.replace('(a)', '(r)')}"))
    with pytest.raises(LayerError, match="no gradient flows from the logits back to layer 'a'"):
        live.program("gradient", ["a"])
    with pytest.raises(LayerError, match="no gradient flows from the logits back to the image"):
        live.program("input_gradient")


def test_a_branch_that_only_rounds_adds_nothing() -> None:
    live = open_model(tiny(f"{CONV} r = Floor(a) s = Add(a, r) {HEAD.replace('(a)', '(s)')}"))
    plain = open_model(tiny())
    x = picture(live)
    found = run_program(live.program("gradient", ["a"]), x=x, target=TARGET)["gradients.0"]
    want = run_program(plain.program("gradient", ["a"]), x=x, target=TARGET)["gradients.0"]
    np.testing.assert_array_equal(found, want)


# other element types -----------------------------------------------------------------------------------------------


def test_a_picture_of_bytes_goes_in_and_its_gradient_is_refused() -> None:
    body = f"f32 = Cast<to=1>(x) {CONV.replace('(x,', '(f32,')} {HEAD}"
    live = open_model(tiny(body, x="uint8[N,3,8,8] x"))
    assert live.manifest.input["dtype"] == "uint8"
    x = np.random.default_rng(0).integers(0, 255, (2, 3, 8, 8), dtype=np.uint8)
    found = run_program(live.program("gradient", ["c"]), x=x, target=np.array([1, -1]))
    given = onnx.load_from_string(tiny())
    want = gradients(given, x.astype(np.float32), found["explained"], ["c"], "y", torch.float64).layers["c"]
    assert errors(found["gradients.0"], want).max() <= 1e-5
    with pytest.raises(LayerError, match="input 'x' takes whole numbers"):
        live.program("input_gradient")


def test_a_model_in_float16_gives_the_gradients_of_its_weights_in_float32() -> None:
    rng = np.random.default_rng(0)
    shapes = {"w1": (4, 3, 3, 3), "b1": (4,), "w2": (4, 5), "b2": (5,)}
    weights = {name: rng.normal(size=shape).astype(np.float16) for name, shape in shapes.items()}
    data = tiny(x="float16[N,3,8,8] x", y="float16[N,5] y", weights=weights)
    live = open_model(data)
    x = rng.normal(size=(3, 3, 8, 8)).astype(np.float16)
    found = run_program(live.program("gradient", ["c"]), x=x, target=TARGET)
    assert found["gradients.0"].dtype == np.float32
    want = gradients(onnx.load_from_string(data), x, TARGET, ["c"], "y", torch.float64).layers["c"]
    assert errors(found["gradients.0"], want).max() <= 1e-5
