"""
Pools: where the maximum came from, or equal shares.

MaxPool gives no indices away (execution providers for GPUs have no kernel for what would follow), so its rule finds
the maximum again: tap by tap in raster order, the taps of all windows at once, it compares with the output and hands
the cotangent to the first tap that equals it, as PyTorch does. Averages and norms share one adjoint of the window sum.
"""

from __future__ import annotations

from itertools import product
from math import prod

import numpy as np
import onnx_ir as ir

from .conv import transposed
from .emit import Emit, described, dims
from .gate import scale, sign
from .known import size_of
from .maxima import can_pick, picked, to_first_maxima
from .table import vjp
from .window import FAR, Window, extend, interleave, read_window, repeat, spatial_slice, static_sizes

__all__ = ["pool_before_relu"]

MANY_TAPS = 10  # so large windows are undone axis by axis: 5 + 5 taps in place of 25
MANY_DENSE_TAPS = 5  # the same where pooling over the later axes alone leaves no more than the output


@vjp("MaxPool")
def max_pool(e: Emit, node: ir.Node, g: ir.Value) -> tuple[ir.Value | None, ...]:
    """y = max over each window of x  =>  g goes to the first element, in raster order, that equals y."""
    x, y = node.inputs[0], node.outputs[0]
    assert x is not None
    window = _window(node)
    dx = to_first_maxima(e, x, y, g, window)
    return (_axis_by_axis(e, x, y, g, window, _rounds_up(node)) if dx is None else dx,)


def _window(node: ir.Node) -> Window:
    """Return the windows of a pooling node."""
    return read_window(node, node.attributes.get_ints("kernel_shape"), ceil=_rounds_up(node))


def _rounds_up(node: ir.Node) -> bool:
    """Return whether windows that are cut off at the end count; SAME pads leave none."""
    same = node.attributes.get_string("auto_pad", "NOTSET").startswith("SAME")
    return bool(node.attributes.get_int("ceil_mode", 0)) and not same


def _axis_by_axis(e: Emit, x: ir.Value, y: ir.Value, g: ir.Value, window: Window, ceil: bool) -> ir.Value:
    """
    Return the cotangent of `x` where `y` is its maximum over `window`.

    The first maximum in raster order is the first along the first axis of the maxima over the other axes, and there
    the first along those: large windows are split so, at the price of pooling once more.
    """
    axes = range(len(window.kernel))
    wide = [axis for axis in axes if window.kernel[axis] > 1]
    others = [axis for axis in axes if axis not in wide[:1]]
    many = MANY_DENSE_TAPS if all(window.strides[axis] == 1 for axis in others) else MANY_TAPS
    if len(wide) < 2 or prod(window.kernel) < many:
        return _to_first_taps(e, x, y, g, window)
    inner = window.along(others)
    between = e.MaxPool(
        x,
        kernel_shape=inner.kernel,
        strides=inner.strides,
        dilations=inner.dilations,
        pads=[*inner.begins, *inner.ends],
        ceil_mode=int(ceil),
    )
    between.shape = ir.Shape([*dims(x)[:2], *inner.counts])
    g = _to_first_taps(e, between, y, g, window.along(wide[:1], counted=others))
    return _axis_by_axis(e, x, between, g, inner, ceil)


def _to_first_taps(e: Emit, x: ir.Value, y: ir.Value, g: ir.Value, window: Window) -> ir.Value:
    """
    Return the cotangent of `x` tap by tap; what a tap takes is no longer there for the next, the last takes the rest.

    Tap k of all windows is a plain crop, by k d // s, of the phase k d % s of the input's grid; what it takes goes back
    to the same place.
    """
    places = [
        [divmod(k * d, s) for k in range(n)]
        for n, d, s in zip(window.kernel, window.dilations, window.strides, strict=True)
    ]
    sizes = [o + place[-1][0] for o, place in zip(window.counts, places, strict=True)]
    rows = zip(sizes, window.strides, window.sizes, window.begins, strict=True)
    ends = [size * s - n - b for size, s, n, b in rows]
    lowest = float(np.finfo(e.numpy_dtype(x)).min)  # finite: an image of -inf must not find its maximum in the padding
    if can_pick(x, y, g, window):
        needed = {tuple(r for _, r in tap) for tap in list(product(*places))[:-1]}
        starts = {phase: [r - b for r, b in zip(phase, window.begins, strict=True)] for phase in sorted(needed)}
        phases = {phase: picked(e, x, start, window.strides, sizes) for phase, start in starts.items()}
    else:
        phases = _split(e, extend(e, x, window.begins, ends, lowest), x, window)
    taken: dict[tuple[int, ...], list[ir.Value]] = {}
    kind = ir.DataType.from_numpy(e.numpy_dtype(g))
    taps = list(product(*places))
    for tap in taps:
        shift, phase = [t for t, _ in tap], tuple(r for _, r in tap)
        part = g
        if tap != taps[-1]:
            stops = [t + o if t + o < size else FAR for t, o, size in zip(shift, window.counts, sizes, strict=True)]
            candidate = spatial_slice(e, phases[phase], shift, stops)
            part = e.Mul(e.Cast(e.Equal(candidate, y), to=int(kind)), g)
            g = e.Sub(g, part)
        after = [size - o - t for size, o, t in zip(sizes, window.counts, shift, strict=True)]
        taken.setdefault(phase, []).append(extend(e, part, shift, after))
    parts = {phase: parts[0] if len(parts) == 1 else e.Sum(*parts) for phase, parts in taken.items()}
    untouched = [phase for phase in product(*(range(s) for s in window.strides)) if phase not in parts]
    if untouched:
        some = next(iter(parts.values()))
        parts |= dict.fromkeys(untouched, e.Where(e.const(np.array(False)), some, e.scalar(0.0, some)))
    dx = interleave(e, parts, sizes, window.strides)
    return extend(e, dx, [-b for b in window.begins], [-end for end in ends])


def _split(e: Emit, x: ir.Value, like: ir.Value, window: Window) -> dict[tuple[int, ...], ir.Value]:
    """
    Return ``x[:, :, r0::s0, r1::s1, ...]`` for every phase r; the inverse of `interleave`.

    `like` tells the number of channels. SpaceToDepth takes a third of the time of strided slices on CPUs.
    """
    strides, channels = window.strides, dims(like)[1]
    if prod(strides) == 1:
        return {(0,) * len(strides): x}
    everywhere = list(product(*(range(s) for s in strides)))
    if len(strides) == 2 and strides[0] == strides[1] and isinstance(channels, int):
        blocks = e.SpaceToDepth(x, blocksize=strides[0])
        sizes = e.const([channels] * len(everywhere))
        return dict(zip(everywhere, e.node("Split", [blocks, sizes], {"axis": 1}, len(everywhere)), strict=True))
    far = [FAR] * len(strides)
    return {phase: spatial_slice(e, x, phase, far, strides) for phase in everywhere}


def pool_before_relu(graph: ir.Graph) -> None:
    """
    Move each Relu that only a MaxPool reads behind it: the same numbers, and a quarter of the masks to read back.

    Parameters
    ----------
    graph : onnx_ir.Graph
        Changed in place; what it computes stays the same, but for the Relu's own output, which is gone.
    """
    for pool in list(graph):
        x = pool.inputs[0] if pool.op_type == "MaxPool" and len(pool.outputs) == 1 else None
        relu = None if x is None else x.producer()
        if x is None or relu is None or relu.op_type != "Relu" or len(x.uses()) != 1 or x.is_graph_output():
            continue
        y = pool.outputs[0]
        if y.is_graph_output():
            continue
        after = ir.node("Relu", [y], name=f"{relu.name}/pooled")
        after.outputs[0].name = f"{x.name}/pooled"
        described(after.outputs[0], y)
        users = [(use.node, use.idx) for use in y.uses() if use.node is not after]
        pool.replace_input_with(0, relu.inputs[0])
        graph.insert_after(pool, [after])
        for node, place in users:
            node.replace_input_with(place, after.outputs[0])


@vjp("AveragePool")
def average_pool(e: Emit, node: ir.Node, g: ir.Value) -> tuple[ir.Value | None, ...]:
    """y = mean over each window of x  =>  every element of a window gets g / its count of elements."""
    window = _window(node)
    counts = _counts(window, bool(node.attributes.get_int("count_include_pad", 0)))
    most = int(counts.max())
    if (counts != most).any():
        g = e.Mul(g, e.const((most / counts)[None, None].astype(e.numpy_dtype(g)), "share"))
    return (_spread(e, node, g, window, 1.0 / most),)


def _counts(window: Window, include_pad: bool) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return how many elements each window averages: those inside the input, or inside the explicit padding."""
    counts = np.ones(())
    rows = zip(*(getattr(window, name) for name in ("sizes", "kernel", "strides", "dilations")), strict=True)
    for axis, (size, kernel, stride, dilation) in enumerate(rows):
        begin, end = window.begins[axis], window.ends[axis]
        at = np.arange(window.counts[axis])[:, None] * stride + np.arange(kernel) * dilation - begin
        inside = at < size + end if include_pad else (at >= 0) & (at < size)
        counts = np.multiply.outer(counts, np.maximum(inside.sum(1), 1))
    return counts


def _spread(e: Emit, node: ir.Node, g: ir.Value, window: Window, weight: float) -> ir.Value:
    """Return the adjoint of `weight` times the sum over each window: g at every element of its window, summed."""
    y, rank = node.outputs[0], len(window.kernel)
    simple = all(d == 1 or k == 1 for k, d in zip(window.kernel, window.dilations, strict=True))
    if simple and window.kernel == window.strides and not any(window.begins):
        g = repeat(e, scale(e, g, weight, y), window.strides)
        return extend(e, g, [0] * rank, [-more for more in window.surplus])
    if simple and all(s == 1 for s in window.strides):
        begins = [k - 1 - b for k, b in zip(window.kernel, window.begins, strict=True)]
        ends = [k - 1 - end for k, end in zip(window.kernel, window.surplus, strict=True)]
        g = e.AveragePool(g, kernel_shape=window.kernel, pads=[*begins, *ends], count_include_pad=1)
        factor = weight * prod(window.kernel)
        return g if factor == 1 else scale(e, g, factor, y)
    channels = size_of(node, dims(y), 1)
    kernel = np.full((channels, 1, *window.kernel), weight, e.numpy_dtype(g))
    return transposed(e, g, e.const(kernel, "shares"), window, channels)


@vjp("LpPool")
def lp_pool(e: Emit, node: ir.Node, g: ir.Value) -> tuple[ir.Value | None, ...]:
    """y = (sum |x|^p)^(1/p)  =>  dx = sign(x) |x|^(p-1) g y^(1-p), zero where y is."""
    x, y, p = node.inputs[0], node.outputs[0], node.attributes.get_int("p", 2)
    assert x is not None
    return (_norm_share(e, x, _spread(e, node, _over_norm(e, g, y, p), _window(node), 1.0), p),)


@vjp("GlobalLpPool")
def global_lp_pool(e: Emit, node: ir.Node, g: ir.Value) -> tuple[ir.Value | None, ...]:
    """y = (sum over all positions of |x|^p)^(1/p)  =>  as LpPool."""
    x, y, p = node.inputs[0], node.outputs[0], node.attributes.get_int("p", 2)
    assert x is not None
    return (_norm_share(e, x, _over_norm(e, g, y, p), p),)


def _over_norm(e: Emit, g: ir.Value, y: ir.Value, p: int) -> ir.Value:
    """Return g y^(1-p), zero where y is."""
    if p == 1:
        return g
    power = y if p == 2 else e.Pow(y, e.scalar(p - 1, y))
    return e.Where(e.Greater(y, e.scalar(0.0, y)), e.Div(g, power), e.scalar(0.0, g))


def _norm_share(e: Emit, x: ir.Value, g: ir.Value, p: int) -> ir.Value:
    """Return sign(x) |x|^(p-1) g."""
    if p == 1:
        return e.Mul(sign(e, x), g)
    return e.Mul(x if p == 2 else e.Mul(x, e.Pow(e.Abs(x), e.scalar(p - 2, x))), g)


@vjp("GlobalAveragePool")
def global_average_pool(e: Emit, node: ir.Node, g: ir.Value) -> tuple[ir.Value | None, ...]:
    """y = mean over all positions of x  =>  dx = g / count everywhere."""
    y, sizes = node.outputs[0], _positions(node)
    return (e.Expand(described(scale(e, g, 1.0 / prod(sizes), y), y), e.const([1, 1, *sizes])),)


@vjp("GlobalMaxPool")
def global_max_pool(e: Emit, node: ir.Node, g: ir.Value) -> tuple[ir.Value | None, ...]:
    """y = max over all positions of x  =>  g goes to the first position, in raster order, where x is largest."""
    x, sizes = node.inputs[0], _positions(node)
    assert x is not None
    line = e.Reshape(x, e.const([0, 0, prod(sizes)]))
    first = e.ArgMax(line, axis=2, keepdims=1)
    mask = e.Equal(e.const(list(range(prod(sizes)))), first)
    dx = e.Where(mask, e.Reshape(g, e.const([0, 0, 1])), e.scalar(0.0, g))
    return (e.Reshape(dx, e.const([0, 0, *sizes])),)


def _positions(node: ir.Node) -> tuple[int, ...]:
    """Return the static spatial sizes of the node's input."""
    value = node.inputs[0]
    assert value is not None
    return static_sizes(node, len(dims(value)) - 2)
