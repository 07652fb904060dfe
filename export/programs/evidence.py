"""
Evidence inside the graph: what a method's map is made of, one entry a layer.

In: a draft begun at the image, a row of `camrt.export.maps.MAPS`, the seed of the classes. Out: by the names of
`camrt.export.maps.InGraph.needs`: activations; what the method's target becomes at the layer by the method's rules; the
full gradient; maps of attention; the size of the image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from camrt.errors import MethodError

from ..backward import sweep
from ..layers import is_global_average
from ..manifest import Layer
from ..maps import InGraph, against_all, contrast
from ..propagation.lift import lift_rules, second_run
from ..propagation.relevance import RELEVANCE
from ..vjp import RULES
from ..vjp.emit import constant, described, dims
from .attention import LAST_BLOCKS, maps_of_blocks
from .biases import full_gradient
from .draft import Draft
from .gradients import reached
from .layouts import canonical, image_size, token_axis

__all__ = ["evidence", "is_nonnegative"]


def evidence(draft: Draft, row: InGraph, seed: ir.Value) -> list[dict[str, Any]]:
    """
    Return what a method's map is made of.

    Parameters
    ----------
    draft : Draft
        Begun at the image, its target declared; receives the nodes.
    row : InGraph
        The method.
    seed : onnx_ir.Value
        As `camrt.export.programs.seeds.target_seed` gives it.

    Returns
    -------
    list of dict
        One a layer, by the names of `InGraph.needs`; ``acts`` and ``size`` always.

    Raises
    ------
    LayerError
        If nothing flows to a layer.
    MethodError
        If the model has too few blocks of attention.
    """
    found: list[dict[str, Any]] = [{} for _ in draft.layers]
    if "full" in row.needs:
        found[0]["full"] = full_gradient(draft, seed)
    if "attention" in row.needs:
        for layer, known in zip(draft.layers, found, strict=True):
            known["attention"] = maps = maps_of_blocks(draft, layer, seed)
            if dims(maps)[1] != LAST_BLOCKS:
                raise MethodError(
                    f"the model has 1 block with attention between all tokens, and the last {LAST_BLOCKS} were asked for: "
                    "run it by the engine with option blocks=-1"
                )
    if "grads" in row.needs:
        carried = _carried_back(draft, row, seed)
        for layer, value, g, known in zip(draft.layers, draft.values, carried, found, strict=True):
            there = reached(layer, g)
            known["grads"] = _unexpanded(draft, layer, value, there) or canonical(draft, layer, there)
    for layer, value, known in zip(draft.layers, draft.values, found, strict=True):
        known |= {"acts": canonical(draft, layer, value), "size": image_size(draft)}
    return found


def is_nonnegative(value: ir.Value) -> bool:
    """
    Tell a tensor that its own operator keeps from being negative.

    Parameters
    ----------
    value : onnx_ir.Value
        Any tensor.

    Returns
    -------
    bool
        False where it cannot be told from the operator alone.
    """
    node = value.producer()
    if node is None or node.op_type != "Clip" or len(node.inputs) < 2:
        return node is not None and node.op_type in ("Relu", "Sigmoid", "HardSigmoid", "Softplus")
    lowest = constant(node.inputs[1])
    return lowest is not None and bool(np.all(lowest >= 0))


def _carried_back(draft: Draft, row: InGraph, seed: ir.Value) -> list[ir.Value | None]:
    """Return what a method's target becomes at every layer, by its own rules."""
    e, graph, logits, chosen = draft.emit, draft.graph, draft.logits, draft.outputs["explained"]
    if row.target == "contrast":
        seed = described(contrast(e, draft.scores, chosen), logits)
    elif row.target == "against_all":
        seed = described(against_all(e, draft.scores, chosen), logits)
    if row.way == "relevance":
        return sweep(graph, {logits: seed}, draft.values, RELEVANCE)
    if row.way == "gradient":
        return sweep(graph, {logits: seed}, draft.values, RULES)
    found: list[ir.Value | None] = []
    for index, (layer, value) in enumerate(zip(draft.layers, draft.values, strict=True)):  # each has a second run
        rules = lift_rules(second_run(graph, e, value, _without(draft, layer, value), logits))
        found += sweep(graph, {logits: seed}, [value], rules, prefix=f"lift{index}")
    return found


def _without(draft: Draft, layer: Layer, value: ir.Value) -> ir.Value:
    """Set a layer's grid to zero and leave its prefix tokens as they are."""
    e, (h, w), axis = draft.emit, layer.grid, token_axis(layer)
    kept = np.zeros(1 if axis is None else layer.prefix + h * w, e.numpy_dtype(value))
    kept[: layer.prefix] = 1
    return described(e.Mul(value, e.const(kept[:, None] if axis == 1 else kept[:, None, None])), value)


def _unexpanded(draft: Draft, layer: Layer, value: ir.Value, g: ir.Value) -> ir.Value | None:
    """Return the (N, K, 1, 1) value that the rule of a global average has spread over the grid of `g`, if it did."""
    node, users = g.producer(), [use.node for use in value.uses()]
    is_pooled = len(users) == 1 and is_global_average(users[0], layer)
    if layer.layout != "nchw" or node is None or node.op_type != "Expand" or not is_pooled:
        return None
    source = node.inputs[0]
    if source is not None:
        described(source, g).shape = ir.Shape([draft.batch, layer.channels, 1, 1])
    return source
