"""
Programs that give gradients at layers, of a class or of any seed, from the image or from the layer.

In: a draft; a rule table, where it is not the gradient's. Out: ``gradients.i`` of every layer as (N, K, h, w), beside
what the forward programs give.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from camrt.errors import LayerError

from ..backward import sweep
from ..manifest import Layer
from ..vjp import RULES
from ..vjp.table import Rule
from .cut import begin_at_layer
from .draft import Draft
from .forward import give_activations
from .layouts import canonical
from .seeds import seed_input, take_rows, target_seed

__all__ = ["give_gradients", "gradient", "reached", "seeded_gradient", "tail_gradient"]


def gradient(draft: Draft) -> None:
    """
    Give activations and the gradients of the logits of classes, -1 for the predicted one.

    Parameters
    ----------
    draft : Draft
        Of any layers.
    """
    draft.begin_at_image()
    seed = target_seed(draft)
    give_gradients(draft, seed, draft.values)
    take_rows(draft, seed, draft.outputs["explained"])
    give_activations(draft)


def seeded_gradient(draft: Draft) -> None:
    """
    Give activations and the gradients of any weighted sum of logits.

    Parameters
    ----------
    draft : Draft
        Of any layers.
    """
    draft.begin_at_image()
    give_gradients(draft, seed_input(draft), draft.values)
    give_activations(draft)


def tail_gradient(draft: Draft) -> None:
    """
    Give the gradients of any weighted sum of logits at activations that are fed.

    Parameters
    ----------
    draft : Draft
        Of one layer.
    """
    begin_at_layer(draft)
    give_gradients(draft, seed_input(draft), draft.values)


def give_gradients(
    draft: Draft,
    seed: ir.Value,
    wanted: Sequence[ir.Value],
    rules: Mapping[str, Rule] = RULES,
    name: str = "gradients",
) -> None:
    """
    Give every layer's gradient of the seeded scalar, or what another rule table makes of it.

    Parameters
    ----------
    draft : Draft
        Gets the outputs ``<name>.i``.
    seed : onnx_ir.Value
        The cotangent at the logits.
    wanted : sequence of onnx_ir.Value
        Each layer's tensor.
    rules : mapping of str to Rule
        The gradient's, or those of `camrt.export.propagation`.
    name : str, default "gradients"
        What the outputs are called.

    Raises
    ------
    LayerError
        If nothing flows to a layer.
    """
    purpose = {"gradients": "gradient", "contributions": "DeepLIFT"}.get(name, name)
    found = sweep(draft.graph, {draft.logits: seed}, wanted, rules, purpose=purpose)
    for index, (layer, g) in enumerate(zip(draft.layers, found, strict=True)):
        draft.outputs[f"{name}.{index}"] = canonical(draft, layer, reached(layer, g))


def reached(layer: Layer, g: ir.Value | None) -> ir.Value:
    """
    Return a layer's gradient, which has to be there.

    Parameters
    ----------
    layer : Layer
        The layer.
    g : onnx_ir.Value or None
        What a sweep gave at it.

    Returns
    -------
    onnx_ir.Value
        The gradient.

    Raises
    ------
    LayerError
        If nothing flows to the layer.
    """
    if g is None:
        raise LayerError(
            f"no gradient flows from the logits back to layer {layer.name!r} (only rounding or comparing operators lead "
            "there); choose another layer"
        )
    return g
