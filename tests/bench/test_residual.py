"""ResNet-50 made without torch: its size is the published one, its signals neither vanish nor grow."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime

from bench import pictures
from bench.residual import resnet50


def test_it_is_resnet_50_with_signals_of_ordinary_size() -> None:
    """torchvision's has 25,557,032 parameters, of which batch normalisation folded away keeps one of two a channel."""
    data = resnet50()
    model = onnx.load_from_string(data)
    assert sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer) == 25_557_032 - 26_560
    assert sum(node.op_type == "Conv" for node in model.graph.node) == 53
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, {"image": pictures.batch((2, 3, 224, 224))})
    assert scores.shape == (2, 1000)
    assert 0.1 < scores.std() < 10
    assert np.abs(scores[0] - scores[1]).max() > 0.1  # and tell pictures apart
