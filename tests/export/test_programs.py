"""Programs cut and grown from small classifiers: their inputs and outputs, and numbers against autograd."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch

from camrt.errors import LayerError, MissingRuleError
from camrt.export.live import Live, open_model
from camrt.export.load import load
from camrt.export.maps import MAPS
from camrt.export.programs import KINDS, build, context_of
from tests.export.judge import canonical, errors, run_program
from tests.export.onnx_in_torch import gradients, run
from tests.export.onnx_text import CONV, HEAD, tiny, tokens

Array = np.ndarray[Any, Any]

LAST = (
    "t = Transpose<perm=[0, 3, 1, 2]>(x) c = Conv<pads=[1, 1, 1, 1]>(t, w1, b1) u = Transpose<perm=[0, 2, 3, 1]>(c) "
    "a = Sigmoid(u) axes = Constant<value_ints=[1, 2]>() f = ReduceMean<keepdims=0>(a, axes) y = Gemm(f, w2, b2)"
)
RESIDUAL = (
    f"{CONV} b = Conv<pads=[1, 1, 1, 1]>(a, w3) d = Sigmoid(b) e = Add(d, a) k = Mul(e, c) {HEAD.replace('(a)', '(k)')}"
)
CELL = f"{CONV} p = GlobalAveragePool(a) q = Conv(p, w4) y = Softmax<axis=1>(q)"
MODELS = {
    "plain": tiny(),
    "channels_last": tiny(LAST, x="float[N,8,8,3] x"),
    "residual": tiny(RESIDUAL, weights={"w3": (4, 4, 3, 3)}),
    "softmax": tiny(CELL, y="float[N,5,1,1] y", weights={"w4": (5, 4, 1, 1)}),
    "tokens": tokens(),
    "heads": tokens(heads=2),
    "no_class_token": tokens(cls=False),
}
SCORES = dict.fromkeys(MODELS, "y") | {"softmax": "q"}
TARGET = np.array([3, 0, 4])
SEED = np.eye(5, dtype=np.float32)[TARGET]


def picture(live: Live, n: int = 3) -> Array:
    """Return a seeded batch of images."""
    shape = [n, *live.manifest.input["shape"][1:]]
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def cases() -> list[Any]:
    """Return every layer of every model."""
    return [
        pytest.param(name, layer.name, id=f"{name}-{layer.name}")
        for name, data in MODELS.items()
        for layer in open_model(data).manifest.layers
    ]


EVERY_LAYER = pytest.mark.parametrize(("name", "layer"), cases())


@EVERY_LAYER
def test_features_gives_the_logits_and_the_layer_as_channels_first(name: str, layer: str) -> None:
    live, given = open_model(MODELS[name]), onnx.load_from_string(MODELS[name])
    x = picture(live)
    found = run_program(live.program("features", [layer]), x=x)
    tensors = run(given, torch.tensor(x, dtype=torch.float64))
    want = canonical(live.resolve(layer), tensors[layer].numpy())
    np.testing.assert_allclose(found["activations.0"], want, atol=1e-5 * np.abs(want).max())
    scores = tensors[SCORES[name]].numpy().reshape(3, 5)
    np.testing.assert_allclose(found["logits"], scores, atol=1e-5 * np.abs(scores).max())


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


@pytest.mark.parametrize("name", MODELS)
def test_the_gradient_at_the_image_is_that_of_float64_autograd(name: str) -> None:
    live, given = open_model(MODELS[name]), onnx.load_from_string(MODELS[name])
    x = picture(live)
    want = gradients(given, x, TARGET, [], SCORES[name], torch.float64).image
    found = run_program(live.program("input_gradient"), x=x, seed=SEED)
    assert errors(found["input_gradient"], want).max() <= 1e-5


@EVERY_LAYER
def test_the_tail_gives_the_logits_again(name: str, layer: str) -> None:
    live = open_model(MODELS[name])
    features = run_program(live.program("features", [layer]), x=picture(live))
    feeds = {k.replace(".", "__"): v for k, v in features.items() if k != "logits"}
    tail = run_program(live.program("tail", [layer]), **feeds)["logits"]
    np.testing.assert_allclose(tail, features["logits"], atol=1e-5 * np.abs(tail).max())


def test_the_tail_depends_on_the_layer_it_is_given() -> None:
    live = open_model(MODELS["heads"])
    features = run_program(live.program("features", ["n1"]), x=picture(live))
    feeds = {k.replace(".", "__"): v for k, v in features.items() if k != "logits"}
    feeds["activations__0"] = feeds["activations__0"][::-1].copy()
    tail = run_program(live.program("tail", ["n1"]), **feeds)["logits"]
    assert np.abs(tail - features["logits"]).max() > 1e-3


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_program_is_a_valid_model_with_the_documented_inputs_and_outputs(name: str, kind: str) -> None:
    live = open_model(MODELS[name])
    layer = live.manifest.default_layer
    layers = [] if kind in ("forward", "input_gradient") else [layer.name]
    program = live.program(kind, layers)
    assert isinstance(program.model, bytes)
    model = onnx.load_from_string(program.model)
    onnx.checker.check_model(model, full_check=True)
    context = tuple(name for name in live.program("tail", [layer.name]).inputs if name.startswith("context"))
    is_relu = layer.op in ("Relu", "Clip", "Sigmoid")  # never negative, so the graph need not tell
    row = MAPS.get(kind.removeprefix("map_"))
    signed = ("signed",) if row is not None and row.assumes_positive and not is_relu else ()
    flags = ("skipped_channels",) if kind == "map_xgradcam" else ()
    inputs, outputs = {
        "forward": (("x",), ("logits",)),
        "features": (("x",), ("logits", *context, "activations.0")),
        "gradient": (("x", "target"), ("logits", "explained", "gradients.0", "activations.0")),
        "seeded_gradient": (("x", "seed"), ("logits", "gradients.0", "activations.0")),
        "tail": (("activations.0", *context), ("logits",)),
        "tail_gradient": (("activations.0", *context, "seed"), ("logits", "gradients.0")),
        "input_gradient": (("x", "seed"), ("logits", "input_gradient")),
    }.get(kind, (("x", "target"), ("logits", "explained", "map", "heat", "degenerate", *flags, *signed)))
    assert (program.inputs, program.outputs) == (inputs, outputs)
    assert tuple(v.name for v in model.graph.input) == inputs
    assert tuple(v.name for v in model.graph.output) == outputs
    for value in [*model.graph.input, *model.graph.output]:
        assert value.type.tensor_type.shape.dim[0].dim_param == "N", value.name
        if value.name in ("activations.0", "gradients.0"):
            assert [d.dim_value for d in value.type.tensor_type.shape.dim][1:] == [layer.channels, *layer.grid]
        if value.name == "map":
            assert [d.dim_value for d in value.type.tensor_type.shape.dim][1:] == [*layer.grid]


def test_a_program_holds_nothing_that_its_outputs_do_not_need() -> None:
    live = open_model(MODELS["residual"])
    tail = onnx.load_from_string(live.program("tail", ["k"]).model)  # type: ignore[arg-type]
    assert [node.op_type for node in tail.graph.node] == ["GlobalAveragePool", "Flatten", "Gemm"]
    assert {t.name for t in tail.graph.initializer} == {"w2", "b2"}
    late = onnx.load_from_string(live.program("gradient", ["k"]).model)  # type: ignore[arg-type]
    early = onnx.load_from_string(live.program("gradient", ["c"]).model)  # type: ignore[arg-type]
    assert [n.op_type for n in late.graph.node].count("Conv") == 2  # those of the forward pass
    assert [n.op_type for n in early.graph.node].count("Conv") == 3


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


def test_minus_one_stands_for_the_predicted_class_of_each_image() -> None:
    live = open_model(MODELS["plain"])
    x = picture(live)
    program = live.program("gradient", ["c"])
    found = run_program(program, x=x, target=np.array([-1, 2, -1]))
    predicted = found["logits"].argmax(1)
    assert found["explained"].tolist() == [predicted[0], 2, predicted[2]]
    again = run_program(program, x=x, target=found["explained"])
    np.testing.assert_array_equal(again["gradients.0"], found["gradients.0"])


def test_a_seed_may_be_any_vector_and_gradients_are_linear_in_it() -> None:
    live = open_model(MODELS["heads"])
    x, program = picture(live), live.program("seeded_gradient", ["n1"])
    rng = np.random.default_rng(0)
    one, two = (rng.normal(size=(3, 5)).astype(np.float32) for _ in range(2))
    a, b, both = (run_program(program, x=x, seed=s)["gradients.0"] for s in (one, two, 2 * one - two))
    np.testing.assert_allclose(both, 2 * a - b, atol=1e-5 * np.abs(both).max())


@pytest.mark.parametrize("kind", KINDS)
def test_building_leaves_the_classifier_as_it_was(kind: str) -> None:
    classifier = load(MODELS["heads"])
    live = open_model(MODELS["heads"])
    layers = [] if kind in ("forward", "input_gradient") else [live.resolve("n1")]
    before = [
        (n.op_type, n.name, [v.name for v in n.inputs if v], [v.name for v in n.outputs])
        for n in classifier.model.graph
    ]
    inputs, outputs = list(classifier.model.graph.inputs), list(classifier.model.graph.outputs)
    held = set(classifier.model.graph.initializers)
    build(classifier, kind, layers)
    after = [
        (n.op_type, n.name, [v.name for v in n.inputs if v], [v.name for v in n.outputs])
        for n in classifier.model.graph
    ]
    assert after == before
    assert list(classifier.model.graph.inputs) == inputs
    assert list(classifier.model.graph.outputs) == outputs
    assert set(classifier.model.graph.initializers) == held


def test_a_model_may_use_the_programs_names_for_other_things() -> None:
    names = {
        "x": "logits", "c": "gradients.0", "a": "x", "p": "activations.0", "f": "seed", "y": "target", "w1": "explained",
        "b1": "input_gradient", "w2": "context.0",
    }  # fmt: skip
    model = onnx.load_from_string(tiny())
    for value in [*model.graph.input, *model.graph.output, *model.graph.initializer]:
        value.name = names.get(value.name, value.name)
    for node in model.graph.node:
        for ends in (node.input, node.output):
            ends[:] = [names.get(name, name) for name in ends]
    plain, renamed = open_model(tiny()), open_model(model.SerializeToString())
    x = picture(plain)
    for old, new in (("c", "gradients.0"), ("a", "x")):
        for kind, feeds in (("gradient", {"target": TARGET}), ("seeded_gradient", {"seed": SEED}), ("features", {})):
            want = run_program(plain.program(kind, [old]), x=x, **feeds)
            got = run_program(renamed.program(kind, [new]), x=x, **feeds)
            assert set(want) == set(got)
            for name, array in want.items():
                np.testing.assert_array_equal(got[name], array)
        acts = run_program(plain.program("features", [old]), x=x)["activations.0"]
        want = run_program(plain.program("tail_gradient", [old]), activations__0=acts, seed=SEED)
        got = run_program(renamed.program("tail_gradient", [new]), activations__0=acts, seed=SEED)
        for name, array in want.items():
            np.testing.assert_array_equal(got[name], array)
    want = run_program(plain.program("input_gradient"), x=x, seed=SEED)
    got = run_program(renamed.program("input_gradient"), x=x, seed=SEED)
    np.testing.assert_array_equal(got["input_gradient"], want["input_gradient"])


# what goes around a layer ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "layer", "around"),
    [
        ("plain", "c", []),
        ("plain", "a", []),
        ("residual", "a", ["c"]),
        ("residual", "b", ["c", "a"]),
        ("residual", "e", ["c"]),
        ("residual", "k", []),
        ("tokens", "e", []),
        ("tokens", "n1", ["t1"]),
        ("tokens", "o1", ["t1"]),
        ("tokens", "t1", []),
    ],
)
def test_what_leads_around_a_layer_is_its_context(name: str, layer: str, around: list[str]) -> None:
    classifier = load(MODELS[name])
    value = next(v for node in classifier.model.graph for v in node.outputs if v.name == layer)
    found = context_of(classifier.model.graph, classifier.x, classifier.logits, value)
    assert sorted(str(v.name) for v in found) == sorted(around)


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
