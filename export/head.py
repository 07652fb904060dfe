"""
Where a classifier keeps its scores: which output holds them, and the tensor before a final softmax.

In: a model as read, and the name of an output where there are several. Out: the same model with that one output, what
is behind it gone; later, when shapes are known, its logits (N, C) and what was applied to them. An output of labels
(ArgMax, TopK, ZipMap) is followed back to the scores that the labels are read from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto

from camrt.errors import ModelError

from .reading import graphs
from .vjp.emit import constant, described, dims, initializer

__all__ = ["choose", "find_logits", "shown"]

_HEADS = {"Softmax": "softmax", "LogSoftmax": "log_softmax", "Sigmoid": "sigmoid"}
_MOVES = {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Cast", "Transpose"}
_LABELS = {"TopK", "ZipMap"}  # and ArgMax over classes: what they make is read off their first input
_RENAMES = {"LabelEncoder", "ArrayFeatureExtractor", *_MOVES}  # between the index and the label that is given
_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}
_EMBEDDINGS = {"image_embeds", "image_embeddings", "image_features", "pooler_output", "last_hidden_state"}
_AROUND_NORM = {
    "Sqrt",
    "Clip",
    "Max",
    "Add",
    "Expand",
    "Unsqueeze",
    "Reshape",
    "Cast",
}  # between a sum of squares and Div
_EMBEDDED = (
    "is an image embedding, not one score a class: append a MatMul with constant class embeddings (D, C), as zero-shot "
    "heads have, or name another tensor with output= (--output)"
)
_CUT = "name another tensor with output= (--output), or cut the model at its class scores"

_Makers = Mapping[str, onnx.NodeProto]


# which output ----------------------------------------------------------------------------------------------------


def choose(proto: onnx.ModelProto, name: str | None = None) -> str:
    """
    Leave a model with the one output that holds its scores, in place.

    Parameters
    ----------
    proto : onnx.ModelProto
        As read.
    name : str, optional
        An output, or any tensor inside. Without it the only output, or the only one of floating-point scores; outputs
        that lead back to the same scores count as one.

    Returns
    -------
    str
        The tensor that is the output now.

    Raises
    ------
    ModelError
        If there is no such tensor, or several could be meant.
    """
    graph = proto.graph
    makers = {output: node for node in graph.node for output in node.output if output}
    outputs = [value.name for value in graph.output]
    if name is not None and name not in {*outputs, *makers}:
        raise ModelError(f"the model has no output {name!r}; it has: {', '.join(outputs)}")
    named = name or _meant(graph, makers)
    chosen = _before_labels(named, makers)
    if name is None and chosen in _EMBEDDINGS:
        raise ModelError(f"a classifier was wanted; the output {chosen!r} {_EMBEDDED}")
    for value in graph.output:
        kind = value.type.WhichOneof("value")
        if value.name == chosen and (kind != "tensor_type" or value.type.tensor_type.elem_type == TensorProto.STRING):
            raise ModelError(f"a tensor of scores was wanted, output {shown(value)} is none: {_CUT}")
    if [chosen] != outputs:
        _keep(proto, chosen)
    return chosen


def _meant(graph: onnx.GraphProto, makers: _Makers) -> str:
    """Return the one output that can be meant without a name."""
    floats = [v.name for v in graph.output if v.type.tensor_type.elem_type in _FLOATS]
    by_origin: dict[str, str] = {}
    for output in floats or [v.name for v in graph.output]:
        by_origin.setdefault(_origin(_before_labels(output, makers), makers), output)
    if len(by_origin) > 1:
        listed = ", ".join(shown(value) for value in graph.output)
        raise ModelError(
            f"the model has {len(graph.output)} outputs ({listed}): choose the one with class scores by output= "
            "(--output)"
        )
    return next(iter(by_origin.values()))


def _before_labels(name: str, makers: _Makers) -> str:
    """Return the scores that a tensor of labels is read from; any other tensor is returned as it is."""
    at = name
    while (node := makers.get(at)) is not None and node.op_type in {"ArgMax", *_LABELS, *_RENAMES}:
        at = node.input[1 if node.op_type == "ArrayFeatureExtractor" else 0]
        axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
        if node.op_type in _LABELS or (node.op_type == "ArgMax" and axis != 0):
            return _before_labels(at, makers)
        if node.op_type == "ArgMax":
            break
    return name


def _origin(name: str, makers: _Makers) -> str:
    """Return what a tensor is made of by softmax and moves alone."""
    while (node := makers.get(name)) is not None and (node.op_type in _HEADS or node.op_type in _MOVES):
        name = node.input[0]
    return name


def _keep(proto: onnx.ModelProto, name: str) -> None:
    """Make `name` the only output, and drop the nodes that it does not need."""
    graph = proto.graph
    known = {value.name: value for value in [*graph.output, *graph.value_info]}
    kept = onnx.ValueInfoProto()
    kept.CopyFrom(known.get(name, onnx.ValueInfoProto(name=name)))
    del graph.output[:]
    graph.output.append(kept)
    needed, nodes = {name}, []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            nodes.append(node)
            needed.update(node.input)
            inner = [
                g
                for a in node.attribute
                for top in [*([a.g] if a.HasField("g") else []), *a.graphs]
                for g in graphs(top)
            ]
            needed.update(read for g in inner for n in g.node for read in n.input)
            needed.update(value.name for g in inner for value in g.output)
    del graph.node[:]
    graph.node.extend(reversed([_copied(node) for node in nodes]))


def _copied(node: onnx.NodeProto) -> onnx.NodeProto:
    """Return a copy: protobuf frees what is taken out of a list."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy


def shown(value: onnx.ValueInfoProto) -> str:
    """
    Return an input or output as errors show it.

    Parameters
    ----------
    value : onnx.ValueInfoProto
        Of a graph.

    Returns
    -------
    str
        Its name and shape, and its type where it is no tensor of float32.
    """
    kind = value.type.WhichOneof("value") or "unknown"
    if kind != "tensor_type":
        return f"{value.name} {kind.removesuffix('_type')}"
    tensor = value.type.tensor_type
    sizes = [d.dim_param or (str(d.dim_value) if d.HasField("dim_value") else "?") for d in tensor.shape.dim]
    element = TensorProto.DataType.Name(tensor.elem_type).lower()
    return f"{value.name} {'' if element == 'float' else element}[{','.join(sizes)}]"


# the logits ------------------------------------------------------------------------------------------------------


def find_logits(model: ir.Model, output: ir.Value, batch: int | None) -> tuple[ir.Value, str]:
    """
    Return the scores before a final softmax as (N, C) of float32, and what was applied to them.

    Parameters
    ----------
    model : onnx_ir.Model
        With shapes; nodes are added where the scores have another shape or type.
    output : onnx_ir.Value
        Its output.
    batch : int or None
        The only batch size the model runs at.

    Returns
    -------
    logits : onnx_ir.Value
        Shape ``("N", C)``, or ``(batch, C)``.
    head : str
        ``"none"``, ``"softmax"``, ``"log_softmax"`` or ``"sigmoid"``.

    Raises
    ------
    ModelError
        If the output is not a score for each class.
    """
    value, head, node = output, "none", output.producer()
    while node is not None and (node.op_type in _MOVES or node.op_type in _HEADS or node.op_type == "Div"):
        source = _before_division(node, batch) if node.op_type == "Div" else node.inputs[0]
        if source is None:
            break
        if node.op_type == "Div":
            value, head = source, "softmax"
            break
        if node.op_type in _HEADS:
            if _is_over_classes(node, source, batch):
                value, head = source, _HEADS[node.op_type]
            break
        if not _is_float(source):
            break
        node = source.producer()
    shape = dims(value) if value.shape is not None else ()
    if batch == 1 and len(shape) == 1:
        shape = (1, *shape)
    classes = [d for d in shape[1:] if d != 1] or [1]
    if len(shape) < 2 or len(classes) != 1 or not isinstance(classes[0], int):
        raise _no_classifier(output, shape)
    if not _is_float(value):
        raise ModelError(f"floating-point scores were wanted, output {output.name!r} is {value.dtype}")
    if _is_unit(value):
        raise ModelError(
            f"a classifier was wanted; the output {output.name!r} has length 1 by construction: it {_EMBEDDED}"
        )
    return _as_rows(model.graph, value, (shape[0], classes[0])), head


def _is_float(value: ir.Value) -> bool:
    """Tell a tensor of floating-point numbers."""
    return value.dtype is not None and value.dtype.is_floating_point()


def _is_unit(value: ir.Value) -> bool:
    """Tell v / |v|, the Euclidean norm over the last axis."""
    node = value.producer()
    if node is None or node.op_type not in ("Div", "LpNormalization"):
        return False
    if node.op_type == "LpNormalization":
        return node.attributes.get_int("p", 2) == 2 and node.attributes.get_int("axis", -1) in (-1, 1)
    given, norm = node.inputs
    at = None if norm is None else norm.producer()
    while at is not None and at.op_type in _AROUND_NORM:
        moving = [v for v in at.inputs if v is not None and v.producer() is not None]
        at = moving[0].producer() if moving else None
    if at is None or at.op_type not in ("ReduceL2", "ReduceSumSquare", "ReduceSum"):
        return False
    axes, source = constant(at.inputs[1]) if len(at.inputs) > 1 else None, at.inputs[0]
    if axes is None or axes.tolist() not in ([-1], [1]):
        return False
    if at.op_type == "ReduceSum":
        square = None if source is None else source.producer()
        is_square = square is not None and square.op_type in ("Mul", "Pow")
        source = square.inputs[0] if square is not None and is_square else None
    return source is given


def _is_over_classes(node: ir.Node, source: ir.Value, batch: int | None) -> bool:
    """Tell a softmax that compares the scores of one image, not those of several."""
    if node.op_type == "Sigmoid":
        return True
    return _covers_classes([node.attributes.get_int("axis", -1)], source, batch)


def _covers_classes(axes: Iterable[int], source: ir.Value, batch: int | None) -> bool:
    """Tell axes that hold every score of one image and of no other."""
    shape = dims(source) if source.shape is not None else ()
    first = 0 if len(shape) == 1 and batch == 1 else 1  # scores without a batch axis are those of one image
    covered = {int(axis) % max(len(shape), 1) for axis in axes}
    return len(shape) > first <= min(covered) and {i for i in range(first, len(shape)) if shape[i] != 1} <= covered


def _before_division(node: ir.Node, batch: int | None) -> ir.Value | None:
    """Return v where a node ends exp(v) / sum(exp(v)) over classes, a softmax spelt out; v may lack its maximum."""
    powers, total = node.inputs[0], node.inputs[1]
    add = None if total is None else total.producer()
    exp = None if powers is None else powers.producer()
    if add is None or exp is None or add.op_type != "ReduceSum" or exp.op_type != "Exp" or add.inputs[0] is not powers:
        return None
    source = exp.inputs[0]
    if source is None or not _reduces_classes(add, source, batch):
        return None
    less = source.producer()
    if less is None or less.op_type != "Sub" or less.inputs[0] is None or less.inputs[1] is None:
        return source
    most = less.inputs[1].producer()
    is_shifted = (
        most is not None
        and most.op_type == "ReduceMax"
        and most.inputs[0] is less.inputs[0]
        and _reduces_classes(most, source, batch)
    )
    return less.inputs[0] if is_shifted else source


def _reduces_classes(node: ir.Node, source: ir.Value, batch: int | None) -> bool:
    """Tell a reduction over all scores of each image that leaves ones behind."""
    axes = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if axes is None or not axes.size or not node.attributes.get_int("keepdims", 1):
        return False
    return _covers_classes(axes.ravel(), source, batch)


def _as_rows(graph: ir.Graph, value: ir.Value, shape: tuple[int | str, int]) -> ir.Value:
    """Return scores as rows of float32."""
    if dims(value) != shape:
        target = initializer(graph, np.array([-1, shape[1]], np.int64), "camrt/logits_shape")
        rows = ir.node("Reshape", [value, target], name="camrt/logits")
        described(rows.outputs[0], value).name, rows.outputs[0].shape = "camrt/logits", ir.Shape(shape)
        graph.append(rows)
        value = rows.outputs[0]
    if value.dtype != ir.DataType.FLOAT:
        cast = ir.node("Cast", [value], {"to": int(ir.DataType.FLOAT)}, name="camrt/logits_float32")
        described(cast.outputs[0], value).name, cast.outputs[0].dtype = "camrt/logits_float32", ir.DataType.FLOAT
        graph.append(cast)
        value = cast.outputs[0]
    return value


def _no_classifier(output: ir.Value, shape: Sequence[int | str]) -> ModelError:
    """Say what a model seems to be that is no classifier, and what can be done."""
    sizes = [d for d in shape[1:] if d != 1]
    wanted = f"a classifier with scores of shape (N, C) was wanted, output {output.name!r} has shape {list(shape) or 'unknown'}"
    if len(sizes) == 3:
        return ModelError(
            f"{wanted}: one map a class, as segmentation models and backbones give; name another tensor with output= "
            "(--output), or append a mean over the map (ReduceMean), which seeds every pixel alike"
        )
    if len(sizes) == 2:
        return ModelError(
            f"{wanted}: one row a box, token or position, as detection models give; name another tensor with output= "
            "(--output), or append what makes one score a class of the rows (ReduceMax, ReduceMean), which seeds them"
        )
    return ModelError(f"{wanted}: {_CUT}")
