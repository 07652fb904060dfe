"""
Integers that stand for numbers, and the numbers in their place.

A quantised tensor holds integers q, and ``(q - zero_point) * scale`` is what they stand for: its `Code`. In the float twin
of a quantised model the same tensor holds those numbers themselves. In: nodes of the given model, in order. Out: the
twin's nodes, which read and write numbers; constants are decoded by ``DequantizeLinear``, which folds away later.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from camrt.errors import ModelError

from .vjp.emit import Emit, constant
from .vjp.known import optional_input

__all__ = ["Code", "Rewriter", "refused"]

Array = np.ndarray[Any, Any]


def refused(node: ir.Node, reason: str) -> ModelError:
    """
    Return the error that says why a quantised node has no place in the float twin.

    Parameters
    ----------
    node : onnx_ir.Node
        Of the given model.
    reason : str
        Why.

    Returns
    -------
    ModelError
        Naming operator and node, and what to do.
    """
    domain = "" if node.domain in ("", "ai.onnx") else f"{node.domain}::"
    return ModelError(
        f"quantised operator {domain}{node.op_type} at node {node.name!r} has no float twin: {reason}; give the model in "
        "float, or quantise it with QuantizeLinear and DequantizeLinear pairs"
    )


@dataclass(frozen=True, eq=False)
class Code:
    """
    How the integers q of a tensor stand for numbers: ``(q - zero_point) * scale``.

    Attributes
    ----------
    scale : ndarray of float, shape () or (L,)
        One for the tensor, or one for each of the L slices along `axis`.
    zero_point : ndarray of int, shape () or (L,)
        The integer that stands for 0.
    dtype : onnx_ir.DataType
        Of the integers.
    axis : int
        Meaningless for a scale of shape ().
    """

    scale: Array
    zero_point: Array
    dtype: ir.DataType
    axis: int = 0

    def __eq__(self, other: object) -> bool:
        """Tell codes in which the same integers stand for the same numbers."""
        return (
            isinstance(other, Code)
            and np.array_equal(self.scale, other.scale)
            and np.array_equal(self.zero_point, other.zero_point)
            and (self.is_whole or self.axis == other.axis)
        )

    __hash__ = None  # type: ignore[assignment]

    @property
    def is_whole(self) -> bool:
        """Return whether one scale holds for the whole tensor."""
        return bool(self.scale.ndim == 0 and self.zero_point.ndim == 0)

    @property
    def range(self) -> tuple[Array, Array]:
        """Return the smallest and the largest number that has an integer, as the scale's type."""
        bits = self.dtype.bitwidth
        low = -(1 << bits - 1) if self.dtype.is_signed() else 0
        zero, scale = self.zero_point.astype(np.int64), self.scale
        return (
            np.asarray((low - zero).astype(scale.dtype) * scale),
            np.asarray((low + (1 << bits) - 1 - zero).astype(scale.dtype) * scale),
        )

    def decode(self, q: Array) -> Array:
        """
        Return the numbers that integers stand for.

        Parameters
        ----------
        q : ndarray of int
            Any shape that the code fits.

        Returns
        -------
        ndarray of float64
            Of the same shape.
        """
        shape = [-1 if i == self.axis % q.ndim else 1 for i in range(q.ndim)]
        scale, zero = (a if a.ndim == 0 else a.reshape(shape) for a in (self.scale, self.zero_point))
        return np.asarray((q.astype(np.float64) - zero) * scale)


class Rewriter:
    """
    Writes the twin's nodes in the order of the given ones, and remembers which tensors were integers.

    Parameters
    ----------
    graph : onnx_ir.Graph
        Receives the twin's nodes.
    last : collection of Node
        Gradients pass straight through what these cut off: they make the scores.
    behind : collection of Node
        These leave the scores' probabilities as they are.

    Attributes
    ----------
    emit : Emit
        Appends a node.
    codes : dict of Value to Code
        The numbers in these tensors were integers in the given model.
    rounded : dict of Value to Code or None
        These tensors are to be rounded; None where the range is found at run time.
    step : float
        The coarsest step behind the head.
    """

    def __init__(self, graph: ir.Graph, last: Collection[ir.Node], behind: Collection[ir.Node]) -> None:
        self.emit = Emit(graph, "twin")
        self.last, self.behind = last, behind
        self.codes: dict[ir.Value, Code] = {}
        self.rounded: dict[ir.Value, Code | None] = {}
        self.step = 0.0

    def real(self, node: ir.Node, place: int, axis: int = 1) -> ir.Value:
        """
        Return the numbers that an operand stands for, given as integers, scale and zero point.

        Parameters
        ----------
        node : onnx_ir.Node
            Reads them.
        place : int
            Of the integers among its inputs; scale and zero point follow.
        axis : int, default 1
            What a vector of scales goes along.

        Returns
        -------
        onnx_ir.Value
            The same tensor in float.
        """
        scale, zero = optional_input(node, place + 1), optional_input(node, place + 2)
        return self.decode(node, node.inputs[place], scale, zero, axis)

    def decode(
        self, node: ir.Node, value: ir.Value | None, scale: ir.Value | None, zero: ir.Value | None, axis: int = 1
    ) -> ir.Value:
        """
        Return the numbers that integers stand for; without a scale the integers less their zero point.

        Parameters
        ----------
        node : onnx_ir.Node
            Reads them.
        value, scale, zero : onnx_ir.Value or None
            The integers, their scale and zero point.
        axis : int, default 1
            What a vector of scales goes along.

        Returns
        -------
        onnx_ir.Value
            A float tensor that no code belongs to.
        """
        if value is None:
            raise refused(node, "an operand is absent")
        held = self.codes.get(value)
        if held is not None:
            return self._shifted(node, value, held, self.code(node, scale, zero, axis, held.dtype))
        code = self.code(node, scale, zero, axis, value.dtype or ir.DataType.UINT8)  # of a constant
        return self._constant(value, code)

    def _constant(self, value: ir.Value, code: Code) -> ir.Value:
        """Return the numbers that constant integers stand for."""
        e = self.emit
        return e.DequantizeLinear(value, e.const(code.scale), e.const(code.zero_point), axis=code.axis)

    def _shifted(self, node: ir.Node, value: ir.Value, held: Code, wanted: Code) -> ir.Value:
        """Return what the same integers stand for in another code."""
        e = self.emit
        if held == wanted:
            return e.Identity(value)
        if not (held.is_whole and wanted.is_whole):
            raise refused(node, "its operand was quantised along an axis with other scales than the node has")
        dtype = wanted.scale.dtype
        shift = (float(held.zero_point) - float(wanted.zero_point)) * float(wanted.scale)
        stretched = e.Mul(value, e.const(np.array(float(wanted.scale) / float(held.scale), dtype)))
        return e.Add(stretched, e.const(np.array(shift, dtype)))

    def code(self, node: ir.Node, scale: ir.Value | None, zero: ir.Value | None, axis: int, dtype: ir.DataType) -> Code:
        """
        Read a scale and a zero point, which must be constants.

        Parameters
        ----------
        node : onnx_ir.Node
            Has them among its inputs.
        scale, zero : onnx_ir.Value or None
            Where they are absent, 1 and 0.
        axis : int
            What a vector of them goes along.
        dtype : onnx_ir.DataType
            Of the integers, where there is no zero point to tell.

        Returns
        -------
        Code
            With vectors of one number made scalars.
        """
        arrays = [None if v is None else constant(v) for v in (scale, zero)]
        for value, array in zip((scale, zero), arrays, strict=True):
            if value is not None and array is None:
                raise refused(node, f"its scale or zero point {value.name!r} is computed at run time")
            if array is not None and array.ndim > 1:
                raise refused(node, f"its scale or zero point {value.name!r} has shape {array.shape}")  # type: ignore[union-attr]
        start = np.zeros((), dtype.numpy()) if arrays[1] is None else arrays[1]
        known = np.ones(start.shape, np.float32) if arrays[0] is None else arrays[0]
        if arrays[1] is None:
            start = np.zeros(known.shape, start.dtype)
        known, start = np.broadcast_arrays(*(a.reshape(()) if a.size == 1 else a for a in (known, start)))
        return Code(known, start, ir.DataType.from_numpy(start.dtype), axis)

    def whole(self, node: ir.Node, place: int, zero: int | None = None) -> Code:
        """
        Return the code of a result by its scale and zero point among a node's inputs.

        Parameters
        ----------
        node : onnx_ir.Node
            Has them.
        place : int
            Of the scale.
        zero : int, optional
            Of the zero point; the next one unless told otherwise.

        Returns
        -------
        Code
            Of uint8 where there is no zero point.
        """
        zero = place + 1 if zero is None else zero
        return self.code(node, optional_input(node, place), optional_input(node, zero), 1, ir.DataType.UINT8)

    def encoded(self, node: ir.Node, value: ir.Value, code: Code) -> ir.Value:
        """
        Quantise: numbers beyond the largest integer are cut off, and the rest is marked to be rounded later.

        Parameters
        ----------
        node : onnx_ir.Node
            Quantises.
        value : onnx_ir.Value
            Numbers.
        code : Code
            Of the integers in the given model.

        Returns
        -------
        onnx_ir.Value
            A new tensor, and `code` is remembered as its own.
        """
        e = self.emit
        if not code.dtype.is_integer():
            raise refused(node, f"it makes {code.dtype}, and only integers are known")
        low, high = code.range
        if node in self.behind:
            made = e.Identity(value)
            self.codes[made] = code
            self.step = max(self.step, float(code.scale.max()))
            return made
        if node in self.last:
            made = e.Clip(value)  # without bounds: a place for cutting and rounding
        elif code.is_whole:
            made = e.Clip(value, e.const(low), e.const(high))
        else:
            made = e.Min(e.Max(value, e.const(self._along(node, low, code))), e.const(self._along(node, high, code)))
        self.codes[made] = self.rounded[made] = code
        return made

    def _along(self, node: ir.Node, bound: Array, code: Code) -> Array:
        """Give a vector of bounds the shape that broadcasts along the code's axis."""
        rank = None if node.inputs[0] is None or node.inputs[0].shape is None else len(node.inputs[0].shape)
        if code.axis >= 0 and rank is None:
            raise refused(node, "it quantises along an axis of a tensor whose rank is unknown")
        behind = -1 - code.axis if code.axis < 0 else int(rank or 0) - 1 - code.axis
        return bound.reshape(-1, *[1] * behind)

    def counts(self, value: ir.Value) -> ir.Value:
        """
        Remember that a tensor holds the given model's integers as they are.

        Parameters
        ----------
        value : onnx_ir.Value
            Of float numbers.

        Returns
        -------
        onnx_ir.Value
            `value`.
        """
        self.codes[value] = Code(np.ones((), np.float32), np.zeros((), np.int32), ir.DataType.INT32)
        return value

    def moved(self, node: ir.Node, value: ir.Value, code: Code) -> ir.Value:
        """
        Return the numbers of an operand of a node that moves integers, in the code of another operand.

        Parameters
        ----------
        node : onnx_ir.Node
            Moves integers.
        value : onnx_ir.Value
            One of its operands.
        code : Code
            Of its result.

        Returns
        -------
        onnx_ir.Value
            Float numbers.
        """
        held = self.codes.get(value)
        return self._constant(value, code) if held is None else self._shifted(node, value, held, code)
