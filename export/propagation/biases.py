"""
Which tensors of a graph receive a bias, and what is added to each: what FullGrad multiplies gradients with.

In: the nodes on the way from the image to the logits. Out: for each tensor that a constant is added to, the constant in
a shape that broadcasts to the tensor. A normalisation by constant statistics counts with the bias it amounts to, beta -
mu gamma / sqrt(var + epsilon); a fused convolution carries it already.

References
----------
Srinivas and Fleuret 2019, FullGrad, arXiv:1905.00780, section 3 and appendix.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx_ir as ir

from ..vjp.emit import Emit, constant, dims
from ..vjp.fixed import is_fixed
from ..vjp.known import optional_input
from ..vjp.table import op_key

__all__ = ["biases"]

Array = np.ndarray[Any, Any]


def biases(nodes: Iterable[ir.Node]) -> dict[ir.Value, Array]:
    """
    Return the tensors that receive a bias.

    Parameters
    ----------
    nodes : iterable of Node
        In graph order; nothing computed by others is looked at.

    Returns
    -------
    dict of Value to ndarray
        The bias of each, of the tensor's element type and with its number of axes at most.
    """
    found: dict[ir.Value, Array] = {}
    for node in nodes:
        bias = _bias(node)
        if bias is not None and np.any(bias):
            value = node.outputs[0]
            found[value] = np.asarray(bias, Emit.numpy_dtype(value))
    return found


def _bias(node: ir.Node) -> Array | None:
    """Return the constant that one node adds."""
    op = op_key(node)
    if op in ("Conv", "ConvTranspose"):
        bias = constant(optional_input(node, 2))
        return None if bias is None else _by_channel(node, bias)
    if op == "Gemm":
        bias = constant(optional_input(node, 2))
        return None if bias is None else bias * node.attributes.get_float("beta", 1.0)
    if op == "BatchNormalization":
        arrays = [constant(value) for value in node.inputs[1:]]
        if any(array is None for array in arrays):
            return None
        scale, shift, mean, variance = (np.asarray(array, np.float64) for array in arrays)
        factor = scale / np.sqrt(variance + node.attributes.get_float("epsilon", 1e-5))
        return _by_channel(node, shift - mean * factor)
    if op in ("Add", "Sub", "Sum"):
        fixed = [(place, constant(value)) for place, value in enumerate(node.inputs) if is_fixed(value)]
        known = [array * (-1 if op == "Sub" and place == 1 else 1) for place, array in fixed if array is not None]
        return sum(known[1:], known[0]) if known and len(fixed) < len(node.inputs) else None
    return None


def _by_channel(node: ir.Node, bias: Array) -> Array:
    """Return a vector (C,) as (1, C, 1, ...)."""
    return bias.reshape(1, -1, *[1] * (len(dims(node.outputs[0])) - 2))
