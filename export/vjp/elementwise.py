"""
Gradient rules of elementwise arithmetic: cotangents come in the output's shape, the sweep undoes broadcasting.

Where several inputs of Max or Min tie, the first takes the whole gradient. Comparisons and logic pass nothing back.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from .emit import Emit, constant
from .fixed import is_fixed
from .known import given, is_float, nothing
from .table import vjp

Cotangents = Sequence[ir.Value | None]

vjp("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")(nothing)
vjp("And", "Or", "Not", "Xor", "IsInf", "IsNaN")(nothing)
vjp("BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor")(nothing)


@vjp("Add", "Sum", broadcasts=True)
def add(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = a + b + ...  =>  da = db = ... = g."""
    return (g,) * len(node.inputs)


@vjp("Mean", broadcasts=True)
def mean(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = (a + b + ...) / n  =>  da = db = ... = g / n."""
    return (e.Mul(g, e.scalar(1 / len(node.inputs), g)),) * len(node.inputs)


@vjp("Sub", broadcasts=True)
def subtract(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = a - b  =>  da = g, db = -g."""
    return g, None if is_fixed(given(node, 1)) else e.Neg(g)


@vjp("Mul", broadcasts=True)
def multiply(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = a b  =>  da = g b, db = g a."""
    a, b = given(node), given(node, 1)
    return None if is_fixed(a) else e.Mul(g, b), None if is_fixed(b) else e.Mul(g, a)


@vjp("Div", broadcasts=True)
def divide(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = a / b  =>  da = g / b, db = -y da."""
    b = given(node, 1)
    da = e.Div(g, b)
    return da, None if is_fixed(b) else e.Neg(e.Mul(da, node.outputs[0]))


@vjp("Pow", broadcasts=True)
def power(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = x^p  =>  dx = g p x^(p-1), dp = g y log(x) (0 where x <= 0, where it has no value)."""
    x, p = given(node), given(node, 1)
    known = constant(p)
    if known is None:
        real = p if p.dtype == g.dtype else e.Cast(p, to=int(g.dtype or ir.DataType.FLOAT))
        dx = e.Mul(g, e.Mul(real, e.Pow(x, e.Sub(real, e.scalar(1.0, g)))))
    elif np.all(known == 2):
        dx = e.Mul(g, e.Add(x, x))
    else:
        exponent = np.asarray(known, Emit.numpy_dtype(g))
        lowered = np.where(exponent == 0, exponent, exponent - 1)  # 0 x^0 is 0 everywhere, 0 x^-1 is not
        dx = e.Mul(g, e.Mul(e.const(exponent, "exponent"), e.Pow(x, e.const(lowered, "exponent"))))
    if is_fixed(p) or not is_float(p):
        return None if is_fixed(x) else dx, None
    zero, one = e.scalar(0.0, g), e.scalar(1.0, g)
    positive = e.Greater(x, e.scalar(0.0, g))
    dp = e.Where(positive, e.Mul(e.Mul(g, node.outputs[0]), e.Log(e.Where(positive, x, one))), zero)
    return None if is_fixed(x) else dx, dp


@vjp("Mod", broadcasts=True)
def modulo(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = a - n b with n an integer  =>  da = g, db = -n g."""
    a, b = given(node), given(node, 1)
    if is_fixed(b):
        return g, None
    n = e.Round(e.Div(e.Sub(a, node.outputs[0]), b))
    return g, e.Neg(e.Mul(g, n))


@vjp("Max", "Min", broadcasts=True)
def extreme(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = max(a, b, ...)  =>  g for the first input that equals y."""
    y, zero, left = node.outputs[0], e.scalar(0.0, g), g
    outgoing: list[ir.Value | None] = []
    for value in node.inputs[:-1]:
        taken = e.Equal(value, y)
        outgoing.append(None if is_fixed(value) else e.Where(taken, left, zero))
        left = e.Where(taken, zero, left)
    return (*outgoing, left)


@vjp("Where", broadcasts=True)
def where(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = a where c, b elsewhere  =>  da = g where c, db = g elsewhere."""
    condition, a, b = given(node), given(node, 1), given(node, 2)
    zero = e.scalar(0.0, g)
    da = None if is_fixed(a) else e.Where(condition, g, zero)
    return None, da, None if is_fixed(b) else e.Where(condition, zero, g)
