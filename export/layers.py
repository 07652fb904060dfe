"""
Which tensors can be explained, each with a reason, and which one is explained by default.

In: a `Classifier`. Out: `Layer` entries in graph order. A layer is a tensor between the image and the logits with a
spatial grid larger than one cell: ``(N, K, h, w)``, ``(N, h, w, K)``, or tokens ``(N, P + h*w, K)`` or
``(P + h*w, N, K)`` after P prefix tokens. The default is the last of them that everything passes which the grid tells
the logits, before pooling: the last activation of a CNN; what the last attention reads where only a class token feeds
the head, because behind it the gradients of all patches are zero by construction; the last normalisation where the
mean of all tokens does. Grid and prefix come from shapes; who knows better says so.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from camrt.errors import LayerError

from .backward import downstream, reads, upstream
from .default import POOLS, choose_default
from .load import Classifier
from .manifest import Layer
from .names import module_path, pick
from .piecewise import piecewise_linear
from .vjp.emit import constant, dims

__all__ = ["find", "is_channels_last", "is_global_average", "linear_layers", "resolve", "value_of"]

AUTO_TORCHCAM = "torchcam-auto"  # torch-cam's rule: the last tensor with a grid, pooling included
MAX_PREFIX = 16  # class token, distillation token, registers
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
_NCHW_MAKERS = {"Conv", "ConvTranspose", "BatchNormalization", "InstanceNormalization", "LRN", *POOLS}


def find(
    classifier: Classifier, *, grid: tuple[int, int] | None = None, prefix: int | None = None
) -> tuple[Layer, ...]:
    """
    Return every layer of a classifier that a map can be made of.

    Parameters
    ----------
    classifier : Classifier
        As `camrt.export.load.load` gives it.
    grid : tuple of int, optional
        ``(h, w)`` that tokens make up, in place of what the shapes say. Only tensors of ``h*w`` tokens and a prefix are
        layers then, beside those with a spatial grid of their own.
    prefix : int, optional
        Tokens before the grid, in place of what is left over.

    Returns
    -------
    tuple of Layer
        In graph order; exactly one is the default.

    Raises
    ------
    LayerError
        If no tensor has a grid larger than one cell, or none has that of `grid` and `prefix`.
    """
    if (grid is not None and (len(grid) != 2 or min(grid) < 1 or grid[0] * grid[1] < 2)) or (prefix or 0) < 0:
        raise LayerError(f"a grid is (h, w) of more than one cell and a prefix is 0 or more; got {grid} and {prefix}")
    graph = classifier.model.graph
    on_path = downstream(graph, [classifier.x]) & upstream(graph, [classifier.logits])
    layouts = _layouts(classifier, on_path)
    found: dict[ir.Value, Layer] = {}
    grids = _Grids(_size(classifier.x), grid, prefix)
    images = dims(classifier.x)[0]
    for node in graph:
        for value in node.outputs:
            if value not in on_path:
                continue
            layer = _spatial(node, value, layouts.get(value), images) or _tokens(node, value, grids, images)
            if layer is not None:
                found[value] = layer
                if not layer.layout.startswith("tokens"):
                    grids.seen.append(layer.grid)
    if not found:
        raise LayerError(
            "no tensor of this model has a spatial grid, (N, K, h, w) with h*w > 1 or tokens; a CAM needs one: "
            "give a model with convolutions or patches"
        )
    if (grid, prefix) != (None, None) and not any(layer.layout.startswith("tokens") for layer in found.values()):
        shapes = [dims(v) for v in on_path if v.shape is not None and len(v.shape) == 3]
        lengths = sorted({d for a, b, _ in shapes for d in (b if a == images else a,) if isinstance(d, int) and d > 1})
        raise LayerError(
            f"no token tensor fits grid={grid} and prefix={prefix}: h*w + prefix must be the number of tokens; "
            f"sequences of this model are {', '.join(map(str, lengths)) or 'none'} long"
        )
    chosen, reason = choose_default(classifier, found)
    straight = piecewise_linear(graph, classifier.logits)
    return tuple(
        replace(
            layer,
            default=value is chosen,
            reason=reason if value is chosen else layer.reason,
            piecewise=value in straight,
        )
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


def _size(x: ir.Value) -> tuple[int, int]:
    """Return (H, W) of the image input, 1 where it is open."""
    places = dims(x)[1:3] if is_channels_last(x) else dims(x)[2:4]
    height, width = (d if isinstance(d, int) else 1 for d in places)
    return height, width


# candidates ------------------------------------------------------------------------------------------------------


def _layouts(classifier: Classifier, on_path: Collection[ir.Value]) -> dict[ir.Value, str]:
    """
    Tell what the axes of rank-4 tensors mean, by following them from where it is known.

    Convolutions and pooling fix ``nchw``; a transpose turns it into ``nhwc`` and back; a product of two computed
    tensors is attention and gives ``heads``, (N, heads, T, T) or (N, heads, T, K / heads); other operators keep what
    an operand of the same shape has. After a reshape nothing is known, until a layer that works on the last axis alone
    meets two axes in the middle that are the image divided by one number: then they are ``nhwc``.
    """
    first = classifier.x
    image = _size(first)
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
            elif not known and _works_on_last(node) and _divides(dims(value)[1:3], image):
                layouts[value] = "nhwc"
            elif node.op_type not in _LOSES_LAYOUT and known:
                alike = [v for v in known if v is not None and v.shape == value.shape]
                layouts[value] = layouts[(alike or known)[0]]
    return layouts


def _works_on_last(node: ir.Node) -> bool:
    """Tell a linear layer and a normalisation over the last axis."""
    if node.op_type == "MatMul":
        weights = node.inputs[1]
        return weights is not None and weights.is_initializer() and len(dims(weights)) == 2
    return node.op_type == "LayerNormalization" and node.attributes.get_int("axis", -1) in (-1, 3)


def _divides(grid: Sequence[int | str], image: tuple[int, int]) -> bool:
    """Tell whether a grid is the image's size divided by one whole number, rounded down or up."""
    strides = range(1, max(image) + 1)
    return any(
        all(g in (side // s, -(-side // s)) for g, side in zip(grid, image, strict=True)) and 1 not in grid
        for s in strides
    )


def _entry(node: ir.Node, value: ir.Value, layout: str, channels: int, grid: tuple[int, int], prefix: int = 0) -> Layer:
    """Describe one candidate."""
    shape = dims(value)
    module = module_path(node.name or "", node.metadata_props)
    return Layer(value.name or "", node.name or "", node.op_type, module, shape, layout, channels, grid, prefix)


def _spatial(node: ir.Node, value: ir.Value, layout: str | None, images: int | str) -> Layer | None:
    """Return the entry of a rank-4 tensor with a grid."""
    if node.op_type in _MOVES or value.shape is None or layout not in ("nchw", "nhwc"):
        return None
    if value.dtype is None or not value.dtype.is_floating_point():
        return None
    batch, *rest = dims(value)
    sizes = [d for d in rest if isinstance(d, int)]
    if len(sizes) != 3 or batch != images:
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


def _tokens(node: ir.Node, value: ir.Value, grids: _Grids, images: int | str) -> Layer | None:
    """Return the entry of a token tensor, (N, T, K) or (T, N, K), whose length is a grid plus a few prefix tokens."""
    if node.op_type in _MOVES or value.shape is None or len(value.shape) != 3:
        return None
    if value.dtype is None or not value.dtype.is_floating_point():
        return None
    first, second, width = dims(value)
    layout, tokens = ("tokens", second) if first == images else ("tokens_first", first)
    if images not in (first, second) or (tokens == width and _is_score(node)):
        return None
    if not isinstance(tokens, int) or not isinstance(width, int) or width == 1 or _is_attention_product(node):
        return None
    fit = grids.of(tokens)
    return None if fit is None else _entry(node, value, layout, width, *fit)


@dataclass
class _Grids:
    """The grids tokens may stand for: the one given, those of spatial tensors so far, or the image's own patches."""

    image: tuple[int, int]
    grid: tuple[int, int] | None = None
    prefix: int | None = None
    seen: list[tuple[int, int]] = field(default_factory=list)

    def of(self, tokens: int) -> tuple[tuple[int, int], int] | None:
        """Return the grid and the number of prefix tokens that make up a length; the fewest prefix tokens win."""
        if self.grid is not None:
            return self._fit([self.grid], tokens)
        height, width = self.image
        patches = [(height // p, width // p) for p in range(2, min(self.image) + 1) if height % p == width % p == 0]
        return self._fit(reversed(self.seen), tokens) or self._fit(patches, tokens)

    def _fit(self, grids: Iterable[tuple[int, int]], tokens: int) -> tuple[tuple[int, int], int] | None:
        allowed = range(MAX_PREFIX + 1) if self.prefix is None else (self.prefix,)
        fits = [((h, w), tokens - h * w) for h, w in grids if h * w > 1 and tokens - h * w in allowed]
        return min(fits, key=lambda fit: fit[1], default=None)


# linear heads ----------------------------------------------------------------------------------------------------

_RELABELS = {"Transpose", "Cast"}  # numbers stay what they are
_LINEAR_STEPS = {
    "Gemm",
    "MatMul",
    "Add",
    "Flatten",
    "Reshape",
    "Squeeze",
    "Unsqueeze",
    "Gather",
    "Identity",
    *_RELABELS,
}


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
        read = None if is_pooled else _as_read(source, known)
        if read is not None and is_global_average(node, read):
            is_pooled = True
        elif node.op_type not in (_RELABELS if is_pooled else _LINEAR_STEPS) and not _is_pointwise(node):
            break
        value = source
    return tuple(found)


def _as_read(source: ir.Value, known: Mapping[str, Layer]) -> Layer | None:
    """Return the layer that a tensor is, or is a transpose of, in the layout that it has here."""
    turns = []
    while source.name not in known:
        node = source.producer()
        if node is None or node.op_type not in _RELABELS or node.inputs[0] is None:
            return None
        if node.op_type == "Transpose":
            turns.append(tuple(node.attributes.get_ints("perm", ())))
        source = node.inputs[0]
    layer = known[source.name or ""]
    for turn in reversed(turns):
        layer = replace(layer, layout=_TURNS.get((layer.layout, turn), "unknown"))
    return None if layer.layout == "unknown" else layer


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
    if layer.prefix or (layer.layout != "nchw" and node.op_type != "ReduceMean"):
        return False
    if node.op_type == "GlobalAveragePool":
        return True
    if node.op_type == "AveragePool":
        kernel = list(node.attributes["kernel_shape"].as_ints())
        return kernel == list(layer.grid) and not any(node.attributes.get_ints("pads", [0]))
    if node.op_type != "ReduceMean" or len(node.inputs) < 2 or node.inputs[1] is None:
        return False
    axes = constant(node.inputs[1])
    spatial = {"nchw": [2, 3], "nhwc": [1, 2], "tokens": [1], "tokens_first": [0]}[layer.layout]
    return axes is not None and sorted(int(a) % len(layer.shape) for a in axes) == spatial


def _is_pointwise(node: ir.Node) -> bool:
    """Tell a 1x1 convolution of stride 1 without padding."""
    if node.op_type != "Conv" or node.inputs[1] is None or node.inputs[1].shape is None:
        return False
    return (
        list(dims(node.inputs[1]))[2:] == [1, 1]
        and set(node.attributes.get_ints("strides", [1])) == {1}
        and set(node.attributes.get_ints("pads", [0])) == {0}
    )
