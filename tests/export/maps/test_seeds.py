"""What starts at the logits is that of the NumPy form, which is proved elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from camrt.errors import MethodError
from camrt.export.maps.seeds import against_all, contrast
from camrt.export.vjp.emit import Emit
from camrt.methods.finercam import finer_seed
from camrt.methods.relevancecam import contrastive


def session(classes: int, start: Callable[..., ir.Value] = contrast) -> ort.InferenceSession:
    """Return a graph from logits and targets to what starts at the logits."""
    logits = ir.Value(name="s", shape=ir.Shape(["N", classes]), type=ir.TensorType(ir.DataType.FLOAT))
    target = ir.Value(name="t", shape=ir.Shape(["N"]), type=ir.TensorType(ir.DataType.INT64))
    graph = ir.Graph([logits, target], [], nodes=[], opset_imports={"": 18}, name="contrast")
    seed = start(Emit(graph, "c"), logits, target)
    seed.shape = ir.Shape(["N", classes])
    graph.outputs.append(seed)
    return ort.InferenceSession(ir.to_proto(ir.Model(graph, ir_version=9)).SerializeToString())


@pytest.mark.parametrize("classes", [2, 3, 4, 50])
def test_it_is_the_seed_of_the_method(classes: int, rng: np.random.Generator) -> None:
    logits = rng.normal(size=(6, classes)).astype(np.float32) * 3
    target = rng.integers(0, classes, 6)
    (found,) = session(classes).run(None, {"s": logits, "t": target})
    np.testing.assert_allclose(found, finer_seed(logits, target), atol=1e-6)


def test_equal_distances_go_by_class_index() -> None:
    logits = np.array([[1, 2, 0, 1, 5, 1, 2]], np.float32)
    for target in (np.array([0]), np.array([1]), np.array([4])):
        (found,) = session(7).run(None, {"s": logits, "t": target})
        np.testing.assert_allclose(found, finer_seed(logits, target), atol=1e-6)


@pytest.mark.parametrize("classes", [2, 50])
def test_relevance_starts_as_in_the_method(classes: int, rng: np.random.Generator) -> None:
    logits, target = rng.normal(size=(6, classes)).astype(np.float32), rng.integers(0, classes, 6)
    (found,) = session(classes, against_all).run(None, {"s": logits, "t": target})
    np.testing.assert_allclose(found, contrastive(logits, target), atol=1e-7)


def test_one_class_has_nothing_to_be_contrasted_with() -> None:
    with pytest.raises(MethodError, match="this model has 1 class"):
        session(1)
