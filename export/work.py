"""
What a run of a classifier costs, counted from its graph: multiply-adds and bytes, for one image.

In: a `Classifier` and one of its layers. Out: `Work`. Only products are counted (convolutions, matrix products), as the
literature does: a ResNet-50 at 224 pixels has 4.1 billion multiply-adds. Nothing is run and no weight is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import onnx_ir as ir

from .backward import between, downstream, reads, upstream
from .layers import value_of
from .load import Classifier
from .manifest import Layer
from .vjp.emit import dims
from .vjp.table import op_key

__all__ = ["Work", "multiply_adds", "row_bytes", "work_of"]

_CONVOLUTIONS = {"Conv": 1, "com.microsoft::FusedConv": 1, "ConvInteger": 1, "QLinearConv": 3}  # where the weights are
_PRODUCTS = {"MatMul", "MatMulInteger", "QLinearMatMul", "com.microsoft::FusedMatMul"}
_UNCOUNTED = {
    *("Attention", "GRU", "LSTM", "RNN", "DeformConv"),
    *(
        f"com.microsoft::{op}"
        for op in ("Attention", "MultiHeadAttention", "QAttention", "NhwcFusedConv", "MatMulNBits")
    ),
}


@dataclass(frozen=True)
class Work:
    """
    The cost of one image.

    Attributes
    ----------
    forward : int
        Multiply-adds of a forward pass.
    tail : int
        Of the part between the layer and the logits.
    tail_backward : int
        Of the gradient from the logits to the layer.
    backward : int
        Of the gradient from the logits to the image.
    weights_bytes : int
        All weights.
    peak_bytes : int
        The most that tensors of a forward pass hold at one time, in graph order.
    layer_bytes : int
        The layer's activations.
    tail_bytes : int
        All tensors between the layer and the logits, the layer included: what a gradient to the layer keeps.
    path_bytes : int
        All tensors between the image and the logits: what a gradient to the image keeps.
    uncounted : tuple of str
        Operators with products that are not in the sums.
    """

    forward: int
    tail: int
    tail_backward: int
    backward: int
    weights_bytes: int
    peak_bytes: int
    layer_bytes: int
    tail_bytes: int
    path_bytes: int
    uncounted: tuple[str, ...]


def work_of(classifier: Classifier, layer: Layer) -> Work:
    """
    Count what one image costs.

    Parameters
    ----------
    classifier : Classifier
        As `camrt.export.load.load` gives it.
    layer : Layer
        One of its layers.

    Returns
    -------
    Work
        Multiply-adds and bytes for one image, whatever batch the model is fixed at; of a quantised model, those of its
        float twin, which multiplies as often.

    Notes
    -----
    A gradient with respect to one operand of a product takes as many multiply-adds as the product itself; weights need
    none. Cost: a few walks over the graph.
    """
    graph, images = classifier.model.graph, classifier.batch or 1
    needed = upstream(graph, [classifier.logits])
    nodes = [node for node in graph if any(output in needed for output in node.outputs)]
    value = value_of(classifier.model, layer)
    behind, everything = (between(graph, [v], [classifier.logits]) for v in (value, classifier.x))
    return Work(
        forward=_sum(nodes, images),
        tail=_sum(behind, images),
        tail_backward=_gradient_sum(graph, value, behind, images),
        backward=_gradient_sum(graph, classifier.x, everything, images),
        weights_bytes=sum(_bytes(weight) for weight in graph.initializers.values() if weight in needed),
        peak_bytes=row_bytes(classifier),
        layer_bytes=_bytes(value) // images,
        tail_bytes=_kept(graph, value, classifier.logits) // images,
        path_bytes=_kept(graph, classifier.x, classifier.logits) // images,
        uncounted=tuple(sorted({op_key(node) for node in nodes} & _UNCOUNTED)),
    )


def row_bytes(classifier: Classifier) -> int:
    """
    Return the most that tensors of a forward pass hold at one time, for one image.

    Parameters
    ----------
    classifier : Classifier
        As `camrt.export.load.load` gives it.

    Returns
    -------
    int
        Bytes, in graph order; what a runtime reorders or packs comes on top.
    """
    graph, images = classifier.model.graph, classifier.batch or 1
    needed = upstream(graph, [classifier.logits])
    nodes = [node for node in graph if any(output in needed for output in node.outputs)]
    return _peak(nodes, [*graph.inputs], classifier.logits) // images


def multiply_adds(node: ir.Node) -> int:
    """
    Count the multiply-adds of one node, a symbolic batch taken as 1.

    Parameters
    ----------
    node : onnx_ir.Node
        Any node.

    Returns
    -------
    int
        0 for operators without products.
    """
    op = op_key(node)
    if op in _CONVOLUTIONS:
        weight = _shape(node.inputs[_CONVOLUTIONS[op]])
        return prod(_shape(node.outputs[0])) * prod(weight[1:])
    counter = _COUNTERS.get(op)
    return 0 if counter is None else counter(node)


def _transposed(node: ir.Node) -> int:
    """Count a transposed convolution: each input meets the whole kernel of its group's outputs."""
    return prod(_shape(node.inputs[0])) * prod(_shape(node.inputs[1])[1:])


def _product(node: ir.Node) -> int:
    """Count a matrix product: each output is a row by a column."""
    left = _shape(node.inputs[0])
    inner = left[-2] if node.attributes.get_int("transA", 0) and len(left) > 1 else left[-1]
    return prod(_shape(node.outputs[0])) * inner


def _einsum(node: ir.Node) -> int:
    """Count an Einsum as one loop over all its letters; an ellipsis counts what the output keeps beside its letters."""
    equation = node.attributes.get_string("equation", "").replace(" ", "")
    given, _, result = equation.partition("->")
    sizes: dict[str, int] = {}
    for term, value in zip(given.split(","), node.inputs, strict=False):
        front, _, back = term.partition("...")
        shape = _shape(value)
        sizes |= dict(zip(front, shape, strict=False))
        sizes |= dict(zip(reversed(back), reversed(shape), strict=False))
    named = [sizes.get(letter, 1) for letter in result if letter.isalpha()]
    rest = prod(_shape(node.outputs[0])) // max(prod(named), 1) if "..." in result else 1
    return prod(sizes.values()) * rest


_COUNTERS: dict[str, Callable[[ir.Node], int]] = {
    **dict.fromkeys(_PRODUCTS, _product),
    "Gemm": _product,
    "ConvTranspose": _transposed,
    "Einsum": _einsum,
}


def _shape(value: ir.Value | None) -> tuple[int, ...]:
    """Return a shape with a symbolic batch as 1."""
    return () if value is None else tuple(d if isinstance(d, int) else 1 for d in dims(value))


def _bytes(value: ir.Value) -> int:
    """Return the size of a tensor; one of unknown shape counts nothing."""
    if value.shape is None or value.dtype is None or value.dtype == ir.DataType.STRING:
        return 0
    return int(prod(_shape(value)) * value.dtype.itemsize)


def _sum(nodes: Sequence[ir.Node], images: int) -> int:
    """Add up multiply-adds, for one image."""
    return sum(multiply_adds(node) for node in nodes) // images


def _gradient_sum(graph: ir.Graph, first: ir.Value, nodes: Sequence[ir.Node], images: int) -> int:
    """Add up the multiply-adds of a gradient: each node once for every operand that moves with `first`."""
    alive = downstream(graph, [first])
    return sum(multiply_adds(node) * sum(v in alive for v in node.inputs if v is not None) for node in nodes) // images


def _kept(graph: ir.Graph, first: ir.Value, last: ir.Value) -> int:
    """Add up the tensors on the way from `first` to `last`."""
    return sum(_bytes(value) for value in downstream(graph, [first]) & upstream(graph, [last]))


def _peak(nodes: Sequence[ir.Node], given: Sequence[ir.Value], last: ir.Value) -> int:
    """Return the most that is held at one time when nodes run in order and tensors go after their last reader."""
    ends = {value: index for index, node in enumerate(nodes) for value in reads(node)} | {last: len(nodes)}
    going = [0] * (len(nodes) + 1)
    held = peak = 0
    for index, made in enumerate([given, *(node.outputs for node in nodes)], start=-1):
        for value in made:
            held += _bytes(value)
            going[ends.get(value, max(index, 0))] += _bytes(value)
        peak = max(peak, held)
        held -= going[index] if index >= 0 else 0
    return peak
