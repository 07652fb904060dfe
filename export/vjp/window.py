"""
Sliding windows: the geometry that convolutions and pools share, and the slices and pads that undo it.

Everything is decided when the graph is built, from static spatial sizes; the batch dimension is never looked at.
Coordinates: output position ``o`` and kernel offset ``k`` touch the input at ``o * stride + k * dilation - begin``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import onnx_ir as ir

from .emit import Emit, dims
from .known import refuse, size_of

__all__ = ["Window", "extend", "interleave", "read_window", "repeat", "spatial_slice", "static_sizes"]

FAR = 2**31 - 1  # an end for Slice that lies beyond every axis, and that 32-bit back ends can hold


@dataclass(frozen=True)
class Window:
    """
    The windows of one node, a number for each spatial axis.

    Attributes
    ----------
    sizes : tuple of int
        Input sizes; -1 where the size is not static and nothing depends on it.
    kernel, strides, dilations : tuple of int
        As in ONNX.
    begins, ends : tuple of int
        Explicit pads, `auto_pad` resolved.
    counts : tuple of int
        Output sizes; -1 where `sizes` is.
    """

    sizes: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]
    counts: tuple[int, ...]

    @property
    def extents(self) -> tuple[int, ...]:
        """How much input one window spans, gaps of the dilation included."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    @property
    def spans(self) -> tuple[int, ...]:
        """How much padded input all windows together span."""
        return tuple(s * (o - 1) + w for s, o, w in zip(self.strides, self.counts, self.extents, strict=True))

    @property
    def surplus(self) -> tuple[int, ...]:
        """How far the last window reaches beyond the input's end; negative where input is left untouched there."""
        return tuple(w - b - n for w, b, n in zip(self.spans, self.begins, self.sizes, strict=True))

    def along(self, axes: Collection[int], counted: Collection[int] = ()) -> Window:
        """Return the window along `axes` only; other axes are left as they are, after pooling for those `counted`."""
        fields = (self.sizes, self.kernel, self.strides, self.dilations, self.begins, self.ends, self.counts)
        rows = []
        for axis, row in enumerate(zip(*fields, strict=True)):
            size = self.counts[axis] if axis in counted else self.sizes[axis]
            rows.append(row if axis in axes else (size, 1, 1, 1, 0, 0, size))
        return Window(*zip(*rows, strict=True))


def read_window(node: ir.Node, kernel: Sequence[int], *, ceil: bool = False, sized: bool = True) -> Window:
    """
    Return the windows of a convolution or pooling node.

    Parameters
    ----------
    node : onnx_ir.Node
        A Conv or a pool.
    kernel : sequence of int
        The kernel's shape.
    ceil : bool, default False
        Round the number of windows up, as pools with ``ceil_mode`` do; windows that start in the end padding are left
        out.
    sized : bool, default True
        Refuse symbolic spatial sizes even where all strides are 1.

    Returns
    -------
    Window
        With explicit pads.

    Raises
    ------
    MissingRuleError
        If a spatial size that matters is symbolic, or SAME pads are asked for dilated kernels.
    """
    rank = len(kernel)
    ones, zeros = (1,) * rank, (0,) * 2 * rank
    strides = tuple(node.attributes.get_ints("strides", ones))
    dilations = tuple(node.attributes.get_ints("dilations", ones))
    extents = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
    sizes = static_sizes(node, rank, needed=sized or any(s != 1 for s in strides))
    mode = node.attributes.get_string("auto_pad", "NOTSET")
    if mode.startswith("SAME"):
        if tuple(extents) != tuple(kernel):
            raise refuse(
                node, f"auto_pad {mode} with dilations, which runtimes read differently; explicit pads are needed"
            )
        # at stride 1 the total is extent - 1 whatever the size
        total = [
            max(0, (-(-n // s) - 1) * s + w - n) if s != 1 else w - 1
            for n, s, w in zip(sizes, strides, extents, strict=True)
        ]
        small, large = tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
        begins, ends = (small, large) if mode == "SAME_UPPER" else (large, small)
        ceil = False
    else:
        pads = zeros if mode == "VALID" else tuple(node.attributes.get_ints("pads", zeros))
        begins, ends = pads[:rank], pads[rank:]
    counts = []
    for n, s, w, b, e in zip(sizes, strides, extents, begins, ends, strict=True):
        free = n + b + e - w
        count = (-(-free // s) if ceil else free // s) + 1
        if ceil and (count - 1) * s >= n + b:
            count -= 1
        counts.append(count if n >= 0 else -1)
    return Window(sizes, tuple(kernel), strides, dilations, begins, ends, tuple(counts))


def static_sizes(node: ir.Node, rank: int, *, needed: bool = True) -> tuple[int, ...]:
    """Return the last `rank` sizes of the node's first input; a symbolic one is refused if `needed`, -1 otherwise."""
    value = node.inputs[0]
    assert value is not None
    known = dims(value)
    axes = range(len(known) - rank, len(known))
    return tuple(size_of(node, known, axis) if needed or isinstance(known[axis], int) else -1 for axis in axes)


def spatial_slice(
    e: Emit, x: ir.Value, starts: Sequence[int], ends: Sequence[int], steps: Sequence[int] | None = None
) -> ir.Value:
    """Return ``x[:, :, starts[0]:ends[0]:steps[0], ...]``, nothing emitted for axes that are kept whole (0, FAR, 1)."""
    steps = steps or [1] * len(starts)
    axes = [i for i, part in enumerate(zip(starts, ends, steps, strict=True)) if part != (0, FAR, 1)]
    if not axes:
        return x
    bounds = [e.const([part[i] for i in axes]) for part in (starts, ends)]
    where = e.const([2 + i for i in axes])
    if all(steps[i] == 1 for i in axes):
        return e.Slice(x, *bounds, where)
    return e.Slice(x, *bounds, where, e.const([steps[i] for i in axes]))


def extend(e: Emit, x: ir.Value, begins: Sequence[int], ends: Sequence[int], fill: float | None = None) -> ir.Value:
    """Return `x` with its spatial axes padded by `begins` and `ends`; negative numbers crop."""
    starts = [max(0, -b) for b in begins]
    x = spatial_slice(e, x, starts, [FAR if end >= 0 else end for end in ends])
    pads = [0, 0, *(max(0, b) for b in begins), 0, 0, *(max(0, end) for end in ends)]
    if not any(pads):
        return x
    return e.Pad(x, e.const(pads)) if fill is None else e.Pad(x, e.const(pads), e.scalar(fill, x))


def repeat(e: Emit, x: ir.Value, factors: Sequence[int]) -> ir.Value:
    """Return `x` with every element repeated along the spatial axes, by a Resize that execution providers know well."""
    return e.Resize(
        x,
        None,
        e.const(np.array([1, 1, *factors], np.float32), "factors"),
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )


def interleave(
    e: Emit, parts: Mapping[tuple[int, ...], ir.Value], sizes: Sequence[int], strides: Sequence[int]
) -> ir.Value:
    """
    Return the tensor whose ``[:, :, r0::s0, r1::s1, ...]`` is ``parts[r0, r1, ...]``, all of spatial shape `sizes`.

    Each axis is woven by one Concat along the axis after it, which DepthToSpace does four to ten times slower on CPUs.
    """
    rank = len(sizes)
    if all(s == 1 for s in strides):
        return parts[(0,) * rank]
    if strides[-1] > 1:
        last = e.const([2 + rank])
        parts = {place: e.Unsqueeze(part, last) for place, part in parts.items()}
    for axis in reversed(range(rank)):
        heads = list(product(*(range(s) for s in strides[:axis])))
        if strides[axis] > 1:
            rows = {head: [parts[*head, r] for r in range(strides[axis])] for head in heads}
            parts = {head: e.Concat(*row, axis=3 + axis) for head, row in rows.items()}
        else:
            parts = {head: parts[*head, 0] for head in heads}
    return e.Reshape(parts[()], e.const([0, 0, *(n * s for n, s in zip(sizes, strides, strict=True))]))
