"""
Models whose weights are too much for one message: the graph as bytes, its large weights as arrays beside it.

In: the graph of a program. Out: bytes that name the large weights without holding them, and the arrays. A protobuf message
ends at 2 GiB, and long before that it is slow to write a model out for every program and have ONNX Runtime read it in.
Models of ordinary size stay one self-contained message.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from .manifest import Program

__all__ = ["HEAVY", "is_heavy", "joined", "own_weights", "split"]

HEAVY = 2**28  # bytes of weights from which they are kept apart
LARGE = 2**16  # bytes of a tensor that is then kept apart

Array = np.ndarray[Any, Any]


def is_heavy(model: ir.Model) -> bool:
    """
    Tell whether a model's weights are kept apart from its programs.

    Parameters
    ----------
    model : onnx_ir.Model
        Any.

    Returns
    -------
    bool
        True from `HEAVY` bytes on.
    """
    return sum(_size(value) for value in model.graph.initializers.values()) >= HEAVY


def own_weights(model: ir.Model) -> None:
    """
    Hold each weight as an array of its own, in place, so that all programs share it and the message it came in can go.

    Parameters
    ----------
    model : onnx_ir.Model
        As read.
    """
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is not None and tensor.dtype != ir.DataType.STRING:
            value.const_value = ir.Tensor(np.asarray(tensor.numpy()), dtype=tensor.dtype, name=tensor.name)


def split(model: ir.Model) -> tuple[bytes, dict[str, Array]]:
    """
    Write a graph out without its large weights.

    Parameters
    ----------
    model : onnx_ir.Model
        A program's graph; its large weights are placeholders afterwards.

    Returns
    -------
    graph : bytes
        The graph; a large weight is said to lie in a file that there is none of.
    weights : dict of str to ndarray
        The large weights by name, not copied where the graph holds arrays.
    """
    weights: dict[str, Array] = {}
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor is None or _size(value) < LARGE:
            continue
        array = tensor.numpy()
        if array.dtype.kind not in "biuf":  # ONNX Runtime takes NumPy's own types alone
            continue
        weights[name] = np.ascontiguousarray(array)
        shape = ir.Shape(array.shape)
        value.const_value = ir.ExternalTensor("weights", 0, tensor.nbytes, tensor.dtype, shape=shape, name=name)
    return bytes(ir.to_proto(model).SerializeToString()), weights


def joined(program: Program) -> onnx.ModelProto:
    """
    Put a program together, weights inside.

    Parameters
    ----------
    program : Program
        Any, from memory or from a bundle.

    Returns
    -------
    onnx.ModelProto
        Self-contained; larger than what can be written out where the weights are.
    """
    if not isinstance(program.model, bytes):
        return onnx.load(program.model)
    proto = onnx.load_from_string(program.model)
    for tensor in proto.graph.initializer:
        if tensor.name in program.weights:
            tensor.CopyFrom(onnx.numpy_helper.from_array(program.weights[tensor.name], tensor.name))
    return proto


def _size(value: ir.Value) -> int:
    """Return the bytes of an initializer."""
    return 0 if value.const_value is None else int(value.const_value.nbytes)
