"""Sums over channels and positions by NumPy, and the sign of activations."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from camrt.export.maps.weighting import combined, is_signed, total, weighted
from camrt.export.vjp.emit import Emit
from tests.export.maps.run import DOUBLE


def run(acts: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Return what each function makes of the same arrays."""
    a, w = (
        ir.Value(name=n, shape=ir.Shape(["N", *v.shape[1:]]), type=DOUBLE) for n, v in (("a", acts), ("w", weights))
    )
    graph = ir.Graph([a, w], [], nodes=[], opset_imports={"": 18}, name="weigh")
    e, is_uniform = Emit(graph, "w"), weights.shape[2:] == (1, 1)
    made = {"combined": combined(e, a, w, is_uniform), "total": total(e, a), "signed": is_signed(e, a)}
    if is_uniform:
        made["weighted"] = weighted(e, a, w)
    graph.outputs.extend(made.values())
    found = ReferenceEvaluator(ir.to_proto(ir.Model(graph, ir_version=9))).run(None, {"a": acts, "w": weights})
    return dict(zip(made, map(np.asarray, found), strict=True))


@pytest.mark.parametrize("spread", [(1, 1), (4, 5)])
def test_sums_are_those_of_numpy(spread: tuple[int, int], rng: np.random.Generator) -> None:
    acts, weights = rng.normal(size=(3, 6, 4, 5)), rng.normal(size=(3, 6, *spread))
    found = run(acts, weights)
    np.testing.assert_allclose(found["combined"], (acts * weights).sum(1), atol=1e-12)
    np.testing.assert_allclose(found["total"], acts.sum((2, 3), keepdims=True), atol=1e-12)
    if spread == (1, 1):
        np.testing.assert_allclose(found["weighted"], (acts * weights).sum(1), atol=1e-12)


def test_one_negative_activation_is_seen_in_its_own_image() -> None:
    acts = np.zeros((3, 2, 2, 2))
    acts[1, 1, 0, 1] = -1e-30
    np.testing.assert_array_equal(run(acts, np.ones((3, 2, 1, 1)))["signed"], [False, True, False])
