"""
Programs that give the gradient at the image, plain or by guided back-propagation.

In: a draft. Out: ``input_gradient``, of the image's shape, beside the logits; and as tensors of the draft the gradients
at others that one sweep passes, for programs that need both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from camrt.errors import LayerError, MissingRuleError

from ..backward import between, sweep
from ..propagation.guided import GUIDED, is_rectifier
from ..vjp import RULES
from ..vjp.pool import pool_before_relu
from ..vjp.table import Rule
from .draft import Draft
from .seeds import seed_input

__all__ = ["arriving", "at_image", "give_input_gradient", "guided_gradient", "input_gradient"]


def input_gradient(draft: Draft) -> None:
    """
    Give the gradient of any weighted sum of logits at the image.

    Parameters
    ----------
    draft : Draft
        Its layers do not matter.
    """
    pool_before_relu(draft.graph)
    give_input_gradient(draft)


def guided_gradient(draft: Draft) -> None:
    """
    Give the same by guided back-propagation.

    Parameters
    ----------
    draft : Draft
        Its layers do not matter.

    Raises
    ------
    MissingRuleError
        If the model has no rectifier: the guided gradient would be the plain one.
    """
    if not any(is_rectifier(node) for node in between(draft.graph, [draft.x], [draft.logits])):
        raise MissingRuleError(
            "guided back-propagation changes Relu, LeakyRelu and Clip to [0, 6] alone, and this model has none of them: "
            "its guided gradient would be the plain one; use a gradient method"
        )
    give_input_gradient(draft, GUIDED)


def give_input_gradient(
    draft: Draft, rules: Mapping[str, Rule] = RULES, others: Sequence[ir.Value] = ()
) -> list[ir.Value | None]:
    """
    Give the gradient at the image, and return those at other tensors.

    Parameters
    ----------
    draft : Draft
        Begun here; gets the input ``seed`` and the output ``input_gradient``.
    rules : mapping of str to Rule
        The gradient's, or those of `camrt.export.propagation`.
    others : sequence of onnx_ir.Value
        Other tensors.

    Returns
    -------
    list of onnx_ir.Value or None
        The gradient at each of `others`; None where nothing flows.
    """
    draft.begin_at_image()
    g, rest = at_image(draft, seed_input(draft), rules, others)
    draft.outputs["input_gradient"] = g
    return rest


def at_image(
    draft: Draft, seed: ir.Value, rules: Mapping[str, Rule] = RULES, others: Sequence[ir.Value] = ()
) -> tuple[ir.Value, list[ir.Value | None]]:
    """
    Return the gradient at the image, and those at other tensors.

    Parameters
    ----------
    draft : Draft
        Receives the nodes.
    seed : onnx_ir.Value
        The cotangent at the logits.
    rules : mapping of str to Rule
        The gradient's, or those of `camrt.export.propagation`.
    others : sequence of onnx_ir.Value
        Other tensors.

    Returns
    -------
    at_image : onnx_ir.Value
        Of the shape of the image.
    rest : list of onnx_ir.Value or None
        The gradient at each of `others`; None where nothing flows.

    Raises
    ------
    LayerError
        If the image is of whole numbers, or nothing flows to it.
    """
    g, *rest = sweep(draft.graph, {draft.logits: seed}, [arriving(draft.x), *others], rules)
    if g is None:
        raise LayerError("no gradient flows from the logits back to the image: only rounding operators lead there")
    return g, rest


def arriving(x: ir.Value) -> ir.Value:
    """
    Return the image as the model computes with it: one of half precision is cast to float32 first.

    Parameters
    ----------
    x : onnx_ir.Value
        The image.

    Returns
    -------
    onnx_ir.Value
        The image behind its casts.

    Raises
    ------
    LayerError
        If the image is of whole numbers.
    """
    if x.dtype is None or not x.dtype.is_floating_point():
        raise LayerError(
            f"the gradient at the input is not defined: input {x.name!r} takes whole numbers ({x.dtype}); ask for the "
            "gradient at a layer, or give a model whose input is float"
        )
    while len(uses := list(x.uses())) == 1 and uses[0].node.op_type == "Cast":
        x = uses[0].node.outputs[0]
    return x
