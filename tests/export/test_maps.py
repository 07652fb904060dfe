"""Methods inside the graph equal their NumPy form, which is the specification."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

import camrt
from camrt.export.maps import ASSUMES_POSITIVE, MAPS, finished, is_signed
from camrt.export.vjp.emit import Emit
from camrt.methods import METHODS, raw_map
from camrt.pipeline import PIPELINES
from tests import tiny


def evaluate(method: str, acts: np.ndarray, grads: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Run a method's nodes in float64 in the reference evaluator; also the sign of the activations."""
    double = ir.TensorType(ir.DataType.DOUBLE)
    a, g = (ir.Value(name=n, shape=ir.Shape(["N", *v.shape[1:]]), type=double) for n, v in (("a", acts), ("g", grads)))
    graph = ir.Graph([a, g], [], nodes=[], opset_imports={"": 18}, name="map")
    e = Emit(graph, "map")
    graph.outputs.extend([MAPS[method](e, a, g), is_signed(e, a)])
    raw, signed = ReferenceEvaluator(ir.to_proto(ir.Model(graph, ir_version=9))).run(None, {"a": acts, "g": grads})
    return np.asarray(raw), np.asarray(signed)


@pytest.mark.parametrize("method", sorted(MAPS))
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 5, 4, 6), (2, 17, 1, 3)])
def test_the_graph_and_the_method_agree_in_float64(
    method: str, shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    acts, grads = rng.normal(size=shape), rng.normal(size=shape)
    grads[rng.random(shape) < 0.2] = 0
    row = METHODS[method]
    want = raw_map(row, {"acts": acts, "grads": grads}, variant=row.variants[0], options={})
    raw, signed = evaluate(method, acts, grads)
    np.testing.assert_allclose(raw, want.array, rtol=1e-10, atol=1e-12)
    if method in ASSUMES_POSITIVE:
        np.testing.assert_array_equal(signed, want.flags["signed_activations"])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("grid", "size"), [((7, 7), (224, 224)), ((1, 5), (12, 7)), ((6, 4), (3, 9)), ((1, 1), (8, 8))]
)
def test_finishing_in_the_graph_is_the_default_pipeline(
    grid: tuple[int, int], size: tuple[int, int], dtype: type, rng: np.random.Generator
) -> None:
    raw = rng.normal(size=(5, *grid)).astype(dtype)
    raw[1], raw[2], raw[3] = -1, 0.7, 0  # nothing positive, constant, nothing at all
    value = ir.Value(
        name="r", shape=ir.Shape(["N", *grid]), type=ir.TensorType(ir.DataType.from_numpy(np.dtype(dtype)))
    )
    graph = ir.Graph([value], [], nodes=[], opset_imports={"": 18}, name="finish")
    graph.outputs.extend(finished(Emit(graph, "f"), value, size))
    heat, flat = ReferenceEvaluator(ir.to_proto(ir.Model(graph, ir_version=9))).run(None, {"r": raw})
    want, degenerate = PIPELINES["camrt"](raw, size, True)
    np.testing.assert_array_equal(flat, degenerate)
    assert flat[1:4].all()
    assert (heat[1:4] == 0).all()
    np.testing.assert_allclose(heat, want, atol=2e-6 if dtype is np.float32 else 1e-12)
    if grid != (1, 1):
        assert heat[0].max() == 1
        assert heat[0].min() == 0


def test_a_uniform_gradient_may_stay_unexpanded(rng: np.random.Generator) -> None:
    acts, grads = rng.normal(size=(3, 5, 4, 6)), rng.normal(size=(3, 5, 1, 1))
    for method in sorted(MAPS):
        short, _ = evaluate(method, acts, grads)
        full, _ = evaluate(method, acts, np.broadcast_to(grads, acts.shape).copy())
        np.testing.assert_allclose(short, full, rtol=1e-10, atol=1e-12)


def test_a_cell_whose_denominator_cancels_counts_nothing_in_either() -> None:
    grads = np.ones((1, 1, 1, 2))
    acts = np.array([[[[-1.0, -1.0]]]])  # 2 + g sum(A) = 0
    row = METHODS["gradcampp"]
    want = raw_map(row, {"acts": acts, "grads": grads}, variant="paper", options={}).array
    np.testing.assert_array_equal(evaluate("gradcampp", acts, grads)[0], want)
    assert (want == 0).all()


def test_only_methods_of_activations_and_gradients_are_in_the_graph_and_their_flags_fit() -> None:
    for method in MAPS:
        assert METHODS[method].needs == ("acts", "grads")
        assert METHODS[method].nonnegative == (method in ASSUMES_POSITIVE)


@pytest.mark.parametrize("method", sorted(MAPS))
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
    for method in sorted(MAPS):
        got, want = (e.explain(x, method=method, target=1).raw for e in (turned, plain))
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize(("lowest", "is_signed"), [(-1.0, True), (0.0, False)])
def test_a_clip_that_lets_negative_values_through_is_flagged(lowest: float, is_signed: bool) -> None:
    clip = helper.make_node("Clip", ["c2", "lowest", "highest"], ["a2"], "clip")
    bounds = {"lowest": np.float32(lowest), "highest": np.float32(6)}
    model = _edited(3, clip, **{name: np.asarray(value) for name, value in bounds.items()})
    result = camrt.load(model, preprocess="half").explain(tiny.images(3), method="layercam", target=1)
    assert (result.flags["signed_activations"] == is_signed).all()


@pytest.mark.parametrize("pipeline", sorted(PIPELINES))
def test_every_pipeline_finishes_a_map_of_the_graph_as_one_of_numpy(pipeline: str) -> None:
    explainer, x = camrt.load(tiny.mlp(), preprocess="half"), tiny.images(3)
    one, two = (explainer.explain(x, target=t, pipeline=pipeline).heatmaps[:, 0] for t in (2, [2, 0]))
    np.testing.assert_allclose(one, two, atol=1e-5)
