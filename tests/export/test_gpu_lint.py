"""
Every kind of program of small classifiers holds nothing that providers for GPUs do not run, beside what the model has.

Single rules are searched by `vjp/check.py`, random graphs by `test_fuzz.py`, whole networks by `test_architectures.py`;
here are programs: what surrounds the gradient, maps, other propagations, and models that are hard on the rules.
"""

from __future__ import annotations

from functools import cache

import onnx_ir as ir
import pytest

from camrt.errors import LayerError, MethodError, MissingRuleError
from camrt.export.live import open_model
from camrt.export.load import Classifier
from camrt.export.manifest import Layer
from camrt.export.programs import EXPLAINED, KINDS, ON_REQUEST, WITHOUT_LAYER, build
from tests import tiny
from tests.export import integers, token_models
from tests.export.gpu_lint import added_offences, offences
from tests.export.onnx_text import CONV, HEAD, tokens
from tests.export.onnx_text import tiny as sketched

EVERY = {**KINDS, **ON_REQUEST, **EXPLAINED}
EARLY = ("gradient", "tail_gradient", "relevance", "lift", "map_gradcam")  # from the first layer too: more rules
SECOND_RUNS = ("relevance", "relevance_bias", "lift", "explained_relevancecam", "explained_liftcam")
# these run the model's own operators again on other values or weights, with the attributes that the model gave them: a
# ConvTranspose that falls off CUDA in the model falls off in them as well
REFUSALS = (LayerError, MethodError, MissingRuleError)  # not every model has every program

STRIDED = (
    '[early] c = Conv<auto_pad="SAME_LOWER", strides=[2, 2]>(x, w1, b1) s = Relu(c) '
    "d = Conv<pads=[0, 1, 2, 0], strides=[3, 2]>(s, w3) e = Relu(d) "
    "k = Conv<pads=[2, 2, 2, 2], dilations=[2, 2], group=2>(e, w4) "
    'g = ConvTranspose<auto_pad="SAME_UPPER", strides=[4, 4]>(k, w3) i = Relu(g) '
    f"j = Conv<strides=[5, 5], pads=[1, 1, 1, 1]>(i, w3) a = Relu(j) {HEAD}"
)
POOLED = (
    f"{CONV} m = MaxPool<kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1]>(a) "
    "n = MaxPool<kernel_shape=[5, 5], pads=[2, 2, 2, 2]>(a) "
    'o = AveragePool<kernel_shape=[3, 2], strides=[2, 2], auto_pad="SAME_UPPER">(n) q = Add(m, o) '
    "r = LpPool<kernel_shape=[2, 2], pads=[1, 0, 0, 1]>(q) t = LRN<size=3>(r) "
    f"{HEAD.replace('(a)', '(t)')}"
)
RESIZED = (
    f"{CONV} border = Constant<value_ints=[0, 0, 1, 1, 0, 0, 1, 1]>() "
    'b = Pad<mode="reflect">(a, border) scales = Constant<value_floats=[1.0, 1.0, 1.5, 0.7]>() '
    f'r = Resize<mode="cubic", antialias=1>(b, , scales) {HEAD.replace("(a)", "(r)")}'
)
MODELS = {
    "average": tiny.gap,
    "softmax": lambda: tiny.gap(softmax=True),
    "two layers": tiny.mlp,
    "transformer": tokens,
    "strided": lambda: sketched(STRIDED, weights={"w3": (4, 4, 3, 3), "w4": (4, 2, 3, 3)}),
    "pooled": lambda: sketched(POOLED),
    "resized": lambda: sketched(RESIZED),
    "quantised": lambda: integers.quantised(f"{integers.STEM} r = Identity(q) {integers.HEAD}", {}),
    **{name: token_models.MODELS[name].build for name in ("distilled", "tokens first", "windows on a grid")},
}


def added(classifier: Classifier, kind: str, layer: Layer) -> tuple[list[ir.Node], list[ir.Node]]:
    """Return what a program has beside the forward pass, and the nodes of that."""
    forward = list(build(classifier, "forward")[0].graph)
    model, _ = build(classifier, kind, () if kind in WITHOUT_LAYER else (layer,))
    known = {node.name for node in forward}
    assert None not in known
    return [node for node in model.graph if node.name not in known], forward


@cache
def searched(name: str) -> dict[tuple[str, str], set[str]]:
    """Return what was found in every program that a model has, by kind and layer."""
    live = open_model(MODELS[name]())
    first, default = live.manifest.layers[0], live.manifest.default_layer
    found = {}
    for kind, layer in [*((kind, default) for kind in EVERY), *((kind, first) for kind in EARLY)]:
        try:
            nodes, forward = added(live.classifier, kind, layer)
        except REFUSALS:
            continue
        assert nodes or kind in ("forward", "features", "tail"), f"{kind} adds nothing, so nothing was searched"
        own = set(offences(forward)) if kind in SECOND_RUNS else set()
        found[kind, layer.name] = set(added_offences(nodes, forward)) - own
    return found


@pytest.mark.parametrize("name", MODELS)
def test_no_program_adds_what_gpus_do_not_run(name: str) -> None:
    assert {place: refused for place, refused in searched(name).items() if refused} == {}


def test_every_kind_of_program_was_searched() -> None:
    assert {kind for name in MODELS for kind, _ in searched(name)} == set(EVERY)


def test_what_the_model_has_itself_is_not_ours() -> None:
    """The search does find the cubic Resize, in the forward pass, where it belongs to the model."""
    forward = build(open_model(MODELS["resized"]()).classifier, "forward")[0].graph
    assert offences(forward) == ["Resize: cubic or antialiased"]


@pytest.mark.parametrize(
    ("node", "why"),
    [
        (("MaxPool", {"kernel_shape": [2, 2]}, 2), "MaxPool: Indices are given away"),
        (("MaxPool", {"kernel_shape": [2, 2], "dilations": [2, 1]}, 1), "MaxPool: dilated"),
        (("AveragePool", {"kernel_shape": [2, 2], "dilations": [1, 2]}, 1), "AveragePool: dilated"),
        (("MaxUnpool", {"kernel_shape": [2, 2]}, 1), "MaxUnpool: TensorRT does not know it"),
        (("Col2Im", {}, 1), "Col2Im: TensorRT does not know it"),
        (("ScatterND", {"reduction": "add"}, 1), "ScatterND: TensorRT knows no reduction"),
        (("Loop", {}, 1), "Loop: control flow"),
        (("ConvTranspose", {"pads": [0, 1, 1, 1]}, 1), "ConvTranspose: with asymmetric pads"),
        (("ConvTranspose", {"auto_pad": "VALID"}, 1), "ConvTranspose: with auto_pad"),
        (("ConvTranspose", {"output_shape": [4, 4]}, 1), "ConvTranspose: with output_shape"),
        (("Resize", {"mode": "cubic"}, 1), "Resize: cubic"),
        (("TopK", {}, 2), "TopK: K is not a constant"),
        (("ReduceSum", {}, 1), "ReduceSum: axes are not constant"),
        (("ConvTranspose", {"pads": [1, 0, 1, 0], "output_padding": [1, 0]}, 1), ""),
        (("MaxPool", {"kernel_shape": [2, 2], "dilations": [1, 1]}, 1), ""),
        (("ScatterElements", {"reduction": "add"}, 1), ""),
    ],
)
def test_the_search_finds_what_it_is_for(node: tuple[str, dict[str, object], int], why: str) -> None:
    op, attributes, outputs = node
    made = ir.node(op, [ir.Value(name="a"), ir.Value(name="b")], attributes, num_outputs=outputs)
    for i, value in enumerate(made.outputs):
        value.name = f"y{i}"
    found = offences([made])
    assert len(found) == bool(why)
    assert all(text.startswith(why) for text in found)


def test_an_operator_of_another_domain_is_named() -> None:
    assert offences([ir.node("ReluGrad", [], domain="com.microsoft")]) == ["ReluGrad: of domain com.microsoft"]
