"""
Which layer is explained unless the caller names one.

In: a classifier and its candidate layers. Out: one of them, and why. Where only a class token feeds the head, the cells of
whatever lies behind the last attention have no influence, so that their gradients are zero by construction; a default
there would make an empty map of every picture (METHODS.md, sections 4.3 and 4.4).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from camrt.errors import LayerError

from .load import Classifier
from .manifest import Layer
from .reach import Edge, Mask, bottlenecks, chain, reaching

__all__ = ["POOLS", "choose_default", "joins"]

POOLS = {"MaxPool", "AveragePool", "LpPool"}


def choose_default(classifier: Classifier, found: Mapping[ir.Value, Layer]) -> tuple[ir.Value, str]:
    """
    Choose the layer that is explained unless told otherwise.

    It is the last one that everything passes which the cells of the grid tell the logits; what prefix tokens tell does
    not count. A model that ends in several branches may have no late layer of this kind: then the last one is taken
    that everything passes which an earlier layer of the same grid tells.

    Parameters
    ----------
    classifier : Classifier
        As `camrt.export.load.load` gives it.
    found : mapping of onnx_ir.Value to Layer
        The candidates, in graph order.

    Returns
    -------
    value : onnx_ir.Value
        The tensor of the default layer.
    reason : str
        Why it is the default.

    Raises
    ------
    LayerError
        If no cell of any grid reaches the logits.
    """
    graph = classifier.model.graph
    values, edges = reaching(graph, classifier.logits)
    living = {v for v, layer in found.items() if v in values and _has_cells(layer, values[v])}

    def _tells(value: ir.Value, edge: Edge) -> bool:
        """Tell an edge on which a layer's cells say something; what is no layer, or has prefix tokens alone, always does."""
        return edge in edges and (value not in living or _has_cells(found[value], edges[edge]))

    following = bottlenecks(graph, classifier.logits, _tells)
    streams = {v: layer for v, layer in _streams(found).items() if v in living and v in following}
    if not streams:
        raise LayerError(
            "no position of any grid reaches the logits, so no map can be made: the scores read nothing of the image"
        )
    place = {value: i for i, value in enumerate(found)}
    whole = [v for v in chain(classifier.x, following) if v in streams]
    nexts = {u: next((v for v in chain(u, following) if v in streams), None) for u in streams if joins(u)}
    local = [v for u, v in nexts.items() if v is not None and found[v].grid == found[u].grid]
    chosen = whole[-1] if whole else list(streams)[-1]
    last = max(local, key=place.__getitem__, default=chosen)
    if not whole or (place[last] > place[chosen] and _cells(found[last]) < _cells(found[chosen])):
        return _above_pooling(last, streams, "default: the last tensor with a grid in the last branch of the model")
    if any(v not in living for v in list(found)[place[chosen] :]):
        return chosen, "default: the last tensor whose cells reach the head; behind it only prefix tokens do"
    return _above_pooling(chosen, streams, "default: the last tensor with a grid before the head")


def _has_cells(layer: Layer, mask: Mask) -> bool:
    """Tell whether a mask over a layer, for one image, holds any cell of its grid."""
    if not layer.prefix or mask.ndim == 0:
        return bool(mask.any())
    axis = layer.shape.index(layer.prefix + _cells(layer), 1 if layer.layout == "tokens" else 0) - len(layer.shape)
    if -axis > mask.ndim or mask.shape[axis] == 1:
        return bool(mask.any())
    return bool(np.moveaxis(mask, axis, 0)[layer.prefix :].any())


def _cells(layer: Layer) -> int:
    """Return how many cells a layer's grid has."""
    return layer.grid[0] * layer.grid[1]


def joins(value: ir.Value) -> bool:
    """
    Tell what runs from block to block.

    Parameters
    ----------
    value : onnx_ir.Value
        Any tensor.

    Returns
    -------
    bool
        True for the sum of two computed tensors, and for several put together.
    """
    node = value.producer()
    return (
        node is not None
        and node.op_type in ("Add", "Sum", "Concat")
        and not any(i is None or i.is_initializer() for i in node.inputs)
    )


def _streams(layers: Mapping[ir.Value, Layer]) -> Mapping[ir.Value, Layer]:
    """Leave out projections inside a block of a token model: they are wider or narrower than its stream."""
    widths = {(layer.grid, layer.channels) for v, layer in layers.items() if joins(v)}
    kept = {v: k for v, k in layers.items() if not k.layout.startswith("tokens") or (k.grid, k.channels) in widths}
    return kept or layers


def _above_pooling(chosen: ir.Value, layers: Mapping[ir.Value, Layer], reason: str) -> tuple[ir.Value, str]:
    """Move up past pooling: its result says less of where things are."""
    while (node := chosen.producer()) is not None and node.op_type in POOLS:
        above = node.inputs[0]
        if above is None or above not in layers:
            break
        chosen, reason = above, f"{reason.split(', moved')[0]}, moved up past pooling"
    return chosen, reason
