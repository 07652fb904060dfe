"""Weights drawn anew: which, from what range, the same for the same layer, and nothing else touched."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from camrt.errors import BundleError, LayerError, ModelError
from camrt.export import export
from camrt.export.bundle import read
from camrt.export.half import Half
from camrt.export.live import open_model
from camrt.export.load import Classifier, load
from camrt.export.randomised import randomised, weight_layers
from tests import tiny
from tests.export import integers
from tests.export.onnx_text import classifier, tokens

Array = np.ndarray[Any, Any]

BATCH_NORM = (
    "[conv1] c1 = Conv<pads=[1, 1, 1, 1]>(x, w1) [bn1] n1 = BatchNormalization(c1, g1, b1, m1, v1) [relu] a1 = Relu(n1) "
    "[bn0] n0 = BatchNormalization(a1, g0, b0, m0, v0) [conv2] c2 = Conv<pads=[1, 1, 1, 1]>(n0, w2, z2) "
    "[pool] p = GlobalAveragePool(c2) [flat] f = Flatten(p) [head] l = MatMul(f, w3) [bias] y = Add(b3, l)"
)
SHAPES = {
    "w1": (4, 3, 3, 3), "g1": (4,), "b1": (4,), "m1": (4,), "g0": (4,), "b0": (4,), "m0": (4,), "w2": (6, 4, 3, 3),
    "z2": (6,), "w3": (6, 5), "b3": (5,),
}  # fmt: skip


def normed(**changes: Any) -> bytes:
    """Return a model with norms behind and before convolutions, and a bias that is added to a product."""
    spread = {name: np.full(4, 0.7, np.float32) for name in ("v1", "v0")}
    return bytes(classifier(BATCH_NORM, {**SHAPES, **spread, **changes}).SerializeToString())


def weights(given: Classifier) -> dict[str, Array]:
    """Return the floating-point constants by name."""
    found = given.model.graph.initializers.items()
    return {name: value.const_value.numpy() for name, value in found if value.dtype.is_floating_point()}  # type: ignore[union-attr]


def logits(given: Classifier, x: Array) -> Array:
    """Run the graph."""
    session = onnxruntime.InferenceSession(
        ir.to_proto(given.model).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    scores: Array = session.run(None, {given.x.name: x})[0]
    return scores


def changed(before: Classifier, after: Classifier) -> set[str]:
    """Name the constants that differ."""
    old, new = weights(before), weights(after)
    assert old.keys() == new.keys()
    return {name for name in old if not np.array_equal(old[name], new[name])}


def test_layers_are_listed_from_the_logits_to_the_image() -> None:
    names = [layer.name for layer in weight_layers(load(tiny.mlp()))]
    assert names == ["/fc2/Gemm", "/fc1/Gemm", "/stage2/conv/Conv", "/stage1/conv/Conv"]


def test_a_norm_and_an_added_bias_belong_to_the_layer_before_them() -> None:
    head, second, first = weight_layers(load(normed()))
    assert (head.name, head.drawn, head.scales) == ("head", ["w3", "b3"], [])
    assert (second.name, second.drawn, second.scales) == ("conv2", ["w2", "z2"], [])
    assert (first.name, first.drawn) == ("conv1", ["w1"])
    assert (sorted(first.scales), sorted(first.shifts)) == (["g0", "g1"], ["b0", "b1"])


@pytest.mark.parametrize(
    ("body", "shapes", "fan_in"),
    [
        ("[op] t = Conv<pads=[1, 1, 1, 1]>(x, w)", {"w": (4, 3, 3, 3)}, 27),
        ("[op] t = Conv<group=3>(x, w)", {"w": (6, 1, 2, 5)}, 10),
        ("[op] t = ConvTranspose<strides=[2, 2]>(x, w)", {"w": (3, 4, 2, 2)}, 12),
        ("[op] t = ConvTranspose<group=3>(x, w)", {"w": (3, 2, 4, 4)}, 16),
        ("[op] t = MatMul(x, w)", {"w": (8, 7)}, 8),
        ("[op] t = MatMul(x, w)", {"w": (3, 8, 7)}, 8),
        ("[op] t = MatMul(w, x)", {"w": (7, 8)}, 8),
        ("[op] t = Einsum<equation=\"nchw, chk -> nkw\">(x, w) ", {"w": (3, 8, 7)}, 24),
        ("[op] t = Einsum<equation=\"...w,wk->...k\">(x, w)", {"w": (8, 7)}, 8),
        ("[flat] f = Flatten(x) [op] t = Gemm(f, w)", {"w": (192, 4)}, 192),
        ("[flat] f = Flatten(x) [op] t = Gemm<transB=1>(f, w)", {"w": (4, 192)}, 192),
        ("[turn] i = Transpose<perm=[1, 0]>(w) [flat] f = Flatten(x) [op] t = MatMul(f, i)", {"w": (4, 192)}, 192),
        ("w = Constant<value=float[8, 1] {1, 2, 3, 4, 5, 6, 7, 8}>() [op] t = MatMul(x, w)", {}, 8),
    ],
)  # fmt: skip
def test_fan_in_counts_the_products_in_one_sum(body: str, shapes: dict[str, Any], fan_in: int) -> None:
    model = classifier(
        f"{body} [flatter] u = Flatten(t) axes = Constant<value=int64[1] {{1}}>() m = ReduceMean<keepdims=1>(u, axes) "
        "[wide] y = Mul(m, five)",
        {**shapes, "five": np.arange(1, 6, dtype=np.float32)[None]},
    )
    (layer,) = weight_layers(load(model.SerializeToString()))
    assert (layer.name, layer.fan_in) == ("op", fan_in)


def test_numbers_are_even_within_the_range_of_the_fan_in() -> None:
    shapes = {"w1": (4, 3, 3, 3), "w2": (96, 4, 3, 3), "z2": (96,), "w3": (96, 5)}
    given = load(normed(**shapes))
    made = weights(randomised(given, ["conv2", "head"], 3))
    for name, fan_in in (("w2", 36), ("z2", 36), ("w3", 96), ("b3", 96)):
        assert np.abs(made[name]).max() <= fan_in**-0.5
    drawn = np.sort(made["w2"].ravel() * 6)  # of U(-1, 1): 3456 numbers
    even = np.linspace(-1, 1, drawn.size)
    assert np.abs(drawn - even).max() < 2 * 1.95 / drawn.size**0.5  # Kolmogorov's bound at 0.1 %
    assert abs(np.corrcoef(made["w2"].ravel()[:-1], made["w2"].ravel()[1:])[0, 1]) < 0.06


def test_nothing_but_the_layer_changes_and_the_given_model_stays() -> None:
    given = load(normed())
    before, bytes_before = weights(given), ir.to_proto(given.model).SerializeToString()
    assert changed(given, randomised(given, ["head"])) == {"w3", "b3"}
    other = randomised(given, ["conv1"])
    assert changed(given, other) == {"w1", "g1", "b1", "g0", "b0"}
    made = weights(other)
    for scale, shift in (("g1", "b1"), ("g0", "b0")):
        assert (made[scale] == 1).all()
        assert not made[shift].any()
    assert changed(given, randomised(given, [])) == set()
    assert all(np.array_equal(array, before[name]) for name, array in weights(given).items())
    assert ir.to_proto(given.model).SerializeToString() == bytes_before


def test_a_layer_is_drawn_alike_whatever_else_is() -> None:
    given = load(tiny.mlp())
    alone, together = randomised(given, ["/fc1/Gemm"], 4), randomised(given, ["/fc2/Gemm", "/fc1/Gemm"], 4)
    assert np.array_equal(weights(alone)["hidden"], weights(together)["hidden"])
    assert changed(alone, randomised(given, ["/fc1/Gemm"], 5)) == {"hidden", "hidden_bias"}
    assert changed(alone, randomised(load(tiny.mlp(seed=9)), ["/fc1/Gemm"], 4)).isdisjoint({"hidden", "hidden_bias"})


def test_the_graph_is_the_given_one_with_other_numbers() -> None:
    data = tiny.gap()
    other = randomised(load(data), ["/head/Gemm", "/stage1/conv/Conv"], 1)
    model, made = onnx.load_from_string(data), weights(other)
    for tensor in model.graph.initializer:  # the numbers, put into the file by hand
        tensor.CopyFrom(onnx.numpy_helper.from_array(made[tensor.name], tensor.name))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x = tiny.images()
    np.testing.assert_allclose(logits(other, x), session.run(None, {"image": x})[0], rtol=1e-5, atol=1e-6)
    assert not np.allclose(logits(other, x), logits(load(data), x), atol=0.01)


def test_a_weight_that_two_operators_read_is_drawn_once() -> None:
    body = (
        "[a] c1 = Conv<pads=[1, 1, 1, 1]>(x, w, b1) [b] c2 = Conv<pads=[1, 1, 1, 1]>(c1, w, b2) "
        "[pool] p = GlobalAveragePool(c2) [flat] f = Flatten(p) [head] y = Gemm(f, wh, b1)"
    )
    shapes = {"w": (3, 3, 3, 3), "b1": (3,), "b2": (3,), "wh": (3, 3)}
    layers = weight_layers(load(classifier(body, shapes, y="float[N,3] y").SerializeToString()))
    assert [(layer.name, layer.drawn) for layer in layers] == [("head", ["wh", "b1"]), ("b", ["w", "b2"])]


def test_weights_that_the_file_lists_as_inputs_are_drawn_too() -> None:
    model = onnx.load_from_string(tiny.gap())
    for tensor in model.graph.initializer:
        model.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, 1, tensor.dims))
    given = load(model.SerializeToString())
    assert changed(given, randomised(given, ["/head/Gemm"])) == {"head", "bias"}
    assert weights(randomised(given, ["/head/Gemm"]))["head"].dtype == np.float32


def test_a_transformers_products_are_layers_and_its_norms_go_with_them() -> None:
    given = load(tokens())
    layers = weight_layers(given)
    want = [name for i in (1, 0) for name in (f"wo{i}", f"wv{i}", f"wk{i}", f"wq{i}")]
    assert [layer.drawn[0] for layer in layers] == ["wh", *want, "wp"]
    assert changed(given, randomised(given, [layers[-1].name])) == {"wp", "g", "z"}


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(LayerError, match=r"no layer of weights '/fc3/Gemm'.*'/fc2/Gemm'"):
        randomised(load(tiny.mlp()), ["/fc3/Gemm"])
    flat = "axes = Constant<value=int64[3] {1, 2, 3}>() m = ReduceMean<keepdims=0>(x, axes) one = Constant<value=int64[1] {1}>() "
    flat += "u = Unsqueeze(m, one) y = Mul(u, five)"
    with pytest.raises(ModelError, match="no convolution"):
        weight_layers(load(classifier(flat, {"five": np.ones((1, 5), "f4")}).SerializeToString()))


def test_of_a_quantised_model_the_float_twin_is_drawn() -> None:
    body = f"{integers.STEM} d0 = DequantizeLinear(q, s, z) r0 = Relu(d0) r = QuantizeLinear(r0, t, u) {integers.HEAD}"
    live = open_model(integers.quantised(body, {}))
    with pytest.raises(ModelError, match="precision='twin'"):
        live.weight_layers()
    twin = live.twin()
    assert twin.weight_layers() == ("head", "stem")
    assert changed(twin.classifier, twin.randomised(["head"]).classifier) == {"wh", "bh"}


def test_a_model_in_memory_says_what_was_drawn_and_keeps_its_layers() -> None:
    live = open_model(tiny.mlp())
    other = live.randomised(["/fc1/Gemm"], 2)
    assert other.manifest.model["randomised"] == {"layers": ["/fc1/Gemm"], "seed": 2}
    assert "randomised" not in live.manifest.model
    assert other.manifest.layers == live.manifest.layers
    half = Half(live).randomised(["/fc1/Gemm"], 2)
    assert isinstance(half, Half)
    x = {"x": tiny.images()}
    found = [onnxruntime.InferenceSession(source.program("forward").model).run(None, x)[0] for source in (other, half)]
    np.testing.assert_allclose(found[0], found[1], atol=0.02)
    np.testing.assert_allclose(found[0], logits(other.classifier, x["x"]), rtol=1e-5, atol=1e-6)
    assert Half(live).weight_layers() == live.weight_layers()


def test_a_bundle_refuses(tmp_path: Any) -> None:
    export(tiny.gap(), tmp_path / "bundle", kinds=["forward"])
    with pytest.raises(BundleError, match=r"open the \.onnx file"):
        read(tmp_path / "bundle").randomised(["/head/Gemm"])
