"""
Programs that give gradients at biases: what FullGrad and the completeness of a gradient are made of.

In: a draft. Out: ``biases.i``, gradient times bias or the gradient alone at every tensor that receives a bias and that
a gradient reaches, channels first where the tensor has a grid; from the image, or behind a layer.

References
----------
Srinivas and Fleuret 2019, FullGrad, arXiv:1905.00780, equation 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from ..backward import between, sweep
from ..layers import is_channels_last
from ..propagation.biases import biases
from ..vjp import RULES
from ..vjp.emit import described, dims
from .cut import begin_at_layer
from .draft import Draft
from .image import arriving, at_image, give_input_gradient
from .layouts import channels_first
from .seeds import seed_input

__all__ = ["bias_gradients", "full_gradient", "tail_bias_terms"]


def bias_gradients(draft: Draft, *, times_bias: bool) -> None:
    """
    Give the gradient at the image, and at every tensor with a bias.

    Parameters
    ----------
    draft : Draft
        Its layers do not matter.
    times_bias : bool
        Whether gradients are multiplied with the biases.
    """
    added = biases(between(draft.graph, [draft.x], [draft.logits]))
    gradients = give_input_gradient(draft, others=list(added))
    for index, term in enumerate(_bias_terms(draft, added, gradients, times_bias)):
        draft.outputs[f"biases.{index}"] = term


def tail_bias_terms(draft: Draft) -> None:
    """
    Give gradient times bias at every tensor with a bias behind a layer.

    Parameters
    ----------
    draft : Draft
        Of one layer.
    """
    begin_at_layer(draft)
    added = biases(between(draft.graph, draft.values, [draft.logits]))
    gradients = sweep(draft.graph, {draft.logits: seed_input(draft)}, list(added), RULES)
    for index, term in enumerate(_bias_terms(draft, added, gradients, True)):
        draft.outputs[f"biases.{index}"] = term


def full_gradient(draft: Draft, seed: ir.Value) -> list[ir.Value]:
    """
    Return image times gradient, and bias times gradient of every tensor with a grid.

    Parameters
    ----------
    draft : Draft
        Begun at the image; receives the nodes.
    seed : onnx_ir.Value
        The cotangent at the logits.

    Returns
    -------
    list of onnx_ir.Value
        All (N, K, h, w), each of its own K, h and w.
    """
    added = biases(between(draft.graph, [draft.x], [draft.logits]))
    g, gradients = at_image(draft, seed, others=list(added))
    image = described(draft.emit.Mul(arriving(draft.x), g), g)
    first = channels_first(draft, image) if is_channels_last(draft.x) else image
    return [first, *(t for t in _bias_terms(draft, added, gradients, True) if len(dims(t)) == 4)]


def _bias_terms(
    draft: Draft,
    added: Mapping[ir.Value, np.ndarray[Any, Any]],
    gradients: Sequence[ir.Value | None],
    times_bias: bool,
) -> list[ir.Value]:
    """Return gradient times bias, or the gradient alone, at every tensor with a bias that a gradient reaches."""
    e, terms = draft.emit, []
    for (value, bias), g in zip(added.items(), gradients, strict=True):
        if g is None:
            continue
        term = described(e.Mul(g, e.const(bias, "bias")), value) if times_bias else g
        if len(dims(value)) == 4 and bias.ndim and bias.shape[-1] == bias.size > 1:  # channels are the last axis
            term = channels_first(draft, term)
        terms.append(term)
    return terms
