"""Shapes with a symbolic batch: compared with what ONNX Runtime makes at several batch sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from camrt.errors import ModelError
from camrt.export.shapes import BATCH, annotate, rehearse
from camrt.export.vjp.emit import dims
from tests.export.onnx_text import CONV, HEAD, classifier
from tests.export.onnx_text import TINY as WEIGHTS

BODIES = {
    "plain": f"{CONV} {HEAD}",
    "merged": f"{CONV} to = Constant<value_ints=[-1, 8, 8]>() m = Reshape(a, to) back = Constant<value_ints=[-1, 4, 8, 8]>() "
    f"b = Reshape(m, back) {HEAD.replace('(a)', '(b)')}",
    "chain": f"{CONV} p = GlobalAveragePool(a) s = Shape(p) zero = Constant<value_int=0>() n = Gather(s, zero) "
    "axes = Constant<value_ints=[0]>() n1 = Unsqueeze(n, axes) four = Constant<value_ints=[4]>() "
    "to = Concat<axis=0>(n1, four) f = Reshape(p, to) y = Gemm(f, w2, b2)",
    "sizes": f"{CONV} s = Shape<start=2>(a) h = Shape<start=-2, end=-1>(a) n = Size(w1) both = Concat<axis=0>(s, h) "
    f"t = Cast<to=1>(both) m = ReduceMax<keepdims=0>(t) b = Mul(a, m) {HEAD.replace('(a)', '(b)')}",
    "heads": f"{CONV} s = Shape<end=1>(a) two = Constant<value_ints=[2]>() n = Mul(s, two) "
    "rest = Constant<value_ints=[2, 64]>() to = Concat<axis=0>(n, rest) r = Reshape(a, to) "
    "back = Constant<value_ints=[-1, 4, 8, 8]>() b = Reshape(r, back) " + HEAD.replace("(a)", "(b)"),
    "token": f"{CONV} s = Shape<end=1>(a) rest = Constant<value_ints=[-1, 64]>() to = Concat<axis=0>(s, rest) t = Reshape(a, to) "
    "one = Constant<value_ints=[1, 64]>() where = Concat<axis=0>(s, one) cls = Expand(token, where) j = Concat<axis=1>(cls, t) "
    "zero = Constant<value_int=0>() f = Gather<axis=1>(j, zero) y = Gemm(f, w4, b2)",
    "slices": f"{CONV} s = Shape(a) one = Constant<value_ints=[1]>() two = Constant<value_ints=[2]>() ch = Slice(s, one, two) "
    f"half = Div(ch, two) zero = Constant<value_ints=[0]>() b = Slice(a, zero, half, one) e = Concat<axis=1>(b, b) {HEAD.replace('(a)', '(e)')}",
    "largest": f"{CONV} s = Shape(a) t = Cast<to=1>(s) m = ReduceMax<keepdims=0>(t) b = Mul(a, m) {HEAD.replace('(a)', '(b)')}",
    "more": f"{CONV} s = Shape<end=1>(a) ten = Constant<value_ints=[10]>() big = Greater(s, ten) t = Cast<to=1>(big) "
    f"o = Identity(t) b = Sub(a, o) {HEAD.replace('(a)', '(b)')}",
    "where": f"{CONV} s = Shape(a) minus = Constant<value_ints=[-1, -1, -1, -1]>() eq = Equal(minus, s) to = Where(eq, minus, s) "
    f"b = Expand(a, to) {HEAD.replace('(a)', '(b)')}",
}
EXTRA = {"token": (1, 1, 64), "w4": (64, 5)}


def model_of(body: str, **options: Any) -> tuple[onnx.ModelProto, ir.Model]:
    """Return a model as given and with its shapes found."""
    given = classifier(BODIES[body], {**WEIGHTS, **EXTRA}, **options)
    model = ir.from_proto(given)
    annotate(model, model.graph.inputs[0], [None, 3, 8, 8])
    return given, model


def run(model: onnx.ModelProto, names: list[str], x: Any) -> list[Any]:
    """Return tensors inside a graph, from ONNX Runtime."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    del model.graph.output[:]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(names, {"x": x}))


@pytest.mark.parametrize("body", BODIES)
def test_every_shape_is_the_one_onnx_runtime_makes_at_any_batch(body: str) -> None:
    given, model = model_of(body)
    values = {value.name: value for node in model.graph for value in node.outputs}
    for batch in (1, 2, 5, 7, 11):
        results = run(given, list(values), np.ones((batch, 3, 8, 8), np.float32))
        for value, result in zip(values.values(), results, strict=True):
            assert eval_dims(dims(value), batch) == result.shape, value.name


def eval_dims(shape: tuple[int | str, ...], batch: int) -> tuple[int, ...]:
    """Put a number in the place of the batch; ``"8*N"`` is eight times it."""
    return tuple(d if isinstance(d, int) else int(d.removesuffix(BATCH).rstrip("*") or 1) * batch for d in shape)


@pytest.mark.parametrize("body", BODIES)
def test_the_model_computes_what_it_did_at_any_batch(body: str) -> None:
    given, model = model_of(body)
    for batch in (1, 3, 20):
        x = np.random.default_rng(0).normal(size=(batch, 3, 8, 8)).astype(np.float32)
        (want,) = run(given, ["y"], x)
        (got,) = run(ir.to_proto(model), ["y"], x)
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("body", BODIES)
def test_every_reshape_has_a_constant_target(body: str) -> None:
    """Then no Shape, Gather or Concat of sizes is needed, and providers see static graphs but for the batch."""
    _, model = model_of(body)
    targets = [node.inputs[1] for node in model.graph if node.op_type == "Reshape"]
    assert all(target is not None and target.is_initializer() for target in targets)


def test_a_multiple_of_the_batch_is_told_from_a_number() -> None:
    _, model = model_of("merged")
    shapes = {value.name: dims(value) for node in model.graph for value in node.outputs}
    assert (shapes["m"], shapes["b"]) == ((f"4*{BATCH}", 8, 8), (BATCH, 4, 8, 8))


def test_element_types_are_found() -> None:
    _, model = model_of("where")
    assert {v.dtype for node in model.graph for v in node.outputs if v.name in ("a", "b", "y")} == {ir.DataType.FLOAT}


def test_what_does_not_depend_on_the_batch_becomes_a_constant() -> None:
    _, model = model_of("sizes")
    assert [node.op_type for node in model.graph] == ["Conv", "Relu", "Mul", "GlobalAveragePool", "Flatten", "Gemm"]
    m = model.graph.initializers["m"].const_value
    assert m is not None
    assert float(m.numpy()) == 8


def test_random_numbers_are_never_made_constant() -> None:
    body = f"{CONV} r = RandomNormal<shape=[1, 4, 1, 1]>() b = Mul(a, r) {HEAD.replace('(a)', '(b)')}"
    model = ir.from_proto(classifier(body, WEIGHTS))
    annotate(model, model.graph.inputs[0], [None, 3, 8, 8])
    assert "RandomNormal" in [node.op_type for node in model.graph]


def test_a_gather_that_only_reshapes_becomes_a_reshape() -> None:
    """As torch's newer exporter writes ``as_strided``: a flat tensor read at 0, 1, 2 ..., so many as the batch asks for."""
    body = (
        f"{CONV} g = GlobalAveragePool(a) all = Constant<value_ints=[-1]>() v = Reshape(g, all) s = Size(g) "
        "zero = Constant<value_int=0>() one = Constant<value_int=1>() i = Range(zero, s, one) "
        "to = Constant<value_ints=[-1, 4]>() at = Reshape(i, to) f = Gather(v, at) y = Gemm(f, w2, b2)"
    )
    given = classifier(body, WEIGHTS)
    model = ir.from_proto(given)
    annotate(model, model.graph.inputs[0], [None, 3, 8, 8])
    last = next(node for node in model.graph if node.op_type == "Gemm").inputs[0]
    assert last is not None
    assert (last.name, last.producer().op_type, dims(last)) == ("f", "Reshape", (BATCH, 4))  # type: ignore[union-attr]
    for batch in (1, 3, 20):
        x = np.random.default_rng(0).normal(size=(batch, 3, 8, 8)).astype(np.float32)
        np.testing.assert_array_equal(run(ir.to_proto(model), ["y"], x)[0], run(given, ["y"], x)[0])


def test_a_gather_in_another_order_stays() -> None:
    body = f"{CONV} g = GlobalAveragePool(a) f = Flatten(g) b = Gather<axis=1>(f, order) y = Gemm(b, w2, b2)"
    model = ir.from_proto(classifier(body, {**WEIGHTS, "order": np.array([0, 1, 3, 2])}))
    annotate(model, model.graph.inputs[0], [None, 3, 8, 8])
    assert "Gather" in [node.op_type for node in model.graph]


IF = (
    f"{CONV} m = ReduceMax<keepdims=0>(x) [choice] b = If(flag) <then_branch = yes () => (float[N,4,8,8] t) "
    "{ t = Mul(a, half) }, else_branch = no () => (float[N,4,8,8] e) { e = Neg(a) }> " + HEAD.replace("(a)", "(b)")
)
LOOP = (
    f"{CONV} rounds = Constant<value_int=3>() [again] b = Loop(rounds, , a) <body = step (int64 i, bool go, "
    "float[N,4,8,8] before) => (bool on, float[N,4,8,8] after) { on = Identity(go) k = Cast<to=1>(i) "
    "after = Add(before, k) }> " + HEAD.replace("(a)", "(b)")
)


@pytest.mark.parametrize("body", [IF, LOOP], ids=["If", "Loop"])
def test_shapes_are_followed_through_control_flow(body: str) -> None:
    body = body.replace("[choice]", "zero = Constant<value_float=0.0>() flag = Greater(m, zero) [choice]")
    model = ir.from_proto(classifier(body, {**WEIGHTS, "half": np.float32(0.5)}))
    annotate(model, model.graph.inputs[0], [None, 3, 8, 8])
    shapes = {value.name: dims(value) for node in model.graph for value in node.outputs if value.shape is not None}
    assert shapes["b"] == (BATCH, 4, 8, 8)
    assert shapes["y"] == (BATCH, 5)


def test_branches_of_different_shapes_have_no_shape() -> None:
    body = IF.replace("t = Mul(a, half)", "t = GlobalAveragePool(a)").replace(
        "(float[N,4,8,8] t)", "(float[N,4,1,1] t)"
    )
    body = body.replace("[choice]", "zero = Constant<value_float=0.0>() flag = Greater(m, zero) [choice]")
    model = ir.from_proto(classifier(body, WEIGHTS))
    annotate(model, model.graph.inputs[0], [None, 3, 8, 8])
    assert next(v for node in model.graph for v in node.outputs if v.name == "b").shape is None


@pytest.mark.parametrize(
    "body",
    [
        f"{CONV} b = Concat<axis=2>(a, w1) {HEAD.replace('(a)', '(b)')}",
        f"{CONV} p = GlobalAveragePool(a) f = Flatten(p) y = Gemm(f, w3, b2)",
    ],
    ids=["Concat", "Gemm"],
)
def test_operators_that_do_not_fit_their_inputs_are_named(body: str) -> None:
    model = ir.from_proto(classifier(body, {**WEIGHTS, "w3": (7, 5)}))
    with pytest.raises(ModelError, match=r"node '.*' \(\w+\) does not fit its inputs") as caught:
        annotate(model, model.graph.inputs[0], [None, 3, 8, 8])
    assert "\n" not in str(caught.value)


MISFITS = {
    "channels": ("b = Conv(a, w3)", (2, 5, 3, 3), r"\[2, 5, 3, 3\] in 1 group\(s\) takes 5 channels, 4 come"),
    "groups": ("b = Conv<group=2>(a, w3)", (2, 4, 3, 3), "in 2 group.* takes 8 channels, 4 come"),
    "transposed": ("b = ConvTranspose(a, w3)", (5, 2, 3, 3), "takes 5 channels, 4 come"),
    "bias": ("b = Conv(a, w3, b2)", (2, 4, 3, 3), r"its bias has shape \[5\], 2 channels are made"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_channels_that_onnx_does_not_compare_are_compared(case: str) -> None:
    body, shape, said = MISFITS[case]
    model = ir.from_proto(classifier(f"{CONV} {body} {HEAD.replace('(a)', '(b)')}", {**WEIGHTS, "w3": shape}))
    with pytest.raises(ModelError, match=f"does not fit its inputs: .*{said}"):
        annotate(model, model.graph.inputs[0], [None, 3, 8, 8])


def test_convolutions_that_fit_are_let_through() -> None:
    body = f"{CONV} b = Conv<group=2>(a, w3, b3) d = ConvTranspose<group=2>(b, w4, b4) {HEAD.replace('(a)', '(d)')}"
    weights = {"w3": (6, 2, 3, 3), "b3": (6,), "w4": (6, 2, 3, 3), "b4": (4,)}
    model = ir.from_proto(classifier(body, {**WEIGHTS, **weights}))
    annotate(model, model.graph.inputs[0], [None, 3, 8, 8])
    assert dims(model.graph.outputs[0]) == ("N", 5)


def test_normalisations_that_onnx_gives_no_shape_have_that_of_their_input() -> None:
    body = f"{CONV} b = GroupNormalization<num_groups=2>(a, s, z) {HEAD.replace('(a)', '(b)')}"
    model = ir.from_proto(classifier(body, {**WEIGHTS, "s": (4,), "z": (4,)}, opset=21))
    annotate(model, model.graph.inputs[0], [None, 3, 8, 8])
    (value,) = (v for node in model.graph if node.op_type == "GroupNormalization" for v in node.outputs)
    assert dims(value) == ("N", 4, 8, 8)


def test_a_rehearsal_refuses_what_finding_shapes_would_and_changes_nothing() -> None:
    given = classifier(BODIES["where"], {**WEIGHTS, **EXTRA})
    model = ir.from_proto(given)
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    rehearse(model, model.graph.inputs[0], [None, 3, 8, 8])
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
    with pytest.raises(ModelError, match="does not fit its inputs"):
        rehearse(model, model.graph.inputs[0], [None, 3, 8, 8, 2])


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_a_size_that_comes_out_negative_is_refused(op: str) -> None:
    body = f"{CONV} q = {op}<kernel_shape=[20, 20]>(a) {HEAD.replace('(a)', '(q)')}"
    model = ir.from_proto(classifier(body, WEIGHTS))
    with pytest.raises(ModelError, match=rf"\({op}\) would make a tensor of shape .*: the model's input is too small"):
        annotate(model, model.graph.inputs[0], [None, 3, 8, 8])


def test_an_operator_newer_than_the_opset_is_named() -> None:
    model = ir.from_proto(classifier(f"{CONV} {HEAD}", WEIGHTS))
    next(node for node in model.graph if node.op_type == "Relu").op_type = "Gelu"
    with pytest.raises(ModelError, match="uses operator Gelu, unknown at opset 18"):
        annotate(model, model.graph.inputs[0], [None, 3, 8, 8])


def test_a_constant_cast_to_the_type_of_another_tensor_is_a_constant() -> None:
    """Function bodies write their numbers so; what is read of the other tensor is its type alone."""
    body = f"{CONV} half = Constant<value_float=0.5>() k = CastLike(half, a) b = Mul(a, k) {HEAD.replace('(a)', '(b)')}"
    model = ir.from_proto(classifier(body, WEIGHTS))
    annotate(model, model.graph.inputs[0], [None, 3, 8, 8])
    assert "CastLike" not in {node.op_type for node in model.graph}
    (product,) = (node for node in model.graph if node.op_type == "Mul")
    held = product.inputs[1]
    assert held is not None and held.const_value is not None
    assert (held.dtype, float(held.const_value.numpy())) == (ir.DataType.FLOAT, 0.5)


def test_a_bound_that_is_computed_is_not_taken_for_one_that_is_absent() -> None:
    """Of Clip the bounds are optional: a constant clipped by an unknown bound is no constant."""
    body = f"{CONV} low = ReduceMean<keepdims=0>(a) k = Clip(b1, low) s = ReduceSum<keepdims=0>(k) b = Mul(a, s) {HEAD.replace('(a)', '(b)')}"
    model = ir.from_proto(classifier(body, WEIGHTS))
    annotate(model, model.graph.inputs[0], [None, 3, 8, 8])
    assert "Clip" in {node.op_type for node in model.graph}
