"""
Operators by torch and NumPy in float64, for the places where the ONNX reference evaluator's own are slow or wrong.

`STAND_INS` is what a `ReferenceEvaluator` takes as ``new_ops``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from onnx.reference.op_run import OpRun

__all__ = ["STAND_INS", "tensor"]

Array = np.ndarray[Any, Any]
CONVS = [torch.conv1d, torch.conv2d, torch.conv3d]
TRANSPOSED = [torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d]
MAX_POOLS = [torch.max_pool1d, torch.max_pool2d, torch.max_pool3d]


def tensor(array: Array) -> torch.Tensor:
    """Return a torch copy of `array` (a view would warn where it is read-only)."""
    return torch.from_numpy(np.array(array))


class Windows(NamedTuple):
    """The windows of a node: strides, dilations, explicit pads, and end pads up to the last window's end."""

    strides: list[int]
    dilations: list[int]
    begins: list[int]
    ends: list[int]
    reach: list[int]


def windows(
    size: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int] | None,
    dilations: Sequence[int] | None,
    pads: Sequence[int] | None,
    mode: str | None,
    ceil: bool = False,
) -> Windows:
    """Resolve auto_pad and ceil_mode; a window that starts in the end padding does not count."""
    rank = len(size)
    strides, dilations = list(strides or [1] * rank), list(dilations or [1] * rank)
    extents = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
    pads = list(pads or [0] * 2 * rank)
    if mode not in (None, "NOTSET"):
        same = mode != "VALID"
        total = [same * max(0, (-(-n // s) - 1) * s + w - n) for n, s, w in zip(size, strides, extents, strict=True)]
        small, large = [t // 2 for t in total], [t - t // 2 for t in total]
        pads = small + large if mode == "SAME_UPPER" else large + small
        ceil = ceil and not same
    begins, ends = pads[:rank], pads[rank:]
    rows = list(zip(size, begins, ends, extents, strides, strict=True))
    counts = [(n + b + e - w) // s for n, b, e, w, s in rows]
    if ceil:
        counts = [min(-(-(n + b + e - w) // s), -(-(n + b) // s) - 1) for n, b, e, w, s in rows]
    reach = [c * s + w - n - b for c, (n, b, _, w, s) in zip(counts, rows, strict=True)]
    return Windows(strides, dilations, begins, ends, reach)


def _pad(x: torch.Tensor, begins: Sequence[int], ends: Sequence[int], value: float = 0.0) -> torch.Tensor:
    """Pad or crop the spatial axes."""
    pads = [int(p) for pair in reversed(list(zip(begins, ends, strict=True))) for p in pair]
    return torch.nn.functional.pad(x, pads, value=value)


def _window_sum(x: torch.Tensor, kernel: Sequence[int], w: Windows) -> torch.Tensor:
    """Return the sums over the windows of `x`, padded already."""
    ones = torch.ones((x.shape[1], 1, *kernel), dtype=x.dtype)
    return CONVS[len(kernel) - 1](x, ones, None, w.strides, 0, w.dilations, x.shape[1])


class Conv(OpRun):
    """ONNX Conv (the reference evaluator's takes seconds)."""

    op_domain = ""

    def _run(  # type: ignore[no-untyped-def]
        self, x, w, b=None, auto_pad=None, dilations=None, group=None, kernel_shape=None, pads=None, strides=None
    ):
        at = windows(x.shape[2:], w.shape[2:], strides, dilations, pads, auto_pad)
        bias = None if b is None else tensor(b)
        padded = _pad(tensor(x), at.begins, at.ends)
        return (CONVS[x.ndim - 3](padded, tensor(w), bias, at.strides, 0, at.dilations, group or 1).numpy(),)


class ConvTranspose(OpRun):
    """ONNX ConvTranspose (the reference evaluator's is wrong for groups)."""

    op_domain = ""

    def _run(  # type: ignore[no-untyped-def]
        self,
        x,
        w,
        b=None,
        auto_pad=None,
        dilations=None,
        group=None,
        kernel_shape=None,
        output_padding=None,
        output_shape=None,
        pads=None,
        strides=None,
    ):
        rank = x.ndim - 2
        strides, dilations, extra = strides or [1] * rank, dilations or [1] * rank, output_padding or [0] * rank
        whole = TRANSPOSED[rank - 1](tensor(x), tensor(w), None, strides, 0, 0, group or 1, dilations)
        pads = pads or [0] * 2 * rank
        same = (auto_pad or "NOTSET").startswith("SAME")
        if output_shape is not None or same:
            size = output_shape[-rank:] if output_shape else [n * s for n, s in zip(x.shape[2:], strides, strict=True)]
            total = [n + e - out for n, e, out in zip(whole.shape[2:], extra, size, strict=True)]
            small, large = [t // 2 for t in total], [t - t // 2 for t in total]
            pads = small + large if auto_pad == "SAME_UPPER" else large + small
        y = _pad(whole, [-p for p in pads[:rank]], [e - p for e, p in zip(extra, pads[rank:], strict=True)])
        if b is not None:
            y = y + tensor(b).reshape(-1, *[1] * rank)
        return (y.numpy(),)


class MaxPool(OpRun):
    """ONNX MaxPool (the reference evaluator fails on some pads); an output of indices is left at zero."""

    op_domain = ""

    def _run(  # type: ignore[no-untyped-def]
        self,
        x,
        auto_pad=None,
        ceil_mode=None,
        dilations=None,
        kernel_shape=None,
        pads=None,
        storage_order=None,
        strides=None,
    ):
        at = windows(x.shape[2:], kernel_shape, strides, dilations, pads, auto_pad, bool(ceil_mode))
        padded = _pad(tensor(x), at.begins, at.reach, -torch.inf)
        y = MAX_POOLS[x.ndim - 3](padded, kernel_shape, at.strides, 0, at.dilations).numpy()
        return (y, np.zeros(y.shape, np.int64))[: len(self.onnx_node.output)]


class AveragePool(OpRun):
    """ONNX AveragePool (the reference evaluator's takes half a minute for a volume)."""

    op_domain = ""

    def _run(  # type: ignore[no-untyped-def]
        self,
        x,
        auto_pad=None,
        ceil_mode=None,
        count_include_pad=None,
        dilations=None,
        kernel_shape=None,
        pads=None,
        strides=None,
    ):
        at = windows(x.shape[2:], kernel_shape, strides, dilations, pads, auto_pad, bool(ceil_mode))
        beyond = [r - e for r, e in zip(at.reach, at.ends, strict=True)]
        inside = _pad(
            torch.ones(1, 1, *x.shape[2:], dtype=torch.float64), at.begins, at.ends, float(count_include_pad or 0)
        )
        counts = _window_sum(_pad(inside, [0] * len(beyond), beyond), kernel_shape, at)
        padded = _pad(tensor(x), at.begins, at.reach)
        return ((_window_sum(padded, kernel_shape, at) / counts).numpy().astype(x.dtype),)


class LpPool(OpRun):
    """ONNX LpPool (the reference evaluator's takes seconds for a volume)."""

    op_domain = ""

    def _run(  # type: ignore[no-untyped-def]
        self,
        x,
        auto_pad=None,
        ceil_mode=None,
        dilations=None,
        kernel_shape=None,
        p=None,
        pads=None,
        strides=None,
    ):
        at = windows(x.shape[2:], kernel_shape, strides, dilations, pads, auto_pad, bool(ceil_mode))
        power = 2 if p is None else p
        padded = _pad(tensor(x).abs() ** power, at.begins, at.reach)
        return ((_window_sum(padded, kernel_shape, at) ** (1 / power)).numpy(),)


class GatherElements(OpRun):
    """ONNX GatherElements (the reference evaluator wants indices as long as the data)."""

    op_domain = ""

    def _run(self, x, index, axis=None):  # type: ignore[no-untyped-def]
        index = torch.from_numpy(index % x.shape[axis or 0])
        return (torch.gather(tensor(x), axis or 0, index).numpy(),)


class Erf(OpRun):
    """ONNX Erf (the reference evaluator's rounds to float32)."""

    op_domain = ""

    def _run(self, x):  # type: ignore[no-untyped-def]
        return (torch.special.erf(tensor(np.asarray(x))).numpy(),)


class Gelu(OpRun):
    """ONNX Gelu (the reference evaluator's rounds to float32)."""

    op_domain = ""

    def _run(self, x, approximate=None):  # type: ignore[no-untyped-def]
        return (torch.nn.functional.gelu(tensor(x), approximate=approximate or "none").numpy(),)


class GroupNormalization(OpRun):
    """ONNX GroupNormalization with a scale a channel (the reference evaluator's rounds to float32)."""

    op_domain = ""

    def _run(self, x, scale, bias, epsilon=None, num_groups=None, stash_type=None):  # type: ignore[no-untyped-def]
        return (torch.group_norm(tensor(x), num_groups, tensor(scale), tensor(bias), epsilon or 1e-5).numpy(),)


class LpNormalization(OpRun):
    """ONNX LpNormalization (the reference evaluator's takes no absolute value)."""

    op_domain = ""

    def _run(self, x, axis=None, p=None):  # type: ignore[no-untyped-def]
        norm = np.linalg.norm(x, 2 if p is None else p, -1 if axis is None else axis, keepdims=True)
        return (np.divide(x, norm, out=np.zeros_like(x), where=norm != 0),)


class LRN(OpRun):
    """ONNX LRN (the reference evaluator's leaves out channels)."""

    op_domain = ""

    def _run(self, x, alpha=None, beta=None, bias=None, size=None):  # type: ignore[no-untyped-def]
        before, after = (size - 1) // 2, size // 2
        padded = np.pad(x * x, [(0, 0), (before, after), *[(0, 0)] * (x.ndim - 2)])
        total = sum(padded[:, i : i + x.shape[1]] for i in range(size))
        return (x / (bias + alpha / size * total) ** beta,)


STAND_INS = [
    AveragePool, Conv, ConvTranspose, Erf, GatherElements, Gelu, GroupNormalization, LRN, LpNormalization, LpPool, MaxPool
]  # fmt: skip
