"""Methods of activations alone inside the graph equal their NumPy form, which is the specification."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from camrt.export.maps import MAPS
from camrt.export.vjp.emit import Emit
from camrt.methods import METHODS, raw_map
from tests.export.maps.run import DOUBLE, FROM_ARRAYS, evaluate, specified


@pytest.mark.parametrize("method", [m for m in FROM_ARRAYS if MAPS[m].needs == ("acts",)])
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


@pytest.mark.parametrize("n", [1, 4])
def test_fake_maps_are_ones_but_for_a_pixel(n: int) -> None:
    acts = ir.Value(name="a", shape=ir.Shape(["N", 2, 3, 3]), type=DOUBLE)
    graph = ir.Graph([acts], [], nodes=[], opset_imports={"": 18}, name="fake")
    drawn = MAPS["fakecam"].function(Emit(graph, "f"), acts, (5, 4))
    assert isinstance(drawn, ir.Value)
    graph.outputs.append(drawn)
    (heat,) = ReferenceEvaluator(ir.to_proto(ir.Model(graph, ir_version=9))).run(None, {"a": np.zeros((n, 2, 3, 3))})
    row = METHODS["fakecam"]
    want = raw_map(row, {"acts": np.zeros((n, 2, 3, 3)), "size": (5, 4)}, variant="pixel", options={})
    np.testing.assert_array_equal(heat, want.array)
