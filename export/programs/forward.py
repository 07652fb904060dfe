"""
Programs that only go forward: the logits, from the image or from a layer, and activations on the way.

In: a draft. Out: ``logits``; ``activations.i`` of every layer as (N, K, h, w); ``context.j``, what the tail of a single
layer is fed beside its activations.
"""

from __future__ import annotations

from .cut import begin_at_layer, give_context
from .draft import Draft
from .layouts import canonical

__all__ = ["features", "forward", "give_activations", "tail"]


def forward(draft: Draft) -> None:
    """
    Give the logits of the image.

    Parameters
    ----------
    draft : Draft
        Its layers do not matter.
    """
    draft.begin_at_image()


def features(draft: Draft) -> None:
    """
    Give the logits, every layer's activations, and the context of a single layer.

    Parameters
    ----------
    draft : Draft
        Of any layers.
    """
    draft.begin_at_image()
    if len(draft.layers) == 1:
        give_context(draft)
    give_activations(draft)


def tail(draft: Draft) -> None:
    """
    Give the logits of a layer's activations.

    Parameters
    ----------
    draft : Draft
        Of one layer.
    """
    begin_at_layer(draft)


def give_activations(draft: Draft) -> None:
    """
    Give every layer's activations.

    Parameters
    ----------
    draft : Draft
        Gets the outputs ``activations.i``.
    """
    for index, (layer, value) in enumerate(zip(draft.layers, draft.values, strict=True)):
        draft.outputs[f"activations.{index}"] = canonical(draft, layer, value)
