"""Models for tests, written in ONNX's own text syntax; weights are given as arrays or drawn from a fixed seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx.parser

__all__ = ["CONV", "HEAD", "TINY", "classifier", "tiny"]

CONV = "[stem] c = Conv<pads=[1, 1, 1, 1]>(x, w1, b1)  [act] a = Relu(c)"
HEAD = "[pool] p = GlobalAveragePool(a)  [flat] f = Flatten(p)  [head] y = Gemm(f, w2, b2)"
TINY = {"w1": (4, 3, 3, 3), "b1": (4,), "w2": (4, 5), "b2": (5,)}


def classifier(
    body: str,
    weights: Mapping[str, Any],
    *,
    x: str = "float[N,3,8,8] x",
    y: str = "float[N,5] y",
    opset: int = 18,
    seed: int = 0,
) -> onnx.ModelProto:
    """
    Return a checked model.

    Parameters
    ----------
    body : str
        Its nodes.
    weights : mapping of str to array or tuple
        Initializers; a tuple is a shape that gets normal random float32 numbers.
    x, y : str
        Its inputs and outputs.
    opset : int, default 18
        Of the default domain.
    seed : int, default 0
        Of the random weights.
    """
    rng = np.random.default_rng(seed)
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": {opset}], producer_name: "hand"> tiny ({x}) => ({y}) {{ {body} }}'
    )
    for name, value in weights.items():
        array = rng.normal(size=value).astype(np.float32) if isinstance(value, tuple) else np.asarray(value)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.checker.check_model(model)
    return model


def tiny(body: str = f"{CONV} {HEAD}", **options: Any) -> bytes:
    """Return the serialised classifier conv -> ReLU -> average -> linear, or another body over the same weights."""
    return classifier(body, {**TINY, **options.pop("weights", {})}, **options).SerializeToString()
