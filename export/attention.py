"""
The attention of a vision transformer, and how each block's own score depends on it.

In: a classifier's graph and a layer, whose grid the tokens are. Out: for each block the attention probabilities and the
residual stream behind the block, found by structure alone, whichever exporter wrote them; and as nodes of the graph the
maps of LeGrad (Bousselham et al. 2024, arXiv:2404.03214).

A block's score is what the final norm and the head make of the mean of its tokens. They are run as they stand, on as
many copies of the mean as there are tokens: a class token, the mean of tokens, or any other weighting that sums to one
then picks out the mean itself, so that no form of pooling has to be known.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from camrt.errors import LayerError

from .backward import downstream, sweep, upstream
from .default import joins
from .layers import MAX_PREFIX
from .manifest import Layer
from .propagation.lift import second_run
from .reach import bottlenecks, chain
from .vjp import RULES
from .vjp.emit import Emit, described, dims
from .vjp.fixed import OF_SHAPES

__all__ = ["Block", "Tower", "block_maps", "find_blocks"]

_INSTEAD = "use a method of activations and gradients, such as gradcam"
_PASSED = {"Cast", "Dropout", "Identity", "Where"}  # between the probabilities and their product with the values
_PRODUCTS = {"MatMul", "Einsum"}


@dataclass(frozen=True)
class Block:
    """A transformer block: probabilities (N, heads, T, T) or (N*heads, T, T), and the tokens it gives."""

    attention: ir.Value
    output: ir.Value


@dataclass(frozen=True)
class Tower:
    """
    The blocks whose attention is between all tokens of one grid.

    Attributes
    ----------
    blocks : tuple of Block
        The shallowest first; their outputs have one shape.
    axis : int
        Of the tokens in the outputs: 1 for (N, T, D), 0 for (T, N, D).
    grid : tuple of int
        ``(h, w)``.
    prefix : int
        Tokens before the grid.
    """

    blocks: tuple[Block, ...]
    axis: int
    grid: tuple[int, int]
    prefix: int


def find_blocks(graph: ir.Graph, x: ir.Value, logits: ir.Value, layer: Layer) -> Tower:
    """
    Find a model's transformer blocks.

    A block's attention is a Softmax over the last axis that is multiplied with computed values. Its output is the last
    tensor before the next block's attention that everything it tells the logits passes; behind the last attention, the
    last residual sum, and the norm behind it where the block before ends in one.

    Parameters
    ----------
    graph : onnx_ir.Graph
        Topologically sorted, with shapes.
    x, logits : onnx_ir.Value
        The image and the scores.
    layer : Layer
        Any layer with the grid that the tokens are.

    Returns
    -------
    Tower
        At least one block.

    Raises
    ------
    LayerError
        If the model has no attention, or one within windows; if its last attention is not between the tokens of the
        layer's grid; or if the logits read more than the last block.
    """
    images = dims(x)[0]
    on_path = downstream(graph, [x]) & upstream(graph, [logits])
    found = [value for value in _probabilities(graph) if value in on_path]
    for value in found:
        if _heads(value, images) is None:
            raise LayerError(
                f"legrad needs attention between all tokens of an image; {value.name!r}, {_said(value)}, stays within "
                f"windows of it: {_INSTEAD}"
            )
    square = [value for value in found if dims(value)[-1] == dims(value)[-2]]
    if not square:
        had = f"that of this model is {_said(found[-1])}" if found else "this model has none"
        raise LayerError(f"legrad needs attention between all tokens of an image; {had}: {_INSTEAD}")
    length, cells = int(dims(square[-1])[-1]), layer.grid[0] * layer.grid[1]
    prefix = length - cells
    allowed = (layer.prefix,) if layer.layout.startswith("tokens") else range(MAX_PREFIX + 1)
    if prefix not in allowed:
        raise LayerError(
            f"legrad reads the last attention, which is between {length} tokens; layer {layer.name!r} has "
            f"{layer.grid[0]}x{layer.grid[1]} cells and {layer.prefix} prefix tokens: choose a layer of that grid, or {_INSTEAD}"
        )
    chosen = [value for value in square if dims(value)[-1] == length]
    outputs = _outputs(graph, x, logits, chosen, length)
    stream = outputs[-1]
    like = [Block(a, out) for a, out in zip(chosen, outputs, strict=True) if out.shape == stream.shape]
    return Tower(tuple(like), 1 if dims(stream)[0] == images else 0, layer.grid, prefix)


def block_maps(
    e: Emit,
    graph: ir.Graph,
    logits: ir.Value,
    seed: ir.Value,
    tower: Tower,
    last: int | None = None,
    prefix: str = "block",
) -> ir.Value:
    """
    Emit the maps of blocks: the positive part of the gradient of each block's score at its own attention.

    Parameters
    ----------
    e : Emit
        Receives the nodes.
    graph : onnx_ir.Graph
        Where the tower was found.
    logits : onnx_ir.Value
        The scores.
    seed : onnx_ir.Value
        The cotangent (N, C) at each block's scores.
    tower : Tower
        As `find_blocks` gives it.
    last : int, optional
        How many of the last blocks; all without it.
    prefix : str, default "block"
        What the names of new nodes begin with; no other call on the same graph may have it.

    Returns
    -------
    onnx_ir.Value
        Maps (N, blocks, h, w), the shallowest block first: means over heads and queries, prefix keys dropped.

    Raises
    ------
    MissingRuleError
        If the gradient has to pass an operator that has no rule.
    """
    stream = tower.blocks[-1].output
    chosen = tower.blocks if last is None else tower.blocks[-last:]
    maps = []
    for index, block in enumerate(chosen):
        scores = second_run(graph, e, stream, _copies_of_mean(e, block.output, tower.axis), logits)[logits]
        (g,) = sweep(graph, {scores: seed}, [block.attention], RULES, prefix=f"{prefix}{index}")
        if g is None:
            raise LayerError(f"no gradient flows from the logits back to the attention {block.attention.name!r}")
        maps.append(_drawn(e, g, tower))
    joined = maps[0] if len(maps) == 1 else e.Concat(*maps, axis=1)
    described(joined, logits).shape = ir.Shape([dims(logits)[0], len(maps), *tower.grid])
    return joined


def _copies_of_mean(e: Emit, tokens: ir.Value, axis: int) -> ir.Value:
    """Put the mean of all tokens in the place of each."""
    mean = described(e.ReduceMean(tokens, e.const([axis]), keepdims=1), tokens)
    mean.shape = ir.Shape([1 if i == axis else d for i, d in enumerate(dims(tokens))])
    return described(e.Expand(mean, e.shape_of(tokens)), tokens)


def _drawn(e: Emit, g: ir.Value, tower: Tower) -> ir.Value:
    """Return the map (N, 1, h, w) of a gradient at attention: ReLU, mean over heads and queries, keys of the grid."""
    (h, w), length = tower.grid, int(dims(g)[-1])
    heads = _heads(g, dims(tower.blocks[-1].output)[1 - tower.axis])
    asked = e.Reshape(e.Relu(g), e.const([-1, (heads or 1) * length, length]))
    keys = e.ReduceMean(asked, e.const([1]), keepdims=0)
    if tower.prefix:
        keys = e.Slice(keys, e.const([tower.prefix]), e.const([length]), e.const([1]))
    return e.Reshape(keys, e.const([-1, 1, h, w]))


# structure -------------------------------------------------------------------------------------------------------


def _probabilities(graph: ir.Graph) -> Iterator[ir.Value]:
    """Yield what a softmax over the last axis gives to a product with computed values, in graph order."""
    for node in graph:
        value = node.outputs[0]
        if node.op_type != "Softmax" or value.shape is None or not 3 <= len(value.shape) <= 5:
            continue
        if node.attributes.get_int("axis", -1) in (-1, len(value.shape) - 1) and _weighs_values(value):
            yield value


def _weighs_values(value: ir.Value) -> bool:
    """Tell whether a tensor is the left operand of a product of two computed tensors."""
    for use in value.uses():
        node = use.node
        if node.op_type in _PASSED and node.outputs[0].shape == value.shape and _weighs_values(node.outputs[0]):
            return True
        if node.op_type in _PRODUCTS and use.idx == 0 and len(node.inputs) == 2:
            values = node.inputs[1]
            if values is not None and not values.is_initializer():
                return True
    return False


def _heads(value: ir.Value, images: int | str) -> int | None:
    """Return how many heads attention has, (N, heads, T, T) or (N*heads, T, T); None where an image has several windows."""
    first, second = dims(value)[:2]
    if len(dims(value)) == 4:
        return int(second) if first == images and isinstance(second, int) else None
    if len(dims(value)) != 3:
        return None
    if isinstance(first, int) and isinstance(images, int):
        return first // images if first % images == 0 else None
    factor = str(first).removesuffix(str(images)).removesuffix("*") or "1"
    return int(factor) if factor.isdigit() else None


def _said(value: ir.Value) -> str:
    """Write a tensor's shape for a message."""
    return "x".join(str(d) for d in dims(value))


def _outputs(
    graph: ir.Graph, x: ir.Value, logits: ir.Value, attention: Sequence[ir.Value], length: int
) -> list[ir.Value]:
    """Return the tokens behind each attention's block."""
    following = bottlenecks(graph, logits, lambda _, edge: edge[0].op_type not in OF_SHAPES)
    passed = [_tokens([*chain(value, following)], length, dims(x)[0]) for value in attention]
    outputs: list[ir.Value] = []
    ending: list[str] = []  # operators between a block's last residual sum and its output: a norm, or none
    for value, tokens, after in zip(attention, passed, attention[1:], strict=False):
        before = upstream(graph, [after])
        own = [token for token in tokens if token in before]
        if not own:
            raise LayerError(
                f"legrad needs blocks one behind the other; no tensor of {length} tokens lies between the attention "
                f"{value.name!r} and the next: {_INSTEAD}"
            )
        outputs.append(own[-1])
        ending = _operators(own[_last_sum(own) + 1 :])
    tokens = passed[-1]
    place = _last_sum(tokens)
    if place < 0:
        raise LayerError(
            f"legrad needs blocks that give tokens, (N, {length}, K); behind the last attention {attention[-1].name!r} "
            f"there are none: {_INSTEAD}"
        )
    if _operators(tokens[place + 1 : place + 1 + len(ending)]) == ending:
        place += len(ending)
    if tokens[place] not in chain(x, following):
        raise LayerError(
            "legrad needs a head that reads the last block alone; the logits of this model read more than "
            f"{tokens[place].name!r}: {_INSTEAD}"
        )
    return [*outputs, tokens[place]]


def _last_sum(values: Sequence[ir.Value]) -> int:
    """Return the place of the last residual sum, a bias that is added to it included; -1 where there is none."""
    place = max((i for i, value in enumerate(values) if joins(value)), default=-1)
    while 0 <= place < len(values) - 1 and _adds_constant(values[place + 1], values[place]):
        place += 1
    return place


def _adds_constant(value: ir.Value, to: ir.Value) -> bool:
    """Tell whether a tensor is another with a constant added."""
    node = value.producer()
    if node is None or node.op_type != "Add" or to not in node.inputs:
        return False
    return any(v is not None and v.is_initializer() for v in node.inputs)


def _operators(values: Sequence[ir.Value]) -> list[str]:
    """Return what makes each value."""
    return [node.op_type for value in values if (node := value.producer()) is not None]


def _tokens(values: Sequence[ir.Value], length: int, images: int | str) -> list[ir.Value]:
    """Keep what is (N, T, D) or (T, N, D) of a length T."""
    return [v for v in values if v.shape is not None and len(dims(v)) == 3 and set(dims(v)[:2]) == {images, length}]
