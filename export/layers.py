"""
Which tensors can be explained, each with a reason, and which one is explained by default.

In: a `Classifier`. Out: `Layer` entries in graph order. A layer is a tensor between the image and the logits with a
spatial grid larger than one cell: ``(N, K, h, w)``, ``(N, h, w, K)``, or tokens ``(N, P + h*w, K)`` after P prefix
tokens. The default is the last spatial tensor before the head, after its activation function and before pooling; in a
token model it is what the last attention reads, because behind it only the class token feeds the head and the
gradients of all patches are zero by construction (METHODS.md, sections 4.3 and 4.4).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import onnx_ir as ir

from camrt.errors import LayerError

from .backward import downstream, reads, upstream
from .load import Classifier
from .manifest import Layer
from .names import module_path, pick
from .vjp.emit import constant, dims

__all__ = ["find", "is_channels_last", "is_global_average", "linear_layers", "resolve", "value_of"]

AUTO_TORCHCAM = "torchcam-auto"  # torch-cam's rule: the last tensor with a grid, pooling included
_MAX_PREFIX = 16  # class token, distillation token, registers
_POOLS = {"MaxPool", "AveragePool", "LpPool"}
_ON_SCORES = {"Softmax", "Mul", "Div", "Add", "Sub", "Where", "Cast"}  # between the two products of an attention
_MOVES = {
    "Reshape",
    "Transpose",
    "Squeeze",
    "Unsqueeze",
    "Slice",
    "Split",
    "Pad",
    "Cast",
    "Expand",
    "Gather",
    "Flatten",
}
_LOSES_LAYOUT = {"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Gather", "DepthToSpace", "SpaceToDepth"}
_TURNS: dict[tuple[str, tuple[int, ...]], str] = {("nchw", (0, 2, 3, 1)): "nhwc", ("nhwc", (0, 3, 1, 2)): "nchw"}
_NCHW_MAKERS = {"Conv", "ConvTranspose", "BatchNormalization", "InstanceNormalization", "LRN", *_POOLS}


def find(classifier: Classifier) -> tuple[Layer, ...]:
    """
    Return every layer of a classifier that a map can be made of.

    Parameters
    ----------
    classifier : Classifier
        As `camrt.export.load.load` gives it.

    Returns
    -------
    tuple of Layer
        In graph order; exactly one is the default.

    Raises
    ------
    LayerError
        If no tensor has a grid larger than one cell.
    """
    graph = classifier.model.graph
    on_path = downstream(graph, [classifier.x]) & upstream(graph, [classifier.logits])
    layouts = _layouts(classifier, on_path)
    found: dict[ir.Value, Layer] = {}
    grids: list[tuple[int, int]] = []
    for node in graph:
        for value in node.outputs:
            if value not in on_path:
                continue
            layer = _spatial(node, value, layouts.get(value)) or _tokens(node, value, grids, dims(classifier.x)[0])
            if layer is not None:
                found[value] = layer
                if layer.layout != "tokens":
                    grids.append(layer.grid)
    if not found:
        raise LayerError(
            "no tensor of this model has a spatial grid, (N, K, h, w) with h*w > 1 or tokens; a CAM needs one: "
            "give a model with convolutions or patches"
        )
    chosen, reason = _default(classifier, found)
    return tuple(
        replace(layer, default=value is chosen, reason=reason if value is chosen else layer.reason)
        for value, layer in found.items()
    )


def resolve(layers: Sequence[Layer], name: str | None) -> Layer:
    """
    Return the layer a name stands for, or the default for None.

    Parameters
    ----------
    layers : sequence of Layer
        As `find` gives them.
    name : str or None
        A tensor, node or module path; ``"torchcam-auto"`` for torch-cam's rule.

    Returns
    -------
    Layer
        The one of that name.

    Raises
    ------
    LayerError
        If there is none; near names are offered.
    """
    if name is None:
        return next(layer for layer in layers if layer.default)
    if name == AUTO_TORCHCAM:
        return next((layer for layer in reversed(layers) if layer.layout == "nchw"), layers[-1])
    return pick(name, layers)


def value_of(model: ir.Model, layer: Layer) -> ir.Value:
    """
    Return the tensor of a layer in a copy of its model.

    Parameters
    ----------
    model : onnx_ir.Model
        A copy of the model the layer was found in.
    layer : Layer
        As `find` gives it.

    Returns
    -------
    onnx_ir.Value
        The tensor of that name, or a LayerError where there is none.
    """
    for node in model.graph:
        for value in node.outputs:
            if value.name == layer.name:
                return value
    raise LayerError(f"the model has no tensor {layer.name!r}: this layer belongs to another model")


def is_channels_last(x: ir.Value) -> bool:
    """
    Tell whether an image input has its channels last.

    Parameters
    ----------
    x : onnx_ir.Value
        The image input, rank 4.

    Returns
    -------
    bool
        True for (N, H, W, C) with 1, 3 or 4 channels where (N, C, H, W) would not fit.
    """
    return dims(x)[3] in (1, 3, 4) and dims(x)[1] not in (1, 3, 4)


# candidates ------------------------------------------------------------------------------------------------------


def _layouts(classifier: Classifier, on_path: Collection[ir.Value]) -> dict[ir.Value, str]:
    """
    Tell what the axes of rank-4 tensors mean, by following them from where it is known.

    Convolutions and pooling fix ``nchw``; a transpose turns it into ``nhwc`` and back; a product of two computed
    tensors is attention and gives ``heads``, (N, heads, T, T) or (N, heads, T, K / heads); other operators keep what
    an operand of the same shape has. After a reshape nothing is known.
    """
    first = classifier.x
    layouts = {first: "nhwc" if is_channels_last(first) else "nchw"}
    for node in classifier.model.graph:
        known = [v for v in reads(node) if v in layouts]
        for value in node.outputs:
            if value not in on_path or value.shape is None or len(value.shape) != 4:
                continue
            if node.op_type in _NCHW_MAKERS and "heads" not in [layouts[v] for v in known]:
                layouts[value] = "nchw"
            elif _is_attention_product(node) or node.op_type == "Softmax":
                layouts[value] = "heads"
            elif node.op_type == "Transpose":
                turn = tuple(node.attributes["perm"].as_ints()) if "perm" in node.attributes else ()
                if known and (layouts[known[0]], turn) in _TURNS:
                    layouts[value] = _TURNS[layouts[known[0]], turn]
            elif node.op_type not in _LOSES_LAYOUT and known:
                alike = [v for v in known if v is not None and v.shape == value.shape]
                layouts[value] = layouts[(alike or known)[0]]
    return layouts


def _entry(node: ir.Node, value: ir.Value, layout: str, channels: int, grid: tuple[int, int], prefix: int = 0) -> Layer:
    """Describe one candidate."""
    shape = dims(value)
    module = module_path(node.name or "", node.metadata_props)
    return Layer(value.name or "", node.name or "", node.op_type, module, shape, layout, channels, grid, prefix)


def _spatial(node: ir.Node, value: ir.Value, layout: str | None) -> Layer | None:
    """Return the entry of a rank-4 tensor with a grid."""
    if node.op_type in _MOVES or value.shape is None or layout not in ("nchw", "nhwc"):
        return None
    if value.dtype is None or not value.dtype.is_floating_point():
        return None
    _, *rest = dims(value)
    sizes = [d for d in rest if isinstance(d, int)]
    if len(sizes) != 3:
        return None
    channels, height, width = sizes if layout == "nchw" else (sizes[2], sizes[0], sizes[1])
    if height * width <= 1:
        return None
    return _entry(node, value, layout, channels, (height, width))


def _is_attention_product(node: ir.Node) -> bool:
    """Tell attention's products (two computed operands) from a linear layer (one constant operand)."""
    return node.op_type == "MatMul" and not any(v is not None and v.is_initializer() for v in node.inputs)


def _is_score(node: ir.Node) -> bool:
    """Tell the scores and probabilities of an attention with one head, (N, T, T), from T tokens that are T wide."""
    while node.op_type in _ON_SCORES:
        value = next((v for v in node.inputs if v is not None and v.shape == node.outputs[0].shape), None)
        before = None if value is None else value.producer()
        if before is None:
            return False
        node = before
    return _is_attention_product(node)


def _tokens(node: ir.Node, value: ir.Value, grids: Sequence[tuple[int, int]], images: int | str) -> Layer | None:
    """Return the entry of a token tensor whose length is a known grid plus a few prefix tokens."""
    if node.op_type in _MOVES or value.shape is None or len(value.shape) != 3 or not grids:
        return None
    if value.dtype is None or not value.dtype.is_floating_point():
        return None
    batch, tokens, width = dims(value)
    if batch != images or (tokens == width and _is_score(node)):
        return None
    if not isinstance(tokens, int) or not isinstance(width, int) or width == 1 or _is_attention_product(node):
        return None
    fits = [(tokens - h * w, (h, w)) for h, w in reversed(grids) if 0 <= tokens - h * w <= _MAX_PREFIX]
    if not fits:
        return None
    prefix, grid = min(fits, key=lambda fit: fit[0])
    return _entry(node, value, "tokens", width, grid, prefix)


# the default -----------------------------------------------------------------------------------------------------


def _default(classifier: Classifier, found: dict[ir.Value, Layer]) -> tuple[ir.Value, str]:
    """Choose the layer that is explained unless told otherwise."""
    attention = _last_attention(classifier, found)
    if attention is not None:
        return attention, "default: what the last attention reads; behind it only prefix tokens may feed the head"
    spatial = [v for v, layer in found.items() if layer.layout != "tokens"]
    chosen = spatial[-1] if spatial else list(found)[-1]
    reason = "default: the last tensor with a grid before the head"
    while (node := chosen.producer()) is not None and node.op_type in _POOLS and node.inputs[0] in found:
        chosen = node.inputs[0]
        reason = "default: the last tensor with a grid before the head, moved up past pooling"
    return chosen, reason


def _last_attention(classifier: Classifier, found: dict[ir.Value, Layer]) -> ir.Value | None:
    """
    Return the token tensor from which the last attention makes its queries, keys and values.

    It is the last token tensor of the model's width that both the probabilities and the values of that attention are
    computed from; the width is that of the residual additions, which sets it apart from joint projections.
    """
    graph = classifier.model.graph
    tokens = [v for v, layer in found.items() if layer.layout == "tokens"]
    widths = {
        found[v].channels
        for v in tokens
        if (node := v.producer()) is not None
        and node.op_type == "Add"
        and not any(i is None or i.is_initializer() for i in node.inputs)
    }
    on_path = upstream(graph, [classifier.logits])
    for node in reversed(graph):
        if not _is_attention_product(node) or node.outputs[0] not in on_path:
            continue
        left, right = (upstream(graph, [v]) for v in node.inputs if v is not None)
        if not any(value in left | right for value in _scores(graph)):
            continue
        shared = [v for v in tokens if v in left and v in right and found[v].channels in widths]
        if shared:
            return shared[-1]
    return None


def _scores(graph: ir.Graph) -> list[ir.Value]:
    """Return the outputs of every softmax over tokens."""
    return [node.outputs[0] for node in graph if node.op_type == "Softmax" and len(node.outputs[0].shape or ()) >= 3]


# linear heads ----------------------------------------------------------------------------------------------------

_LINEAR_STEPS = {"Gemm", "MatMul", "Add", "Flatten", "Reshape", "Squeeze", "Identity"}


def linear_layers(classifier: Classifier, layers: Sequence[Layer]) -> tuple[str, ...]:
    """
    Return the layers from which global average pooling and one linear layer lead to the logits.

    Walking back from the logits, only affine steps are passed until a global average is met; a 1x1 convolution of
    stride 1 before it is the linear layer of a fully convolutional head.

    Parameters
    ----------
    classifier : Classifier
        As `camrt.export.load.load` gives it.
    layers : sequence of Layer
        As `find` gives them.

    Returns
    -------
    tuple of str
        Layer names; empty when the head is something else.
    """
    known = {layer.name: layer for layer in layers}
    value, found, is_pooled = classifier.logits, [], False
    while (node := value.producer()) is not None:
        if is_pooled and value.name in known:
            found.append(value.name)
        moving = [v for v in node.inputs if v is not None and not v.is_initializer()]
        if len(moving) != 1 or moving[0] is not node.inputs[0]:
            break
        source = moving[0]
        if not is_pooled and source.name in known and is_global_average(node, known[source.name]):
            is_pooled = True
        elif not (node.op_type in _LINEAR_STEPS and not is_pooled) and not _is_pointwise(node):
            break
        value = source
    return tuple(found)


def is_global_average(node: ir.Node, layer: Layer) -> bool:
    """
    Tell whether a node averages the whole grid of a layer.

    Parameters
    ----------
    node : onnx_ir.Node
        A node that reads the layer.
    layer : Layer
        The layer.

    Returns
    -------
    bool
        True for global average pooling in any of the forms exporters write.
    """
    if layer.layout == "tokens":
        return False
    if node.op_type == "GlobalAveragePool":
        return True
    if node.op_type == "AveragePool":
        kernel = list(node.attributes["kernel_shape"].as_ints())
        return kernel == list(layer.grid) and not any(node.attributes.get_ints("pads", [0]))
    if node.op_type != "ReduceMean" or len(node.inputs) < 2 or node.inputs[1] is None:
        return False
    axes = constant(node.inputs[1])
    spatial = [2, 3] if layer.layout == "nchw" else [1, 2]
    return axes is not None and sorted(int(a) % 4 for a in axes) == spatial


def _is_pointwise(node: ir.Node) -> bool:
    """Tell a 1x1 convolution of stride 1 without padding."""
    if node.op_type != "Conv" or node.inputs[1] is None or node.inputs[1].shape is None:
        return False
    return (
        list(dims(node.inputs[1]))[2:] == [1, 1]
        and set(node.attributes.get_ints("strides", [1])) == {1}
        and set(node.attributes.get_ints("pads", [0])) == {0}
    )
