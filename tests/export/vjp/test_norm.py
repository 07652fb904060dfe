"""Gradients of normalisations, against torch's float64 autograd of the formulas in the ONNX specification."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from camrt.errors import MissingRuleError
from camrt.export.backward import sweep
from camrt.export.vjp import RULES
from tests.export.vjp.check import check_rule, spaced

Tensor = torch.Tensor
SHAPES = [(3, 4), (1, 4, 5), (3, 4, 3, 2), (2, 4, 2, 3, 2)]


def channels(vector: Tensor, rank: int) -> Tensor:
    """Return a vector (C,) that broadcasts along axis 1."""
    return vector.reshape(-1, *[1] * (rank - 2))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("epsilon", [None, 0.1])
def test_batch_normalization_gradient_equals_autograd(
    shape: tuple[int, ...], epsilon: float | None, rng: np.random.Generator
) -> None:
    def forward(x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        mean, var, scale, bias = (channels(v, x.ndim) for v in (mean, var, scale, bias))
        return (x - mean) / torch.sqrt(var + (epsilon or 1e-5)) * scale + bias

    vectors = [rng.standard_normal(shape[1]) for _ in range(3)]
    inputs = [rng.standard_normal(shape), *vectors, rng.uniform(0.1, 2, shape[1])]
    attributes = {} if epsilon is None else {"epsilon": epsilon}
    # float32: ONNX stores epsilon so
    checked = check_rule(
        "BatchNormalization", inputs, attributes=attributes, torch_forward=forward, tol=1e-7, cotangents=(0,)
    )
    assert checked.ops == ["Mul"]


def test_batch_normalization_in_training_mode_is_refused(rng: np.random.Generator) -> None:
    inputs = [rng.standard_normal((2, 3)), *(np.ones(3) for _ in range(4))]
    with pytest.raises(MissingRuleError, match="training mode; export the model in evaluation mode"):
        check_rule("BatchNormalization", inputs, attributes={"training_mode": 1}, outputs=3, cotangents=(0,))


def standardised(x: Tensor, axes: tuple[int, ...], epsilon: float = 1e-5) -> tuple[Tensor, Tensor, Tensor]:
    """Return x with zero mean and unit deviation along `axes`, the mean and the inverse deviation."""
    mean = x.mean(axes, keepdim=True)
    inverse = (((x - mean) ** 2).mean(axes, keepdim=True) + epsilon) ** -0.5
    return (x - mean) * inverse, mean, inverse


@pytest.mark.parametrize(
    ("shape", "axis"),
    [((3, 6), -1), ((1, 4, 6), 2), ((3, 4, 6), -1), ((3, 2, 3, 4), 1), ((2, 3, 4, 5), -2), ((4, 5), 0)],
)
@pytest.mark.parametrize("outputs", [1, 2, 3])
@pytest.mark.parametrize("bias", [False, True])
def test_layer_normalization_gradient_equals_autograd(
    shape: tuple[int, ...], axis: int, outputs: int, bias: bool, rng: np.random.Generator
) -> None:
    axes = tuple(range(axis % len(shape), len(shape)))

    def forward(x: Tensor, scale: Tensor, bias: Tensor | None = None) -> tuple[Tensor, ...]:
        xhat, mean, inverse = standardised(x, axes, 0.01)
        return (xhat * scale + (0 if bias is None else bias), mean, inverse)[:outputs]

    inputs = [2 + rng.standard_normal(shape), rng.standard_normal(shape[axes[0] :])]
    inputs += [rng.standard_normal(shape[axes[0] :])] if bias else []
    checked = check_rule(
        "LayerNormalization",
        inputs,
        attributes={"axis": axis, "epsilon": 0.01},
        outputs=outputs,
        cotangents=(0,),
        torch_forward=forward,
        symbolic_batch=axis != 0,
        tol=1e-7,
    )
    assert checked.ops.count("ReduceMean") == (2 if outputs == 3 else 4)


def test_layer_normalization_equals_torchs_own(rng: np.random.Generator) -> None:
    def forward(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        return torch.nn.functional.layer_norm(x, scale.shape, scale, bias)

    inputs = [rng.standard_normal((2, 7, 16)), rng.standard_normal(16), rng.standard_normal(16)]
    check_rule("LayerNormalization", inputs, torch_forward=forward, tol=1e-7, cotangents=(0,))


def test_layer_normalization_of_constant_rows_is_finite() -> None:
    inputs = [np.full((2, 3, 8), 5.0), np.ones(8)]
    check_rule(
        "LayerNormalization", inputs, torch_forward=lambda x, s: standardised(x, (2,))[0] * s, cotangents=(0,), tol=1e-7
    )


def test_a_cotangent_of_the_mean_is_refused(rng: np.random.Generator) -> None:
    with pytest.raises(MissingRuleError, match="mean or deviation lies on the path"):
        check_rule("LayerNormalization", [rng.standard_normal((2, 4)), np.ones(4)], outputs=2, cotangents=(0, 1))


@pytest.mark.parametrize("op", ["LayerNormalization", "RMSNormalization"])
def test_half_precision_is_normalised_in_float32(op: str) -> None:
    """Squares of 300 overflow float16: the statistics are those of a cast input, the gradient is cast back."""
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT16, ["N", 4])
    g = onnx.helper.make_tensor_value_info("g", onnx.TensorProto.FLOAT16, ["N", 4])
    scale = onnx.numpy_helper.from_array(np.ones(4, np.float16), "scale")
    node = onnx.helper.make_node(op, ["x", "scale"], ["y"])
    graph = onnx.helper.make_graph([node], "half", [x, g], [onnx.helper.make_empty_tensor_value_info("y")], [scale])
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 23)], ir_version=11)
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto, strict_mode=True))
    inputs = model.graph.inputs
    (gradient,) = sweep(model.graph, {model.graph.outputs[0]: inputs[1]}, [inputs[0]], RULES)
    assert gradient is not None and gradient.dtype == ir.DataType.FLOAT16
    squares = [n for n in model.graph if n.op_type == "Mul" and n.inputs[0] is n.inputs[1]]
    assert [n.outputs[0].dtype for n in squares] == [ir.DataType.FLOAT]


@pytest.mark.parametrize("shape", [(1, 4, 5), (3, 4, 3, 2), (2, 4, 2, 3, 2)])
def test_instance_normalization_gradient_equals_autograd(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    def forward(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        xhat, *_ = standardised(x, tuple(range(2, x.ndim)))
        return xhat * channels(scale, x.ndim) + channels(bias, x.ndim)

    inputs = [rng.standard_normal(shape), rng.standard_normal(4), rng.standard_normal(4)]
    check_rule("InstanceNormalization", inputs, torch_forward=forward, tol=1e-7)


@pytest.mark.parametrize("opset", [18, 21, 23])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("shape", [(1, 4, 5), (3, 4, 3, 2), (2, 4, 2, 3, 2)])
def test_group_normalization_gradient_equals_autograd(
    shape: tuple[int, ...], groups: int, opset: int, rng: np.random.Generator
) -> None:
    each = 1 if opset >= 21 else 4 // groups  # before 21 there was one scale a group

    def forward(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        xhat, *_ = standardised(x.reshape(x.shape[0], groups, -1), (2,))
        scale, bias = (channels(v.repeat_interleave(each), x.ndim) for v in (scale, bias))
        return xhat.reshape(x.shape) * scale + bias

    inputs = [rng.standard_normal(shape), rng.standard_normal(4 // each), rng.standard_normal(4 // each)]
    check_rule(
        "GroupNormalization", inputs, attributes={"num_groups": groups}, opset=opset, torch_forward=forward, tol=1e-7
    )


@pytest.mark.parametrize(("shape", "axis"), [((3, 6), -1), ((1, 4, 6), 2), ((2, 3, 4, 5), -2)])
def test_rms_normalization_gradient_equals_autograd(
    shape: tuple[int, ...], axis: int, rng: np.random.Generator
) -> None:
    axes = tuple(range(axis % len(shape), len(shape)))

    def forward(x: Tensor, scale: Tensor) -> Tensor:
        return x * ((x**2).mean(axes, keepdim=True) + 1e-5) ** -0.5 * scale

    inputs = [rng.standard_normal(shape), rng.standard_normal(shape[axes[0] :])]
    check_rule("RMSNormalization", inputs, attributes={"axis": axis}, opset=23, torch_forward=forward, tol=1e-7)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("axis", [None, 1, -2])
def test_lp_normalization_gradient_equals_autograd(p: int, axis: int | None, rng: np.random.Generator) -> None:
    along = -1 if axis is None else axis

    def forward(x: Tensor) -> Tensor:
        norm: Tensor = torch.linalg.vector_norm(x, p, along, keepdim=True)
        return x / norm

    attributes = {"p": p} if axis is None else {"p": p, "axis": axis}
    check_rule("LpNormalization", [spaced(rng, 2, 4, 5)], attributes=attributes, torch_forward=forward, tol=1e-10)


def test_lp_normalization_of_zeros_has_no_gradient() -> None:
    checked = check_rule("LpNormalization", [np.zeros((2, 3))], torch_forward=lambda x: x * 0, tol=1)
    assert not checked.gradients[0].any()


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("attributes", [{}, {"alpha": 0.9, "beta": 0.6, "bias": 2.0}])
def test_lrn_gradient_equals_autograd(size: int, attributes: dict[str, Any], rng: np.random.Generator) -> None:
    check_rule(
        "LRN",
        [2 * rng.standard_normal((2, 6, 3, 2))],
        attributes={"size": size, **attributes},
        torch_forward=lrn(size, **attributes),
        tol=1e-6,  # alpha and beta are stored in float32
        float32=size % 2 == 1,  # ONNX Runtime refuses even sizes
    )


def lrn(size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0) -> Callable[[Tensor], Tensor]:
    """Return LRN as the specification words it, channel by channel."""

    def forward(x: Tensor) -> Tensor:
        count = x.shape[1]
        sums = [
            (x[:, max(0, c - (size - 1) // 2) : min(count - 1, c + size // 2) + 1] ** 2).sum(1) for c in range(count)
        ]
        result: Tensor = x / (bias + alpha / size * torch.stack(sums, 1)) ** beta
        return result

    return forward


def test_scales_computed_from_constants_are_as_good(rng: np.random.Generator) -> None:
    """BatchNormalization with scale and variance made by nodes: dx = g 2 scale / sqrt(3 var + epsilon)."""
    text = """
        <ir_version: 10, opset_import: ["" : 18]>
        batch (float[N,3,4] x, float[N,3,4] g) => (float[N,3,4] y)
        <float[3] scale = {1, -2, 3}, float[3] var = {0.5, 1, 2}, float two = {2}, float three = {3}, float[3] zero = {0, 0, 0}>
        {
            twice = Mul(scale, two)
            thrice = Mul(var, three)
            y = BatchNormalization(x, twice, zero, zero, thrice)
        }
    """
    proto = onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text), strict_mode=True)
    model = ir.from_proto(proto)
    x, g = model.graph.inputs
    (gradient,) = sweep(model.graph, {model.graph.outputs[0]: g}, [x], RULES)
    assert gradient is not None
    model.graph.outputs.append(gradient)
    given = rng.standard_normal((2, 3, 4)).astype(np.float32)
    got = ReferenceEvaluator(ir.to_proto(model)).run(None, {"x": given, "g": given})
    factor = 2 * np.array([1, -2, 3]) / np.sqrt(3 * np.array([0.5, 1, 2]) + 1e-5)
    np.testing.assert_allclose(list(got)[1], given * factor[:, None], rtol=1e-6)


@pytest.mark.parametrize(
    "op",
    ["BatchNormalization", "LayerNormalization", "InstanceNormalization", "RMSNormalization", "GroupNormalization"],
)
def test_scales_that_the_input_decides_are_refused(op: str, rng: np.random.Generator) -> None:
    inputs = [rng.standard_normal((2, 3, 4)), np.ones(4 if op[0] in "LR" else 3), np.ones(4 if op[0] in "LR" else 3)]
    attributes = {"num_groups": 3} if op[0] == "G" else {}
    inputs = inputs[:2] if op[0] == "R" else [*inputs, np.ones(3), np.ones(3)] if op[0] == "B" else inputs
    with pytest.raises(MissingRuleError, match="are computed from the model's input"):
        check_rule(op, inputs, attributes=attributes, runtime=(1,), symbolic_batch=[0], opset=23, cotangents=(0,))
