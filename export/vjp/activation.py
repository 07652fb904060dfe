"""
Gradient rules of elementwise functions of one tensor: activations, exponentials, rounding, casts.

Masks of kinks come from `gate`; those of Relu, LeakyRelu, Clip and HardSigmoid are read from the output, so that ONNX
Runtime still fuses the function into the convolution before it. At a bound itself nothing passes: PyTorch's relu, relu6
and hardtanh agree; its clamp, which lets the cotangent pass there, cannot be told from the output.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from .emit import Emit, constant
from .fixed import is_fixed
from .gate import blend, complement, gate, scale, sign
from .known import given, is_float, nothing, optional_input, refuse
from .table import vjp

Cotangents = Sequence[ir.Value | None]

SELU_ALPHA = 1.67326319217681884765625  # ONNX Selu, default attributes
SELU_GAMMA = 1.05070102214813232421875

vjp("Ceil", "Floor", "Round", "Sign")(nothing)


@vjp("Identity")
def identity(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = x  =>  dx = g."""
    return (g,)


@vjp("Dropout")
def dropout(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = x in inference  =>  dx = g."""
    training = optional_input(node, 2)
    known = constant(training)
    if training is not None and (known is None or bool(np.any(known))):
        raise refuse(node, "it is in training mode; export the model for inference")
    return (g, *(None,) * (len(node.inputs) - 1))


@vjp("Cast", "CastLike")
def cast(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """Cast back between floating types; nothing flows through integers and truth values."""
    x = given(node)
    rest = (None,) * (len(node.inputs) - 1)
    if x.dtype is None or not (is_float(x) and is_float(node.outputs[0])):
        return (None, *rest)
    return (g if x.dtype == node.outputs[0].dtype else e.Cast(g, to=int(x.dtype)), *rest)


@vjp("Relu")
def relu(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = max(x, 0)  =>  dx = g [y > 0]."""
    return (gate(e, g, node.outputs[0], low=0.0),)


@vjp("LeakyRelu")
def leaky_relu(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = x or alpha x for x <= 0  =>  dx = g or alpha g; y has the sign of x unless alpha is negative."""
    alpha = node.attributes.get_float("alpha", 0.01)
    return (blend(e, g, node.outputs[0] if alpha >= 0 else given(node), alpha),)


@vjp("PRelu", broadcasts=True)
def prelu(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = x or s x for x <= 0  =>  dx = g or s g, ds = 0 or x g."""
    x, slope = given(node), given(node, 1)
    zero = e.scalar(0.0, g)
    positive = e.Greater(x, zero)
    dx = e.Where(positive, g, e.Mul(g, slope))
    return dx, None if is_fixed(slope) else e.Where(positive, zero, e.Mul(g, x))


@vjp("Elu", "Celu", "Selu")
def elu(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = c x or c a (exp(x/b) - 1) for x <= 0  =>  dx = c g or g (y + c a) / b; Elu c = b = 1, Celu c = 1 and b = a."""
    x, y = given(node), node.outputs[0]
    selu = node.op_type == "Selu"
    alpha = node.attributes.get_float("alpha", SELU_ALPHA if selu else 1.0)
    gamma = node.attributes.get_float("gamma", SELU_GAMMA) if selu else 1.0
    if node.op_type == "Celu":
        below = e.Add(e.Mul(y, e.scalar(1 / alpha, y)), e.scalar(1.0, y))
    else:
        below = e.Add(y, e.scalar(gamma * alpha, y))
    slope = e.Where(e.Greater(x, e.scalar(0.0, x)), e.scalar(gamma, y), below)
    return (e.Mul(g, slope),)


@vjp("ThresholdedRelu")
def thresholded_relu(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = x [x > alpha]  =>  dx = g [x > alpha]."""
    return (gate(e, g, given(node), low=node.attributes.get_float("alpha", 1.0)),)


@vjp("Shrink")
def shrink(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = x + bias, x - bias or 0  =>  dx = g [|x| > lambd]."""
    x = given(node)
    outside = e.Greater(e.Abs(x), e.scalar(node.attributes.get_float("lambd", 0.5), x))
    return (e.Where(outside, g, e.scalar(0.0, g)),)


@vjp("Clip")
def clip(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = min(max(x, low), high)  =>  dx = g [low < y < high]; a bound that is computed takes the rest."""
    y = node.outputs[0]
    bounds = [optional_input(node, 1), optional_input(node, 2)]
    values = [constant(bound) for bound in bounds]
    low, high = (None if value is None else float(value.item()) for value in values)
    dx = gate(e, g, y, low=low, high=high)
    outgoing: list[ir.Value | None] = [None, None]
    for i, (bound, value) in enumerate(zip(bounds, values, strict=True)):
        if bound is not None and value is None:
            zero, at = e.scalar(0.0, g), e.Equal(y, bound)
            dx = e.Where(at, zero, dx)
            outgoing[i] = e.ReduceSum(e.Where(at, g, zero), keepdims=0)
    return (dx, *outgoing[: len(node.inputs) - 1])


@vjp("Sigmoid")
def sigmoid(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = 1 / (1 + exp(-x))  =>  dx = g y (1 - y)."""
    y = node.outputs[0]
    return (e.Mul(e.Mul(g, y), complement(e, y)),)


@vjp("HardSigmoid")
def hard_sigmoid(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = clip(alpha x + beta, 0, 1)  =>  dx = alpha g [0 < y < 1]."""
    y, alpha = node.outputs[0], node.attributes.get_float("alpha", 0.2)
    return (scale(e, gate(e, g, y, low=0.0, high=1.0), alpha, y),)


@vjp("HardSwish")
def hard_swish(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = x h(x), h(x) = clip(x/6 + 1/2, 0, 1)  =>  dx = g h(x) + g x/6 [-3 < x < 3]."""
    x = given(node)
    inner = gate(e, e.Mul(g, scale(e, x, 1 / 6, x)), x, low=-3.0, high=3.0)
    return (e.Add(e.Mul(g, e.HardSigmoid(x, alpha=1 / 6, beta=0.5)), inner),)


@vjp("Tanh")
def tanh(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = tanh(x)  =>  dx = g (1 - y^2)."""
    y = node.outputs[0]
    return (e.Mul(g, complement(e, e.Mul(y, y))),)


@vjp("Softplus")
def softplus(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = log(1 + exp(x))  =>  dx = g sigmoid(x)."""
    return (e.Mul(g, e.Sigmoid(given(node))),)


@vjp("Softsign")
def softsign(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = x / (1 + |x|)  =>  dx = g / (1 + |x|)^2."""
    x = given(node)
    below = e.Add(e.Abs(x), e.scalar(1.0, g))
    return (e.Div(g, e.Mul(below, below)),)


@vjp("Mish")
def mish(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = x t, t = tanh(softplus(x))  =>  dx = g (t + x sigmoid(x) (1 - t^2))."""
    x = given(node)
    t = e.Tanh(e.Softplus(x))
    return (e.Mul(g, e.Add(t, e.Mul(e.Mul(x, e.Sigmoid(x)), complement(e, e.Mul(t, t))))),)


@vjp("Swish")
def swish(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = x s, s = sigmoid(alpha x)  =>  dx = g (s + alpha y (1 - s))."""
    x, y = given(node), node.outputs[0]
    alpha = node.attributes.get_float("alpha", 1.0)
    scaled = (x, y) if alpha == 1 else (e.Mul(x, e.scalar(alpha, y)), e.Mul(y, e.scalar(alpha, y)))
    s = e.Sigmoid(scaled[0])
    return (e.Mul(g, e.Add(s, e.Mul(scaled[1], complement(e, s)))),)


@vjp("Gelu")
def gelu(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = x P(x)  =>  dx = g (P + x P'), with P the normal distribution or (1 + tanh(k (x + c x^3))) / 2."""
    x = given(node)
    half, one = e.scalar(0.5, g), e.scalar(1.0, g)
    squared = e.Mul(x, x)
    if node.attributes.get_string("approximate", "none") == "tanh":
        k, c = np.sqrt(2 / np.pi), 0.044715
        t = e.Tanh(e.Mul(x, e.Add(e.Mul(squared, e.scalar(k * c, g)), e.scalar(k, g))))
        p = e.Mul(e.Add(t, one), half)
        inner = e.Add(e.Mul(squared, e.scalar(1.5 * k * c, g)), e.scalar(0.5 * k, g))
        density = e.Mul(complement(e, e.Mul(t, t)), inner)
    else:
        p = e.Mul(e.Add(e.Erf(e.Mul(x, e.scalar(np.sqrt(0.5), g))), one), half)
        density = e.Mul(e.Exp(e.Mul(squared, e.scalar(-0.5, g))), e.scalar(1 / np.sqrt(2 * np.pi), g))
    return (e.Mul(g, e.Add(p, e.Mul(x, density))),)


@vjp("Erf")
def erf(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = erf(x)  =>  dx = g 2/sqrt(pi) exp(-x^2)."""
    x = given(node)
    return (e.Mul(g, e.Mul(e.Exp(e.Neg(e.Mul(x, x))), e.scalar(2 / np.sqrt(np.pi), g))),)


@vjp("Exp")
def exp(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = exp(x)  =>  dx = g y."""
    return (e.Mul(g, node.outputs[0]),)


@vjp("Log")
def log(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = log(x)  =>  dx = g / x."""
    return (e.Div(g, given(node)),)


@vjp("Sqrt")
def sqrt(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = sqrt(x)  =>  dx = g / (2 y)."""
    y = node.outputs[0]
    return (e.Div(g, e.Add(y, y)),)


@vjp("Reciprocal")
def reciprocal(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = 1 / x  =>  dx = -g y^2."""
    y = node.outputs[0]
    return (e.Neg(e.Mul(g, e.Mul(y, y))),)


@vjp("Abs")
def absolute(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = |x|  =>  dx = g sign(x)."""
    x = given(node)
    return (e.Mul(g, sign(e, x)),)


@vjp("Neg")
def negative(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = -x  =>  dx = -g."""
    return (e.Neg(g),)


@vjp("Sin")
def sine(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = sin(x)  =>  dx = g cos(x)."""
    return (e.Mul(g, e.Cos(given(node))),)


@vjp("Cos")
def cosine(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = cos(x)  =>  dx = -g sin(x)."""
    return (e.Neg(e.Mul(g, e.Sin(given(node)))),)


@vjp("Tan", "Sinh", "Cosh", "Asin", "Acos", "Atan", "Asinh", "Acosh", "Atanh")
def trigonometric(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """The rarer functions, each by its textbook derivative."""
    x, y = given(node), node.outputs[0]
    one = e.scalar(1.0, g)
    if node.op_type in ("Sinh", "Cosh"):
        return (e.Mul(g, e.Cosh(x) if node.op_type == "Sinh" else e.Sinh(x)),)
    if node.op_type == "Tan":  # 1 + tan^2
        return (e.Mul(g, e.Add(e.Mul(y, y), one)),)
    squared = e.Mul(x, x)
    if node.op_type in ("Atan", "Asinh"):
        below = e.Add(one, squared)
    else:
        below = e.Sub(squared, one) if node.op_type == "Acosh" else e.Sub(one, squared)
    if node.op_type not in ("Atan", "Atanh"):
        below = e.Sqrt(below)
    dx = e.Div(g, below)
    return (e.Neg(dx) if node.op_type == "Acos" else dx,)
