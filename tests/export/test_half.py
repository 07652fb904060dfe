"""Programs in half precision: exact where float16 is, close elsewhere, float32 where float16 would fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from google.protobuf.message import EncodeError  # type: ignore[import-untyped]
from onnx import TensorProto, numpy_helper

from camrt.errors import ModelError
from camrt.export import export, half, open_model
from camrt.export.bundle import read
from camrt.export.half import KEPT, NARROWED, Half, narrow
from tests import tiny
from tests.export.onnx_text import CONV, HEAD, classifier, tokens
from tests.export.onnx_text import tiny as tiny_text

Array = np.ndarray[Any, Any]
ROUNDING = 2.0**-11  # of float16, relative
STEPS = 40  # roundings in a row in these nets, far more than there are


def run(model: onnx.ModelProto, feeds: dict[str, Array]) -> list[Array]:
    """Check a model strictly, types included, and run it without ONNX Runtime's own rewriting."""
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found: list[Array] = session.run(None, {i.name: feeds[i.name] for i in session.get_inputs()})
    return found


def types(model: onnx.ModelProto) -> dict[str, int]:
    """Return the element type of every tensor."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = [*graph.input, *graph.output, *graph.value_info]
    return {v.name: v.type.tensor_type.elem_type for v in values} | {t.name: t.data_type for t in graph.initializer}


def node(model: onnx.ModelProto, op: str) -> onnx.NodeProto:
    """Return the one node of an operator."""
    (found,) = [n for n in model.graph.node if n.op_type == op]
    return found


def copy(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    return made


def small(shape: tuple[int, ...], seed: int) -> Array:
    """Return whole numbers from -3 to 3: sums of their products are exact in float16."""
    return np.random.default_rng(seed).integers(-3, 4, shape).astype(np.float32)


def test_whole_numbers_come_out_to_the_bit() -> None:
    body = "c = Conv<pads=[1, 1, 1, 1]>(x, w1, b1) a = Relu(c) m = MaxPool<kernel_shape=[8, 8]>(a) f = Flatten(m) y = Gemm(f, w2, b2)"
    weights = {"w1": small((4, 3, 3, 3), 1), "b1": small((4,), 2), "w2": small((4, 5), 3), "b2": small((5,), 4)}
    model = classifier(body, weights)
    wide = copy(model)
    assert narrow(model) == 5
    x = {"x": small((2, 3, 8, 8), 5)}
    np.testing.assert_array_equal(run(model, x), run(wide, x))
    assert {types(model)[name] for name in node(model, "Conv").input} == {TensorProto.FLOAT16}


@pytest.mark.parametrize("kind", sorted(NARROWED - {"guided_gradient"}))
@pytest.mark.parametrize("data", [tiny.gap(), tokens()], ids=["cnn", "tokens"])
def test_every_program_keeps_its_ends_and_stays_within_rounding(kind: str, data: bytes) -> None:
    live = open_model(data)
    layers = () if kind in ("forward", "input_gradient") else (live.manifest.default_layer.name,)
    rng = np.random.default_rng(0)
    pair = [onnx.load_from_string(bytes(s.program(kind, layers).model)) for s in (live, Half(live))]  # type: ignore[arg-type]
    assert [i.type for i in pair[0].graph.input] == [i.type for i in pair[1].graph.input]
    assert [o.type for o in pair[0].graph.output] == [o.type for o in pair[1].graph.output]
    feeds = {}
    for given in pair[0].graph.input:
        shape = [d.dim_value or 2 for d in given.type.tensor_type.shape.dim]
        whole = given.type.tensor_type.elem_type == TensorProto.INT64
        feeds[given.name] = np.array([1, 3]) if whole else np.abs(rng.normal(size=shape)).astype(np.float32)
    for a, b in zip(*(run(model, feeds) for model in pair), strict=True):
        np.testing.assert_allclose(b, a, atol=STEPS * ROUNDING * np.abs(a).max())


@pytest.mark.parametrize("data", [tiny.gap(), tokens()], ids=["cnn", "tokens"])
def test_what_sums_or_exponentiates_reads_float32(data: bytes) -> None:
    live = open_model(data)
    model = onnx.load_from_string(bytes(Half(live).program("input_gradient").model))  # type: ignore[arg-type]
    known = types(model)
    for n in model.graph.node:
        if n.op_type in KEPT - {"Cast"}:
            assert TensorProto.FLOAT16 not in {known[name] for name in [*n.input, *n.output] if name}, n.op_type
    products = [n for n in model.graph.node if n.op_type in ("Conv", "MatMul", "Gemm", "ConvTranspose")]
    assert all(known[name] == TensorProto.FLOAT16 for n in products for name in [*n.input, *n.output] if name)


def test_an_eps_that_float16_cannot_hold_keeps_its_division_finite() -> None:
    """x - x + eps over itself is 1; in float16 eps would be 0 and the quotient NaN."""
    body = f"{CONV} z = Sub(a, a) e = Add(z, eps) q = Div(e, e) {HEAD.replace('(a)', '(q)')}"
    model = onnx.load_from_string(tiny_text(body, weights={"eps": np.float32(1e-12)}))
    narrow(model)
    y = run(model, {"x": small((1, 3, 8, 8), 0)})[0]
    held = {t.name: numpy_helper.to_array(t).astype(np.float64) for t in model.graph.initializer}
    w2 = held.get("w2", held.get("w2/half"))
    b2 = held.get("b2", held.get("b2/half"))
    assert w2 is not None and b2 is not None
    np.testing.assert_allclose(y[0], w2.sum(0) + b2, atol=20 * ROUNDING)


def test_weights_beyond_float16_stay_float32() -> None:
    body = f"{CONV} big = Mul(a, huge) less = Div(big, huge) {HEAD.replace('(a)', '(less)')}"
    model = onnx.load_from_string(tiny_text(body, weights={"huge": np.float32(1e6)}))
    wide = copy(model)
    narrow(model)
    x = {"x": small((1, 3, 8, 8), 0)}
    a, b = run(wide, x)[0], run(model, x)[0]
    np.testing.assert_allclose(b, a, atol=STEPS * ROUNDING * np.abs(a).max())


def test_inputs_of_fixed_type_stay_what_they_are() -> None:
    body = f'{CONV} r = Resize<mode="linear">(a, , scales) {HEAD.replace("(a)", "(r)")}'
    model = onnx.load_from_string(tiny_text(body, weights={"scales": np.array([1, 1, 2, 2], np.float32)}))
    narrow(model)
    run(model, {"x": small((1, 3, 8, 8), 0)})
    resize, known = node(model, "Resize"), types(model)
    assert (known[resize.input[0]], known[resize.input[2]]) == (TensorProto.FLOAT16, TensorProto.FLOAT)


def test_a_tensor_is_cast_once_however_many_read_it() -> None:
    body = f"{CONV} s = Softmax(a) t = Exp(a) u = Add(s, t) {HEAD.replace('(a)', '(u)')}"
    model = onnx.load_from_string(tiny_text(body))
    narrow(model)
    casts = [n for n in model.graph.node if n.op_type == "Cast"]
    assert [(n.input[0], n.output[0]) for n in casts] == [
        ("x", "x/half"), ("a/half", "a"), ("f", "f/half"), ("y/half", "y"),
    ]  # fmt: skip


def test_a_subgraph_reads_the_float32_it_was_written_for() -> None:
    body = (
        f"{CONV} r = If(yes) <then_branch = t () => (float[N,4,8,8] p1) {{ p1 = Exp(a) }}, "
        f"else_branch = e () => (float[N,4,8,8] p2) {{ p2 = Neg(a) }}> {HEAD.replace('(a)', '(r)')}"
    )
    model = onnx.load_from_string(tiny_text(body, weights={"yes": np.array(False)}))
    wide = copy(model)
    narrow(model)
    x = {"x": small((1, 3, 8, 8), 0) / 4}
    a, b = run(wide, x)[0], run(model, x)[0]
    np.testing.assert_allclose(b, a, atol=STEPS * ROUNDING * np.abs(a).max())


def test_a_model_without_products_is_refused() -> None:
    model = tiny_text("f = Flatten(x) s = Slice(f, b, e, d) y = Relu(s)", weights={
        "b": np.array([0]), "e": np.array([5]), "d": np.array([1]),
    })  # fmt: skip

    class Lone:
        manifest = None

        def program(self, kind: str, layers: object = ()) -> Any:
            from camrt.export.manifest import Program

            return Program(kind, (), ("x",), ("logits",), model)

    with pytest.raises(ModelError, match="no convolution or matrix product"):
        Half(Lone()).program("forward")  # type: ignore[arg-type]


def test_programs_without_digits_to_spare_are_left_alone() -> None:
    live = open_model(tiny.gap())
    layer = (live.manifest.default_layer.name,)
    for kind in ("relevance", "lift", "map_gradcam"):
        assert Half(live).program(kind, layer).model == live.program(kind, layer).model


def test_a_bundle_is_narrowed_like_the_model_it_was_made_of(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(tiny.gap())
    export(tmp_path / "m.onnx", tmp_path / "b")
    x = {"x": tiny.images(2)}
    sources = Half(open_model(tmp_path / "m.onnx")), Half(read(tmp_path / "b"))
    one, two = (run(onnx.load_from_string(bytes(s.program("forward").model)), x)[0] for s in sources)  # type: ignore[arg-type]
    np.testing.assert_array_equal(one, two)
    assert sources[0].manifest.default_layer == sources[1].manifest.default_layer
    assert sources[1].resolve(sources[0].manifest.default_layer.name).default
    assert not sources[1].offers("lift", ())


def test_what_does_not_fit_one_message_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Huge:
        def SerializeToString(self) -> bytes:
            raise EncodeError("Failed to serialize proto")

    monkeypatch.setattr(half, "joined", lambda program: Huge())
    monkeypatch.setattr(half, "narrow", lambda model: 1)
    with pytest.raises(ModelError, match="larger than the 2 GiB one message may hold: run it in float32"):
        Half(open_model(tiny_text())).program("forward")
