"""
Read a classifier nobody here wrote, safely, and bring it to the one form the rest of export builds on.

In: the path or bytes of an ``.onnx`` file. Out: a `Classifier`: an `onnx_ir.Model` at opset 18 or newer with local
functions inlined, constants folded, inference-time no-ops gone, every shape known and the batch symbolic; its image
input; and its logits, the tensor before a final softmax. The file is only read, never changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import onnx.version_converter
import onnx_ir as ir
import onnx_ir.passes.common as passes
from google.protobuf.descriptor import FieldDescriptor  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]

from camrt.errors import ModelError, NumericError

from .shapes import BATCH, annotate, rehearse
from .vjp import RULES
from .vjp.emit import dims, initializer
from .vjp.table import op_key

__all__ = ["MIN_OPSET", "Classifier", "load"]

MIN_OPSET = 18  # reductions take their axes as an input from here on, so rules need one form only
MAX_OPSET = 24  # the newest opset the rules were proved at
MAX_MODEL_BYTES = 2**31 - 1  # protobuf's own limit of one message; larger models keep their weights outside
_HEADS = {"Softmax": "softmax", "LogSoftmax": "log_softmax", "Sigmoid": "sigmoid"}
_KEEP = {"DynamicQuantizeLinear", "QuantizeLinear", "DequantizeLinear"}  # their bodies round: no gradient in them
_SHAPE_ONLY = {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"}


@dataclass(frozen=True)
class Classifier:
    """
    A classifier in the form the programs are built from.

    Attributes
    ----------
    model : onnx_ir.Model
        Opset 18 or newer; every value has a shape whose batch dimension is ``"N"``.
    x : onnx_ir.Value
        The image input.
    logits : onnx_ir.Value
        Shape ``("N", C)``; the scores before a final softmax or sigmoid.
    head : str
        What the given model applied to the logits: ``"none"``, ``"softmax"``, ``"log_softmax"`` or ``"sigmoid"``.
    output : str
        Name of the given model's output that was followed.
    batch : int or None
        The only batch size the model runs at; None when it is free.
    sha256 : str
        Of the file (and of its external weights).
    given : bytes
        The model as given, self-contained, for parity checks.
    metadata : dict
        The file's ``metadata_props``.
    producer : str
        The exporter's name and version.
    opset : int
        The opset the file came with.
    """

    model: ir.Model
    x: ir.Value
    logits: ir.Value
    head: str
    output: str
    batch: int | None
    sha256: str
    given: bytes = field(repr=False)
    metadata: dict[str, str]
    producer: str
    opset: int

    @property
    def classes(self) -> int:
        """Return the number of classes C."""
        return int(dims(self.logits)[1])


def load(
    source: str | Path | bytes,
    *,
    output: str | None = None,
    size: tuple[int, int] | None = None,
    max_bytes: int = MAX_MODEL_BYTES,
) -> Classifier:
    """
    Read, check and normalise a classifier.

    Parameters
    ----------
    source : str, Path or bytes
        An ``.onnx`` file, or its bytes. Weights beside the file are read only from its own folder.
    output : str, optional
        The output that holds the scores, for a model with several.
    size : tuple of int, optional
        ``(H, W)`` of the input, for a model that leaves them open.
    max_bytes : int, default 2**31 - 1
        The largest file read, external weights included in the sum.

    Returns
    -------
    Classifier
        The model in the form the programs are built from.

    Raises
    ------
    ModelError
        If the file is missing, truncated, not ONNX, oversized, unsafe, or not a classifier.
    NumericError
        If a weight is NaN or infinite.

    Notes
    -----
    Cost: reads the file once; two walks over the graph without computing any layer.
    """
    proto, sha = _read(source, max_bytes)
    given = proto.SerializeToString()
    opset = _opset(proto)
    try:
        model = ir.from_proto(_lift(_inline(proto), opset, size))
    except ir.serde.SerdeError as error:
        cause: BaseException = error
        while isinstance(cause.__cause__, Exception):
            cause = cause.__cause__
        raise ModelError(f"the model is damaged ({' '.join(str(cause).split())[:160]}): export it again") from error
    _simplify(model)
    x = _image_input(model)
    head_output = _choose_output(model, output)
    batch = _annotate(model, x, size)
    _simplify(model)
    _check_weights(model)
    logits, head = _find_logits(model, head_output)
    for value in list(model.graph.outputs):
        model.graph.outputs.remove(value)
    model.graph.outputs.append(logits)
    passes.RemoveUnusedNodesPass()(model)
    name = head_output.name or ""
    producer = f"{proto.producer_name} {proto.producer_version}".strip()
    metadata = {p.key: p.value for p in proto.metadata_props}
    return Classifier(model, x, logits, head, name, batch, sha, given, metadata, producer, opset)


# reading ---------------------------------------------------------------------------------------------------------


def _read(source: str | Path | bytes, max_bytes: int) -> tuple[onnx.ModelProto, str]:
    """Return the parsed model, self-contained, and the sha256 of all that was read."""
    folder = None
    if isinstance(source, bytes):
        data, title = source, "the given data"
    else:
        path = Path(source)
        if not path.is_file():
            raise ModelError(
                f"an .onnx file was wanted, {str(path)!r} is {'a folder' if path.is_dir() else 'not there'}"
            )
        _check_bytes(path.stat().st_size, max_bytes, str(path))
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ModelError(f"{str(path)!r} cannot be read: {error.strerror}") from error
        folder, title = path.resolve().parent, repr(str(path))
    _check_bytes(len(data), max_bytes, title)
    digest = hashlib.sha256(data)
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except (DecodeError, RecursionError) as error:
        raise ModelError(f"{title} is not an ONNX model (or is cut short): give a complete .onnx file") from error
    if not proto.graph.node or not proto.graph.output:
        raise ModelError(f"{title} holds no graph: give a complete .onnx file")
    _check_text(proto, title)
    _read_external(proto, folder, len(data), max_bytes, digest)
    _check_tensors(proto)
    try:
        onnx.checker.check_model(proto)
    except (onnx.checker.ValidationError, ValueError) as error:
        raise ModelError(f"{title} is not a valid ONNX model: {' '.join(str(error).split())[:200]}") from error
    return proto, digest.hexdigest()


def _check_bytes(size: int, max_bytes: int, title: str) -> None:
    """Refuse what is empty or too large before it is read."""
    if size == 0:
        raise ModelError(f"{title} is empty: give a complete .onnx file")
    if size > max_bytes:
        raise ModelError(f"{title} has {size} bytes, at most {max_bytes} are read: raise max_bytes or shrink the model")


def _check_text(message: Message, title: str) -> None:
    """Refuse names that are not UTF-8; protobuf hands them out as bytes."""
    for entry, value in message.ListFields():
        if entry.type not in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_MESSAGE):
            continue
        for item in [value] if isinstance(value, (str, bytes, Message)) else value:
            if isinstance(item, Message):
                _check_text(item, title)
            elif isinstance(item, bytes):
                raise ModelError(f"{title} holds {item[:40]!r} for a name, which is not UTF-8: the file is damaged")


def _tensors(proto: onnx.ModelProto) -> list[onnx.TensorProto]:
    """Return every tensor of the main graph and of its functions' constants."""
    found = list(proto.graph.initializer)
    nodes = [*proto.graph.node, *(node for f in proto.functions for node in f.node)]
    found += [a.t for node in nodes for a in node.attribute if a.HasField("t")]
    return found


def _read_external(proto: onnx.ModelProto, folder: Path | None, size: int, max_bytes: int, digest: Any) -> None:
    """Read weights that lie outside the file, from its own folder only."""
    for tensor in _tensors(proto):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entry = {e.key: e.value for e in tensor.external_data}
        location = entry.get("location", "")
        if folder is None:
            raise ModelError(
                f"tensor {tensor.name!r} lies outside the model ({location!r}): give the file's path, not its bytes"
            )
        inside = PurePosixPath(location.replace("\\", "/"))
        path = folder / inside
        unsafe = not location or inside.is_absolute() or ".." in inside.parts or ":" in location
        if unsafe or not path.resolve().is_relative_to(folder):
            raise ModelError(f"tensor {tensor.name!r} points outside the model's folder ({location!r}): refused")
        if not path.is_file():
            raise ModelError(
                f"tensor {tensor.name!r} wants the weights file {location!r}, which is not beside the model"
            )
        try:
            offset = int(entry.get("offset", 0))
            length = int(entry.get("length", path.stat().st_size - offset))
        except ValueError as error:
            raise ModelError(f"tensor {tensor.name!r} has an offset or length that is not a number: refused") from error
        if offset < 0 or length < 0 or offset + length > path.stat().st_size:
            raise ModelError(
                f"tensor {tensor.name!r} wants bytes {offset} to {offset + length} of {location!r}, which is shorter"
            )
        size += length
        _check_bytes(size, max_bytes, "the model with its weights")
        with path.open("rb") as file:
            file.seek(offset)
            tensor.raw_data = file.read(length)
        digest.update(tensor.raw_data)
        del tensor.external_data[:]
        tensor.data_location = onnx.TensorProto.DEFAULT


def _check_tensors(proto: onnx.ModelProto) -> None:
    """Check that every tensor holds as much data as its shape says, before anything allocates by it."""
    for tensor in _tensors(proto):
        count = int(np.prod(tensor.dims, dtype=object)) if tensor.dims else 1
        if any(d < 0 for d in tensor.dims):
            raise ModelError(f"tensor {tensor.name!r} has a negative dimension: {list(tensor.dims)}")
        if tensor.data_type in (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING):
            continue
        if not tensor.HasField("raw_data"):
            continue
        try:
            bits = ir.DataType(tensor.data_type).bitwidth
        except (ValueError, TypeError) as error:
            raise ModelError(f"tensor {tensor.name!r} has the unknown element type {tensor.data_type}") from error
        if len(tensor.raw_data) != -(-count * bits // 8):
            raise ModelError(
                f"tensor {tensor.name!r} of shape {list(tensor.dims)} should hold {-(-count * bits // 8)} bytes, it holds "
                f"{len(tensor.raw_data)}: the file is damaged"
            )


# normalising -----------------------------------------------------------------------------------------------------


def _opset(proto: onnx.ModelProto) -> int:
    """Return the version of the default operator set."""
    versions = [o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")]
    if not versions:
        raise ModelError(
            "the model imports no standard operator set; a classifier of standard ONNX operators was wanted"
        )
    if versions[0] > MAX_OPSET:
        raise ModelError(
            f"the model uses opset {versions[0]}, the newest supported is {MAX_OPSET}: export it at that opset"
        )
    return int(versions[0])


def _inline(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Inline local functions, and expand operators that have no rule but are defined by others."""
    if proto.functions:
        proto = onnx.inliner.inline_local_functions(proto)
    return proto


def _expandable(proto: onnx.ModelProto) -> list[tuple[str, str]]:
    """Return the operators that have no gradient rule of their own but are defined by a function body."""
    version = _opset(proto)
    chosen = set()
    used = {node.op_type for node in proto.graph.node if node.domain in ("", "ai.onnx")}
    for op in used - set(RULES) - _KEEP:
        if not onnx.defs.has(op, version, ""):
            continue
        schema = onnx.defs.get_schema(op, version, "")
        if schema.has_function or schema.has_context_dependent_function:  # type: ignore[attr-defined]
            chosen.add(("", op))
    return sorted(chosen)


def _expand(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Expand operators that have no gradient rule of their own."""
    chosen = _expandable(proto)
    if not chosen:
        return proto
    _spell_out_defaults(proto, {op for _, op in chosen})
    declared = {value.name for value in proto.graph.input}
    for tensor in proto.graph.initializer:  # the inliner asks inputs alone for element types
        if tensor.name not in declared:
            proto.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return onnx.inliner.inline_selected_functions(proto, chosen, inline_schema_functions=True)


def _spell_out_defaults(proto: onnx.ModelProto, ops: Collection[str]) -> None:
    """Write down the attributes that nodes leave at their default: the inliner hands on those that are there alone."""
    version = _opset(proto)
    for node in proto.graph.node:
        if node.op_type in ops and node.domain in ("", "ai.onnx"):
            given = {attribute.name for attribute in node.attribute}
            schema = onnx.defs.get_schema(node.op_type, version, "")
            defaults = [a.default_value for a in schema.attributes.values() if a.name not in given]
            node.attribute.extend(value for value in defaults if value.name)


def _lift(proto: onnx.ModelProto, opset: int, size: tuple[int, int] | None) -> onnx.ModelProto:
    """Convert to the opset the rules are written for, and expand functions that save rules."""
    for value in proto.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if dim.HasField("dim_value") and dim.dim_value < 1:  # some write -1, some 0, for what is open
                dim.Clear()
    del proto.graph.value_info[:]  # whoever changed the input's size by hand left these as they were
    for value in proto.graph.output:
        value.type.tensor_type.ClearField("shape")
    if opset >= MIN_OPSET and not _expandable(proto):
        return proto
    model = ir.from_proto(proto)
    x = _image_input(model)
    rehearse(model, x, _sizes(x, size))
    try:
        proto = onnx.shape_inference.infer_shapes(proto)
    except onnx.shape_inference.InferenceError as error:
        detail = " ".join(str(error).split())[:200]
        raise ModelError(f"the model contradicts itself ({detail}): export it again") from error
    if opset < MIN_OPSET:
        try:
            proto = onnx.version_converter.convert_version(proto, MIN_OPSET)
        except (RuntimeError, onnx.version_converter.ConvertError) as error:
            detail = " ".join(str(error).split())[:160]
            raise ModelError(
                f"the model's opset {opset} cannot be lifted to {MIN_OPSET} ({detail}): re-export it"
            ) from error
    return _expand(proto)


def _simplify(model: ir.Model) -> None:
    """Remove what does nothing at inference time, and bring constants into one form."""
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    passes.RemoveInitializersFromInputsPass()(model)
    for node in list(model.graph):
        if node.op_type == "Dropout" and node.domain == "" and node.inputs[0] is not None:
            _bypass(model.graph, node)
    passes.IdentityEliminationPass()(model)
    passes.RemoveUnusedNodesPass()(model)
    passes.TopologicalSortPass()(model)
    passes.NameFixPass()(model)
    for index, node in enumerate(model.graph):
        node.name = node.name or f"{node.op_type}_{index}"


def _bypass(graph: ir.Graph, node: ir.Node) -> None:
    """Let the users of a Dropout read its input."""
    source, value = node.inputs[0], node.outputs[0]
    if source is None or value in graph.outputs or any(list(v.uses()) for v in node.outputs[1:]):
        return
    ir.convenience.replace_all_uses_with(value, source)
    graph.remove(node, safe=True)


def _image_input(model: ir.Model) -> ir.Value:
    """Return the one input a picture can go into."""
    free = [value for value in model.graph.inputs if not value.is_initializer()]
    if len(free) != 1:
        shown = ", ".join(f"{v.name} {v.shape}" for v in free) or "none"
        raise ModelError(f"a classifier with one image input was wanted, this model has {len(free)}: {shown}")
    if free[0].shape is None or len(free[0].shape) != 4:
        raise ModelError(f"an image input of rank 4 was wanted, input {free[0].name!r} has shape {free[0].shape}")
    return free[0]


def _sizes(x: ir.Value, size: tuple[int, int] | None) -> list[int | None]:
    """Return the shape of the image input, an open size filled in, None for a free batch."""
    if x.shape is None:
        raise AssertionError("checked by _image_input")
    given = [d if isinstance(d, int) and d > 0 else None for d in x.shape]
    channels_last = given[3] in (1, 3, 4) and given[1] not in (1, 3, 4)
    places = (1, 2) if channels_last else (2, 3)
    for place, length in zip(places, size or (None, None), strict=True):
        if given[place] is None:
            given[place] = length
        elif length is not None and given[place] != length:
            raise ModelError(
                f"the model's input is {[given[p] for p in places]} pixels (H, W), size={size} does not fit"
            )
    if any(d is None for d in given[1:]):
        raise ModelError(f"input {x.name!r} leaves its size open ({x.shape}): give it, for example size=(224, 224)")
    return given


def _annotate(model: ir.Model, x: ir.Value, size: tuple[int, int] | None) -> int | None:
    """Find every shape with a free batch; where the graph does not allow that, at its own fixed batch."""
    given = _sizes(x, size)
    batch = given[0]
    try:
        annotate(model, x, [None, *given[1:]])
        if _follows_batch(model):
            return None
    except ModelError:
        if batch is None:
            raise
    if batch is None:
        raise _unfollowed(model)
    annotate(model, x, [batch, *given[1:]])
    return batch


def _follows_batch(model: ir.Model) -> bool:
    """Tell whether the first dimension of every output is the batch."""
    return all(v.shape is not None and len(v.shape) > 0 and v.shape[0] == BATCH for v in model.graph.outputs)


def _unfollowed(model: ir.Model) -> ModelError:
    """Say why the output's first dimension is not the batch: an operator of unknown shape, or the graph itself."""
    for node in model.graph:
        if any(v.shape is None for v in node.outputs if v.name):
            return ModelError(
                f"the shape of what operator {op_key(node)} at node {node.name!r} makes cannot be found without running "
                "it; a classifier of standard ONNX operators and fixed sizes was wanted: re-export the model"
            )
    return ModelError(
        "the model's output does not follow its batch dimension: a classifier (N, ...) -> (N, C) was wanted"
    )


def _check_weights(model: ir.Model) -> None:
    """Refuse weights that are NaN or infinite: every map would be."""
    for name, value in model.graph.initializers.items():
        if value.dtype is None or not value.dtype.is_floating_point() or value.const_value is None:
            continue
        array = np.asarray(value.const_value.numpy()).astype(np.float32, copy=False)
        bad = int(array.size - np.isfinite(array).sum())
        if bad and (np.isnan(array).any() or array.size > 1):
            raise NumericError(f"weight {name!r} holds {bad} NaN or infinite numbers of {array.size}: repair the model")


# the head --------------------------------------------------------------------------------------------------------


def _choose_output(model: ir.Model, name: str | None) -> ir.Value:
    """Return the output that holds the scores."""
    outputs: Sequence[ir.Value] = list(model.graph.outputs)
    names = [value.name for value in outputs]
    if name is not None:
        if name not in names:
            raise ModelError(f"the model has no output {name!r}; it has: {', '.join(map(str, names))}")
        chosen = outputs[names.index(name)]
    elif len(outputs) == 1:
        chosen = outputs[0]
    else:
        raise ModelError(
            f"the model has {len(outputs)} outputs ({', '.join(map(str, names))}): choose one with output="
        )
    for value in outputs:
        if value is not chosen:
            model.graph.outputs.remove(value)
    return chosen


def _is_over_classes(node: ir.Node, source: ir.Value) -> bool:
    """Tell a softmax that compares the scores of one image, not those of several."""
    shape = dims(source) if source.shape is not None else ()
    return node.op_type == "Sigmoid" or (len(shape) > 1 and node.attributes.get_int("axis", -1) % len(shape) != 0)


def _find_logits(model: ir.Model, output: ir.Value) -> tuple[ir.Value, str]:
    """Return the scores before a final softmax as (N, C), and what was applied to them."""
    value, head, node = output, "none", output.producer()
    while node is not None and (node.op_type in _SHAPE_ONLY or node.op_type in _HEADS):
        source = node.inputs[0]
        if source is None:
            break
        if node.op_type in _HEADS:
            if _is_over_classes(node, source):
                value, head = source, _HEADS[node.op_type]
            break
        node = source.producer()
    if head == "none":
        value = output
    shape = dims(value) if value.shape is not None else ()
    rest = [d for d in shape[1:] if d != 1]
    if not shape or len(rest) != 1 or not isinstance(rest[0], int):
        raise ModelError(
            f"a classifier with scores of shape (N, C) was wanted, output {output.name!r} has shape "
            f"{list(shape) or 'unknown'}: name another output, or cut the model at its class scores"
        )
    if value.dtype is None or not value.dtype.is_floating_point():
        raise ModelError(f"floating-point scores were wanted, output {output.name!r} is {value.dtype}")
    if len(shape) == 2:
        return value, head
    target = initializer(model.graph, np.array([-1, rest[0]], np.int64), "camrt/logits_shape")
    flat = ir.node("Reshape", [value, target], name="camrt/logits")
    flat.outputs[0].name, flat.outputs[0].dtype = "camrt/logits", value.dtype
    flat.outputs[0].shape = ir.Shape([shape[0], rest[0]])
    model.graph.append(flat)
    return flat.outputs[0], head
