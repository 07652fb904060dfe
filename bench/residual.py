"""
ResNet-50 with random weights, made without torch: for machines that have neither it nor a network.

In: a seed. Out: an ONNX file's bytes. The architecture is that of He et al., "Deep Residual Learning for Image
Recognition" (2016), table 1, with the stride in the 3x3 convolution as torchvision has it; batch normalisation is folded
into the convolutions, as exporters do. Weights keep signals at their size, so that float16 does not overflow.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

__all__ = ["resnet50"]

STAGES = ((3, 64), (4, 128), (6, 256), (3, 512))  # blocks, width
CLASSES = 1000


class _Sketch:
    """Nodes and weights so far."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def add(self, op: str, inputs: list[str], **attributes: Any) -> str:
        """Add a node and return its output."""
        name = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=f"/{name}", **attributes))
        return name

    def weight(self, *shape: int, gain: float = 2.0) -> str:
        """Add a weight whose products keep the variance, after a ReLU unless `gain` is 1."""
        name = f"w{len(self.weights)}"
        spread = (gain / np.prod(shape[1:])) ** 0.5 if len(shape) > 1 else 0.01
        values = (self.rng.standard_normal(shape, np.float32) * np.float32(spread)).astype(np.float32)
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def conv(self, x: str, before: int, after: int, side: int, stride: int = 1, gain: float = 2.0) -> str:
        """Add a convolution that keeps the size but for its stride."""
        inputs = [x, self.weight(after, before, side, side, gain=gain), self.weight(after)]
        return self.add("Conv", inputs, strides=[stride] * 2, pads=[side // 2] * 4, kernel_shape=[side] * 2)

    def block(self, x: str, before: int, width: int, stride: int) -> str:
        """Add a bottleneck: 1x1, 3x3, 1x1 and the way around; the two halves of the sum have half the variance."""
        y = self.add("Relu", [self.conv(x, before, width, 1)])
        y = self.add("Relu", [self.conv(y, width, width, 3, stride)])
        y = self.conv(y, width, 4 * width, 1, gain=0.2)
        if before != 4 * width or stride != 1:
            x = self.conv(x, before, 4 * width, 1, stride, gain=1.0)
        return self.add("Relu", [self.add("Add", [y, x])])


def resnet50(seed: int = 0) -> bytes:
    """
    Make the model.

    Parameters
    ----------
    seed : int, default 0
        Of the weights.

    Returns
    -------
    bytes
        An ONNX file of 25.5 million weights, (N, 3, 224, 224) to 1000 scores, opset 18.
    """
    s = _Sketch(seed)
    x = s.add("Relu", [s.conv("image", 3, 64, 7, 2)])
    x = s.add("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    before = 64
    for index, (blocks, width) in enumerate(STAGES):
        for block in range(blocks):
            x = s.block(x, before, width, 2 if index and not block else 1)
            before = 4 * width
    flat = s.add("Flatten", [s.add("GlobalAveragePool", [x])])
    scores = s.add("Gemm", [flat, s.weight(CLASSES, before, gain=1.0), s.weight(CLASSES)], transB=1)
    graph = helper.make_graph(
        s.nodes,
        "resnet50",
        [helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["N", 3, 224, 224])],
        [helper.make_tensor_value_info(scores, onnx.TensorProto.FLOAT, ["N", CLASSES])],
        s.weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
