"""Gradients of convolutions, against torch's float64 autograd (the reference evaluator's ConvTranspose is wrong)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch.nn import functional

from camrt.errors import MissingRuleError
from camrt.export.backward import sweep
from camrt.export.vjp import RULES
from tests.export.vjp.check import check_rule

CONVS = [functional.conv1d, functional.conv2d, functional.conv3d]
TRANSPOSES = [functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d]


@dataclass(frozen=True)
class Spec:
    """One convolution: input shape, weight shape and attributes; the operators its gradient should consist of."""

    name: str
    x: tuple[int, ...]
    w: tuple[int, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    ops: tuple[str, ...] | None = None
    explicit: tuple[int, ...] | None = None  # the pads that auto_pad or output_shape come to, for the oracle


FLIPPED, TRANSPOSED, SLICED = ("Conv",), ("ConvTranspose",), ("ConvTranspose", "Slice")
STUFF = ("Resize", "Shape", "Concat", "Expand", "Conv", "Mul")
STUFFED, POINTS = (*STUFF, "Conv"), ("Conv", *STUFF)
APART = (*["Conv"] * 4, *["Unsqueeze"] * 4, *["Concat"] * 3, "Reshape")
TOGETHER = ("Conv", "Split", "Unsqueeze", "Unsqueeze", "Concat", "Reshape", "Transpose", "Reshape")
FOUR_TOGETHER = ("Conv", "Split", *["Unsqueeze"] * 4, "Concat", "Reshape", "Transpose", "Reshape")

CONV_SPECS = [
    Spec("plain_3x3", (2, 3, 6, 5), (4, 3, 3, 3), {}, FLIPPED),
    Spec("padded_3x3_rectangle", (3, 3, 7, 4), (4, 3, 3, 3), {"pads": [1, 1, 1, 1]}, FLIPPED),
    Spec("one_image", (1, 3, 5, 5), (2, 3, 3, 3), {"pads": [1, 1, 1, 1]}, FLIPPED),
    Spec("1x1", (2, 3, 4, 5), (6, 3, 1, 1), {}, FLIPPED),
    Spec("asymmetric_pads", (2, 2, 6, 5), (3, 2, 3, 4), {"pads": [0, 2, 1, 1]}, FLIPPED),
    Spec("pads_beyond_the_kernel", (2, 2, 4, 4), (3, 2, 1, 2), {"pads": [1, 3, 2, 0]}, ("Slice", "Conv")),
    Spec("dilated", (2, 2, 9, 8), (3, 2, 3, 2), {"dilations": [2, 3], "pads": [2, 1, 2, 1]}, FLIPPED),
    Spec("grouped", (2, 6, 5, 5), (4, 3, 3, 3), {"group": 2, "pads": [1, 1, 1, 1]}, FLIPPED),
    Spec("depthwise", (3, 4, 6, 6), (4, 1, 3, 3), {"group": 4, "pads": [1, 1, 1, 1]}, FLIPPED),
    Spec("depthwise_multiplier_2", (2, 3, 5, 6), (6, 1, 3, 3), {"group": 3}, FLIPPED),
    Spec("same_upper", (2, 2, 6, 5), (3, 2, 4, 3), {"auto_pad": "SAME_UPPER"}, FLIPPED, (1, 1, 2, 1)),
    Spec("same_lower", (2, 2, 6, 5), (3, 2, 4, 3), {"auto_pad": "SAME_LOWER"}, FLIPPED, (2, 1, 1, 1)),
    Spec("valid", (2, 2, 6, 5), (3, 2, 4, 3), {"auto_pad": "VALID"}, FLIPPED, (0, 0, 0, 0)),
    Spec("stride_2", (2, 3, 7, 9), (4, 3, 3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1]}, TRANSPOSED),
    Spec("stride_2_even", (2, 3, 8, 6), (4, 3, 3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1]}, TRANSPOSED),
    Spec("stem_7x7", (1, 3, 16, 12), (4, 3, 7, 7), {"strides": [2, 2], "pads": [3, 3, 3, 3]}, TRANSPOSED),
    Spec("1x1_stride_2", (2, 3, 6, 8), (4, 3, 1, 1), {"strides": [2, 2]}, POINTS),
    Spec("1x1_stride_3_untouched", (2, 3, 9, 8), (4, 3, 1, 1), {"strides": [4, 3], "pads": [1, 0, 2, 2]}),
    Spec("1x1_stride_2_grouped", (2, 4, 7, 5), (6, 2, 1, 1), {"strides": [2, 2], "group": 2}, (*POINTS, "Slice")),
    Spec("kernel_below_stride", (2, 2, 11, 10), (3, 2, 2, 1), {"strides": [4, 3]}, TRANSPOSED),
    Spec("patches", (2, 3, 8, 12), (5, 3, 4, 4), {"strides": [4, 4]}, TRANSPOSED),
    Spec("untouched_rows", (2, 2, 11, 9), (3, 2, 3, 3), {"strides": [4, 4]}, TRANSPOSED),
    Spec("rectangular_strides", (2, 2, 9, 6), (3, 2, 3, 2), {"strides": [3, 1], "pads": [1, 0, 1, 0]}, TRANSPOSED),
    Spec("strided_pads_at_the_end", (2, 2, 8, 7), (3, 2, 3, 3), {"strides": [2, 2], "pads": [0, 0, 1, 2]}, SLICED),
    Spec("strided_pads_at_the_begin", (2, 2, 8, 7), (3, 2, 3, 3), {"strides": [2, 2], "pads": [2, 1, 0, 0]}),
    Spec("strided_far_pads", (2, 2, 5, 5), (3, 2, 3, 3), {"strides": [2, 3], "pads": [5, 0, 1, 4]}),
    Spec("strided_dilated", (2, 2, 11, 10), (3, 2, 3, 3), {"strides": [2, 3], "dilations": [2, 1], "pads": [2, 1, 2, 1]}),
    Spec("strided_grouped", (2, 4, 7, 7), (6, 2, 3, 3), {"strides": [2, 2], "group": 2, "pads": [1, 1, 1, 1]}, TRANSPOSED),
    Spec("strided_depthwise", (2, 4, 8, 7), (4, 1, 3, 3), {"strides": [2, 2], "group": 4, "pads": [1, 1, 1, 1]}, STUFFED),
    Spec("strided_depthwise_5x5_odd", (3, 3, 9, 11), (3, 1, 5, 5), {"strides": [2, 2], "group": 3, "pads": [2, 2, 2, 2]}),
    Spec("strided_depthwise_same", (2, 3, 8, 7), (3, 1, 3, 3), {"strides": [2, 2], "group": 3, "auto_pad": "SAME_UPPER"}, None, (0, 1, 1, 1)),
    Spec("strided_depthwise_tight", (1, 3, 9, 8), (3, 1, 2, 4), {"strides": [2, 3], "group": 3}),
    Spec("strided_depthwise_one_axis", (2, 3, 9, 8), (3, 1, 3, 3), {"strides": [2, 1], "group": 3, "pads": [1, 1, 1, 1]}),
    Spec("strided_depthwise_far_pads", (2, 3, 6, 5), (3, 1, 3, 3), {"strides": [2, 2], "group": 3, "pads": [4, 0, 1, 5]}),
    Spec("strided_depthwise_large", (1, 2, 60, 58), (2, 1, 3, 3), {"strides": [2, 2], "group": 2, "pads": [1, 1, 1, 1]}, STUFFED),
    Spec("strided_depthwise_dilated", (2, 3, 9, 8), (3, 1, 3, 3), {"strides": [2, 2], "group": 3, "dilations": [2, 1]}, STUFFED),
    Spec("strided_depthwise_untouched", (2, 3, 11, 9), (3, 1, 2, 3), {"strides": [4, 4], "group": 3}),
    Spec("dense_stride_2", (2, 16, 8, 6), (17, 16, 3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1]}, APART),
    Spec("dense_stride_2_odd_5x4", (1, 16, 9, 11), (16, 16, 5, 4), {"strides": [2, 2], "pads": [2, 0, 1, 3]}),
    Spec("dense_one_axis", (2, 16, 7, 6), (16, 16, 3, 3), {"strides": [2, 1], "pads": [1, 1, 1, 1]}),
    Spec("dense_far_pads", (1, 16, 6, 5), (16, 16, 2, 3), {"strides": [2, 2], "pads": [4, 0, 1, 5]}),
    Spec("dense_tight", (1, 16, 6, 8), (16, 16, 2, 2), {"strides": [2, 2]}, APART),
    Spec("stem_of_16", (1, 3, 16, 12), (16, 3, 7, 7), {"strides": [2, 2], "pads": [3, 3, 3, 3]}, FOUR_TOGETHER),
    Spec("stem_of_16_odd", (2, 3, 15, 13), (16, 3, 7, 7), {"strides": [2, 2], "pads": [3, 2, 1, 3]}),
    Spec("stem_of_16_one_axis", (1, 3, 9, 14), (16, 3, 7, 7), {"strides": [2, 1], "pads": [3, 3, 3, 3]}),
    Spec("stem_odd", (2, 3, 9, 11), (16, 3, 3, 3), {"strides": [2, 2], "pads": [1, 0, 0, 1]}),
    Spec("stem_stride_1", (2, 3, 8, 6), (16, 3, 3, 3), {"pads": [1, 1, 1, 1]}, TOGETHER),
    Spec("stem_stride_1_odd", (2, 1, 7, 5), (17, 1, 4, 3), {"pads": [0, 2, 3, 1]}),
    Spec("stem_one_axis", (1, 4, 7, 6), (16, 4, 3, 2), {"strides": [1, 2], "pads": [1, 1, 0, 0]}),
    Spec("stem_far_pads", (1, 3, 5, 6), (16, 3, 3, 2), {"strides": [2, 1], "pads": [5, 0, 1, 4]}),
    Spec("strided_depthwise_line", (2, 3, 9), (3, 1, 3), {"strides": [2], "group": 3}, TRANSPOSED),
    Spec("strided_same_upper", (2, 2, 8, 7), (3, 2, 3, 3), {"strides": [2, 2], "auto_pad": "SAME_UPPER"}, SLICED, (0, 1, 1, 1)),
    Spec("strided_same_lower", (2, 2, 8, 7), (3, 2, 3, 3), {"strides": [2, 2], "auto_pad": "SAME_LOWER"}, None, (1, 1, 0, 1)),
    Spec("strided_valid", (2, 2, 8, 7), (3, 2, 3, 3), {"strides": [2, 2], "auto_pad": "VALID"}, TRANSPOSED, (0, 0, 0, 0)),
    Spec("same_with_stride_above_kernel", (2, 2, 9, 8), (3, 2, 1, 2), {"strides": [2, 3], "auto_pad": "SAME_UPPER"}, None, (0, 0, 0, 0)),
    Spec("line", (2, 3, 9), (4, 3, 3), {"pads": [1, 1]}, FLIPPED),
    Spec("strided_line", (3, 3, 10), (4, 3, 4), {"strides": [3], "pads": [1, 2]}),
    Spec("volume", (1, 2, 4, 5, 3), (3, 2, 3, 2, 3), {"pads": [1, 0, 1, 1, 1, 1]}, FLIPPED),
    Spec("strided_volume", (2, 2, 5, 4, 6), (4, 1, 3, 2, 3), {"strides": [2, 2, 1], "group": 2, "pads": [1, 0, 1, 1, 0, 1]}),
]  # fmt: skip


def conv_oracle(spec: Spec) -> Callable[..., torch.Tensor]:
    """Return `spec` as a function on torch tensors."""
    a, rank = spec.attributes, len(spec.x) - 2
    pads = spec.explicit or a.get("pads", [0] * 2 * rank)
    torch_pads = [int(p) for axis in reversed(range(rank)) for p in (pads[axis], pads[rank + axis])]

    def forward(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor | None = None) -> torch.Tensor:
        y = functional.pad(x, torch_pads)
        return CONVS[rank - 1](y, w, b, a.get("strides", 1), 0, a.get("dilations", 1), a.get("group", 1))

    return forward


@pytest.mark.parametrize("spec", CONV_SPECS, ids=lambda spec: spec.name)
def test_conv_gradient_equals_autograd(spec: Spec, rng: np.random.Generator) -> None:
    inputs = [rng.standard_normal(spec.x), rng.standard_normal(spec.w), rng.standard_normal(spec.w[0])]
    checked = check_rule("Conv", inputs, attributes=spec.attributes, torch_forward=conv_oracle(spec), tol=1e-12)
    assert spec.ops is None or checked.ops == list(spec.ops)


def test_conv_gradient_equals_finite_differences_too(rng: np.random.Generator) -> None:
    inputs = [rng.standard_normal((2, 3, 6, 5)), rng.standard_normal((4, 3, 3, 3))]
    for strides in ([1, 1], [2, 3]):
        check_rule("Conv", inputs, attributes={"strides": strides, "pads": [1, 1, 1, 1]})


TRANSPOSE_SPECS = [
    Spec("plain", (2, 3, 4, 5), (3, 4, 3, 3), {}, FLIPPED),
    Spec("padded", (3, 3, 4, 5), (3, 4, 3, 2), {"pads": [1, 1, 1, 0]}, FLIPPED),
    Spec("pads_beyond_the_kernel", (1, 3, 6, 6), (3, 2, 2, 2), {"pads": [2, 0, 1, 3]}, FLIPPED),
    Spec("upsampling_2x2", (2, 3, 4, 3), (3, 4, 2, 2), {"strides": [2, 2]}, FLIPPED),
    Spec("stride_2", (2, 3, 4, 5), (3, 4, 3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 0]}, FLIPPED),
    Spec("kernel_below_stride", (2, 2, 4, 4), (2, 3, 1, 2), {"strides": [3, 3], "output_padding": [2, 1]}, FLIPPED),
    Spec("output_padding_of_a_stride", (2, 2, 3, 4), (2, 3, 3, 3), {"strides": [2, 1], "dilations": [1, 3], "output_padding": [1, 2]}),
    Spec("output_padding_cropped", (2, 2, 3, 4), (2, 3, 3, 3), {"dilations": [2, 3], "pads": [0, 0, 0, 1], "output_padding": [1, 2]}),
    Spec("dilated_grouped", (2, 4, 4, 4), (4, 3, 3, 2), {"group": 2, "dilations": [2, 1], "strides": [2, 2]}, FLIPPED),
    Spec("depthwise", (2, 4, 4, 5), (4, 1, 3, 3), {"group": 4, "strides": [2, 2], "pads": [1, 1, 1, 1]}, FLIPPED),
    Spec("line", (2, 3, 6), (3, 2, 4), {"strides": [2], "pads": [1, 2]}, FLIPPED),
    Spec("volume", (2, 2, 3, 2, 3), (2, 3, 2, 3, 2), {"strides": [2, 1, 2]}, FLIPPED),
    Spec("output_shape", (2, 2, 4, 4), (2, 3, 3, 3), {"strides": [2, 2], "output_shape": [8, 7]}, FLIPPED, (1, 1, 0, 1)),
    Spec("output_shape_and_padding", (2, 2, 4, 4), (2, 3, 3, 3), {"strides": [2, 2], "output_shape": [7, 8], "output_padding": [1, 1]}, FLIPPED, (2, 1, 1, 1)),
    Spec("output_shape_upper", (2, 2, 4, 4), (2, 3, 3, 3), {"strides": [2, 2], "output_shape": [8, 7], "auto_pad": "SAME_UPPER"}, FLIPPED, (0, 1, 1, 1)),
    Spec("same_upper", (2, 2, 4, 4), (2, 3, 3, 4), {"strides": [2, 2], "auto_pad": "SAME_UPPER"}, FLIPPED, (0, 1, 1, 1)),
    Spec("same_lower", (2, 2, 4, 4), (2, 3, 3, 4), {"strides": [2, 2], "auto_pad": "SAME_LOWER"}, FLIPPED, (1, 1, 0, 1)),
    Spec("valid", (2, 2, 4, 4), (2, 3, 3, 4), {"strides": [2, 2], "auto_pad": "VALID"}, FLIPPED, (0, 0, 0, 0)),
]  # fmt: skip


def transpose_oracle(spec: Spec) -> Callable[..., torch.Tensor]:
    """Return `spec` as a function on torch tensors: the full result, cropped by the pads."""
    a, rank = spec.attributes, len(spec.x) - 2
    pads, extra = spec.explicit or a.get("pads", [0] * 2 * rank), a.get("output_padding", [0] * rank)
    crops = [int(p) for i in reversed(range(rank)) for p in (-pads[i], extra[i] - pads[rank + i])]

    def forward(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        y = TRANSPOSES[rank - 1](x, w, None, a.get("strides", 1), 0, 0, a.get("group", 1), a.get("dilations", 1))
        return functional.pad(y, crops) + b.reshape(-1, *[1] * rank)

    return forward


@pytest.mark.parametrize("spec", TRANSPOSE_SPECS, ids=lambda spec: spec.name)
def test_conv_transpose_gradient_equals_autograd(spec: Spec, rng: np.random.Generator) -> None:
    channels = spec.w[1] * spec.attributes.get("group", 1)
    inputs = [rng.standard_normal(spec.x), rng.standard_normal(spec.w), rng.standard_normal(channels)]
    forward = transpose_oracle(spec)
    run = not spec.name.startswith("output_padding")  # of a stride or more: ONNX Runtime refuses to run such a node
    checked = check_rule(
        "ConvTranspose", inputs, attributes=spec.attributes, torch_forward=forward, tol=1e-12, float32=run
    )
    assert spec.ops is None or checked.ops == list(spec.ops)


@pytest.mark.parametrize("stride", [1, 2])
def test_weights_computed_from_constants_are_as_good(stride: int, rng: np.random.Generator) -> None:
    """Dequantised or transposed weights: the gradient reads them at run time, in a ConvTranspose."""
    shape = [stride * (n - 1) + 1 for n in (4, 5)]
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], strides=[stride, stride], pads=[1, 1, 1, 1])
    array = rng.standard_normal((2, 3, 3, 3))
    stored = onnx.numpy_helper.from_array(array.astype(np.float32), "stored")
    turn = onnx.helper.make_node("Transpose", ["stored"], ["w"], perm=[1, 0, 2, 3])
    value = onnx.helper.make_tensor_value_info
    ends = [value("x", 1, ["N", 2, *shape]), value("g", 1, ["N", 3, 4, 5])], [value("y", 1, ["N", 3, 4, 5])]
    graph = onnx.helper.make_graph([turn, node], "computed", *ends, [stored])
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto, strict_mode=True))
    x, g = model.graph.inputs
    model.graph.outputs[:] = sweep(model.graph, {model.graph.outputs[0]: g}, [x], RULES)
    assert sum(node.op_type == "ConvTranspose" for node in model.graph) == 1
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = {"x": rng.standard_normal((2, 2, *shape)), "g": rng.standard_normal((2, 3, 4, 5))}
    got = session.run(None, {name: value.astype(np.float32) for name, value in feeds.items()})[0]
    tensor = torch.from_numpy(feeds["x"]).requires_grad_()
    y = functional.conv2d(tensor, torch.from_numpy(array).transpose(0, 1), stride=stride, padding=1)
    (want,) = torch.autograd.grad(y, [tensor], torch.from_numpy(feeds["g"]))
    np.testing.assert_allclose(got, want.numpy(), rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("size", "kernel", "attributes"),
    [
        ((5, 6), (2, 3), {}),
        ((6, 7), (3, 3), {"strides": [2, 1], "pads": [1, 1, 1, 1]}),
        ((7, 7), (2, 2), {"dilations": [2, 3], "strides": [1, 2]}),
    ],
)
def test_columns_take_back_the_windows_they_were_added_to(
    size: tuple[int, int], kernel: tuple[int, int], attributes: dict[str, list[int]], rng: np.random.Generator
) -> None:
    """Col2Im, as torch's fold."""
    dilation, stride = attributes.get("dilations", [1, 1]), attributes.get("strides", [1, 1])
    padding = attributes.get("pads", [0] * 4)[:2]

    def forward(x: torch.Tensor, *_: Any) -> torch.Tensor:
        return functional.fold(x, size, kernel, dilation, padding, stride)

    rows = zip(size, kernel, dilation, padding, stride, strict=True)
    places = int(np.prod([(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, d, p, s in rows]))
    x = rng.standard_normal((2, 3 * int(np.prod(kernel)), places))
    check_rule("Col2Im", [x, np.array(size), np.array(kernel)], attributes=attributes, torch_forward=forward, tol=1e-12)


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
def test_weights_that_the_input_decides_are_refused(op: str, rng: np.random.Generator) -> None:
    inputs = [rng.standard_normal((2, 3, 5, 5)), rng.standard_normal((3, 3, 3, 3))]
    with pytest.raises(MissingRuleError, match="weights 'input_1' are computed from the model's input"):
        check_rule(op, inputs, runtime=(1,), symbolic_batch=[0])


def gradient_of_symbolic_size(strides: list[int], pads: list[int]) -> onnx.ModelProto:
    """Return the input gradient of a 3x3 Conv of images whose height and width are symbols."""
    value = onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], name="the_node", strides=strides, pads=pads)
    weights = onnx.numpy_helper.from_array(np.arange(18, dtype=np.float32).reshape(2, 1, 3, 3), "w")
    ends = [value("x", 1, ["N", 1, "H", "W"])], [value("y", 1, ["N", 2, "h", "w"])]
    graph = onnx.helper.make_graph([node], "fully_convolutional", *ends, [weights])
    model = ir.from_proto(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    )
    output = model.graph.outputs[0]
    seed = ir.Value(name="g", shape=output.shape, type=output.type)
    model.graph.inputs.append(seed)
    model.graph.outputs[:] = sweep(model.graph, {output: seed}, [model.graph.inputs[0]], RULES)
    return ir.to_proto(model)


def test_at_stride_1_the_image_may_have_any_size(rng: np.random.Generator) -> None:
    model = gradient_of_symbolic_size([1, 1], [1, 1, 1, 1])
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for size in ((4, 5), (7, 3)):
        x, g = (rng.standard_normal((2, c, *size)).astype(np.float32) for c in (1, 2))
        tensor = torch.from_numpy(x).requires_grad_()
        weights = torch.arange(18, dtype=torch.float32).reshape(2, 1, 3, 3)
        y = functional.conv2d(tensor, weights, padding=1)
        (want,) = torch.autograd.grad(y, [tensor], torch.from_numpy(g))
        np.testing.assert_allclose(session.run(None, {"x": x, "g": g})[0], want.numpy(), rtol=0, atol=1e-4)


def test_above_stride_1_a_symbolic_size_is_refused() -> None:
    with pytest.raises(
        MissingRuleError, match=r"Conv at node 'the_node'.*length of axis 2 is 'H'; a static one is needed"
    ):
        gradient_of_symbolic_size([2, 2], [1, 1, 1, 1])
