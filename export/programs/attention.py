"""
Programs that give the attention of a transformer's blocks as maps on a layer's grid.

In: a draft of one layer. Out: ``maps`` (N, blocks, h, w), as `camrt.export.attention` makes them, beside the logits.
"""

from __future__ import annotations

import onnx_ir as ir

from ..attention import block_maps, find_blocks
from ..manifest import Layer
from .draft import Draft
from .seeds import seed_input

__all__ = ["LAST_BLOCKS", "attention", "maps_of_blocks"]

LAST_BLOCKS = 2  # those that LeGrad's official code reads


def attention(draft: Draft, last: int | None) -> None:
    """
    Give the maps of blocks of attention, of any weighted sum of logits.

    Parameters
    ----------
    draft : Draft
        Of one layer.
    last : int or None
        Of how many blocks, from the last; None for all of them.
    """
    draft.begin_at_image()
    (layer,) = draft.layers
    draft.outputs["maps"] = maps_of_blocks(draft, layer, seed_input(draft), last)


def maps_of_blocks(draft: Draft, layer: Layer, seed: ir.Value, last: int | None = LAST_BLOCKS) -> ir.Value:
    """
    Return the maps of blocks of attention on the grid of a layer.

    Parameters
    ----------
    draft : Draft
        Receives the nodes.
    layer : Layer
        Whose grid the tokens are.
    seed : onnx_ir.Value
        The cotangent at the logits.
    last : int or None
        Of how many blocks, from the last, or of as many as there are; None for all of them.

    Returns
    -------
    onnx_ir.Value
        Of shape (N, blocks, h, w).
    """
    tower = find_blocks(draft.graph, draft.x, draft.logits, layer)
    place = draft.layers.index(layer)
    prefix = f"layer{place}/block" if place else "block"
    return block_maps(draft.emit, draft.graph, draft.logits, seed, tower, last, prefix)
