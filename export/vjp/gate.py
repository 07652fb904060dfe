"""
Masks of the kinks: where a cotangent passes and where it stops, in the fewest and fastest operators.

In float32 the mask ``[v > b]`` is ``HardSigmoid(v; alpha=2^k, beta=-b*2^k)``, that is ``clip(2^k (v - b), 0, 1)``, and a
product with it stands for Where: ONNX Runtime keeps HardSigmoid, Mul and Add in the blocked layout of its convolutions,
but leaves that layout for Where, comparisons, Sub and products with a scalar. The mask is exact: scaling by a power of
two rounds nothing, two float32 numbers ``v != b`` differ by at least ``|b| 2^-25``, and k is so large that this becomes
at least 1 but ``b*2^k`` stays finite. For b = 0, k is 127: every normal number ``v > 0`` gives exactly 1, and only a
subnormal ``v`` below ``2^-127`` (6e-39) counts in part. Other element types use comparisons and Where.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .emit import Emit, dims

__all__ = ["blend", "complement", "gate", "scale", "sign", "stops_at"]

BLOCK = 16  # channels of the widest blocked layout
FUSED = {"Clip", "LeakyRelu", "Relu"}  # activations that it fuses into the convolution before them
OUTSIDE = {"ConvTranspose", "Expand", "Reshape", "Slice"}  # computed outside it; Pad too, but fused pads fail
SMALLEST_BOUND = 2.0**-100  # below, 2^127 does not lift the distance of two neighbours to 1


def gate(e: Emit, g: ir.Value, value: ir.Value, *, low: float | None = None, high: float | None = None) -> ir.Value:
    """Return `g` where ``low < value < high`` and 0 elsewhere; the bounds are numbers of `value`'s type, or None."""
    limit = np.inf if value.dtype is None else float(value.dtype.max)
    low = None if low is None or low <= -limit else float(low)
    high = None if high is None or high >= limit else float(high)
    if all(_steps_exactly(value, bound) for bound in (low, high)):
        if low is not None:
            g = e.Mul(_in_blocks(e, g, value), _step(e, value, low, 1.0))
        return g if high is None else e.Mul(g, _step(e, value, high, -1.0))
    inside = None if low is None else e.Greater(value, e.scalar(low, value))
    if high is not None:
        below = e.Less(value, e.scalar(high, value))
        inside = below if inside is None else e.And(inside, below)
    return g if inside is None else e.Where(inside, g, e.scalar(0.0, g))


def blend(e: Emit, g: ir.Value, value: ir.Value, slope: float) -> ir.Value:
    """Return `g` where ``value > 0`` and ``slope * g`` elsewhere."""
    if value.dtype == ir.DataType.FLOAT and 0 <= slope <= 1:
        mask = _step(e, value, 0.0, 1.0)
        return e.Mul(g, e.HardSigmoid(mask, alpha=1.0 - slope, beta=slope))  # an affine map of {0, 1}
    return e.Where(e.Greater(value, e.scalar(0.0, value)), g, e.Mul(g, e.scalar(slope, g)))


def complement(e: Emit, value: ir.Value) -> ir.Value:
    """Return ``1 - value`` for values in [0, 1]."""
    if value.dtype == ir.DataType.FLOAT:
        return e.HardSigmoid(value, alpha=-1.0, beta=1.0)
    return e.Sub(e.scalar(1.0, value), value)


def sign(e: Emit, value: ir.Value) -> ir.Value:
    """Return -1, 0 or 1: in float32 from two masks, since ONNX Runtime's Sign is slow."""
    if value.dtype == ir.DataType.FLOAT:
        return e.Sub(_step(e, value, 0.0, 1.0), _step(e, value, 0.0, -1.0))
    return e.Sign(value)


def stops_at(g: ir.Value, x: ir.Value) -> bool:
    """Return whether `g` has just passed the mask of Relu(x), in float32: it is zero wherever ``x <= 0``."""
    product = g.producer()
    if product is None or product.op_type != "Mul" or product.inputs[1] is None:
        return False
    step = product.inputs[1].producer()
    if step is None or step.op_type != "HardSigmoid" or step.attributes.get_float("beta", 0.5) != 0:
        return False
    relu = None if step.inputs[0] is None else step.inputs[0].producer()
    return (
        relu is not None and relu.op_type == "Relu" and relu.inputs[0] is x and step.attributes.get_float("alpha") > 1
    )


def scale(e: Emit, value: ir.Value, number: float, like: ir.Value) -> ir.Value:
    """
    Return ``number * value``, where `value` has the shape of `like`.

    Images take the number once a channel: the blocked layout keeps such a product, and leaves for a scalar.
    """
    channels = dims(like)[1:2] if len(dims(like)) == 4 else ()
    if value.dtype == ir.DataType.FLOAT and channels and isinstance(channels[0], int):
        return e.Mul(value, e.const(np.full((1, channels[0], 1, 1), number, np.float32), "channels"))
    return e.Mul(value, e.scalar(number, value))


def _in_blocks(e: Emit, g: ir.Value, value: ir.Value) -> ir.Value:
    """
    Return `g`, through a MaxPool of one element where it comes from outside the blocked layout: pools enter it.

    Otherwise the mask leaves that layout to meet `g`, and the next convolution returns to it: a whole residual stream
    would change its layout at every block.
    """
    source, made = g.producer(), value.producer()
    shape = () if value.shape is None else dims(value)
    aligned = len(shape) == 4 and isinstance(shape[1], int) and shape[1] % BLOCK == 0
    if source is None or made is None or not aligned or source.op_type not in OUTSIDE or made.op_type not in FUSED:
        return g
    return e.MaxPool(g, kernel_shape=[1, 1])


def _steps_exactly(value: ir.Value, bound: float | None) -> bool:
    """Return whether the float32 mask at `bound` is exact."""
    return value.dtype == ir.DataType.FLOAT and (not bound or abs(bound) >= SMALLEST_BOUND)


def _step(e: Emit, value: ir.Value, bound: float, direction: float) -> ir.Value:
    """Return the float32 mask ``[value > bound]`` for direction 1, ``[value < bound]`` for -1."""
    power = min(127, 127 - int(np.frexp(bound)[1])) if bound else 127
    slope = direction * 2.0**power
    return e.HardSigmoid(value, alpha=slope, beta=-bound * slope if bound else 0.0)
