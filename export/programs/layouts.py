"""
Layouts: a layer's tensor as the model has it, and as (N, K, h, w).

In: a draft, a layer and a tensor of its layout. Out: the tensor in the other layout, as nodes of the draft. Programs
give and take (N, K, h, w) alone, so that nothing behind them has to know how a model lays out its channels or tokens.
"""

from __future__ import annotations

import onnx_ir as ir

from ..layers import is_channels_last
from ..manifest import Layer
from ..vjp.emit import described, dims
from .draft import Draft

__all__ = ["canonical", "channels_first", "image_size", "original", "prefix_shape", "token_axis"]


def canonical(draft: Draft, layer: Layer, value: ir.Value) -> ir.Value:
    """
    Return a tensor of a layer as (N, K, h, w).

    Parameters
    ----------
    draft : Draft
        Receives the nodes.
    layer : Layer
        Whose layout `value` has.
    value : onnx_ir.Value
        The layer's tensor, or its gradient.

    Returns
    -------
    onnx_ir.Value
        Without prefix tokens; `value` itself where it is laid out so.
    """
    e, (h, w) = draft.emit, layer.grid
    made = value
    if layer.layout == "nhwc":
        made = e.Transpose(value, perm=[0, 3, 1, 2])
    elif (axis := token_axis(layer)) is not None:
        if layer.prefix:
            made = e.Slice(value, e.const([layer.prefix]), e.const([layer.prefix + h * w]), e.const([axis]))
        made = e.Transpose(made, perm=[1 - axis, 2, axis])
        made = e.Reshape(made, e.const([-1, layer.channels, h, w]))
    if made is not value:
        described(made, value).shape = ir.Shape([draft.batch, layer.channels, h, w])
    return made


def original(draft: Draft, layer: Layer, value: ir.Value, prefix: ir.Value | None) -> ir.Value:
    """
    Return (N, K, h, w) as the model lays a layer out: what `canonical` does, undone.

    Parameters
    ----------
    draft : Draft
        Receives the nodes.
    layer : Layer
        Whose layout is wanted.
    value : onnx_ir.Value
        Of shape (N, K, h, w).
    prefix : onnx_ir.Value or None
        The tokens before the grid, of `prefix_shape`.

    Returns
    -------
    onnx_ir.Value
        Prefix tokens first; `value` itself where it is laid out so.
    """
    e, (h, w) = draft.emit, layer.grid
    if layer.layout == "nchw":
        return value
    if layer.layout == "nhwc":
        return e.Transpose(value, perm=[0, 2, 3, 1])
    axis = token_axis(layer)
    flat = e.Reshape(value, e.const([-1, layer.channels, h * w]))
    flat = e.Transpose(flat, perm=[0, 2, 1] if axis == 1 else [2, 0, 1])
    return flat if prefix is None else e.Concat(prefix, flat, axis=axis)


def token_axis(layer: Layer) -> int | None:
    """
    Return the axis that tokens lie along.

    Parameters
    ----------
    layer : Layer
        Any layer.

    Returns
    -------
    int or None
        None where the grid has axes of its own.
    """
    return {"tokens": 1, "tokens_first": 0}.get(layer.layout)


def prefix_shape(draft: Draft, layer: Layer) -> list[int | str]:
    """
    Return the shape of a layer's prefix tokens.

    Parameters
    ----------
    draft : Draft
        Knows the batch.
    layer : Layer
        Of tokens.

    Returns
    -------
    list of int or str
        (N, prefix, K), or (prefix, N, K).
    """
    shape = [draft.batch, layer.prefix] if token_axis(layer) == 1 else [layer.prefix, draft.batch]
    return [*shape, layer.channels]


def channels_first(draft: Draft, value: ir.Value) -> ir.Value:
    """
    Return (N, h, w, K) as (N, K, h, w).

    Parameters
    ----------
    draft : Draft
        Receives the node.
    value : onnx_ir.Value
        Any tensor of four axes, of a layer or not.

    Returns
    -------
    onnx_ir.Value
        Its last axis second.
    """
    n, h, w, k = dims(value)
    turned = described(draft.emit.Transpose(value, perm=[0, 3, 1, 2]), value)
    turned.shape = ir.Shape([n, k, h, w])
    return turned


def image_size(draft: Draft) -> tuple[int, int]:
    """
    Return the image's size.

    Parameters
    ----------
    draft : Draft
        Knows the image.

    Returns
    -------
    tuple of int
        ``(H, W)``.
    """
    _, a, b, c = (int(d) if isinstance(d, int) else 0 for d in dims(draft.x))
    return (a, b) if is_channels_last(draft.x) else (b, c)
