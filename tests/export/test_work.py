"""Multiply-adds and bytes against closed forms and published figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from camrt.export.backward import between
from camrt.export.layers import find, resolve, value_of
from camrt.export.load import Classifier, load
from camrt.export.vjp.emit import Emit
from camrt.export.work import Work, multiply_adds, work_of
from tests import tiny
from tests.export.onnx_text import tokens


def count(classifier: Classifier, layer: str | None = None) -> Work:
    """Count at a layer, the default one where none is named."""
    return work_of(classifier, resolve(find(classifier), layer))


def test_two_convolutions_and_a_linear_head_in_closed_form() -> None:
    work = count(load(tiny.gap()))
    first, second, head = 4 * 6 * 5 * (3 * 9), 6 * 6 * 5 * (4 * 9), 6 * 5
    assert work.forward == work.backward == first + second + head
    assert work.tail == work.tail_backward == head
    at_first = count(load(tiny.gap()), "a1")
    assert at_first.tail == at_first.tail_backward == second + head
    assert work.weights_bytes >= 4 * (4 * 27 + 4 + 6 * 36 + 6 + 30 + 5)
    image, wide, narrow, pooled, scores = 3 * 12 * 10, 4 * 6 * 5, 6 * 6 * 5, 6, 5
    assert work.layer_bytes == 4 * narrow
    assert work.tail_bytes == 4 * (narrow + 2 * pooled + scores)  # the average, and the same flattened
    assert work.path_bytes == 4 * (image + 2 * wide + 2 * narrow + 2 * pooled + scores)
    assert work.peak_bytes == 4 * (image + wide)  # at the first convolution
    assert work.uncounted == ()


@pytest.mark.parametrize("batch", [1, 4])
def test_a_fixed_batch_is_counted_for_one_image(batch: int) -> None:
    fixed, free = count(load(tiny.gap(batch))), count(load(tiny.gap()))
    assert (fixed.forward, fixed.tail, fixed.peak_bytes, fixed.tail_bytes) == (
        free.forward, free.tail, free.peak_bytes, free.tail_bytes,
    )  # fmt: skip


def test_products_of_two_computed_tensors_take_two_gradients() -> None:
    classifier = load(tokens())
    value = next(layer for layer in find(classifier) if layer.default)
    work = work_of(classifier, value)
    behind = between(classifier.model.graph, [value_of(classifier.model, value)], [classifier.logits])
    products = [node for node in behind if node.op_type == "MatMul"]
    computed = [node for node in products if not any(v is not None and v.is_initializer() for v in node.inputs)]
    assert len(computed) == 2  # queries by keys, probabilities by values
    assert work.tail_backward == work.tail + sum(map(multiply_adds, computed))


def node(op: str, shapes: list[tuple[int, ...]], result: tuple[int, ...], **attributes: Any) -> ir.Node:
    """Return one node of known shapes."""
    kind = ir.TensorType(ir.DataType.FLOAT)
    inputs = [ir.Value(name=f"i{i}", shape=ir.Shape(s), type=kind) for i, s in enumerate(shapes)]
    graph = ir.Graph(inputs, [], nodes=[], opset_imports={"": 18}, name="one")
    value = Emit(graph).node(op, inputs, attributes)[0]
    value.shape = ir.Shape(result)
    made = value.producer()
    assert made is not None
    return made


@pytest.mark.parametrize(
    ("op", "shapes", "result", "attributes", "want"),
    [
        ("Conv", [(1, 8, 5, 5), (6, 2, 3, 3)], (1, 6, 5, 5), {"group": 4}, 6 * 25 * 2 * 9),
        ("Conv", [(1, 8, 7), (4, 8, 3)], (1, 4, 5), {}, 4 * 5 * 8 * 3),
        ("Conv", [(1, 2, 4, 4, 4), (3, 2, 2, 2, 2)], (1, 3, 3, 3, 3), {}, 3 * 27 * 2 * 8),
        ("ConvTranspose", [(1, 6, 5, 5), (6, 4, 2, 2)], (1, 4, 10, 10), {"strides": [2, 2]}, 6 * 25 * 4 * 4),
        ("MatMul", [(2, 3, 4, 5), (5, 7)], (2, 3, 4, 7), {}, 2 * 3 * 4 * 5 * 7),
        ("MatMul", [(5,), (5, 7)], (7,), {}, 35),
        ("Gemm", [(5, 3), (5, 7)], (3, 7), {"transA": 1}, 105),
        ("Einsum", [(2, 3, 4), (2, 4, 5)], (2, 3, 5), {"equation": "bij, bjk -> bik"}, 2 * 3 * 4 * 5),
        ("Einsum", [(2, 3, 4), (4, 5)], (2, 3, 5), {"equation": "...j,jk->...k"}, 2 * 3 * 4 * 5),
        ("Relu", [(2, 3)], (2, 3), {}, 0),
    ],
)
def test_each_product_in_closed_form(
    op: str, shapes: list[tuple[int, ...]], result: tuple[int, ...], attributes: dict[str, Any], want: int
) -> None:
    assert multiply_adds(node(op, shapes, result, **attributes)) == want


def resnet50() -> bytes:
    """Return the graph of ResNet-50 with weights of zero: He et al. 2015, table 1, the stride in the 3x3 convolution."""
    nodes: list[Any] = []
    weights: list[Any] = []

    def conv(x: str, given: int, made: int, kernel: int, stride: int = 1) -> str:
        name = f"c{len(nodes)}"
        weights.append(onnx.numpy_helper.from_array(np.zeros((made, given, kernel, kernel), np.float32), f"{name}_w"))
        pads, strides = [kernel // 2] * 4, [stride] * 2
        nodes.append(helper.make_node("Conv", [x, f"{name}_w"], [name], name, pads=pads, strides=strides))
        return name

    def other(op: str, *inputs: str, **attributes: Any) -> str:
        name = f"o{len(nodes)}"
        nodes.append(helper.make_node(op, [*inputs], [name], name, **attributes))
        return name

    x = other("Relu", conv("x", 3, 64, 7, 2))
    x, channels = other("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4), 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        width = 64 << stage
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            y = other("Relu", conv(x, channels, width, 1))
            y = conv(other("Relu", conv(y, width, width, 3, stride)), width, 4 * width, 1)
            side = conv(x, channels, 4 * width, 1, stride) if not block else x
            x, channels = other("Relu", other("Add", y, side)), 4 * width
    weights.append(onnx.numpy_helper.from_array(np.zeros((2048, 1000), np.float32), "head"))
    y = other("MatMul", other("Flatten", other("GlobalAveragePool", x)), "head")
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 224, 224])
    scores = helper.make_tensor_value_info(y, TensorProto.FLOAT, ["N", 1000])
    graph = helper.make_graph(nodes, "resnet50", [given], [scores], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(model.SerializeToString())


def test_resnet50_takes_the_multiply_adds_that_torchvision_publishes() -> None:
    work = count(load(resnet50()))
    assert work.forward == pytest.approx(4.089e9, rel=1e-3)
    assert work.backward == work.forward
    assert work.tail == 2048 * 1000
    assert work.weights_bytes == pytest.approx(4 * 25.5e6, rel=1e-2)


@pytest.mark.realdata
@pytest.mark.parametrize("file", ["mobilenetv2_tv_fp32_derived_op17", "mobilenetv2_tv_dynquant_op17"])
def test_mobilenetv2_takes_the_multiply_adds_that_torchvision_publishes(file: str, realdata: Path) -> None:
    work = count(load(realdata / "models" / f"{file}.onnx"))
    assert work.forward == pytest.approx(0.301e9, rel=2e-3)
