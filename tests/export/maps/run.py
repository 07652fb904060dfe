"""Run a method's nodes in float64, and its NumPy form on the same arrays."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from camrt.export.maps import MAPS, is_signed
from camrt.export.vjp.emit import Emit
from camrt.methods import METHODS, Result, raw_map

__all__ = ["DIRECT", "DOUBLE", "FROM_ARRAYS", "evaluate", "specified"]

FROM_ARRAYS = sorted(
    method for method, row in MAPS.items() if row.way == "gradient" and set(row.needs) <= {"acts", "grads"}
)
DIRECT = sorted(method for method, row in MAPS.items() if row.direct)
DOUBLE = ir.TensorType(ir.DataType.DOUBLE)


def evaluate(method: str, acts: np.ndarray, grads: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Run a method's nodes in float64 in the reference evaluator; also the sign of the activations, and flags."""
    a, g = (ir.Value(name=n, shape=ir.Shape(["N", *v.shape[1:]]), type=DOUBLE) for n, v in (("a", acts), ("g", grads)))
    graph = ir.Graph([a, g], [], nodes=[], opset_imports={"": 18}, name="map")
    e, row = Emit(graph, "map"), MAPS[method]
    drawn = row.function(e, *({"acts": a, "grads": g}[name] for name in row.needs))
    raw, flags = drawn if isinstance(drawn, tuple) else (drawn, {})
    graph.outputs.extend([raw, is_signed(e, a), *flags.values()])
    found = ReferenceEvaluator(ir.to_proto(ir.Model(graph, ir_version=9))).run(None, {"a": acts, "g": grads})
    return np.asarray(found[0]), np.asarray(found[1]), dict(zip(flags, map(np.asarray, found[2:]), strict=True))


def specified(method: str, acts: np.ndarray, grads: np.ndarray) -> Result:
    """Run a method's NumPy form on activations and gradients."""
    row = METHODS[{"finercam": "gradcam", "refinecam": "gradcampp"}.get(method, method)]
    evidence = {"acts": acts, "grads": grads, "head": grads.sum(axis=(2, 3))}
    return raw_map(row, evidence, variant=row.variants[0], options={})
