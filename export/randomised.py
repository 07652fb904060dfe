"""
The same classifier with weights drawn anew, layer by layer: what sanity checks of explanations compare with.

In: a `Classifier`, and names of its layers of weights. Out: the same graph with other numbers in it, so that every tensor
keeps its name and its shape; the given one is never changed.

::

    Conv, ConvTranspose, Gemm, MatMul, Einsum   one layer each: the constant operand and the bias, drawn from
                                                U(-1/sqrt(fan_in), 1/sqrt(fan_in)), PyTorch's own bounds
    BatchNormalization and other norms          scale 1 and shift 0 with the layer before them; statistics stay

A norm that was folded into its convolution and one that was not so belong to the same layer, and a model has as many
layers either way. A bias is the operator's own, or a constant that is added right after it. What else may be learned
(position embeddings, a class token, layer scales) stays. Numbers depend on the seed and the layer's name alone, so that a
layer is drawn alike whatever else is.

References
----------
Adebayo et al. 2018, Sanity Checks for Saliency Maps, arXiv:1810.03292, section 3.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import prod, sqrt
from typing import TypeGuard

import numpy as np
import onnx_ir as ir

from camrt.errors import LayerError, ModelError

from .backward import between
from .load import Classifier
from .vjp.emit import dims
from .vjp.known import is_float, optional_input
from .vjp.table import op_key

__all__ = ["WeightLayer", "randomised", "weight_layers"]

NORMS = {  # where their scale and their shift stand
    "BatchNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "GroupNormalization": (1, 2),
    "RMSNormalization": (1,),
}


@dataclass(frozen=True)
class WeightLayer:
    """
    One operator with weights.

    Attributes
    ----------
    name : str
        Its node's.
    op : str
        The operator.
    fan_in : int
        How many inputs each output is a weighted sum of; of a transposed convolution, at stride 1.
    drawn : list of str
        The constants that are drawn: the weight, then biases.
    scales, shifts : list of str
        The constants of norms behind it that become 1 and 0.
    """

    name: str
    op: str
    fan_in: int
    drawn: list[str] = field(default_factory=list)
    scales: list[str] = field(default_factory=list)
    shifts: list[str] = field(default_factory=list)


def weight_layers(classifier: Classifier) -> tuple[WeightLayer, ...]:
    """
    Find the layers of weights.

    Parameters
    ----------
    classifier : Classifier
        As `camrt.export.load.load` gives it.

    Returns
    -------
    tuple of WeightLayer
        From the logits to the image, against the graph's order. A constant that several operators read belongs to the one
        nearest the logits; an operator whose weight is another's is no layer of its own.

    Raises
    ------
    ModelError
        If the model is quantised, or has no weights.
    """
    if classifier.quantised is not None:
        raise ModelError("weights are drawn in float, and this model's are integers: load it with precision='twin'")
    nodes = between(classifier.model.graph, [classifier.x], [classifier.logits])
    owners: dict[str, WeightLayer] = {}  # by the name of the weight
    layer_of: dict[ir.Value, WeightLayer] = {}  # by what the operator, or the Add behind it, gives
    taken: set[str] = set()
    for node in reversed(nodes):
        found = _weight(node)
        if found is None:
            continue
        weight, fan_in = found
        layer = owners.setdefault(weight.name or "", WeightLayer(node.name or "", op_key(node), fan_in))
        result, bias = _biased(node)
        layer.drawn.extend(_own([weight, *bias], taken))
        layer_of[node.outputs[0]] = layer_of[result] = layer
    if not owners:
        raise ModelError("the model has no convolution or matrix product with constant weights to draw anew")
    last = list(owners.values())[-1]
    for node in nodes:
        last = layer_of.get(node.outputs[0], last)
        if op_key(node) in NORMS:
            source = node.inputs[0]
            layer = last if source is None else layer_of.get(source, last)
            for place, into in zip(NORMS[op_key(node)], (layer.scales, layer.shifts), strict=False):
                into.extend(_own([optional_input(node, place)], taken))
    return tuple(owners.values())


def randomised(classifier: Classifier, layers: Sequence[str], seed: int = 0) -> Classifier:
    """
    Draw weights anew.

    Parameters
    ----------
    classifier : Classifier
        As `camrt.export.load.load` gives it; it stays as it is.
    layers : sequence of str
        Names of `weight_layers`.
    seed : int, default 0
        At least 0; numbers depend on it and on the layer's name.

    Returns
    -------
    Classifier
        The same graph and names. What is not drawn is shared with the given one, so it takes memory for the rest alone. It
        has no file that it could be verified against.

    Raises
    ------
    LayerError
        If there is no such layer.
    ModelError
        As `weight_layers`.
    """
    known = {layer.name: layer for layer in weight_layers(classifier)}
    for name in layers:
        if name not in known:
            some = ", ".join(map(repr, list(known)[:5]))
            raise LayerError(f"the model has no layer of weights {name!r}; from the logits on they are {some} ...")
    model = classifier.model.clone()
    for name in dict.fromkeys(layers):
        _draw(model.graph, known[name], seed)
    place = classifier.model.graph.outputs.index(classifier.logits)
    return replace(
        classifier, model=model, x=model.graph.inputs[0], logits=model.graph.outputs[place], given=_not_given
    )


def _not_given() -> bytes:
    """Say that nobody gave this model: there is nothing to compare it with."""
    raise ModelError("a model with weights drawn anew has no file that it could be compared with")


def _draw(graph: ir.Graph, layer: WeightLayer, seed: int) -> None:
    """Put new numbers into the constants of one layer."""
    word = int.from_bytes(hashlib.blake2b(layer.name.encode(), digest_size=8).digest())
    stream = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, word))))
    bound = 1 / sqrt(layer.fan_in)
    for name in layer.drawn:
        _set(graph, name, stream.uniform(-bound, bound, _shape(graph.initializers[name])))
    for name in layer.scales:
        _set(graph, name, np.ones(_shape(graph.initializers[name])))
    for name in layer.shifts:
        _set(graph, name, np.zeros(_shape(graph.initializers[name])))


def _set(graph: ir.Graph, name: str, array: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> None:
    """Give a constant other numbers, in its own type."""
    value = graph.initializers[name]
    assert value.dtype is not None
    value.const_value = ir.tensor(array.astype(value.dtype.numpy()), name=name)


def _shape(value: ir.Value | None) -> tuple[int, ...]:
    """Return the shape of a constant."""
    return () if value is None else tuple(int(d) for d in dims(value))


def _is_constant(value: ir.Value | None) -> TypeGuard[ir.Value]:
    """Tell a constant of floating-point numbers."""
    return value is not None and value.const_value is not None and is_float(value)


def _own(values: Sequence[ir.Value | None], taken: set[str]) -> list[str]:
    """Name the constants among some values that no layer has, and enter them."""
    names = [value.name or "" for value in values if _is_constant(value) and value.name not in taken]
    taken.update(names)
    return names


def _weight(node: ir.Node) -> tuple[ir.Value, int] | None:
    """Return the constant that a product multiplies with, and its fan-in; None for any other node."""
    op = op_key(node)
    places = {"Conv": (1,), "ConvTranspose": (1,), "Gemm": (1, 0), "MatMul": (1, 0)}.get(op, ())
    places = tuple(range(len(node.inputs))) if op == "Einsum" else places
    for place in places:
        value = node.inputs[place]
        shape = _shape(value) if _is_constant(value) else ()
        if value is not None and shape:
            return value, _fan_in(node, op, place, shape)
    return None


def _fan_in(node: ir.Node, op: str, place: int, shape: tuple[int, ...]) -> int:
    """Count the products that one output is a sum of."""
    if op == "Conv":
        return prod(shape[1:])
    if op == "ConvTranspose":
        return shape[0] // node.attributes.get_int("group", 1) * prod(shape[2:])
    if op == "Einsum":
        return _summed(node, place, shape)
    is_turned = op == "Gemm" and bool(node.attributes.get_int("transB" if place else "transA", 0))
    return shape[-1] if len(shape) == 1 or (place == 0) != is_turned else shape[-2]


def _summed(node: ir.Node, place: int, shape: tuple[int, ...]) -> int:
    """Multiply the lengths of an Einsum's letters that the result does not have."""
    given, _, result = node.attributes.get_string("equation", "").replace(" ", "").partition("->")
    front, dots, back = given.split(",")[place].partition("...")
    letters = [*front, *("." * (len(shape) - len(front) - len(back)) if dots else ""), *back]
    return prod(length for letter, length in zip(letters, shape, strict=True) if letter not in result)


def _biased(node: ir.Node) -> tuple[ir.Value, list[ir.Value | None]]:
    """Return what a product gives once its bias is on it, and the biases: its own, or a vector that is added to it alone."""
    result = node.outputs[0]
    if op_key(node) in ("Conv", "ConvTranspose", "Gemm") and optional_input(node, 2) is not None:
        return result, [optional_input(node, 2)]
    users = [use.node for use in result.uses()]
    if len(users) != 1 or op_key(users[0]) != "Add":
        return result, []
    other = next((value for value in users[0].inputs if value is not result), None)
    axis = 1 if op_key(node) in ("Conv", "ConvTranspose") else -1
    if not _is_constant(other):
        return result, []
    shape = _shape(other)
    wide = (1,) * (len(dims(result)) - len(shape)) + shape
    is_vector = len(wide) == len(dims(result)) and prod(wide) == wide[axis] == dims(result)[axis]
    return (users[0].outputs[0], [other]) if is_vector else (result, [])
