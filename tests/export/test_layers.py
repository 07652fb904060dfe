"""Which tensors are layers, in which layout, which one is the default, and where CAM's linear head is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from camrt.errors import LayerError
from camrt.export.layers import AUTO_TORCHCAM, find, linear_layers, resolve, value_of
from camrt.export.live import open_model
from camrt.export.load import load
from camrt.export.manifest import Layer
from tests.export.judge import run_program
from tests.export.onnx_text import CONV, HEAD, tiny, tokens
from tests.export.token_models import MODELS, SIZE

POOLED = "p = MaxPool<kernel_shape=[2, 2], strides=[2, 2]>(a)"
FLAT = "f = Flatten(a)  y = Gemm(f, w9, b2)"


def found(data: bytes) -> dict[str, Layer]:
    """Return the layers of a model by name."""
    return {layer.name: layer for layer in find(load(data))}


def default(data: bytes) -> Layer:
    """Return the default layer of a model."""
    (chosen,) = [layer for layer in found(data).values() if layer.default]
    return chosen


def test_tensors_with_a_grid_are_layers_and_the_last_activation_is_the_default() -> None:
    layers = found(tiny())
    assert list(layers) == ["c", "a"]  # not the pooled (N, 4, 1, 1), not what is flattened
    assert layers["a"] == Layer(
        "a",
        "act",
        "Relu",
        "",
        ("N", 4, 8, 8),
        "nchw",
        4,
        (8, 8),
        0,
        True,
        "default: the last tensor with a grid before the head",
        piecewise=True,
    )
    assert layers["c"].default is False


def test_a_tensor_beside_the_path_to_the_logits_is_no_layer() -> None:
    data = tiny(f"{CONV} d = Neg(c) {HEAD} o = ReduceMax<keepdims=0>(d)", y="float[N,5] y, float o")
    assert "d" not in {layer.name for layer in find(load(data, output="y"))}


NHWC: dict[str, Any] = {"x": "float[N,8,8,3] x"}
LAST = (
    "t = Transpose<perm=[0, 3, 1, 2]>(x) c = Conv<pads=[1, 1, 1, 1]>(t, w1, b1) u = Transpose<perm=[0, 2, 3, 1]>(c) "
    "a = Relu(u) b = Mul(a, two)"
)


def test_channels_last_tensors_are_told_by_the_transposes() -> None:
    body = f"{LAST} v = Transpose<perm=[0, 3, 1, 2]>(b) {HEAD.replace('(a)', '(v)')}"
    layers = found(tiny(body, weights={"two": np.float32(2)}, **NHWC))
    assert {name: layer.layout for name, layer in layers.items()} == {"c": "nchw", "a": "nhwc", "b": "nhwc"}
    assert (layers["b"].channels, layers["b"].grid, layers["b"].shape) == (4, (8, 8), ("N", 8, 8, 4))
    assert layers["b"].default


def test_an_operator_on_a_channels_last_image_gives_a_channels_last_layer() -> None:
    body = (
        f"s = Mul(x, two) {LAST.replace('(x)', '(s)')} v = Transpose<perm=[0, 3, 1, 2]>(b) {HEAD.replace('(a)', '(v)')}"
    )
    layer = found(tiny(body, weights={"two": np.float32(2)}, **NHWC))["s"]
    assert (layer.layout, layer.channels, layer.grid) == ("nhwc", 3, (8, 8))


@pytest.mark.parametrize(
    "body",
    [
        "f = Flatten(x) h = Gemm(f, w7, b1) r = Relu(h) y = Gemm(r, w2, b2)",
        "p = GlobalAveragePool(x) c = Conv(p, w8, b1) a = Relu(c) f = Flatten(a) y = Gemm(f, w2, b2)",
    ],
    ids=["linear", "pooled_first"],
)
def test_a_model_without_a_grid_is_refused(body: str) -> None:
    data = tiny(body, weights={"w7": (192, 4), "w8": (4, 3, 1, 1)})
    with pytest.raises(LayerError, match="no tensor of this model has a spatial grid") as caught:
        find(load(data))
    assert "\n" not in str(caught.value)


# tokens ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize(("cls", "prefix"), [(True, 1), (False, 0)])
def test_tokens_are_a_grid_behind_a_prefix(heads: int, cls: bool, prefix: int) -> None:
    layers = found(tokens(heads=heads, cls=cls))
    layer = layers["n0"]
    assert (layer.layout, layer.prefix, layer.grid, layer.channels) == ("tokens", prefix, (4, 4), 6)
    assert layer.shape == ("N", 16 + prefix, 6)
    assert layers["e"].layout == "nchw"


@pytest.mark.parametrize("heads", [1, 2])
def test_scores_and_heads_of_an_attention_are_no_layers(heads: int) -> None:
    names = set(found(tokens(heads=heads)))
    assert not names & {"a0", "b0", "p0", "h0", "a1", "b1", "p1", "h1", "q0h", "k0h", "v0h"}
    assert {"t0", "n0", "t1", "n1", "t2", "f"} <= names


def test_tokens_as_wide_as_they_are_many_are_still_layers() -> None:
    names = found(tokens(width=16, cls=False))
    assert {"n0", "t1", "n1", "t2"} <= set(names)
    assert not set(names) & {"a0", "b0", "p0", "h0"}
    assert default(tokens(width=16, cls=False)).name == "f"


# token models ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["registers", "tokens first", "windows on a grid"])
def test_a_tail_takes_the_place_of_what_lies_before_a_token_layer(name: str) -> None:
    live = open_model(MODELS[name].build())
    layer = live.manifest.default_layer.name
    x = np.random.default_rng(2).normal(size=(2, 3, *SIZE)).astype(np.float32)
    features = run_program(live.program("features", [layer]), x=x)
    tail = live.program("tail", [layer])
    fed = {k.replace(".", "__"): v for k, v in features.items() if k in tail.inputs}
    np.testing.assert_allclose(run_program(tail, **fed)["logits"], features["logits"], rtol=1e-5, atol=1e-6)


def test_a_cell_of_a_token_layer_is_where_its_patch_is() -> None:
    x = np.zeros((24, 3, *SIZE), np.float32)
    for cell in range(24):
        row, column = divmod(cell, 6)
        x[cell, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = 1
    live = open_model(MODELS["linear patches"].build())
    layer = next(item for item in live.manifest.layers if item.layout == "tokens")
    lit, dark = (run_program(live.program("features", [layer.name]), x=v)["activations.0"] for v in (x, 0 * x))
    changed = np.abs(lit - dark).sum(axis=1).reshape(24, 24) > 0
    assert np.array_equal(changed, np.eye(24, dtype=bool))


# grid and prefix said by the caller --------------------------------------------------------------------------------


def test_grid_and_prefix_can_be_said() -> None:
    classifier = load(tokens())
    assert resolve(find(classifier, grid=(2, 8)), None).grid == (2, 8)
    (layer,) = [item for item in find(classifier, grid=(3, 4), prefix=5) if item.default]
    assert (layer.name, layer.grid, layer.prefix) == ("n1", (3, 4), 5)
    assert resolve(find(classifier, prefix=1), None).grid == (4, 4)


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        ({"grid": (5, 5)}, r"no token tensor fits grid=\(5, 5\).*are 6, 16, 17 long"),
        ({"prefix": 2}, "no token tensor fits grid=None and prefix=2"),
        ({"grid": (4, 4), "prefix": 3}, r"h\*w \+ prefix must be the number of tokens"),
        ({"grid": (1, 1)}, "more than one cell"),
        ({"grid": (0, 4)}, "more than one cell"),
        ({"prefix": -1}, "prefix is 0 or more"),
    ],
)
def test_a_grid_that_does_not_fit_is_refused(said: dict[str, Any], wrong: str) -> None:
    with pytest.raises(LayerError, match=wrong) as caught:
        find(load(tokens()), **said)
    assert "\n" not in str(caught.value)


# names -------------------------------------------------------------------------------------------------------------


def test_a_layer_is_found_by_name_and_without_one_it_is_the_default() -> None:
    layers = find(load(tiny(f"{CONV} {POOLED} q = Flatten(p) y = Gemm(q, w9, b2)", weights={"w9": (64, 5)})))
    assert resolve(layers, None).name == "a"
    assert resolve(layers, "stem").name == "c"
    assert resolve(layers, AUTO_TORCHCAM).name == "p"
    with pytest.raises(LayerError, match=r"no layer 'sten'.*near names: .*'stem'"):
        resolve(layers, "sten")


def test_the_tensor_of_a_layer_is_found_in_a_copy_of_its_model_alone() -> None:
    classifier = load(tiny())
    layer = find(classifier)[0]
    copy = classifier.model.clone()
    assert value_of(copy, layer) in [value for node in copy.graph for value in node.outputs]
    with pytest.raises(LayerError, match="belongs to another model"):
        value_of(copy, replace(layer, name="elsewhere"))


# linear heads ------------------------------------------------------------------------------------------------------

AVERAGES = {
    "global": "p = GlobalAveragePool(a)",
    "window": "p = AveragePool<kernel_shape=[8, 8]>(a)",
    "mean": "axes = Constant<value_ints=[2, 3]>() p = ReduceMean(a, axes)",
    "mean_from_the_end": "axes = Constant<value_ints=[-1, -2]>() p = ReduceMean(a, axes)",
}


@pytest.mark.parametrize("average", AVERAGES)
def test_an_average_and_one_linear_layer_make_a_linear_head(average: str) -> None:
    classifier = load(tiny(f"{CONV} {AVERAGES[average]} {HEAD.split('(a)')[1]}"))
    assert linear_layers(classifier, find(classifier)) == ("a",)


@pytest.mark.parametrize(
    ("body", "weights"),
    [
        (f"{CONV} {FLAT}", {"w9": (256, 5)}),
        (f"{CONV} p = GlobalMaxPool(a) {HEAD.split('(a)')[1]}", {}),
        (f"{CONV} {AVERAGES['global']} f = Flatten(p) h = Gemm(f, w3) r = Relu(h) y = Gemm(r, w2, b2)", {"w3": (4, 4)}),
        (
            f"{CONV} p = AveragePool<kernel_shape=[4, 4], strides=[4, 4]>(a) f = Flatten(p) y = Gemm(f, w4, b2)",
            {"w4": (16, 5)},
        ),
        (
            f"{CONV} {AVERAGES['global']} s = Sigmoid(p) m = Mul(a, s) q = GlobalMaxPool(m) f = Flatten(q) y = Gemm(f, w2, b2)",
            {},
        ),
    ],
    ids=["flatten", "maximum", "two_linear", "window", "gate"],
)
def test_any_other_head_is_not_linear(body: str, weights: dict[str, Any]) -> None:
    classifier = load(tiny(body, weights=weights))
    assert linear_layers(classifier, find(classifier)) == ()


def test_a_pointwise_convolution_before_the_average_is_the_linear_layer() -> None:
    body = f"{CONV} q = Conv(a, w3) p = GlobalAveragePool(q) y = Flatten(p)"
    classifier = load(tiny(body, weights={"w3": (5, 4, 1, 1)}))
    assert linear_layers(classifier, find(classifier)) == ("q", "a")


@pytest.mark.parametrize("name", MODELS)
def test_the_mean_of_all_tokens_is_a_global_average_and_nothing_else_is(name: str) -> None:
    classifier = load(MODELS[name].build())
    has_mean = name in ("mean of tokens", "windows on a grid", "windows on a sequence", "channels-last block", "mixer")
    assert linear_layers(classifier, find(classifier)) == (("wanted",) if has_mean else ())


def test_a_softmax_behind_a_linear_head_changes_nothing() -> None:
    classifier = load(tiny(f"{CONV} {HEAD} z = Softmax(y)", y="float[N,5] z"))
    assert linear_layers(classifier, find(classifier)) == ("a",)


@pytest.mark.parametrize(("back", "is_linear"), [("0, 3, 1, 2", True), ("0, 1, 2, 3", False), ("0, 2, 1, 3", False)])
def test_a_pool_behind_a_transpose_is_global_where_the_channels_are_first_again(back: str, is_linear: bool) -> None:
    body = (
        f"{CONV} b = Transpose<perm=[0, 2, 3, 1]>(a) d = Mul(b, one) t = Transpose<perm=[{back}]>(d) "
        "p = GlobalAveragePool(t) f = Flatten(p) y = Gemm(f, w8, b2)"
    )
    classifier = load(tiny(body, weights={"one": np.float32(1), "w8": (4 if is_linear else 8, 5)}))
    assert linear_layers(classifier, find(classifier)) == (("d",) if is_linear else ())
