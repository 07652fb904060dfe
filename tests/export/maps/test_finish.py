"""Finishing and fusing maps inside the graph is the default pipeline of the engine."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

import camrt
from camrt.export.maps.finish import finished, fused, resized
from camrt.export.vjp.emit import Emit
from camrt.fuse import fuse_layers
from camrt.kernels import resize
from camrt.kernels.resizing import Align
from camrt.pipeline import PIPELINES
from tests import tiny
from tests.export.maps.run import DOUBLE


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("grid", "size"), [((7, 7), (224, 224)), ((1, 5), (12, 7)), ((6, 4), (3, 9)), ((1, 1), (8, 8))]
)
def test_finishing_in_the_graph_is_the_default_pipeline(
    grid: tuple[int, int], size: tuple[int, int], dtype: type, relu: bool, rng: np.random.Generator
) -> None:
    raw = rng.normal(size=(5, *grid)).astype(dtype)
    raw[1], raw[2], raw[3] = -1, 0.7, 0  # nothing positive, constant, nothing at all
    value = ir.Value(
        name="r", shape=ir.Shape(["N", *grid]), type=ir.TensorType(ir.DataType.from_numpy(np.dtype(dtype)))
    )
    graph = ir.Graph([value], [], nodes=[], opset_imports={"": 18}, name="finish")
    graph.outputs.extend(finished(Emit(graph, "f"), value, size, relu=relu))
    heat, flat = ReferenceEvaluator(ir.to_proto(ir.Model(graph, ir_version=9))).run(None, {"r": raw})
    want, degenerate = PIPELINES["camrt"](raw, size, relu)
    np.testing.assert_array_equal(flat, degenerate)
    assert flat[1:4].all()
    assert (heat[1:4] == 0).all()
    np.testing.assert_allclose(heat, want, atol=2e-6 if dtype is np.float32 else 1e-12)
    if grid != (1, 1):
        assert heat[0].max() == 1
        assert heat[0].min() == 0


@pytest.mark.parametrize("align", ["half_pixel", "corners"])
@pytest.mark.parametrize(("grid", "size"), [((7, 7), (28, 21)), ((1, 5), (4, 1)), ((6, 4), (3, 9)), ((2, 3), (2, 3))])
def test_resizing_is_that_of_the_kernels(
    align: Align, grid: tuple[int, int], size: tuple[int, int], rng: np.random.Generator
) -> None:
    maps = rng.normal(size=(2, *grid))
    value = ir.Value(name="m", shape=ir.Shape(["N", *grid]), type=DOUBLE)
    graph = ir.Graph([value], [], nodes=[], opset_imports={"": 18}, name="resize")
    e = Emit(graph, "r")
    graph.outputs.append(e.Identity(resized(e, value, size, corners=align == "corners")))
    (large,) = ReferenceEvaluator(ir.to_proto(ir.Model(graph, ir_version=9))).run(None, {"m": maps})
    np.testing.assert_allclose(large, resize(maps, size, align=align), atol=1e-12)


@pytest.mark.parametrize("how", ["mean", "product", "layercam"])
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("n_layers", [1, 2, 4])
def test_layers_are_fused_in_the_graph_as_in_numpy(
    how: str, relu: bool, n_layers: int, rng: np.random.Generator
) -> None:
    grids, size = [(8, 5), (6, 9), (3, 3), (2, 4)][:n_layers], (12, 10)
    raws = {f"r{i}": rng.normal(size=(3, *grid)) for i, grid in enumerate(grids)}
    raws["r0"][1] = -1  # nothing positive: a product has no contrast then
    values = [ir.Value(name=n, shape=ir.Shape(["N", *r.shape[1:]]), type=DOUBLE) for n, r in raws.items()]
    graph = ir.Graph(values, [], nodes=[], opset_imports={"": 18}, name="fuse")
    graph.outputs.extend(fused(Emit(graph, "f"), values, size, how=how, relu=relu))
    heat, flat = ReferenceEvaluator(ir.to_proto(ir.Model(graph, ir_version=9))).run(None, raws)
    want, degenerate = fuse_layers(list(raws.values()), size, PIPELINES["camrt"], how=how, relu=relu)
    np.testing.assert_allclose(heat, want, atol=1e-12)
    np.testing.assert_array_equal(flat, degenerate)


@pytest.mark.parametrize("pipeline", sorted(PIPELINES))
def test_every_pipeline_finishes_a_map_of_the_graph_as_one_of_numpy(pipeline: str) -> None:
    explainer, x = camrt.load(tiny.mlp(), preprocess="half"), tiny.images(3)
    one, two = (explainer.explain(x, target=t, pipeline=pipeline).heatmaps[:, 0] for t in (2, [2, 0]))
    np.testing.assert_allclose(one, two, atol=1e-5)
