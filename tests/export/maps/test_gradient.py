"""Methods of activations and gradients inside the graph equal their NumPy form, which is the specification."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

import camrt
from camrt.export.maps import MAPS
from camrt.export.vjp.emit import Emit
from camrt.methods import METHODS, raw_map
from tests import tiny
from tests.export.maps.run import DIRECT, DOUBLE, FROM_ARRAYS, evaluate, specified


@pytest.mark.parametrize("method", [m for m in FROM_ARRAYS if "grads" in MAPS[m].needs])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 5, 4, 6), (2, 17, 1, 3)])
def test_the_graph_and_the_method_agree_in_float64(
    method: str, shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    acts, grads = rng.normal(size=shape), rng.normal(size=shape)
    grads[rng.random(shape) < 0.2] = 0
    want = specified(method, acts, grads)
    raw, signed, flags = evaluate(method, acts, grads)
    np.testing.assert_allclose(raw, want.array, rtol=1e-10, atol=1e-12)
    if MAPS[method].assumes_positive:
        np.testing.assert_array_equal(signed, want.flags["signed_activations"])
    for name, flag in flags.items():
        np.testing.assert_array_equal(flag, want.flags[name])


def test_a_channel_whose_sum_cancels_is_skipped_and_counted_in_either() -> None:
    acts = np.array([[[[1.0, -1.0]], [[2.0, 1.0]], [[0.0, 0.0]]]])
    for grads in (np.ones_like(acts), np.ones((1, 3, 1, 1))):
        raw, _, flags = evaluate("xgradcam", acts, grads)
        np.testing.assert_array_equal(flags["skipped_channels"], [2])
        np.testing.assert_array_equal(raw, [[[2.0, 1.0]]])  # the mean gradient of the one channel left is 1
    want = specified("xgradcam", acts, np.ones_like(acts))
    np.testing.assert_array_equal(want.flags["skipped_channels"], [2])
    np.testing.assert_array_equal(want.array, [[[2.0, 1.0]]])


def test_a_uniform_gradient_may_stay_unexpanded(rng: np.random.Generator) -> None:
    acts, grads = rng.normal(size=(3, 5, 4, 6)), rng.normal(size=(3, 5, 1, 1))
    for method in FROM_ARRAYS:
        short, *_ = evaluate(method, acts, grads)
        full, *_ = evaluate(method, acts, np.broadcast_to(grads, acts.shape).copy())
        np.testing.assert_allclose(short, full, rtol=1e-10, atol=1e-12)


def test_fullgrad_scales_each_tensor_as_a_whole(rng: np.random.Generator) -> None:
    terms = [rng.normal(size=shape) for shape in ((2, 3, 6, 5), (2, 4, 3, 2), (2, 2, 1, 1), (2, 5, 6, 5))]
    terms[1][0] = 7  # constant: scaled to nothing
    values = [ir.Value(name=f"t{i}", shape=ir.Shape(["N", *t.shape[1:]]), type=DOUBLE) for i, t in enumerate(terms)]
    graph = ir.Graph(values, [], nodes=[], opset_imports={"": 18}, name="full")
    drawn = MAPS["fullgrad"].function(Emit(graph, "f"), values, (6, 5))
    assert isinstance(drawn, ir.Value)
    graph.outputs.append(drawn)
    feeds = {f"t{i}": t for i, t in enumerate(terms)}
    (raw,) = ReferenceEvaluator(ir.to_proto(ir.Model(graph, ir_version=9))).run(None, feeds)
    evidence = {"x": np.ones(terms[0].shape), "size": (6, 5), "seed": lambda: None}
    evidence |= {"full_of": lambda *_: (terms[0], terms[1:])}
    want = raw_map(METHODS["fullgrad"], evidence, variant="official", options={}).array
    np.testing.assert_allclose(raw, want, atol=1e-12)


def test_shares_of_a_channel_are_summed_for_liftcam(rng: np.random.Generator) -> None:
    acts, multipliers = rng.normal(size=(2, 5, 3, 4)), rng.normal(size=(2, 5, 3, 4))
    shares = {
        "acts": acts,
        "ids": None,
        "piecewise": True,
        "seed": lambda: None,
        "lift_of": lambda _: acts * multipliers,
    }
    evidence = {**shares, "gradients_of": None, "logits_from": None}
    row = METHODS["liftcam"]
    options = {name: option.default for name, option in row.options.items()}
    want = raw_map(row, evidence, variant="official", options=options).array
    np.testing.assert_allclose(evaluate("liftcam", acts, multipliers)[0], want, rtol=1e-10, atol=1e-12)


def test_a_cell_whose_denominator_cancels_counts_nothing_in_either() -> None:
    grads = np.ones((1, 1, 1, 2))
    acts = np.array([[[[-1.0, -1.0]]]])  # 2 + g sum(A) = 0
    row = METHODS["gradcampp"]
    want = raw_map(row, {"acts": acts, "grads": grads}, variant="paper", options={}).array
    np.testing.assert_array_equal(evaluate("gradcampp", acts, grads)[0], want)
    assert (want == 0).all()


@pytest.mark.parametrize("method", DIRECT)
@pytest.mark.parametrize("model", [tiny.gap, tiny.mlp])
def test_an_explainer_gives_the_same_map_by_either_way(method: str, model: object) -> None:
    explainer, x = camrt.load(model(), preprocess="half"), tiny.images(4)  # type: ignore[operator]
    in_graph = explainer.explain(x, method=method, target=2)
    in_numpy = explainer.explain(x, method=method, target=[2, 0])
    scale = np.abs(in_numpy.raw[:, 0]).max()
    np.testing.assert_allclose(in_graph.raw[:, 0], in_numpy.raw[:, 0], atol=1e-5 * scale)
    assert set(in_graph.flags) == set(in_numpy.flags)
    np.testing.assert_array_equal(in_graph.targets[:, 0], in_numpy.targets[:, 0])


def _edited(position: int, *nodes: onnx.NodeProto, **arrays: np.ndarray) -> bytes:
    """Return the tiny GAP model with the node at `position` replaced."""
    model = onnx.load_from_string(tiny.gap())
    kept = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*kept[:position], *nodes, *kept[position + 1 :]])
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in arrays.items())
    return bytes(model.SerializeToString())


def channels_last() -> bytes:
    """Return a model whose last layer and its global average have the channels last."""
    turn = helper.make_node("Transpose", ["c2"], ["t2"], "turn", perm=[0, 2, 3, 1])
    relu = helper.make_node("Relu", ["t2"], ["a2"], "relu")
    return _edited(3, turn, relu)


def test_a_channels_last_average_is_not_taken_for_a_channels_first_one() -> None:
    model = onnx.load_from_string(channels_last())
    place = next(i for i, node in enumerate(model.graph.node) if node.op_type == "GlobalAveragePool")
    model.graph.node[place].CopyFrom(
        helper.make_node("ReduceMean", ["a2"], ["pooled"], "mean", axes=[1, 2], keepdims=1)
    )
    turned = camrt.load(model.SerializeToString(), preprocess="half")
    plain, x = camrt.load(tiny.gap(), preprocess="half"), tiny.images(3)
    assert next(layer.layout for layer in turned.layers if layer.default) == "nhwc"
    for method in DIRECT:
        got, want = (e.explain(x, method=method, target=1).raw for e in (turned, plain))
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize(("lowest", "is_signed"), [(-1.0, True), (0.0, False)])
def test_a_clip_that_lets_negative_values_through_is_flagged(lowest: float, is_signed: bool) -> None:
    clip = helper.make_node("Clip", ["c2", "lowest", "highest"], ["a2"], "clip")
    bounds = {"lowest": np.float32(lowest), "highest": np.float32(6)}
    model = _edited(3, clip, **{name: np.asarray(value) for name, value in bounds.items()})
    result = camrt.load(model, preprocess="half").explain(tiny.images(3), method="layercam", target=1)
    assert (result.flags["signed_activations"] == is_signed).all()
