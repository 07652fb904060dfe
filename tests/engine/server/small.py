"""Small models as the registry would serve them, for tests of what stands around them."""

from __future__ import annotations

from functools import cache

import onnx
from onnx import TensorProto, helper

import camrt
from camrt.server.served import Served
from tests import tiny

LABELS = ("cat", "tabby, tiger cat", "great-tit", "owl", "dog")


@cache
def served() -> Served:
    """Return a classifier of 5 classes whose inputs are float32 of 3 x 12 x 10, called ``image``."""
    return Served("tiny", "3", camrt.load(tiny.gap(), preprocess="half", labels=LABELS), 0.1, 100.0)


@cache
def of_pixels() -> Served:
    """Return the same network with inputs of uint8, called ``pixels``."""
    model = onnx.load_from_string(tiny.gap())
    graph = model.graph
    graph.input[0].CopyFrom(helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", 3, *tiny.SIZE]))
    graph.node.insert(0, helper.make_node("Cast", ["pixels"], ["image"], "/Cast", to=TensorProto.FLOAT))
    return Served("pixels", "1", camrt.load(model.SerializeToString(), labels=LABELS), 0.1, 100.0)
