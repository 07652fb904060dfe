"""
Quantised models: logits from the model as given, activations and gradients from its float twin.

A quantised model computes with integers, which have no slope. Its float twin is the same graph on the numbers that the
integers stand for: weights dequantised, every quantised operator in float. Both stand side by side in one graph and read
the same image. Layers, gradients and tails are the twin's; the logits that programs starting at the image give, and the
class they call predicted, are the given model's, to the bit. What no output needs is dropped from each program, so
``forward`` is the given model alone.

What quantising does to activations, the twin does in two steps:

* **Saturation** is a ``Clip``, and no gradient passes where it cuts, because quantisers write ReLU and ReLU6 as nothing
  but the range of the integers. A number at the first or last integer counts as cut off. The scores alone are
  different: a class that reached the largest integer would have no slope, and what raises it is exactly what is asked,
  so gradients pass there.
* **Rounding** lets gradients pass straight (Bengio, Leonard & Courville 2013, arXiv:1308.3432, section 4). Beside the
  given model nothing is rounded: the twin reads the given model's own integers, so a layer's activations are exactly
  the given model's, and one forward is all it takes; of the twin only what gradients still ask for is computed, such as
  masks of a ReLU that no integers hold. A tail has no such model beside it and rounds by itself. Its logits are the
  twin's, because nothing else continues from a layer's float activations; sums in another order round differently here
  and there, and `camrt.export.verify.check_agreement` measures how far that goes.

``DynamicQuantizeLinear`` takes its range from the numbers, so nothing saturates there; its range is that of a whole
batch, so such models run one image at a time. While gradients are made, rounding is an ``Identity``, which every rule
table passes straight; `Quantised.round` puts in its place what is right for the program.

In: a model with quantised operators. Out: the twin in its place; later, both in one graph.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes

from .backward import downstream
from .codes import Code, Rewriter, refused
from .rewrites import MOVES, REWRITES, carry, is_quantised
from .vjp.emit import Emit, constant, described, dims, initializer
from .vjp.table import op_key

__all__ = ["Quantised", "twin"]

_GIVEN = "given/"  # starts every name of the given model's nodes and tensors beside the twin
_HEADS = {"Softmax", "LogSoftmax", "Sigmoid", "QLinearSoftmax", "QLinearSigmoid"}
_LAST = {"QuantizeLinear", "DequantizeLinear", *_HEADS}  # may lie between the last product and the scores
_LAST |= {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Cast", "Transpose", "Add", "QLinearAdd"}
_CONTRIB = "com.microsoft"
_MARK = "camrt.rounded"  # metadata of an Identity: the tensor it rounds, as the given model calls it
_CUT = "camrt.cut"  # and the operator before it that cuts off what no integer stands for; absent at the scores
_WIDE_FROM = 21  # the opset from which on DequantizeLinear takes integers of 4 and 16 bits
_READS_ALL = {"DynamicQuantizeLinear", "DynamicQuantizeMatMul"}  # the range of the whole batch decides


@dataclass(frozen=True)
class Quantised:
    """
    What is known of a quantised model beside its twin.

    Attributes
    ----------
    operators : dict of str to int
        The quantised operators that the twin replaces, and how often.
    step : float
        The resolution of what the given model makes of its logits (probabilities in 8 bits, say); 0 where it is exact.
    given : onnx_ir.Model
        The model as given, at the twin's opset.
    codes : dict of str to Code
        How integers stand for numbers in the given model, by tensor.
    rounded : dict of str to Code or None
        The tensors that are rounded; None where the range is found at run time.
    marks : dict of Value to str
        The twin's tensors that are rounded, and what they are called in the given model.
    """

    operators: dict[str, int]
    step: float
    given: ir.Model = field(repr=False)
    codes: dict[str, Code] = field(repr=False)
    rounded: dict[str, Code | None] = field(repr=False)
    marks: dict[ir.Value, str] = field(repr=False)

    @property
    def is_dynamic(self) -> bool:
        """Return whether an image's scores depend on what else is in its batch."""
        return any(op.rpartition("::")[2] in _READS_ALL for op in self.operators)

    def join(self, model: ir.Model, logits: ir.Value, head: str) -> None:
        """
        Put the given model beside its twin, its logits a second output.

        Parameters
        ----------
        model : onnx_ir.Model
            The twin, with shapes; changed in place. The given model is used up.
        logits : onnx_ir.Value
            The twin's, its only output.
        head : str
            What both apply to them.
        """
        given, graph = self.given.graph, model.graph
        self._mark(graph)
        value, code = self._scores(head)
        ir.convenience.replace_all_uses_with(given.inputs[0], graph.inputs[0])
        for held in list(given.initializers.values()):
            given.initializers.pop(held.name or "")
            held.name = f"{_GIVEN}{held.name}"
            graph.register_initializer(held)
        nodes = list(given)
        given.remove(nodes)
        for node in nodes:
            node.name = f"{_GIVEN}{node.name}"
            for made in node.outputs:
                made.name = f"{_GIVEN}{made.name}"
        graph.insert_before(next(iter(graph)), nodes)
        last: list[ir.Node] = []
        if code is not None:
            held_code = [
                initializer(graph, np.asarray(array), f"{_GIVEN}logits_{name}")
                for name, array in (("scale", code.scale), ("zero_point", code.zero_point))
            ]
            last.append(ir.node("DequantizeLinear", [value, *held_code], {"axis": code.axis}))
            value = last[-1].outputs[0]
        target = initializer(graph, np.array([-1, dims(logits)[1]], np.int64), f"{_GIVEN}logits_shape")
        last.append(ir.node("Reshape", [value, target]))
        last.append(ir.node("Cast", [last[-1].outputs[0]], {"to": int(logits.dtype or ir.DataType.FLOAT)}))
        for node in last:
            node.name = f"{_GIVEN}logits_{node.op_type}"
            node.outputs[0].name = f"{node.name}_output"
        graph.extend(last)
        graph.outputs.append(described(last[-1].outputs[0], logits))

    def _mark(self, graph: ir.Graph) -> None:
        """Put an Identity where the twin rounds."""
        for node in list(graph):
            value = node.outputs[0]
            name = self.marks.get(value)
            if name is None:
                continue
            if node.op_type == "Clip" and len(node.inputs) == 1:  # a place that was kept
                node.op_type, node.metadata_props[_MARK] = "Identity", name
                continue
            mark = ir.node("Identity", [value], name=node.name, metadata_props={_MARK: name, _CUT: node.op_type})
            ir.convenience.replace_all_uses_with(value, described(mark.outputs[0], value))
            mark.replace_input_with(0, value)
            graph.insert_after(node, mark)
            mark.outputs[0].name, value.name, node.name = value.name, f"{value.name}/cut", f"{node.name}/cut"

    def round(self, e: Emit, *, beside: bool) -> None:
        """
        Give the twin rounded numbers, in the graph of one program.

        Parameters
        ----------
        e : Emit
            Of the program, whose gradients are there already.
        beside : bool
            Whether the given model runs beside the twin: then its own integers are read, and nothing of the twin needs
            to be computed before them.
        """
        made = {value.name: value for node in e.graph for value in node.outputs} if beside else {}
        for node in list(e.graph):
            name = node.metadata_props.get(_MARK)
            x = node.inputs[0] if node.inputs else None
            if name not in self.rounded or x is None:
                continue
            if node.metadata_props.get(_CUT) == "Clip":  # its mask is read off the integers too
                ir.convenience.replace_all_uses_with(x, node.outputs[0])
                node.replace_input_with(0, x)
            code, integers = self.rounded[name], made.get(f"{_GIVEN}{name}")
            if integers is not None:
                _decode(e, node, integers, code)
            else:
                _round(e, node, x, code)

    def _scores(self, head: str) -> tuple[ir.Value, Code | None]:
        """Return the given model's scores before its head, and their code where they are integers."""
        value = self.given.graph.outputs[0]
        found = value
        while head != "none" and (node := found.producer()) is not None:
            source = node.inputs[0]
            if source is None:
                break
            found = source
            if node.op_type in _HEADS:
                value = found
                break
        return value, self.codes.get(value.name or "")


def _become(node: ir.Node, op: str, operands: Sequence[ir.Value], domain: str = "") -> None:
    """Turn a node into another one that makes the same tensor."""
    node.op_type, node.domain = op, domain
    node.resize_inputs(len(operands))
    for place, value in enumerate(operands):
        node.replace_input_with(place, value)


def _decode(e: Emit, node: ir.Node, integers: ir.Value, code: Code | None) -> None:
    """Let a node give the numbers of the given model's own integers."""
    if code is None:
        maker = integers.producer()
        operands = () if maker is None else maker.outputs
        _become(node, "DequantizeLinear", operands)
        return
    is_contrib = code.dtype.bitwidth != 8 and e.graph.opset_imports[""] < _WIDE_FROM
    if is_contrib:
        e.graph.opset_imports[_CONTRIB] = 1
    operands = (integers, e.const(code.scale), e.const(code.zero_point))
    _become(node, "DequantizeLinear", operands, _CONTRIB if is_contrib else "")
    node.attributes["axis"] = ir.AttrInt64("axis", code.axis)


def _round(e: Emit, node: ir.Node, x: ir.Value, code: Code | None) -> None:
    """
    Let a node round to whole steps, as the given model would.

    QuantizeLinear and DequantizeLinear would be faster, but ONNX Runtime takes them for a request to quantise the
    weights between them.
    """
    if code is None:
        q, scale, zero = (ranged := ir.node("DynamicQuantizeLinear", [x], num_outputs=3)).outputs
        numbers = [ir.node("Cast", [value], {"to": int(ir.DataType.FLOAT)}) for value in (q, zero)]
        added = [ranged, *numbers, ir.node("Sub", [cast.outputs[0] for cast in numbers])]
    else:
        behind = len(dims(x)) - 1 - code.axis % max(len(dims(x)), 1)
        scale = e.const(code.scale if code.is_whole else code.scale.reshape(-1, *[1] * behind))
        steps = ir.node("Div", [x, scale])
        added = [steps, ir.node("Round", steps.outputs)]
        if _CUT not in node.metadata_props:
            low, high = (e.const(np.asarray(np.round(bound / code.scale))) for bound in code.range)
            added.append(ir.node("Clip", [added[-1].outputs[0], low, high]))
    for i, before in enumerate(added):
        before.name = f"{node.name}/{before.op_type}_{i}"
        for j, value in enumerate(before.outputs):
            value.name = f"{before.name}_{j}"
    e.graph.insert_before(node, added)
    _become(node, "Mul", [added[-1].outputs[0], scale])


def twin(model: ir.Model, x: ir.Value) -> Quantised | None:
    """
    Turn a quantised model into its float twin, in place.

    Parameters
    ----------
    model : onnx_ir.Model
        At opset 18 or newer, topologically sorted, with one output.
    x : onnx_ir.Value
        The image input.

    Returns
    -------
    Quantised or None
        The model as it was; None where no quantised operator lies behind the image, as with weights that are quantised
        and nothing else, which fold into float ones.

    Raises
    ------
    ModelError
        If a quantised operator is not known, or reads what is not a constant.

    Notes
    -----
    Cost: one walk over the graph. Programs hold the given model and what they need of the twin.
    """
    graph = model.graph
    moving = downstream(graph, [x])
    behind = {node: None for node in graph if any(v in moving for v in node.inputs)}
    operators = Counter(op_key(node) for node in behind if is_quantised(node))
    if not operators:
        return None
    if any(node.op_type == "QuantizeLinear" and _is_by_axis(node) for node in behind):
        passes.ShapeInferencePass()(model)
    given = model.clone()
    rewriter = Rewriter(graph, *_last(graph, moving))
    nodes = list(graph)
    graph.remove(nodes)
    _enter(rewriter, x, nodes)
    for node in nodes:
        made = _rewritten(rewriter, node, node in behind)
        if made is None:
            graph.append(node)
            continue
        _replace(graph, node, made)
    codes = {value.name or "": code for value, code in rewriter.codes.items()}
    marks = {value: value.name or "" for value in rewriter.rounded}
    rounded = {marks[value]: code for value, code in rewriter.rounded.items()}
    return Quantised(dict(operators.most_common()), rewriter.step, given, codes, rounded, marks)


def _is_by_axis(node: ir.Node) -> bool:
    """Tell a node that has one scale for each slice, along an axis that may have to be counted from the front."""
    scale = constant(node.inputs[1])
    return scale is not None and scale.size > 1


def _enter(r: Rewriter, x: ir.Value, nodes: list[ir.Node]) -> None:
    """Read a picture of integers as numbers."""
    if x.dtype is None or x.dtype.is_floating_point():
        return
    numbers = r.counts(r.emit.Cast(x, to=int(ir.DataType.FLOAT)))
    for node in nodes:
        for place, value in enumerate(node.inputs):
            if value is x:
                node.replace_input_with(place, numbers)


def _rewritten(r: Rewriter, node: ir.Node, is_behind: bool) -> list[ir.Value] | None:
    """Return what takes the place of a node's outputs; None where the node stays."""
    key = op_key(node)
    if not is_behind:  # a constant, which folds where the operator is a standard one
        return list(REWRITES[key](r, node)) if key == f"{_CONTRIB}::DequantizeLinear" else None
    if key in REWRITES:
        return list(REWRITES[key](r, node))
    if not any(value in r.codes for value in node.inputs) or key in ("Shape", "Size"):
        return None
    if key in MOVES:
        return list(carry(r, node))
    raise refused(node, "it is not one that is known to read quantised integers")


def _replace(graph: ir.Graph, node: ir.Node, made: list[ir.Value]) -> None:
    """Let the users of a node's outputs read other values, which take over their names."""
    for old, new in zip(node.outputs, made, strict=False):
        name, maker = old.name, new.producer()
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        old.name = f"{name}/quantised"
        if maker is None:  # a constant, which others share
            continue
        new.name, new.shape = name, old.shape
        if old is node.outputs[0]:
            maker.name = node.name
            before = maker.inputs[0] if maker.inputs else None
            if maker.op_type == "Clip" and before is not None and (before.name or "").startswith("twin/"):
                before.name = f"{name}/uncut"
    for place in range(len(node.inputs)):
        node.replace_input_with(place, None)


def _last(graph: ir.Graph, moving: set[ir.Value]) -> tuple[set[ir.Node], set[ir.Node]]:
    """Return the nodes from the last product, included, to the head, and those behind the head."""
    found: set[ir.Node] = set()
    behind: set[ir.Node] = set()
    value: ir.Value | None = graph.outputs[0]
    while value is not None and (node := value.producer()) is not None:
        sources = [v for v in node.inputs if v in moving]
        found.add(node)
        if node.op_type not in _LAST or len(sources) != 1:
            break
        if node.op_type in _HEADS:
            behind, found = found, set()
        value = sources[0]
    return found, behind
