"""Quantised models: the file's own logits to the bit, and a twin whose activations and gradients can be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnxruntime import quantization

from camrt.export.live import Live, manifest_of, open_model
from camrt.export.load import load
from camrt.export.verify import run, verify
from tests.export.integers import HEAD, STEM, WEIGHTS, quantised, twin_alone
from tests.export.onnx_text import classifier

Array = np.ndarray[Any, Any]

FLOAT = (
    "[conv1] c1 = Conv<pads=[1, 1, 1, 1]>(x, w1, b1) [relu1] a1 = Clip(c1, zero, six) "
    "[conv2] c2 = Conv<pads=[1, 1, 1, 1]>(a1, w2, b2) [relu2] a2 = Relu(c2) [sum] j = Add(a2, a1) "
    "[pool] p = GlobalAveragePool(j) [flat] f = Flatten(p) [head] y = Gemm(f, w3, b3)"
)
LAYERS = {
    "static QDQ": "j_QuantizeLinear_Output",
    "by channel": "j_QuantizeLinear_Output",
    "QOperator": "j_quantized",
    "dynamic": "j",
}


def pictures(n: int = 6, seed: int = 5) -> Array:
    """Return seeded images."""
    return np.random.default_rng(seed).normal(size=(n, 3, 16, 16)).astype(np.float32)


class Calibration(quantization.CalibrationDataReader):  # type: ignore[misc]
    """Thirty images, one at a time."""

    def __init__(self) -> None:
        self.images = iter(pictures(30, seed=6))

    def get_next(self) -> dict[str, Array] | None:
        """Return the next image."""
        image = next(self.images, None)
        return None if image is None else {"x": image[None]}


@dataclass(frozen=True)
class Pair:
    """A float model and what ONNX Runtime's quantiser makes of it."""

    name: str
    plain: bytes
    given: bytes
    live: Live
    layer: str

    def gradient(self, live: Live, layer: str, **feeds: Array) -> dict[str, Array]:
        """Run a gradient program."""
        return named(live, "gradient", layer, **feeds)


def named(live: Live, kind: str, *layers: str, **feeds: Array) -> dict[str, Array]:
    """Run a program once."""
    program = live.program(kind, layers)
    return dict(zip(program.outputs, run(program.model, feeds), strict=True))  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=LAYERS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Quantise the float model in one of four ways."""
    rng = np.random.default_rng(4)
    weights = {
        "w1": rng.normal(size=(6, 3, 3, 3)) * 0.3, "b1": rng.normal(size=6) * 0.2, "w2": rng.normal(size=(6, 6, 3, 3)) * 0.3,
        "b2": rng.normal(size=6) * 0.2, "w3": rng.normal(size=(6, 5)), "b3": rng.normal(size=5), "zero": 0.0, "six": 2.0,
    }  # fmt: skip
    model = classifier(
        FLOAT, {k: np.asarray(v, np.float32) for k, v in weights.items()}, x="float[N,3,16,16] x", opset=17
    )
    folder: Path = tmp_path_factory.mktemp("quantised")
    before, after = folder / "float.onnx", folder / "integers.onnx"
    onnx.save(model, before)
    name = request.param
    if name == "dynamic":
        quantization.quantize_dynamic(before, after, op_types_to_quantize=["Conv", "MatMul", "Gemm"])
    else:
        shape = quantization.QuantFormat.QOperator if name == "QOperator" else quantization.QuantFormat.QDQ
        kinds = {"activation_type": quantization.QuantType.QUInt8, "weight_type": quantization.QuantType.QInt8}
        quantization.quantize_static(
            before, after, Calibration(), quant_format=shape, per_channel=name == "by channel", **kinds
        )
    given = after.read_bytes()
    return Pair(name, before.read_bytes(), given, open_model(given), LAYERS[name])


def test_logits_are_those_of_the_given_file_to_the_bit(pair: Pair) -> None:
    for x in pictures()[:, None]:
        (want,) = run(pair.given, {"x": x})
        feeds = {"x": x, "target": np.array([-1])}
        for kind in ("forward", "features", "gradient", "map_gradcam"):
            layers = () if kind == "forward" else (pair.layer,)
            chosen = {name: feeds[name] for name in pair.live.program(kind, layers).inputs}
            np.testing.assert_array_equal(named(pair.live, kind, *layers, **chosen)["logits"], want)


def test_activations_and_gradients_are_those_of_the_float_model_up_to_quantisation(pair: Pair) -> None:
    plain = open_model(pair.plain)
    for i, x in enumerate(pictures()[:, None]):
        feeds = {"x": x, "target": np.array([i % 5])}
        got, want = named(pair.live, "gradient", pair.layer, **feeds), named(plain, "gradient", "j", **feeds)
        acts = want["activations.0"]
        assert np.abs(got["activations.0"] - acts).max() <= 0.05 * np.abs(acts).max()
        assert np.abs(got["gradients.0"] - want["gradients.0"]).mean() <= 0.03 * np.abs(want["gradients.0"]).mean()
        image = [
            named(live, "input_gradient", x=x, seed=np.eye(5, dtype="f4")[[i % 5]])["input_gradient"]
            for live in (pair.live, plain)
        ]
        cosine = np.vdot(*image) / np.prod([np.linalg.norm(g) for g in image])
        assert cosine >= 0.95, cosine


def test_the_predicted_class_is_the_given_models_whatever_the_twin_says(pair: Pair) -> None:
    given = load(pair.given)
    heads = [
        v
        for v in given.model.graph.initializers.values()
        if not str(v.name).startswith("given/") and v.shape in ([6, 5], [5])
    ]
    assert heads
    for value in heads:
        assert value.const_value is not None
        value.const_value = ir.tensor(-value.const_value.numpy(), name=value.name)
    live = Live(given, pair.live.manifest)
    x = pictures()[:1]
    (want,) = run(pair.given, {"x": x})
    found = named(live, "gradient", pair.layer, x=x, target=np.array([-1]))
    assert found["explained"] == want.argmax()
    honest = named(pair.live, "gradient", pair.layer, x=x, target=want.argmax(1))
    np.testing.assert_allclose(found["gradients.0"], -honest["gradients.0"], atol=1e-6)


def test_the_tail_ends_where_the_given_model_does(pair: Pair) -> None:
    for x in pictures()[:, None]:
        features = named(pair.live, "features", pair.layer, x=x)
        tail = named(pair.live, "tail", pair.layer, **{k: v for k, v in features.items() if k != "logits"})
        np.testing.assert_allclose(tail["logits"], features["logits"], rtol=0, atol=1e-5)


def test_verification_holds_and_says_how_far_the_twin_is_off(pair: Pair) -> None:
    figures = verify(pair.live.classifier, pair.live, [pair.layer])
    assert figures["parity"]["max_abs"] == 0
    assert figures["gradient"][pair.layer]["rel_error"] <= 1e-2
    assert figures["twin"]["layer"] == pair.layer
    assert figures["twin"]["top1"] == 1
    assert figures["twin"]["max_rel"] <= 1e-4
    assert figures["twin"]["whole"]["mean_rel"] <= 2e-2


def test_only_dynamic_ranges_tie_an_image_to_its_batch(pair: Pair) -> None:
    assert pair.live.manifest.batch == (1 if pair.name == "dynamic" else None)


def test_activations_are_the_integers_of_the_given_model_decoded() -> None:
    model = quantised(f"{STEM} r = Identity(q) {HEAD}", {})
    tapped = onnx.load_from_string(model)
    tapped.graph.output.append(onnx.helper.make_tensor_value_info("q", onnx.TensorProto.UINT8, None))
    x = pictures(2)[:, :, :8, :8]
    q = run(tapped.SerializeToString(), {"x": x})[1].astype(np.float32)
    want = (q - np.float32(WEIGHTS["z"])) * WEIGHTS["s"]
    live = open_model(model)
    got = named(live, "features", "q", x=x)["activations.0"]
    np.testing.assert_array_equal(got, want)


def test_float_layers_hold_what_the_given_model_holds_there(pair: Pair) -> None:
    """Also where one tensor goes on both in float and in integers, as behind the first activation."""
    tapped = onnx.load_from_string(pair.given)
    kinds = {"Add", "Clip", "Conv", "Relu"}
    made = {name for node in tapped.graph.node if node.op_type in kinds for name in node.output}
    layers = [layer.name for layer in pair.live.manifest.layers if layer.name in made]
    tapped.graph.output.extend(onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in layers)
    assert layers or pair.name == "QOperator"
    x = pictures(1)
    for name, want in zip(layers, run(tapped.SerializeToString(), {"x": x})[1:], strict=True):
        feeds = {"x": x, "target": np.array([0])}
        got = named(pair.live, "gradient", name, **feeds)["activations.0"]
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max(), err_msg=name)


@pytest.mark.parametrize(("step", "zero"), [(0.004, 60), (0.2, 0)])
def test_no_gradient_passes_where_integers_saturate_and_all_of_it_where_they_round(step: float, zero: int) -> None:
    """
    The gradient at the convolution is that of pooling and head, W^T / 64, where the integer is neither 0 nor 255.

    With coarse steps many numbers above the lowest round to it: they count as cut off, in every program.
    """
    narrow = {"s": np.float32(step), "z": np.uint8(zero), "t": np.float32(step), "u": np.uint8(zero)}
    model = quantised(f"{STEM} r = Identity(q) {HEAD}", narrow)
    tapped = onnx.load_from_string(model)
    tapped.graph.output.append(onnx.helper.make_tensor_value_info("q", onnx.TensorProto.UINT8, None))
    x = pictures(2)[:, :, :8, :8]
    q = run(tapped.SerializeToString(), {"x": x})[1]
    inside = (q > 0) & (q < 255)
    assert 0.1 < inside.mean() < 0.9
    live = open_model(model)
    found = named(live, "gradient", "c", x=x, target=np.array([2, 4]))
    want = inside * WEIGHTS["wh"].T[[2, 4], :, None, None] / 64
    np.testing.assert_allclose(found["gradients.0"], want, atol=1e-7)
    acts = named(live, "features", "c", x=x)["activations.0"]
    seed = np.eye(5, dtype="f4")[[2, 4]]
    tail = named(live, "tail_gradient", "c", **{"activations.0": acts, "seed": seed})
    np.testing.assert_allclose(tail["gradients.0"], want, atol=1e-7)


@pytest.mark.parametrize("end", ["y = DequantizeLinear(o, k, kz)", "e = DequantizeLinear(o, k, kz) y = Softmax(e)"])
def test_a_score_at_the_largest_integer_still_has_its_gradient(end: str) -> None:
    held = {
        "w": np.full((4, 5), 90, "i1"),
        "ws": np.float32(0.02),
        "wz": np.int8(0),
        "k": np.float32(0.001),
        "kz": np.uint8(0),
    }
    pooled = "d0 = DequantizeLinear(q, s, z) r0 = Relu(d0) p = GlobalAveragePool(r0) f = Flatten(p) fq = QuantizeLinear(f, s, kz)"
    model = quantised(f"{STEM} {pooled} o = QLinearMatMul(fq, s, kz, w, ws, wz, k, kz) {end}", held)
    live = open_model(model)
    found = named(live, "gradient", "r0", x=pictures(1)[:, :, :8, :8], target=np.array([-1]))
    assert found["logits"].max() == pytest.approx(0.255)
    acts = found["activations.0"]
    pooled_codes = np.round(acts.mean((2, 3)) / WEIGHTS["s"])
    want = np.broadcast_to(1.8 / 64 * (pooled_codes > 0)[..., None, None] * np.ones((8, 8)), acts.shape)
    np.testing.assert_allclose(found["gradients.0"], want, rtol=1e-4)


def test_a_picture_of_bytes_and_probabilities_in_bytes() -> None:
    """As TensorFlow Lite's converters write it: uint8 goes in, uint8 comes out of a softmax."""
    body = (
        "v = DequantizeLinear(x, s, z) h = Transpose<perm=[0, 3, 1, 2]>(v) c = Conv(h, w0, b0) r = QuantizeLinear(c, t, u) "
        "d = DequantizeLinear(r, t, u) p = GlobalAveragePool(d) f = Flatten(p) g = Gemm(f, wh, bh) gq = QuantizeLinear(g, t, u) "
        "gd = DequantizeLinear(gq, t, u) m = Softmax(gd) y = QuantizeLinear(m, k, kz)"
    )
    proto = onnx.load_from_string(quantised(body, {"k": np.float32(1 / 256), "kz": np.uint8(0)}, y="uint8[N,5] y"))
    kind = proto.graph.input[0].type.tensor_type
    kind.elem_type = onnx.TensorProto.UINT8
    kind.shape.dim[1].dim_value, kind.shape.dim[3].dim_value = 8, 3
    live = open_model(proto.SerializeToString())
    manifest = live.manifest
    assert (manifest.head, manifest.input["dtype"]) == ("softmax", "uint8")
    x = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3)).astype(np.uint8)
    (codes,) = run(proto.SerializeToString(), {"x": x})
    logits = named(live, "gradient", manifest.default_layer.name, x=x, target=np.full(3, -1))["logits"]
    steps = logits / WEIGHTS["t"]
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-3)  # they were integers
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_array_equal(np.clip(np.round(shares * 256), 0, 255), codes)
    assert verify(live.classifier, live, [])["parity"]["max_abs"] <= 1 / 256


def test_weights_alone_in_integers_need_no_twin() -> None:
    held = {"w": np.random.default_rng(0).integers(-99, 99, (4, 4, 3, 3)).astype("i1"), "ws": np.float32(0.01)}
    model = quantised(
        "[stem] c = Conv(x, w0, b0) w1 = DequantizeLinear(w, ws) d = Conv(c, w1) p = GlobalAveragePool(d) f = Flatten(p) y = Gemm(f, wh, bh)",
        held,
    )
    live = open_model(model)
    assert live.classifier.quantised is None
    x = pictures(2)[:, :, :8, :8]
    np.testing.assert_allclose(named(live, "forward", x=x)["logits"], run(model, {"x": x})[0], rtol=1e-5)
    assert "quantised" not in live.manifest.model


def test_each_program_holds_only_what_it_needs() -> None:
    live = open_model(quantised(f"{STEM} r = Identity(q) {HEAD}", {}))
    forward = onnx.load_from_string(live.program("forward").model)  # type: ignore[arg-type]
    tail = onnx.load_from_string(live.program("tail", ["q"]).model)  # type: ignore[arg-type]
    assert all(node.name.startswith("given/") for node in forward.graph.node)
    assert not any(node.name.startswith("given/") for node in tail.graph.node)
    features = onnx.load_from_string(live.program("features", ["q"]).model)  # type: ignore[arg-type]
    assert sum(node.op_type == "Conv" for node in features.graph.node) == 1  # one forward, the given model's


def test_the_twin_alone_rounds_as_the_given_model(pair: Pair) -> None:
    alone = twin_alone(load(pair.given))
    for x in pictures()[:, None]:
        (want,), (got,) = run(pair.given, {"x": x}), run(alone, {"x": x})
        assert np.abs(got - want).max() <= 0.03 * np.ptp(want)


def test_manifest_names_the_quantised_operators(pair: Pair) -> None:
    manifest = manifest_of(load(pair.given), name="tiny")
    assert sum(manifest.model["quantised"].values()) >= 3
