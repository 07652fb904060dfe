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

from .emit import Emit, described, dims
from .window import repeat

__all__ = ["blend", "complement", "gate", "is_aligned", "scale", "sign", "step", "stops_at"]

BLOCK = 16  # channels of the widest blocked layout
CLIPS = {"Clip", "HardSigmoid"}
FUSED = {"Clip", "LeakyRelu", "Relu"}  # activations that it fuses into the convolution before them
OUTSIDE = {"ConvTranspose", "Expand", "Reshape", "Slice"}  # computed outside it; Pad too, but fused pads fail
SMALLEST_BOUND = 2.0**-100  # below, 2^127 does not lift the distance of two neighbours to 1
LARGEST_BOUND = 2.0**100  # above, a number divided by a power of two may be subnormal
NO_OFFSET = -(2.0**-100)  # a beta that changes no mask: OpenVINO 2026.4 reads exactly 0 as absent, which means 0.5


def gate(e: Emit, g: ir.Value, value: ir.Value, *, low: float | None = None, high: float | None = None) -> ir.Value:
    """Return `g` where ``low < value < high`` and 0 elsewhere; the bounds are numbers of `value`'s type, or None."""
    limit = np.inf if value.dtype is None else float(value.dtype.max)
    low = None if low is None or low <= -limit else float(low)
    high = None if high is None or high >= limit else float(high)
    if all(_steps_exactly(value, bound) for bound in (low, high)):
        if low == 0 and high is not None and SMALLEST_BOUND <= high <= LARGEST_BOUND and _is_clipped(value):
            return e.Mul(_in_blocks(e, g, value), _inside(e, value, high))
        if low is not None:
            g = e.Mul(_in_blocks(e, g, value), step(e, value, low, 1.0))
        return g if high is None else e.Mul(g, step(e, value, high, -1.0))
    inside = None if low is None else e.Greater(value, e.scalar(low, value))
    if high is not None:
        below = e.Less(value, e.scalar(high, value))
        inside = below if inside is None else e.And(inside, below)
    return g if inside is None else e.Where(inside, g, e.scalar(0.0, g))


def blend(e: Emit, g: ir.Value, value: ir.Value, slope: float) -> ir.Value:
    """Return `g` where ``value > 0`` and ``slope * g`` elsewhere."""
    if value.dtype == ir.DataType.FLOAT and 0 <= slope <= 1:
        mask = step(e, value)
        return e.Mul(g, e.HardSigmoid(mask, alpha=1.0 - slope, beta=slope or NO_OFFSET))  # an affine map of {0, 1}
    return e.Where(e.Greater(value, e.scalar(0.0, value)), g, e.Mul(g, e.scalar(slope, g)))


def complement(e: Emit, value: ir.Value) -> ir.Value:
    """Return ``1 - value`` for values in [0, 1]."""
    if value.dtype == ir.DataType.FLOAT:
        return e.HardSigmoid(value, alpha=-1.0, beta=1.0)
    return e.Sub(e.scalar(1.0, value), value)


def sign(e: Emit, value: ir.Value) -> ir.Value:
    """Return -1, 0 or 1: in float32 from two masks, since ONNX Runtime's Sign is slow."""
    if value.dtype == ir.DataType.FLOAT:
        return e.Sub(step(e, value), step(e, value, 0.0, -1.0))
    return e.Sign(value)


def stops_at(g: ir.Value, x: ir.Value) -> bool:
    """Return whether `g` has just passed the mask of Relu(x), in float32: it is zero wherever ``x <= 0``."""
    product = g.producer()
    if product is None or product.op_type != "Mul" or product.inputs[1] is None:
        return False
    mask = product.inputs[1].producer()
    if mask is None or mask.op_type != "HardSigmoid" or mask.attributes.get_float("beta", 0.5) != NO_OFFSET:
        return False
    relu = None if mask.inputs[0] is None else mask.inputs[0].producer()
    return (
        relu is not None and relu.op_type == "Relu" and relu.inputs[0] is x and mask.attributes.get_float("alpha") > 1
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


def is_aligned(value: ir.Value) -> bool:
    """Return whether the channels of an image fill the widest blocks."""
    shape = () if value.shape is None else dims(value)
    return len(shape) == 4 and isinstance(shape[1], int) and shape[1] % BLOCK == 0


def step(e: Emit, value: ir.Value, bound: float = 0.0, direction: float = 1.0) -> ir.Value:
    """Return the float32 mask ``[value > bound]`` for direction 1, ``[value < bound]`` for -1."""
    power = min(127, 127 - int(np.frexp(bound)[1])) if bound else 127
    slope = direction * 2.0**power
    return e.HardSigmoid(value, alpha=slope, beta=-bound * slope if bound else NO_OFFSET)


def _is_clipped(value: ir.Value) -> bool:
    """Return whether `value` comes out of a Clip or HardSigmoid, in the blocked layout as far as its shape tells."""
    made = value.producer()
    return made is not None and made.op_type in CLIPS and is_aligned(value)


def _inside(e: Emit, value: ir.Value, high: float) -> ir.Value:
    """
    Return the mask ``[0 < value < high]`` of a `value` in [0, high].

    It is ``[h - v + [v > 0] > 1]``, where h in (1/2, 1] and v are `high` and `value` over a power of two: exact, since
    the sum is rounded by less than the distance of v to h. ONNX Runtime computes all of it but ``[v > 0]`` in one pass
    over memory, and two masks with a product each in four.
    """
    part, power = np.frexp(high)
    part, power = (1.0, power - 1) if part == 0.5 else (float(part), power)
    near = e.Add(scale(e, value, -(2.0**-power), value), step(e, value))
    return e.HardSigmoid(near, alpha=2.0**127, beta=(part - 1) * 2.0**127 or NO_OFFSET)


def _in_blocks(e: Emit, g: ir.Value, value: ir.Value) -> ir.Value:
    """
    Return `g`, through a MaxPool of one element where it comes from outside the blocked layout: pools enter it.

    Otherwise the mask leaves that layout to meet `g`, and the next convolution returns to it: a whole residual stream
    would change its layout at every block. What a global pool has spread by Expand is spread by Resize instead, inside.
    """
    made = value.producer()
    return _entering(e, g, value) if made is not None and made.op_type in FUSED and is_aligned(value) else g


def _entering(e: Emit, g: ir.Value, value: ir.Value) -> ir.Value:
    """Return `g`, of the shape of `value`, in the blocked layout; the summands of a sum enter it one by one."""
    source = g.producer()
    if source is None:
        return g
    if source.op_type == "Add":
        summands = [_entering(e, summand, value) for summand in source.inputs if summand is not None]
        return g if summands == list(source.inputs) else e.Add(*summands)
    if source.op_type not in OUTSIDE:
        return g
    small, factors = source.inputs[0], [size for size in dims(value)[2:] if isinstance(size, int)]
    is_spread = source.op_type == "Expand" and small is not None and small.shape is not None and len(factors) == 2
    if is_spread and small is not None and dims(small)[1:] == (*dims(value)[1:2], 1, 1):
        return described(repeat(e, e.MaxPool(small, kernel_shape=[1, 1]), factors), value)
    return e.MaxPool(g, kernel_shape=[1, 1])


def _steps_exactly(value: ir.Value, bound: float | None) -> bool:
    """Return whether the float32 mask at `bound` is exact."""
    return value.dtype == ir.DataType.FLOAT and (not bound or abs(bound) >= SMALLEST_BOUND)
