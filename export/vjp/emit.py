"""
The emitter: writes nodes at the end of a graph, and answers what rules ask about shapes and constants.

``e.Mul(a, b)`` appends a ``Mul`` node and returns its output; keyword arguments are attributes. ``e.const(array)``
returns an initializer, shared when the same array was asked for before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

__all__ = ["Emit", "constant", "described", "dims", "element_type", "initializer"]

Dim = int | str

_TRUTHS = "And Equal Greater GreaterOrEqual IsInf IsNaN Less LessOrEqual Not Or Xor"
_COUNTS = "ArgMax ArgMin NonZero Shape Size"
_FIXED_TYPES = {  # the operators whose result has another element type than their first input
    **dict.fromkeys(_TRUTHS.split(), ir.DataType.BOOL),
    **dict.fromkeys(_COUNTS.split(), ir.DataType.INT64),
}
_TYPED_BY_INPUT = {"CastLike": 1, "OneHot": 2, "Where": 1}


def element_type(op: str, inputs: Sequence[ir.Value | None], attributes: Mapping[str, Any]) -> ir.DataType | None:
    """Return the element type of the outputs of a node that is about to be made."""
    if op in _FIXED_TYPES:
        return _FIXED_TYPES[op]
    if op == "Cast":
        return ir.DataType(attributes["to"])
    if op == "ConstantOfShape":
        return ir.DataType(attributes["value"].dtype) if "value" in attributes else ir.DataType.FLOAT
    index = _TYPED_BY_INPUT.get(op, 0)
    source = inputs[index] if index < len(inputs) else None
    return None if source is None else source.dtype


def dims(value: ir.Value) -> tuple[Dim, ...]:
    """Return the shape of `value`, symbolic dimensions as strings; a missing shape is a ValueError."""
    if value.shape is None:
        raise ValueError(f"the shape of {value.name!r} is unknown")
    return tuple(d if isinstance(d, int) else str(d.value) for d in value.shape)


def constant(value: ir.Value | None) -> np.ndarray[Any, Any] | None:
    """Return the array a constant `value` holds, or None when it is computed at run time."""
    if value is None:
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else np.asarray(tensor.numpy())


def initializer(graph: ir.Graph, array: np.ndarray[Any, Any], name: str) -> ir.Value:
    """Add `array` to `graph` as an initializer called `name`, and return it."""
    tensor = ir.tensor(np.asarray(array, order="C"), name=name)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def described(value: ir.Value, like: ir.Value) -> ir.Value:
    """Give `value` the shape and element type of `like`, and return it."""
    value.shape = like.shape
    if like.dtype is not None:
        value.dtype = like.dtype
    return value


class Emit:
    """
    Append nodes to one graph.

    Parameters
    ----------
    graph : onnx_ir.Graph
        Receives the nodes and initializers.
    prefix : str, default "grad"
        Starts the name of everything that is added.
    known : sequence of onnx_ir.Value
        Tensors that are cheap to ask for their batch size: a cotangent that comes from outside.
    """

    def __init__(self, graph: ir.Graph, prefix: str = "grad", known: Sequence[ir.Value] = ()) -> None:
        self.graph = graph
        self._known = tuple(known)
        self.prefix = prefix
        self._count = 0
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
        self._taken = set(graph.initializers)

    def __getattr__(self, op: str) -> Callable[..., ir.Value]:
        """Return the function that appends one node of type `op` and gives its first output."""
        if not op[:1].isupper():
            raise AttributeError(op)
        return lambda *inputs, **attributes: self.node(op, inputs, attributes)[0]

    def node(
        self, op: str, inputs: Sequence[ir.Value | None], attributes: dict[str, Any] | None = None, outputs: int = 1
    ) -> Sequence[ir.Value]:
        """Append one node with `outputs` outputs and return them; each gets the element type of the first output."""
        self._count += 1
        name = f"{self.prefix}/{op}_{self._count}"
        made = ir.node(op, list(inputs), attributes or {}, num_outputs=outputs, name=name)
        dtype = element_type(op, inputs, attributes or {})
        for index, value in enumerate(made.outputs):
            value.name = f"{name}_output_{index}"
            value.type = None if dtype is None else ir.TensorType(dtype)
        self.graph.append(made)
        return made.outputs

    def const(self, array: np.ndarray[Any, Any] | Sequence[int], name: str = "constant") -> ir.Value:
        """Return an initializer that holds `array` (a sequence of int becomes int64)."""
        array = np.asarray(array, order="C") if isinstance(array, np.ndarray) else np.asarray(array, np.int64)
        key = (str(array.dtype), array.shape, hashlib.sha256(array.tobytes()).digest())
        if key not in self._constants:
            self._constants[key] = initializer(self.graph, array, f"{self.prefix}/{name}_{len(self._constants)}")
        return self._constants[key]

    def scalar(self, number: float, like: ir.Value) -> ir.Value:
        """Return `number` as a rank-0 constant of `like`'s element type."""
        return self.const(np.array(number, self.numpy_dtype(like)), "scalar")

    @staticmethod
    def numpy_dtype(value: ir.Value) -> np.dtype[Any]:
        """Return the NumPy element type of `value`."""
        if value.dtype is None:
            raise ValueError(f"the element type of {value.name!r} is unknown")
        return value.dtype.numpy()

    def shape_of(self, value: ir.Value) -> ir.Value:
        """Return the shape of `value` as an int64 vector: a constant where it is static, a Shape node otherwise."""
        known = dims(value)
        if all(isinstance(d, int) for d in known):
            return self.const([int(d) for d in known], "shape")
        return self.Shape(value)

    def batch_of(self, value: ir.Value) -> ir.Value:
        """Return the first dimension of `value` as an int64 vector; asking `value` itself may change its layout."""
        batch = dims(value)[0]
        if isinstance(batch, int):
            return self.const([batch], "batch")
        source = next((k for k in self._known if k.shape is not None and dims(k)[:1] == (batch,)), value)
        return self.Shape(source, start=0, end=1)

    def reshape_like(self, g: ir.Value, like: ir.Value) -> ir.Value:
        """Reshape `g` to the shape of `like`, which has as many elements."""
        known = dims(like)
        if sum(isinstance(d, str) for d in known) <= 1:
            return self.Reshape(g, self.const([d if isinstance(d, int) else -1 for d in known], "shape"))
        return self.Reshape(g, self.shape_of(like))

    def sum_to(self, g: ir.Value, shape: tuple[Dim, ...], like: ir.Value) -> ir.Value:
        """Undo broadcasting: sum `g`, of shape `shape`, back to the shape of `like`."""
        target = dims(like)
        extra = len(shape) - len(target)
        axes = list(range(extra))
        axes += [extra + i for i, d in enumerate(target) if d == 1 and shape[extra + i] != 1]
        if axes:
            g = self.ReduceSum(g, self.const(axes, "axes"), keepdims=int(extra == 0))
        if extra and len(axes) > extra:
            g = self.reshape_like(g, like)
        return g
