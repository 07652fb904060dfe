"""
Shapes and constants of a whole graph, with the batch left symbolic.

Exporters compute shapes inside the graph (``Shape -> Gather -> Concat -> Reshape``), and one lost dimension there loses
every shape after it. So the graph is walked twice with two *concrete* batch sizes: everything is then known, constants
fold by the reference implementation of their own operator, and comparing the two walks tells which dimensions follow
the batch (``N``, or a multiple such as ``4*N``) and which constants do not depend on it.

In: an `onnx_ir.Model` with one image input. Out: the same model, every value with element type and shape, constant
nodes replaced by initializers, and ``Reshape`` targets freed of batch arithmetic.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference.ops import load_op

from camrt.errors import ModelError

from .vjp.emit import initializer

__all__ = ["BATCH", "annotate", "rehearse"]

BATCH = "N"  # the name of the batch dimension in every shape
_PROBES = (5, 7)  # coprime, and unlikely as real dimensions, so that multiples of the batch are told from constants
MAX_ELEMENTS = 2**31  # of one tensor at a probe batch; a graph asking for more is a bomb or a mistake
MAX_FOLD = 2**24  # elements of a folded constant that is larger than what it is made from

_NEVER_FOLD = {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli"}
_CONTROL = {"If", "Loop", "Scan"}
_REFERENCE_FROM = {"DequantizeLinear": 21, "QuantizeLinear": 21}  # older ones compute the same, and have no reference
_CHOOSES = {  # these take some of their numbers as they are, so equal results at two batches come from what is fixed
    *("Cast", "CastLike", "Concat", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Reshape", "Shape"),
    *("Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"),
}
_KEEPS_SHAPE = {"GroupNormalization", "MeanVarianceNormalization"}  # onnx infers the type alone

Concrete = tuple[int, ...]
Array = np.ndarray[Any, Any]


class _Walk:
    """One pass over the graph at a concrete batch: shapes, element types and constants of every value."""

    def __init__(self, model: ir.Model, image: ir.Value, shape: Sequence[int | None], batch: int) -> None:
        self.opset = model.opset_imports.get("", 18)
        self.imports = [onnx.helper.make_opsetid(d, v) for d, v in model.opset_imports.items()]
        versions = dict(model.opset_imports.items())
        self.run_params = {
            "log": lambda *_: None,
            "opsets": versions,
            "verbose": 0,
            "new_ops": None,
            "existing_functions": {},
        }
        self.shapes: dict[ir.Value, Concrete | None] = {}
        self.types: dict[ir.Value, int] = {}
        self.data: dict[ir.Value, Array] = {}
        self._enter(model.graph)
        for value in model.graph.inputs:
            dims = shape if value is image else [d if isinstance(d, int) else None for d in value.shape or ()]
            self.shapes[value] = tuple(batch if d is None else int(d) for d in dims)
            self.types[value] = int(value.dtype or 1)
        for node in model.graph:
            self._visit(node)

    def _enter(self, graph: ir.Graph) -> None:
        """Take in the initializers of a graph."""
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is None:
                raise ModelError(f"initializer {value.name!r} holds no data; save the model with its weights")
            self.shapes[value] = tuple(int(d) for d in tensor.shape.numpy())
            self.types[value] = int(tensor.dtype)

    def constant(self, value: ir.Value) -> Array | None:
        """Return the array of a constant, reading an initializer only when it is asked for."""
        if value in self.data:
            return self.data[value]
        if value.is_initializer() and value.const_value is not None:
            return np.asarray(value.const_value.numpy())
        return None

    def _is_constant(self, value: ir.Value) -> bool:
        """Tell whether `constant` knows an array, without reading it."""
        return value in self.data or (value.is_initializer() and value.const_value is not None)

    def _visit(self, node: ir.Node) -> None:
        folded = self._fold(node)
        if folded is not None:
            for value, array in zip(node.outputs, folded, strict=False):
                self.data[value] = array
                self.shapes[value] = array.shape
                self.types[value] = int(ir.DataType.from_numpy(array.dtype))
            return
        if node.op_type in _CONTROL and node.domain in ("", "ai.onnx"):
            self._visit_control(node)
            return
        inferred = self._infer(node)
        for value in node.outputs:
            kind = inferred.get(value.name or "")
            if kind is None or not kind.HasField("tensor_type"):
                self.shapes[value] = None
                continue
            tensor = kind.tensor_type
            self.types[value] = tensor.elem_type
            dims = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
            known = tensor.HasField("shape") and all(d is not None for d in dims)
            self.shapes[value] = tuple(d for d in dims if d is not None) if known else None
            self._check_size(node, self.shapes[value])

    def _visit_control(self, node: ir.Node) -> None:
        """Give the outputs of If and Loop the shapes that every way through the node agrees on; Scan's stay unknown."""
        ways: list[list[ir.Value | None]] = []
        if node.op_type == "Loop":
            ways.append(list(node.inputs[2:]))  # what is carried round, before the first round
        for attribute in node.attributes.values():
            if attribute.type != ir.AttributeType.GRAPH or node.op_type == "Scan":
                continue
            graph = attribute.as_graph()
            self._enter(graph)
            for value, dtype in zip(graph.inputs[:2], (ir.DataType.INT64, ir.DataType.BOOL), strict=False):
                self.shapes[value], self.types[value] = (), int(dtype)  # a Loop's counter and condition
            for value, first in zip(graph.inputs[2:], node.inputs[2:], strict=False):
                if first is not None and first in self.types:
                    self.shapes[value], self.types[value] = self.shapes[first], self.types[first]
            for inner in graph:
                self._visit(inner)
            ways.append(list(graph.outputs[1:] if node.op_type == "Loop" else graph.outputs))
        for value, *ends in zip(node.outputs, *ways, strict=False):
            shapes = {self.shapes.get(end) for end in ends if end is not None}
            self.shapes[value] = shapes.pop() if len(shapes) == 1 else None
            if ends and ends[0] in self.types:
                self.types[value] = self.types[ends[0]]

    @staticmethod
    def _check_size(node: ir.Node, shape: Concrete | None) -> None:
        """Refuse tensors no machine should be asked for, and those that cannot be."""
        if shape is not None and any(d < 0 for d in shape):
            raise ModelError(
                f"node {node.name!r} ({node.op_type}) would make a tensor of shape {list(shape)}: the model's input is too "
                "small for it"
            )
        if shape is not None and int(np.prod(shape, dtype=object)) > MAX_ELEMENTS:
            raise ModelError(
                f"node {node.name!r} ({node.op_type}) makes a tensor of shape {list(shape)}; at most {MAX_ELEMENTS} "
                "elements are allowed; check the model's input size"
            )

    def _fold(self, node: ir.Node) -> Sequence[Array] | None:
        """Return the outputs of a node whose inputs are all constant, or of a Shape whose input's shape is known."""
        if node.domain not in ("", "ai.onnx") or node.op_type in _NEVER_FOLD | _CONTROL:
            return None
        if node.op_type in ("Shape", "Size"):
            return self._fold_shape(node)
        known = [v is None or self._is_constant(v) for v in node.inputs]
        if node.op_type == "CastLike" and known[0] and node.inputs[1] in self.types:
            array = None if node.inputs[0] is None else self.constant(node.inputs[0])
            if array is not None:  # of the other input only the type is asked for
                return [array.astype(ir.DataType(self.types[node.inputs[1]]).numpy())]
        if not all(known):
            return None
        if not node.inputs and node.op_type != "Constant":
            return None
        inputs = [None if v is None else self.constant(v) for v in node.inputs]
        if not self._is_small(node, inputs):
            return None
        try:
            version = max(self.opset, _REFERENCE_FROM.get(node.op_type, 0))
            operator = load_op("", node.op_type, version)(ir.serde.serialize_node(node), self.run_params)
            result = operator.run(*inputs)
        except Exception:  # noqa: BLE001 - no reference for it, or NumPy refused: leave it to shape inference, which says why
            return None
        arrays = result if isinstance(result, tuple) else (result,)
        return [np.asarray(a) for a in arrays] if all(isinstance(a, (np.ndarray, np.generic)) for a in arrays) else None

    def _is_small(self, node: ir.Node, inputs: Sequence[Array | None]) -> bool:
        """Tell whether folding stays within bounds; only these operators can make much from little."""
        if node.op_type == "ConstantOfShape" and inputs[0] is not None:
            return int(np.prod(inputs[0], dtype=object)) <= MAX_FOLD
        if node.op_type in ("Expand", "Tile", "Range", "Pad", "Resize", "OneHot", "MatMul", "Conv", "Gather"):
            shape = [s for s in (self._infer_shape(node)) if s is not None]
            return bool(shape) and max(int(np.prod(s, dtype=object)) for s in shape) <= MAX_FOLD
        return True

    def _infer_shape(self, node: ir.Node) -> list[Concrete | None]:
        """Return the inferred output shapes of one node."""
        found: list[Concrete | None] = []
        for kind in self._infer(node).values():
            dims = [d.dim_value if d.HasField("dim_value") else None for d in kind.tensor_type.shape.dim]
            found.append(None if any(d is None for d in dims) else tuple(d for d in dims if d is not None))
        return found

    def _fold_shape(self, node: ir.Node) -> Sequence[Array] | None:
        """Fold Shape (with start and end) and Size."""
        value = node.inputs[0]
        shape = None if value is None else self.shapes.get(value)
        if shape is None:
            return None
        if node.op_type == "Size":
            return [np.asarray(int(np.prod(shape)), np.int64)]
        start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", len(shape))
        return [np.asarray(shape[slice(start, end)], np.int64)]

    def _infer(self, node: ir.Node) -> Mapping[str, onnx.TypeProto]:
        """Run the operator's own shape inference on one node."""
        kinds: dict[str, onnx.TypeProto] = {}
        data: dict[str, onnx.TensorProto] = {}
        for value in node.inputs:
            if value is None:
                continue
            if value not in self.types:
                return {}
            kinds[value.name or ""] = onnx.helper.make_tensor_type_proto(self.types[value], self.shapes[value])
            array = self.constant(value) if self._is_shape_data(value) else None
            if array is not None:
                data[value.name or ""] = onnx.numpy_helper.from_array(array, value.name)
        if node.domain not in ("", "ai.onnx"):
            return _infer_contrib(node, self)
        try:
            schema = onnx.defs.get_schema(node.op_type, self.opset, "")
        except onnx.defs.SchemaError as error:
            raise ModelError(
                f"node {node.name!r} uses operator {node.op_type}, unknown at opset {self.opset}; re-export the model"
            ) from error
        try:
            found = onnx.shape_inference.infer_node_outputs(
                schema, ir.serde.serialize_node(node), kinds, data, opset_imports=self.imports
            )
        except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError) as error:
            detail = " ".join(str(error).split())[:200]
            raise ModelError(f"node {node.name!r} ({node.op_type}) does not fit its inputs: {detail}") from error
        misfit = _misfit(node, [None if v is None else self.shapes[v] for v in node.inputs])
        if misfit:
            raise ModelError(f"node {node.name!r} ({node.op_type}) does not fit its inputs: {misfit}")
        if node.op_type in _KEEPS_SHAPE and node.inputs[0] is not None and node.outputs[0].name:
            return {**found, node.outputs[0].name: kinds[node.inputs[0].name or ""]}
        return found

    def _is_shape_data(self, value: ir.Value) -> bool:
        """Tell whether a value can hold sizes, axes or pads, which shape inference wants to see."""
        shape = self.shapes.get(value)
        return shape is not None and len(shape) <= 1 and int(np.prod(shape)) <= 4096


def _misfit(node: ir.Node, shapes: Sequence[Concrete | None]) -> str:
    """Say which channels of a convolution contradict each other, which onnx's inference leaves to the run."""
    if node.op_type not in ("Conv", "ConvTranspose") or any(s is None or len(s) < 2 for s in shapes[:2]):
        return ""
    (_, channels, *_), weight, *bias = (s or () for s in shapes)
    group = node.attributes.get_int("group", 1)
    is_turned = node.op_type == "ConvTranspose"
    wanted, made = (weight[0], weight[1] * group) if is_turned else (weight[1] * group, weight[0])
    if channels != wanted:
        return f"its weight of shape {list(weight)} in {group} group(s) takes {wanted} channels, {channels} come"
    if bias and bias[0] not in ((), (made,)):
        return f"its bias has shape {list(bias[0])}, {made} channels are made"
    return ""


def _infer_contrib(node: ir.Node, walk: _Walk) -> Mapping[str, onnx.TypeProto]:
    """Give operators outside the default domain the shape of their first input, where that is their definition."""
    same = {"Gelu", "FastGelu", "QuickGelu", "BiasGelu"}
    first = node.inputs[0] if node.inputs else None
    if node.op_type not in same or first is None or walk.shapes.get(first) is None:
        return {}
    kind = onnx.helper.make_tensor_type_proto(walk.types[first], walk.shapes[first])
    return {node.outputs[0].name or "": kind}


def _symbolic(low: Concrete | None, high: Concrete | None) -> ir.Shape | None:
    """Compare the shapes of two walks: equal dimensions are static, proportional ones follow the batch."""
    if low is None or high is None or len(low) != len(high):
        return None
    dims: list[int | str | None] = []
    for a, b in zip(low, high, strict=True):
        if a == b:
            dims.append(a)
        elif a % _PROBES[0] == 0 and a // _PROBES[0] * _PROBES[1] == b:
            factor = a // _PROBES[0]
            dims.append(BATCH if factor == 1 else f"{factor}*{BATCH}")
        else:
            dims.append(f"{BATCH}?{a}:{b}")  # follows the batch in some other way; two such dimensions never match
    return ir.Shape(dims)


def rehearse(model: ir.Model, image: ir.Value, shape: Sequence[int | None]) -> None:
    """
    Walk a graph once, changing nothing, and refuse what `annotate` would.

    onnx's own passes over a whole graph end the process where a size comes out negative; after this they may be called.

    Parameters
    ----------
    model : onnx_ir.Model
        At any opset.
    image : onnx_ir.Value
        The image input.
    shape : sequence of int or None
        The shape of `image`; None (first place) for a free batch.

    Raises
    ------
    ModelError
        If an operator does not fit its inputs, or a tensor would be absurdly large or of negative size.
    """
    _Walk(model, image, shape, _PROBES[0])


def annotate(model: ir.Model, image: ir.Value, shape: Sequence[int | None]) -> None:
    """
    Give every value of `model` its shape and element type, and fold its constants, in place.

    Parameters
    ----------
    model : onnx_ir.Model
        Topologically sorted, functions already inlined.
    image : onnx_ir.Value
        The image input.
    shape : sequence of int or None
        The shape of `image`; None (first place) stands for the symbolic batch.

    Raises
    ------
    ModelError
        If an operator does not fit its inputs, or a tensor would be absurdly large or of negative size.
    """
    walks = [_Walk(model, image, shape, batch) for batch in _PROBES]
    low, high = walks
    unsure: set[ir.Value] = set()  # the same at both probe batches, though computed from the batch
    for node in list(model.graph):
        for value in node.outputs:
            value.shape = _symbolic(low.shapes.get(value), high.shapes.get(value))
            if value in low.types:
                value.dtype = ir.DataType(low.types[value])
        if all(_agree(v, low, high) for v in node.outputs):
            if _may_decide(node, low, high, unsure):
                unsure.update(node.outputs)
            else:
                _replace(model.graph, node, low.data)
        elif node.op_type == "Reshape":
            _free_reshape(model.graph, node)
        elif node.op_type == "Gather" and all(_gathers_in_order(node, walk) for walk in walks):
            _reshape_instead(model.graph, node)
    image.shape = ir.Shape([BATCH if d is None else d for d in shape])


def _agree(value: ir.Value, low: _Walk, high: _Walk) -> bool:
    """Tell whether both walks know a value's numbers, and the same."""
    return value in low.data and value in high.data and np.array_equal(low.data[value], high.data[value])


def _may_decide(node: ir.Node, low: _Walk, high: _Walk, unsure: Collection[ir.Value]) -> bool:
    """Tell whether numbers that agree may differ at other batches: a comparison or a maximum hides the batch, a choice does not."""
    sources = [v for v in node.inputs if v is not None]
    if any(v in unsure for v in sources):
        return True
    varies = any(v in low.data and not _agree(v, low, high) for v in sources)
    return varies and node.op_type not in _CHOOSES


def _replace(graph: ir.Graph, node: ir.Node, data: Mapping[ir.Value, Array]) -> None:
    """Put initializers in the place of a constant node."""
    for value in node.outputs:
        if value in graph.outputs:
            return
    for value in node.outputs:
        name = value.name or ""
        value.name = f"{name}__folded"
        ir.convenience.replace_all_uses_with(value, initializer(graph, data[value], name))
    graph.remove(node, safe=True)


def _free_reshape(graph: ir.Graph, node: ir.Node) -> None:
    """Give a Reshape whose output has one batch dimension a constant target with -1 in its place."""
    shape = node.outputs[0].shape
    target = node.inputs[1]
    if shape is None or target is None or target.is_initializer() or node.attributes.get_int("allowzero", False):
        return
    dims = [d if isinstance(d, int) else -1 for d in shape]
    if dims.count(-1) > 1 or 0 in dims:
        return
    node.replace_input_with(1, initializer(graph, np.asarray(dims, np.int64), f"{node.outputs[0].name}__target"))


def _gathers_in_order(node: ir.Node, walk: _Walk) -> bool:
    """Tell a Gather that takes every element of a vector in order: torch's exporter writes views (as_strided) so."""
    source, index = node.inputs
    shape = None if source is None else walk.shapes.get(source)
    taken = None if index is None else walk.data.get(index)
    if shape is None or len(shape) != 1 or taken is None:
        return False
    return taken.size == shape[0] and np.array_equal(taken.ravel(), np.arange(taken.size))


def _reshape_instead(graph: ir.Graph, node: ir.Node) -> None:
    """Put a Reshape in the place of a Gather that only gives a vector its shape."""
    value = node.outputs[0]
    known = [] if value.shape is None else [d if isinstance(d, int) else -1 for d in value.shape]
    if known.count(-1) > 1 or value in graph.outputs:
        return
    name = value.name or ""
    target = initializer(graph, np.asarray(known, np.int64), f"{name}__target")
    made = ir.node("Reshape", [node.inputs[0], target], name=f"{node.name}__view")
    made.outputs[0].shape, made.outputs[0].type = value.shape, value.type
    graph.insert_before(node, made)
    ir.convenience.replace_all_uses_with(value, made.outputs[0])
    value.name, made.outputs[0].name = f"{name}__gathered", name
    graph.remove(node, safe=True)
