"""Gradients of functions of one tensor, against central finite differences in float64 or torch's autograd."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from camrt.errors import MissingRuleError
from tests.export.vjp.check import check_rule
from tests.export.vjp.run import gradients
from tests.export.vjp.spec import Spec, between, rows

SPECS = [
    Spec("Identity", (between(-2, 2),), ops=()),
    Spec("Dropout", (between(-2, 2),), ops=()),
    Spec("Dropout", (between(-2, 2), np.float32(0.3), np.array(False)), name="told", ops=()),
    Spec("Floor", (between(0.1, 0.9),), ops=()),
    Spec("Ceil", (between(0.1, 0.9),), ops=()),
    Spec("Round", (between(0.6, 1.4),), ops=()),
    Spec("Sign", (between(-2, 2, kinks=[0]),), ops=()),
    Spec("Relu", (between(-2, 2, kinks=[0]),), ops=("Greater", "Where")),
    Spec("Relu", (between(-2, 2, 6, kinks=[0]),), name="vector"),
    Spec("LeakyRelu", (between(-2, 2, kinks=[0]),)),
    Spec("LeakyRelu", (between(-2, 2, kinks=[0]),), name="slope_0.3", attributes={"alpha": 0.3}),
    Spec("LeakyRelu", (between(-2, 2, kinks=[0]),), name="slope_0", attributes={"alpha": 0.0}),
    Spec("LeakyRelu", (between(-2, 2, kinks=[0]),), name="slope_-0.2", attributes={"alpha": -0.2}),
    Spec("LeakyRelu", (between(-2, 2, kinks=[0]),), name="slope_1.5", attributes={"alpha": 1.5}),
    Spec("PRelu", (between(-2, 2, kinks=[0]), between(-0.5, 0.5, 3, 1, 1)), name="channel"),
    Spec("PRelu", (between(-2, 2, kinks=[0]), between(0.1, 0.5, 1)), name="shared", ops=("Greater", "Mul", "Where")),
    Spec(
        "PRelu",
        (between(-2, 2, kinks=[0]), between(-0.5, 0.5, 3, 1, 1)),
        name="to_slope",
        wrt=(0, 1),
        symbolic_batch=[0],
    ),
    Spec("Elu", (between(-2, 2, kinks=[0]),)),
    Spec("Elu", (between(-2, 2, kinks=[0]),), name="alpha_0.4", attributes={"alpha": 0.4}),
    Spec("Selu", (between(-2, 2, kinks=[0]),)),
    Spec("Selu", (between(-2, 2, kinks=[0]),), name="attributes", attributes={"alpha": 0.8, "gamma": 1.3}),
    Spec("ThresholdedRelu", (between(0, 2, kinks=[1]),)),
    Spec("ThresholdedRelu", (between(-2, 2, kinks=[-0.5]),), name="alpha_-0.5", attributes={"alpha": -0.5}),
    Spec("Shrink", (between(-2, 2, kinks=[-0.5, 0.5]),), attributes={"bias": 0.1}),
    Spec("Shrink", (between(-2, 2, kinks=[-1.5, 1.5]),), name="lambd_1.5", attributes={"lambd": 1.5}),
    Spec("Clip", (between(-3, 9, kinks=[0, 6]), np.float32(0), np.float32(6)), name="relu6"),
    Spec("Clip", (between(-3, 3, kinks=[-1, 1]), np.float32(-1), np.float32(1)), name="hardtanh"),
    Spec("Clip", (between(-3, 3, kinks=[-1]), np.float32(-1)), name="low", ops=("Greater", "Where")),
    Spec("Clip", (between(-3, 3, kinks=[1]), None, np.float32(1)), name="high", ops=("Less", "Where")),
    Spec("Clip", (between(-3, 3),), name="free", ops=()),
    Spec(
        "Clip",
        (between(-3, 3, kinks=[-1, 1]), np.array(-1.0), np.array(1.0)),
        name="computed_bounds",
        wrt=(0, 1, 2),
        symbolic_batch=[0],
    ),
    Spec("Sigmoid", (between(-6, 6),)),
    Spec("HardSigmoid", (between(-4, 4, kinks=[-2.5, 2.5]),)),
    Spec("HardSigmoid", (between(-4, 4, kinks=[-3, 3]),), name="sixth", attributes={"alpha": 1 / 6}),
    Spec(
        "HardSigmoid", (between(-4.1, 4, 3, 7, kinks=[-3, 2]),), name="tokens", attributes={"alpha": 0.2, "beta": 0.6}
    ),
    Spec("HardSwish", (between(-5, 5, kinks=[-3, 3]),)),
    Spec("HardSwish", (between(-5, 5, 4, 7, kinks=[-3, 3]),), name="vectors"),
    Spec("Tanh", (between(-3, 3),)),
    Spec("Softplus", (between(-5, 5),)),
    Spec("Softsign", (between(-3, 3),)),
    Spec("Mish", (between(-4, 4),)),
    Spec("Swish", (between(-4, 4),), opsets=(24,)),
    Spec("Swish", (between(-4, 4),), name="alpha_1.7", attributes={"alpha": 1.7}, opsets=(24,)),
    Spec("Gelu", (between(-4, 4),), opsets=(20, 23), torch_forward=torch.nn.functional.gelu),
    Spec("Gelu", (between(-4, 4),), name="tanh", attributes={"approximate": "tanh"}, opsets=(20, 23)),
    Spec("Erf", (between(-2, 2),)),
    Spec("Exp", (between(-2, 2),)),
    Spec("Log", (between(0.2, 3),)),
    Spec("Sqrt", (between(0.2, 3),)),
    Spec("Reciprocal", (between(0.5, 3),)),
    Spec("Reciprocal", (between(-3, -0.5),), name="negative"),
    Spec("Abs", (between(-2, 2, kinks=[0]),)),
    Spec("Neg", (between(-2, 2),)),
    Spec("Sin", (between(-3, 3),)),
    Spec("Cos", (between(-3, 3),)),
    Spec("Tan", (between(-1, 1),)),
    Spec("Sinh", (between(-2, 2),)),
    Spec("Cosh", (between(-2, 2),)),
    Spec("Asin", (between(-0.8, 0.8),)),
    Spec("Acos", (between(-0.8, 0.8),)),
    Spec("Atan", (between(-3, 3),)),
    Spec("Asinh", (between(-3, 3),)),
    Spec("Acosh", (between(1.3, 4),)),
    Spec("Atanh", (between(-0.8, 0.8),)),
    Spec("Cast", (between(-2, 2),), name="same", attributes={"to": onnx.TensorProto.DOUBLE}, float32=False, ops=()),
    Spec("CastLike", (between(-2, 2), np.float32(0)), ops=()),
]


@pytest.mark.parametrize(("spec", "opset"), rows(SPECS))
def test_the_gradient_equals_finite_differences(spec: Spec, opset: int) -> None:
    spec.check(opset)


@pytest.mark.parametrize("alpha", [1.0, 0.7, 2.5])
def test_celu_follows_torch(alpha: float) -> None:
    """ONNX has Celu in float32 alone, so that finite differences have no float64 to stand on."""
    x = between(-3, 3, kinks=[0]).astype(np.float32)
    tensor = torch.tensor(x, requires_grad=True)
    torch.nn.functional.celu(tensor, alpha).sum().backward()
    assert tensor.grad is not None
    (got,) = gradients("Celu", [x], {"alpha": alpha})
    assert got is not None
    np.testing.assert_allclose(got, tensor.grad.numpy(), rtol=2e-6, atol=1e-7)


def test_a_cast_between_floating_types_casts_back() -> None:
    x = between(-3, 3).astype(np.float32)
    (got,) = gradients("Cast", [x], {"to": onnx.TensorProto.DOUBLE})
    assert got is not None and got.dtype == np.float32
    np.testing.assert_array_equal(got, np.ones_like(x))


@pytest.mark.parametrize("op", ["Sigmoid", "Tanh", "Mish", "HardSwish", "Softsign", "Softplus", "Erf", "Elu", "Selu"])
def test_saturated_inputs_give_finite_gradients(op: str) -> None:
    x = np.array([-80, -30, -3.5, 3.5, 30, 80], np.float32)
    (got,) = gradients(op, [x])
    assert got is not None and np.isfinite(got).all()
    slope = {"Mish": 1, "HardSwish": 1, "Softplus": 1, "Elu": 1, "Selu": 1.0507010221481323}.get(op)
    if slope is not None:
        np.testing.assert_allclose(got[[0, -1]], [0, slope], atol=1e-6)


def test_dropout_in_training_mode_is_refused() -> None:
    with pytest.raises(MissingRuleError, match=r"Dropout at node 'the_node' .* training mode"):
        check_rule("Dropout", [between(-1, 1), np.float32(0.3), np.array(True)])
