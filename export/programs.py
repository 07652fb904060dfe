"""
Cut and grow graphs: each program is one graph for one purpose, made from a copy of the classifier.

================  =============================  ==========================================================
program           inputs                         outputs
================  =============================  ==========================================================
forward           x                              logits
features          x                              logits, activations.i (and context.j of a single layer)
gradient          x, target (N,) int64, -1 =     logits, explained (N,) int64, activations.i, gradients.i
                  the predicted class
seeded_gradient   x, seed (N, C)                 logits, activations.i, gradients.i
tail              activations.0, context.j       logits
tail_gradient     activations.0, context.j,      logits, gradients.0
                  seed
input_gradient    x, seed                        logits, input_gradient
map_<method>      x, target                      logits, explained, map (N, h, w), heat (N, H, W), degenerate (N,),
                                                 signed (N,) where the method needs to know, and its flags (N,)
guided_gradient   x, seed                        logits, input_gradient by guided back-propagation
bias_terms        x, seed                        logits, input_gradient, biases.i: gradient times bias at every tensor
                                                 that receives one
bias_gradients    x, seed                        the same, biases.i being the gradient alone
tail_bias_terms   activations.0, context.j,      logits, biases.i: gradient times bias at every tensor behind the layer that
                  seed                           receives one
relevance         activations.0, context.j,      logits, relevance.0; relevance_bias: with biases in the denominators
                  seed
lift              activations.0, context.j,      logits, contributions.0 to the change from activations of zero
                  seed
attention         x, seed                        logits, maps (N, 2, h, w) of the last two blocks' attention on the layer's
                                                 grid; attention_all: of every block
explained_<...>   x, target                      logits, heatmap (N, H, W): for runtimes without camrt
================  =============================  ==========================================================

``activations.i`` and ``gradients.i`` are always ``(N, K, h, w)``, however the model lays them out. ``context.j`` is what
the tail needs beside the layer because it goes around it: a residual stream, or the prefix tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes

from camrt.errors import LayerError, MethodError, MissingRuleError

from .attention import block_maps, find_blocks
from .backward import between, downstream, reads, sweep, upstream
from .layers import is_channels_last, is_global_average, value_of
from .load import Classifier
from .manifest import Layer, Program
from .maps import MAPS, InGraph, against_all, contrast, fused, is_signed
from .propagation.biases import biases
from .propagation.guided import GUIDED, is_rectifier
from .propagation.lift import lift_rules, second_run
from .propagation.relevance import RELEVANCE, RELEVANCE_BIAS
from .vjp import RULES
from .vjp.emit import Emit, constant, described, dims
from .vjp.pool import pool_before_relu
from .vjp.table import Rule

__all__ = ["EXPLAINED", "KINDS", "ON_REQUEST", "WITHOUT_LAYER", "build", "context_of"]


LAST_BLOCKS = 2  # those that LeGrad's official code reads

_NO_FLOW = (
    "no gradient flows from the logits back to layer {!r} (only rounding or comparing operators lead there); choose "
    "another layer"
)


class _Draft:
    """A copy of the classifier that a program is made of, and its inputs and outputs so far."""

    def __init__(self, classifier: Classifier, layers: Sequence[Layer]) -> None:
        self.model = classifier.model.clone()
        self.graph = self.model.graph
        self.layers = tuple(layers)
        self.classes = classifier.classes
        self.quantised = classifier.quantised
        self.x = self.graph.inputs[0]
        self.logits = self.graph.outputs[0]
        self.scores = self.graph.outputs[-1]  # the given model's own logits, where it is quantised
        self.batch = dims(self.logits)[0]
        self.emit = Emit(self.graph, "camrt")
        self.values = [value_of(self.model, layer) for layer in layers]
        self.inputs: dict[str, ir.Value] = {}
        self.outputs: dict[str, ir.Value] = {}

    def new_input(self, name: str, shape: Sequence[int | str], dtype: ir.DataType | None) -> ir.Value:
        """Declare an input that the model does not have."""
        if dtype is None:
            raise AssertionError(f"the element type of {name} is unknown")
        value = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype))
        self.inputs[name] = value
        return value

    def finish(self, kind: str) -> ir.Model:
        """Give inputs and outputs their names, and drop what no output needs."""
        graph, emit = self.graph, self.emit
        if self.quantised is not None:
            self.quantised.round(emit, beside=self.scores in self.outputs.values())
        graph.inputs.clear()
        graph.inputs.extend(self.inputs.values())
        graph.outputs.clear()
        taken: set[ir.Value] = set(self.inputs.values())
        for name, value in self.outputs.items():
            if value in taken:  # one tensor under two names needs a node of its own
                self.outputs[name] = value = described(emit.Identity(value), value)
            taken.add(value)
        graph.outputs.extend(self.outputs.values())
        passes.RemoveUnusedNodesPass()(self.model)
        names = {**{v: n for n, v in self.inputs.items()}, **{v: n for n, v in self.outputs.items()}}
        reserved = set(names.values())
        for value in [*graph.initializers.values(), *(value for node in graph for value in node.outputs)]:
            if value.name in reserved and value not in names:
                value.name = f"{value.name}__model"
        for value, name in names.items():
            value.name = name
        graph.name = kind
        self.model.producer_name, self.model.producer_version = "camrt", None
        return self.model


# layouts: the tensor as the model has it, and as (N, K, h, w) ---------------------------------------------------


def _canonical(draft: _Draft, layer: Layer, value: ir.Value) -> ir.Value:
    """Return `value` of `layer` as (N, K, h, w)."""
    e, (h, w) = draft.emit, layer.grid
    made = value
    if layer.layout == "nhwc":
        made = e.Transpose(value, perm=[0, 3, 1, 2])
    elif (axis := _token_axis(layer)) is not None:
        if layer.prefix:
            made = e.Slice(value, e.const([layer.prefix]), e.const([layer.prefix + h * w]), e.const([axis]))
        made = e.Transpose(made, perm=[1 - axis, 2, axis])
        made = e.Reshape(made, e.const([-1, layer.channels, h, w]))
    if made is not value:
        described(made, value).shape = ir.Shape([draft.batch, layer.channels, h, w])
    return made


def _original(draft: _Draft, layer: Layer, value: ir.Value, prefix: ir.Value | None) -> ir.Value:
    """Return (N, K, h, w) `value` as the model lays `layer` out, prefix tokens first."""
    e, (h, w) = draft.emit, layer.grid
    if layer.layout == "nchw":
        return value
    if layer.layout == "nhwc":
        return e.Transpose(value, perm=[0, 2, 3, 1])
    axis = _token_axis(layer)
    flat = e.Reshape(value, e.const([-1, layer.channels, h * w]))
    flat = e.Transpose(flat, perm=[0, 2, 1] if axis == 1 else [2, 0, 1])
    return flat if prefix is None else e.Concat(prefix, flat, axis=axis)


def _token_axis(layer: Layer) -> int | None:
    """Return the axis that tokens lie along, or None where the grid has axes of its own."""
    return {"tokens": 1, "tokens_first": 0}.get(layer.layout)


def _prefix_shape(draft: _Draft, layer: Layer) -> list[int | str]:
    """Return the shape of a layer's prefix tokens."""
    shape = [draft.batch, layer.prefix] if _token_axis(layer) == 1 else [layer.prefix, draft.batch]
    return [*shape, layer.channels]


# pieces ----------------------------------------------------------------------------------------------------------


def _begin_at_image(draft: _Draft) -> None:
    """Start from the image and give the logits."""
    draft.inputs["x"] = draft.x
    draft.outputs["logits"] = draft.scores


def _give_activations(draft: _Draft) -> None:
    """Give every layer's activations."""
    for index, (layer, value) in enumerate(zip(draft.layers, draft.values, strict=True)):
        draft.outputs[f"activations.{index}"] = _canonical(draft, layer, value)


def _give_gradients(
    draft: _Draft,
    seed: ir.Value,
    wanted: Sequence[ir.Value],
    rules: Mapping[str, Rule] = RULES,
    name: str = "gradients",
) -> None:
    """Give every layer's gradient of the seeded scalar, or what another rule table makes of it."""
    purpose = {"gradients": "gradient", "contributions": "DeepLIFT"}.get(name, name)
    found = sweep(draft.graph, {draft.logits: seed}, wanted, rules, purpose=purpose)
    for index, (layer, g) in enumerate(zip(draft.layers, found, strict=True)):
        if g is None:
            raise LayerError(_NO_FLOW.format(layer.name))
        draft.outputs[f"{name}.{index}"] = _canonical(draft, layer, g)


def _seed_input(draft: _Draft) -> ir.Value:
    """Declare the cotangent at the logits as an input."""
    return draft.new_input("seed", [draft.batch, draft.classes], draft.logits.dtype)


def _target_seed(draft: _Draft) -> ir.Value:
    """Turn class indices, -1 for the predicted one, into the cotangent of their logits inside the graph."""
    e = draft.emit
    target = draft.new_input("target", [draft.batch], ir.DataType.INT64)
    predicted = e.ArgMax(draft.scores, axis=1, keepdims=0)
    predicted.dtype = ir.DataType.INT64
    is_predicted = e.Less(target, e.const(np.zeros((), np.int64)))
    is_predicted.dtype = ir.DataType.BOOL
    chosen = e.Where(is_predicted, predicted, target)
    chosen.shape, chosen.dtype = ir.Shape([draft.batch]), ir.DataType.INT64
    draft.outputs["explained"] = chosen
    on_off = e.const(np.array([0, 1], e.numpy_dtype(draft.logits)))
    seed = e.OneHot(chosen, e.const(np.array(draft.classes, np.int64)), on_off, axis=1)
    return described(seed, draft.logits)


def _take_rows(draft: _Draft, seed: ir.Value, chosen: ir.Value) -> None:
    """
    Read one row of the head's weights a target instead of multiplying all of them by a one-hot seed.

    The product of a one-hot row and a matrix is that row of the matrix, to the bit, so ``Gather`` gives the same
    numbers; on a small network the product costs a tenth of the whole forward pass, all of it reading weights.
    """
    for use in list(seed.uses()):
        node, weights = use.node, use.node.inputs[1] if len(use.node.inputs) == 2 else None
        if use.idx != 0 or weights is None or not weights.is_initializer() or len(dims(weights)) != 2:
            continue
        turned = node.attributes.get_int("transB", 0)
        plain = (
            node.op_type == "Gemm"
            and node.attributes.get_float("alpha", 1.0) == 1
            and not node.attributes.get_int("transA", 0)
        )
        if not (plain or node.op_type == "MatMul"):
            continue
        rows = ir.node("Gather", [weights, chosen], {"axis": int(turned)}, name=f"{node.name}/rows")
        made = [rows]
        if turned:
            made.append(ir.node("Transpose", rows.outputs, {"perm": [1, 0]}, name=f"{node.name}/turned"))
        for new in made:
            new.outputs[0].name = f"{new.name}_output_0"
        draft.graph.insert_before(node, made)
        old = node.outputs[0]
        ir.convenience.replace_all_uses_with(old, described(made[-1].outputs[0], old))
        for name, value in draft.outputs.items():
            if value is old:
                draft.outputs[name] = made[-1].outputs[0]


def _cut_tail(draft: _Draft) -> None:
    """Start from the one layer instead of the image: it and what goes around it become inputs."""
    (layer,), (value,) = draft.layers, draft.values
    acts = draft.new_input("activations.0", [draft.batch, layer.channels, *layer.grid], value.dtype)
    contexts = context_of(draft.graph, draft.x, draft.logits, value)
    prefix = None
    if layer.prefix:
        prefix = draft.new_input("context.0", _prefix_shape(draft, layer), value.dtype)
    for index, outside in enumerate(contexts, start=int(layer.prefix > 0)):
        fresh = draft.new_input(f"context.{index}", dims(outside), outside.dtype)
        ir.convenience.replace_all_uses_with(outside, fresh)
    first = next(iter(draft.graph))
    there = set(draft.graph)
    layout = _original(draft, layer, acts, prefix)
    made = [node for node in draft.graph if node not in there]
    for node in made:
        draft.graph.remove(node)
    draft.graph.insert_before(first, made)
    users = [(use.node, use.idx) for use in value.uses()]
    for node, place in users:
        node.replace_input_with(place, layout)
    draft.values = [described(layout, value)]
    draft.outputs["logits"] = draft.logits


def context_of(graph: ir.Graph, x: ir.Value, logits: ir.Value, value: ir.Value) -> list[ir.Value]:
    """
    Return the tensors that lead from the image to the logits around one tensor.

    Parameters
    ----------
    graph : onnx_ir.Graph
        The model's graph.
    x, logits, value : onnx_ir.Value
        The image, the scores, and the tensor at which the graph is cut.

    Returns
    -------
    list of onnx_ir.Value
        What a tail starting at `value` needs beside it, in graph order; empty where `value` is a bottleneck.
    """
    after, needed, moving = downstream(graph, [value]), upstream(graph, [logits]), downstream(graph, [x])
    around: dict[ir.Value, None] = {}
    for node in graph:
        if (
            value in node.outputs
            or not any(v in after for v in node.outputs)
            or not any(v in needed for v in node.outputs)
        ):
            continue
        for v in reads(node):
            if v in moving and v not in after:
                around[v] = None
    return list(around)


def _give_context(draft: _Draft) -> None:
    """Give what the tail of the one layer needs beside it."""
    (layer,), (value,) = draft.layers, draft.values
    e = draft.emit
    if layer.prefix:
        tokens = e.Slice(value, e.const([0]), e.const([layer.prefix]), e.const([_token_axis(layer) or 0]))
        described(tokens, value).shape = ir.Shape(_prefix_shape(draft, layer))
        draft.outputs["context.0"] = tokens
    for index, outside in enumerate(context_of(draft.graph, draft.x, draft.logits, value), start=int(layer.prefix > 0)):
        draft.outputs[f"context.{index}"] = outside


# the programs ----------------------------------------------------------------------------------------------------


def _forward(draft: _Draft) -> None:
    _begin_at_image(draft)


def _features(draft: _Draft) -> None:
    _begin_at_image(draft)
    if len(draft.layers) == 1:
        _give_context(draft)
    _give_activations(draft)


def _gradient(draft: _Draft) -> None:
    _begin_at_image(draft)
    seed = _target_seed(draft)
    _give_gradients(draft, seed, draft.values)
    _take_rows(draft, seed, draft.outputs["explained"])
    _give_activations(draft)


def _unexpanded(draft: _Draft, layer: Layer, value: ir.Value, g: ir.Value) -> ir.Value | None:
    """Return the (N, K, 1, 1) value that the rule of a global average has spread over the grid of `g`, if it did."""
    node, users = g.producer(), [use.node for use in value.uses()]
    is_pooled = len(users) == 1 and is_global_average(users[0], layer)
    if layer.layout != "nchw" or node is None or node.op_type != "Expand" or not is_pooled:
        return None
    source = node.inputs[0]
    if source is not None:
        described(source, g).shape = ir.Shape([draft.batch, layer.channels, 1, 1])
    return source


def _is_nonnegative(value: ir.Value) -> bool:
    """Tell a tensor that its own operator keeps from being negative."""
    node = value.producer()
    if node is None or node.op_type != "Clip" or len(node.inputs) < 2:
        return node is not None and node.op_type in ("Relu", "Sigmoid", "HardSigmoid", "Softplus")
    lowest = constant(node.inputs[1])
    return lowest is not None and bool(np.all(lowest >= 0))


def _evidence(draft: _Draft, row: InGraph, seed: ir.Value) -> list[dict[str, Any]]:
    """Return what a method's map is made of, by the names of `InGraph.needs`, one entry a layer."""
    found: list[dict[str, Any]] = [{} for _ in draft.layers]
    if "full" in row.needs:
        found[0]["full"] = _full_gradient(draft, seed)
    if "attention" in row.needs:
        for layer, known in zip(draft.layers, found, strict=True):
            known["attention"] = maps = _block_maps(draft, layer, seed)
            if dims(maps)[1] != LAST_BLOCKS:
                raise MethodError(
                    f"the model has 1 block with attention between all tokens, and the last {LAST_BLOCKS} were asked for: "
                    "run it by the engine with option blocks=-1"
                )
    if "grads" in row.needs:
        for layer, value, g, known in zip(
            draft.layers,
            draft.values,
            _carried_back(draft, row, seed),
            found,
            strict=True,
        ):
            if g is None:
                raise LayerError(_NO_FLOW.format(layer.name))
            known["grads"] = _unexpanded(draft, layer, value, g) or _canonical(draft, layer, g)
    for layer, value, known in zip(draft.layers, draft.values, found, strict=True):
        known |= {"acts": _canonical(draft, layer, value), "size": _size(draft)}
    return found


def _carried_back(draft: _Draft, row: InGraph, seed: ir.Value) -> list[ir.Value | None]:
    """Return what a method's target becomes at every layer, by its own rules."""
    e, graph, logits, chosen = draft.emit, draft.graph, draft.logits, draft.outputs["explained"]
    if row.target == "contrast":
        seed = described(contrast(e, draft.scores, chosen), logits)
    elif row.target == "against_all":
        seed = described(against_all(e, draft.scores, chosen), logits)
    if row.way == "relevance":
        return sweep(graph, {logits: seed}, draft.values, RELEVANCE)
    if row.way == "gradient":
        return sweep(graph, {logits: seed}, draft.values, RULES)
    found: list[ir.Value | None] = []
    for index, (layer, value) in enumerate(zip(draft.layers, draft.values, strict=True)):  # each has a second run
        rules = lift_rules(second_run(graph, e, value, _without(draft, layer, value), logits))
        found += sweep(graph, {logits: seed}, [value], rules, prefix=f"lift{index}")
    return found


def _without(draft: _Draft, layer: Layer, value: ir.Value) -> ir.Value:
    """Set a layer's grid to zero and leave its prefix tokens as they are."""
    e, (h, w), axis = draft.emit, layer.grid, _token_axis(layer)
    kept = np.zeros(1 if axis is None else layer.prefix + h * w, e.numpy_dtype(value))
    kept[: layer.prefix] = 1
    return described(e.Mul(value, e.const(kept[:, None] if axis == 1 else kept[:, None, None])), value)


def _size(draft: _Draft) -> tuple[int, int]:
    """Return the image's (H, W)."""
    _, a, b, c = (int(d) if isinstance(d, int) else 0 for d in dims(draft.x))
    return (a, b) if is_channels_last(draft.x) else (b, c)


def _draw(draft: _Draft, row: InGraph, known: dict[str, Any]) -> tuple[ir.Value, dict[str, ir.Value]]:
    """Return what the method gives on one layer, and its flags."""
    drawn = row.function(draft.emit, *(known[name] for name in row.needs))
    return drawn if isinstance(drawn, tuple) else (drawn, {})


def _raw(draft: _Draft, row: InGraph, layer: Layer, known: dict[str, Any]) -> tuple[ir.Value, dict[str, ir.Value]]:
    """Return the raw map of one layer and the method's flags."""
    raw, flags = _draw(draft, row, known)
    described(raw, known["acts"]).shape = ir.Shape([draft.batch, *(known["size"] if row.at_image else layer.grid)])
    return raw, flags


def _map(draft: _Draft, method: str) -> None:
    _begin_at_image(draft)
    row, (layer,), (value,) = MAPS[method], draft.layers, draft.values
    seed = _target_seed(draft)
    (known,) = _evidence(draft, row, seed)
    raw, flags = _raw(draft, row, layer, known)
    heat, degenerate = fused(draft.emit, [raw], known["size"], how=row.fuse, relu=row.relu)
    draft.outputs |= {"map": raw, "heat": heat, "degenerate": degenerate, **flags}
    if row.assumes_positive and not _is_nonnegative(value):
        draft.outputs["signed"] = is_signed(draft.emit, known["acts"])
    degenerate.dtype = ir.DataType.BOOL
    for name in {"degenerate", "signed", *flags} & set(draft.outputs):
        draft.outputs[name].shape = ir.Shape([draft.batch])
    _take_rows(draft, seed, draft.outputs["explained"])


def _explained(draft: _Draft, method: str) -> None:
    _begin_at_image(draft)
    row = MAPS[method]
    seed = _target_seed(draft)
    found = _evidence(draft, row, seed)
    if row.gives == "heatmap":
        heat, _ = _draw(draft, row, found[0])
    else:
        places = list(zip(draft.layers, found, strict=True))[: 1 if row.at_image else None]
        raws = [_raw(draft, row, layer, known)[0] for layer, known in places]
        heat, _ = fused(draft.emit, raws, _size(draft), how=row.fuse, relu=row.relu)
    described(heat, found[0]["acts"]).shape = ir.Shape([draft.batch, *_size(draft)])
    _take_rows(draft, seed, draft.outputs.pop("explained"))
    draft.outputs["heatmap"] = heat


def _seeded_gradient(draft: _Draft) -> None:
    _begin_at_image(draft)
    _give_gradients(draft, _seed_input(draft), draft.values)
    _give_activations(draft)


def _tail(draft: _Draft) -> None:
    _cut_tail(draft)


def _tail_gradient(draft: _Draft) -> None:
    _cut_tail(draft)
    _give_gradients(draft, _seed_input(draft), draft.values)


def _arriving(x: ir.Value) -> ir.Value:
    """Return the image as the model computes with it: one of half precision is cast to float32 first."""
    if x.dtype is None or not x.dtype.is_floating_point():
        raise LayerError(
            f"the gradient at the input is not defined: input {x.name!r} takes whole numbers ({x.dtype}); ask for the "
            "gradient at a layer, or give a model whose input is float"
        )
    while len(uses := list(x.uses())) == 1 and uses[0].node.op_type == "Cast":
        x = uses[0].node.outputs[0]
    return x


def _give_input_gradient(
    draft: _Draft, rules: Mapping[str, Rule] = RULES, others: Sequence[ir.Value] = ()
) -> list[ir.Value | None]:
    """Give the gradient at the image, and return those at other tensors."""
    _begin_at_image(draft)
    g, rest = _at_image(draft, _seed_input(draft), rules, others)
    draft.outputs["input_gradient"] = g
    return rest


def _at_image(
    draft: _Draft, seed: ir.Value, rules: Mapping[str, Rule] = RULES, others: Sequence[ir.Value] = ()
) -> tuple[ir.Value, list[ir.Value | None]]:
    """Return the gradient at the image, and those at other tensors."""
    g, *rest = sweep(draft.graph, {draft.logits: seed}, [_arriving(draft.x), *others], rules)
    if g is None:
        raise LayerError("no gradient flows from the logits back to the image: only rounding operators lead there")
    return g, rest


def _input_gradient(draft: _Draft) -> None:
    pool_before_relu(draft.graph)
    _give_input_gradient(draft)


# programs of other propagations ----------------------------------------------------------------------------------


def _guided_gradient(draft: _Draft) -> None:
    if not any(is_rectifier(node) for node in between(draft.graph, [draft.x], [draft.logits])):
        raise MissingRuleError(
            "guided back-propagation changes Relu, LeakyRelu and Clip to [0, 6] alone, and this model has none of them: "
            "its guided gradient would be the plain one; use a gradient method"
        )
    _give_input_gradient(draft, GUIDED)


def _bias_gradients(draft: _Draft, *, times_bias: bool) -> None:
    added = biases(between(draft.graph, [draft.x], [draft.logits]))
    gradients = _give_input_gradient(draft, others=list(added))
    for index, term in enumerate(_bias_terms(draft, added, gradients, times_bias)):
        draft.outputs[f"biases.{index}"] = term


def _tail_bias_terms(draft: _Draft) -> None:
    _cut_tail(draft)
    added = biases(between(draft.graph, draft.values, [draft.logits]))
    gradients = sweep(draft.graph, {draft.logits: _seed_input(draft)}, list(added), RULES)
    for index, term in enumerate(_bias_terms(draft, added, gradients, True)):
        draft.outputs[f"biases.{index}"] = term


def _bias_terms(
    draft: _Draft,
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
            term = _channels_first(draft, term)
        terms.append(term)
    return terms


def _channels_first(draft: _Draft, value: ir.Value) -> ir.Value:
    """Return (N, h, w, K) as (N, K, h, w)."""
    n, h, w, k = dims(value)
    turned = described(draft.emit.Transpose(value, perm=[0, 3, 1, 2]), value)
    turned.shape = ir.Shape([n, k, h, w])
    return turned


def _full_gradient(draft: _Draft, seed: ir.Value) -> list[ir.Value]:
    """Return image times gradient, and bias times gradient of every tensor with a grid; all (N, K, h, w)."""
    added = biases(between(draft.graph, [draft.x], [draft.logits]))
    g, gradients = _at_image(draft, seed, others=list(added))
    image = described(draft.emit.Mul(_arriving(draft.x), g), g)
    first = _channels_first(draft, image) if is_channels_last(draft.x) else image
    return [first, *(t for t in _bias_terms(draft, added, gradients, True) if len(dims(t)) == 4)]


def _relevance(draft: _Draft, rules: Mapping[str, Rule]) -> None:
    _cut_tail(draft)
    _give_gradients(draft, _seed_input(draft), draft.values, rules, "relevance")


def _lift(draft: _Draft) -> None:
    _cut_tail(draft)
    acts, e = draft.inputs["activations.0"], draft.emit
    zero = described(e.ConstantOfShape(e.Shape(acts), value=ir.tensor(np.zeros(1, e.numpy_dtype(acts)))), acts)
    twins = second_run(draft.graph, e, acts, zero, draft.logits)
    _give_gradients(draft, _seed_input(draft), draft.values, lift_rules(twins), "contributions")
    draft.outputs["contributions.0"] = described(e.Mul(draft.outputs["contributions.0"], acts), acts)


def _block_maps(draft: _Draft, layer: Layer, seed: ir.Value, last: int | None = LAST_BLOCKS) -> ir.Value:
    """Return the maps of blocks of attention on the grid of a layer."""
    tower = find_blocks(draft.graph, draft.x, draft.logits, layer)
    return block_maps(draft.emit, draft.graph, draft.logits, seed, tower, last)


def _attention(draft: _Draft, last: int | None) -> None:
    _begin_at_image(draft)
    (layer,) = draft.layers
    draft.outputs["maps"] = _block_maps(draft, layer, _seed_input(draft), last)


KINDS: dict[str, Callable[[_Draft], None]] = {
    "forward": _forward,
    "features": _features,
    "gradient": _gradient,
    "seeded_gradient": _seeded_gradient,
    "tail": _tail,
    "tail_gradient": _tail_gradient,
    "input_gradient": _input_gradient,
    **{f"map_{method}": partial(_map, method=method) for method, row in MAPS.items() if row.direct},
}
ON_REQUEST: dict[str, Callable[[_Draft], None]] = {
    "guided_gradient": _guided_gradient,
    "bias_terms": partial(_bias_gradients, times_bias=True),
    "bias_gradients": partial(_bias_gradients, times_bias=False),
    "tail_bias_terms": _tail_bias_terms,
    "relevance": partial(_relevance, rules=RELEVANCE),
    "relevance_bias": partial(_relevance, rules=RELEVANCE_BIAS),
    "lift": _lift,
    "attention": partial(_attention, last=LAST_BLOCKS),
    "attention_all": partial(_attention, last=None),
    **{f"map_{method}": partial(_map, method=method) for method, row in MAPS.items() if "attention" in row.needs},
}  # not every model has them, and a bundle holds them where they were asked for
WITHOUT_LAYER = ("forward", "input_gradient", "guided_gradient", "bias_terms", "bias_gradients")
EXPLAINED: dict[str, Callable[[_Draft], None]] = {
    f"explained_{method}": partial(_explained, method=method) for method in MAPS
}


def build(classifier: Classifier, kind: str, layers: Sequence[Layer] = ()) -> tuple[ir.Model, Program]:
    """
    Make one program.

    Parameters
    ----------
    classifier : Classifier
        As `camrt.export.load.load` gives it; left unchanged.
    kind : str
        A key of `KINDS`, `ON_REQUEST` or `EXPLAINED`.
    layers : sequence of Layer
        Which layers it gives; exactly one for a tail.

    Returns
    -------
    model : onnx_ir.Model
        The graph.
    program : Program
        Its description, with the graph not yet serialised (``model`` is empty).

    Raises
    ------
    MissingRuleError
        If a gradient has to pass an operator that has no rule.
    LayerError
        If no gradient flows to a layer.

    Notes
    -----
    Cost: a copy of the graph (weights are shared) and one sweep.
    """
    draft = _Draft(classifier, layers)
    (KINDS | ON_REQUEST | EXPLAINED)[kind](draft)
    model = draft.finish(kind)
    names = tuple(layer.name for layer in layers)
    return model, Program(kind, names, tuple(draft.inputs), tuple(draft.outputs), b"")
