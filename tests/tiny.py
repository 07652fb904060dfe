"""Tiny classifiers built in code, each with a property that makes an answer known in closed form."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE = (12, 10)  # a rectangle, so that swapped axes show
CLASSES = 5
CHANNELS = 6


def weights(seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    """Return seeded weights of two convolutions and a linear head."""
    rng = np.random.default_rng(seed)
    return {
        "w1": rng.normal(size=(4, 3, 3, 3)).astype("f4") * 0.4,
        "b1": rng.normal(size=4).astype("f4") * 0.1,
        "w2": rng.normal(size=(CHANNELS, 4, 3, 3)).astype("f4") * 0.4,
        "b2": rng.normal(size=CHANNELS).astype("f4") * 0.1,
        "head": rng.normal(size=(CHANNELS, CLASSES)).astype("f4"),
        "bias": rng.normal(size=CLASSES).astype("f4"),
    }


def _model(nodes: list[Any], arrays: dict[str, Any], batch: int | str = "batch", output: str = "scores") -> bytes:
    x = helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, *SIZE])
    y = helper.make_tensor_value_info(output, TensorProto.FLOAT, [batch, CLASSES])
    initializers = [numpy_helper.from_array(np.asarray(a), name) for name, a in arrays.items()]
    graph = helper.make_graph(nodes, "tiny", [x], [y], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _stages() -> list[Any]:
    return [
        helper.make_node("Conv", ["image", "w1", "b1"], ["c1"], "/stage1/conv/Conv", pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["c1"], ["a1"], "/stage1/relu/Relu"),
        helper.make_node("Conv", ["a1", "w2", "b2"], ["c2"], "/stage2/conv/Conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c2"], ["a2"], "/stage2/relu/Relu"),
    ]


def gap(batch: int | str = "batch", *, softmax: bool = False, seed: int = 0) -> bytes:
    """Return conv, ReLU, conv, ReLU, global average pooling, linear: every gradient map is known in closed form."""
    nodes = [
        *_stages(),
        helper.make_node("GlobalAveragePool", ["a2"], ["pooled"], "/pool/GlobalAveragePool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], "/Flatten"),
        helper.make_node("Gemm", ["flat", "head", "bias"], ["logits" if softmax else "scores"], "/head/Gemm"),
    ]
    if softmax:
        nodes.append(helper.make_node("Softmax", ["logits"], ["scores"], "/Softmax", axis=1))
    return _model(nodes, weights(seed), batch)


def flatten(seed: int = 0) -> bytes:
    """Return the same stages with flatten and one linear layer: HiResCAM is complete."""
    rng = np.random.default_rng(seed + 1)
    arrays = weights(seed)
    cells = CHANNELS * (SIZE[0] // 2) * (SIZE[1] // 2)
    arrays["head"] = rng.normal(size=(cells, CLASSES)).astype("f4")
    nodes = [
        *_stages(),
        helper.make_node("Flatten", ["a2"], ["flat"], "/Flatten"),
        helper.make_node("Gemm", ["flat", "head", "bias"], ["scores"], "/head/Gemm"),
    ]
    return _model(nodes, arrays)


def mlp(batch: int | str = "batch", seed: int = 0) -> bytes:
    """Return the same stages with flatten and two linear layers: a head whose gradient depends on the image."""
    rng = np.random.default_rng(seed + 2)
    arrays = weights(seed)
    cells = CHANNELS * (SIZE[0] // 2) * (SIZE[1] // 2)
    arrays |= {
        "hidden": rng.normal(size=(cells, 16)).astype("f4") * 0.3,
        "hidden_bias": rng.normal(size=16).astype("f4"),
        "head": rng.normal(size=(16, CLASSES)).astype("f4"),
    }
    nodes = [
        *_stages(),
        helper.make_node("Flatten", ["a2"], ["flat"], "/Flatten"),
        helper.make_node("Gemm", ["flat", "hidden", "hidden_bias"], ["h"], "/fc1/Gemm"),
        helper.make_node("Relu", ["h"], ["hr"], "/fc1/Relu"),
        helper.make_node("Gemm", ["hr", "head", "bias"], ["scores"], "/fc2/Gemm"),
    ]
    return _model(nodes, arrays, batch)


def images(n: int = 3, seed: int = 0) -> np.ndarray[Any, Any]:
    """Return a seeded prepared batch."""
    return np.random.default_rng(seed).normal(size=(n, 3, *SIZE)).astype("f4")
