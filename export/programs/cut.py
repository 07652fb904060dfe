"""
Cuts: a layer in place of the image, and what leads around it.

In: a draft of one layer. Out: its graph begun at the layer's activations and at their context, the tensors that the
logits need beside them; or that context given, so that a tail can be fed.
"""

from __future__ import annotations

import onnx_ir as ir

from ..backward import downstream, reads, upstream
from ..vjp.emit import described, dims
from .draft import Draft
from .layouts import original, prefix_shape, token_axis

__all__ = ["begin_at_layer", "context_of", "give_context"]


def begin_at_layer(draft: Draft) -> None:
    """
    Start from the one layer instead of the image: it and what goes around it become inputs.

    Parameters
    ----------
    draft : Draft
        Of one layer; gets the inputs ``activations.0`` and ``context.j``, and gives the logits.
    """
    (layer,), (value,) = draft.layers, draft.values
    acts = draft.new_input("activations.0", [draft.batch, layer.channels, *layer.grid], value.dtype)
    contexts = context_of(draft.graph, draft.x, draft.logits, value)
    prefix = None
    if layer.prefix:
        prefix = draft.new_input("context.0", prefix_shape(draft, layer), value.dtype)
    for index, outside in enumerate(contexts, start=int(layer.prefix > 0)):
        fresh = draft.new_input(f"context.{index}", dims(outside), outside.dtype)
        ir.convenience.replace_all_uses_with(outside, fresh)
    first = next(iter(draft.graph))
    there = set(draft.graph)
    layout = original(draft, layer, acts, prefix)
    made = [node for node in draft.graph if node not in there]
    for node in made:
        draft.graph.remove(node)
    draft.graph.insert_before(first, made)
    users = [(use.node, use.idx) for use in value.uses()]
    for node, place in users:
        node.replace_input_with(place, layout)
    draft.values = [described(layout, value)]
    draft.outputs["logits"] = draft.logits


def give_context(draft: Draft) -> None:
    """
    Give what the tail of the one layer needs beside it.

    Parameters
    ----------
    draft : Draft
        Of one layer; gets the outputs ``context.j``, the prefix tokens first.
    """
    (layer,), (value,) = draft.layers, draft.values
    e = draft.emit
    if layer.prefix:
        tokens = e.Slice(value, e.const([0]), e.const([layer.prefix]), e.const([token_axis(layer) or 0]))
        described(tokens, value).shape = ir.Shape(prefix_shape(draft, layer))
        draft.outputs["context.0"] = tokens
    for index, outside in enumerate(context_of(draft.graph, draft.x, draft.logits, value), start=int(layer.prefix > 0)):
        draft.outputs[f"context.{index}"] = outside


def context_of(graph: ir.Graph, x: ir.Value, logits: ir.Value, value: ir.Value) -> list[ir.Value]:
    """
    Return the tensors that lead from the image to the logits around one tensor.

    Parameters
    ----------
    graph : onnx_ir.Graph
        The model's graph.
    x, logits, value : onnx_ir.Value
        The image, the scores, and the tensor at which the graph is cut.

    Returns
    -------
    list of onnx_ir.Value
        What a tail starting at `value` needs beside it, in graph order; empty where `value` is a bottleneck.
    """
    after, needed, moving = downstream(graph, [value]), upstream(graph, [logits]), downstream(graph, [x])
    around: dict[ir.Value, None] = {}
    for node in graph:
        if (
            value in node.outputs
            or not any(v in after for v in node.outputs)
            or not any(v in needed for v in node.outputs)
        ):
            continue
        for v in reads(node):
            if v in moving and v not in after:
                around[v] = None
    return list(around)
