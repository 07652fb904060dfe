"""
Read a classifier nobody here wrote, safely, and bring it to the one form the rest of export builds on.

In: the path or bytes of an ``.onnx`` file. Out: a `Classifier`: an `onnx_ir.Model` at opset 18 or newer with local
functions inlined, constants folded, inference-time no-ops gone, every shape known and the batch symbolic; its image
input; and its logits, the tensor before a final softmax. The file is only read, never changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import onnx.version_converter
import onnx_ir as ir
import onnx_ir.passes.common as passes
from google.protobuf.message import EncodeError  # type: ignore[import-untyped]

from camrt.errors import ModelError, NumericError

from .expand import expand, expandable
from .fusions import is_fused, standard_names, take_apart
from .head import choose, find_logits
from .heavy import is_heavy, own_weights
from .inputs import hold
from .precision import widen
from .quantised import Quantised, twin
from .reading import MAX_MODEL_BYTES, read
from .shapes import BATCH, annotate, rehearse
from .vjp.emit import dims
from .vjp.table import op_key

__all__ = ["MIN_OPSET", "Classifier", "load"]

MIN_OPSET = 18  # reductions take their axes as an input from here on, so rules need one form only
MAX_OPSET = 26  # the newest opset the rules were proved at, and that ONNX Runtime takes
_Sizes = tuple[tuple[int, int] | None, tuple[int, int] | None]  # the caller's, and one for what is left open


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
        Name of the given model's output that was followed; of the scores behind it where it gives labels.
    batch : int or None
        The only batch size the model runs at; None when it is free.
    held : dict of str to ndarray
        What the given model's other inputs are held at.
    precision : str
        ``"float16"`` or ``"bfloat16"`` where the given model computes in it and `model` is its float32 twin, else
        ``"float32"``.
    sha256 : str
        Of the file (and of its external weights).
    given : callable
        Gives the model as it was given, for parity checks: from its image input to its scores. It is self-contained, or
        the file itself where it is too large for that. Of a bfloat16 model the twin, because ONNX Runtime's CPU does not
        run it. The file is read again for it, so that nobody else keeps a second copy of the weights; a ModelError says so
        where it has changed meanwhile.
    metadata : dict
        The file's ``metadata_props``.
    producer : str
        The exporter's name and version.
    opset : int
        The opset the file came with.
    quantised : Quantised or None
        Where the given model computes with integers, `model` holds its float twin and, as a second output, its own
        logits (`camrt.export.quantised`).
    """

    model: ir.Model
    x: ir.Value
    logits: ir.Value
    head: str
    output: str
    batch: int | None
    held: dict[str, np.ndarray[Any, Any]] = field(repr=False)
    precision: str
    sha256: str
    given: Callable[[], bytes | str] = field(repr=False)
    metadata: dict[str, str]
    producer: str
    opset: int
    quantised: Quantised | None = None

    @property
    def classes(self) -> int:
        """Return the number of classes C."""
        return int(dims(self.logits)[1])


def load(
    source: str | Path | bytes,
    *,
    output: str | None = None,
    input: str | None = None,
    fixed: Mapping[str, Any] | None = None,
    size: tuple[int, int] | None = None,
    open_size: tuple[int, int] | None = None,
    max_bytes: int = MAX_MODEL_BYTES,
) -> Classifier:
    """
    Read, check and normalise a classifier.

    Parameters
    ----------
    source : str, Path or bytes
        An ``.onnx`` file, or its bytes. Weights beside the file are read only from its own folder.
    output : str, optional
        The output that holds the scores, for a model with several; any tensor inside may be named too.
    input : str, optional
        The input that takes the picture, for a model with several.
    fixed : mapping of str to array_like, optional
        A value for each other input; of one image, where the input follows the batch.
    size : tuple of int, optional
        ``(H, W)`` of the input, for a model that leaves them open.
    open_size : tuple of int, optional
        The same where `size` is absent, without a word where the model has a size of its own.
    max_bytes : int, default 2**33
        The most that is read, external weights included. The file itself may have 2**31 - 1 bytes.

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
    proto, sha = read(source, max_bytes)
    producer = f"{proto.producer_name} {proto.producer_version}".strip()
    metadata = {p.key: p.value for p in proto.metadata_props}
    opset = _opset(proto)
    name = choose(proto, output)
    held = hold(proto, input, fixed)
    sizes = (size, open_size)
    try:
        proto = _inline(proto)
        precision = widen(proto)
        model = ir.from_proto(_lift(standard_names(proto), opset, sizes))
    except EncodeError:
        raise _too_large("opset, functions or fused operators") from None
    except ir.serde.SerdeError as error:
        cause: BaseException = error
        while isinstance(cause.__cause__, Exception):
            cause = cause.__cause__
        raise ModelError(f"the model is damaged ({' '.join(str(cause).split())[:160]}): export it again") from error
    given = _Given(source, sha, output, input, fixed, max_bytes, is_widened=precision == "bfloat16")
    _simplify(model)
    x = _image_input(model)
    quantised = twin(model, x)
    batch = _annotate(model, x, sizes)
    _simplify(model)
    _check_weights(model)
    logits, head = find_logits(model, model.graph.outputs[0], batch)
    for value in list(model.graph.outputs):
        model.graph.outputs.remove(value)
    model.graph.outputs.append(logits)
    passes.RemoveUnusedNodesPass()(model)
    if is_heavy(model):
        own_weights(model)
    if quantised is not None:
        quantised.join(model, logits, head)
        batch = 1 if quantised.is_dynamic else batch
    kept = (sha, given, metadata, producer, opset, quantised)
    return Classifier(model, x, logits, head, name, batch, held, precision or "float32", *kept)


@dataclass(frozen=True)
class _Given:
    """Reads a model once more, as it was given."""

    source: str | Path | bytes = field(repr=False)
    sha256: str
    output: str | None
    input: str | None
    fixed: Mapping[str, Any] | None
    max_bytes: int
    is_widened: bool

    def __call__(self) -> bytes | str:
        """Return what `Classifier.given` gives."""
        proto, sha = read(self.source, self.max_bytes)
        if sha != self.sha256:
            raise ModelError(f"{str(self.source)!r} has changed since it was read: load it again")
        outputs = [value.name for value in proto.graph.output]
        is_plain = choose(proto, self.output) in outputs and not hold(proto, self.input, self.fixed)
        if self.is_widened:
            proto = _inline(proto)
            widen(proto)
        try:
            return _written(proto)
        except EncodeError:
            if is_plain and not self.is_widened and not isinstance(self.source, bytes):
                return str(self.source)
            raise _too_large("other inputs, another output or bfloat16") from None


def _written(proto: onnx.ModelProto) -> bytes:
    """Write a model out."""
    return bytes(proto.SerializeToString())


def _too_large(why: str) -> ModelError:
    """Return what is said of a model that would have to be written out in one message, and does not fit."""
    return ModelError(
        f"the model's weights are beyond the 2 GiB of one message, and for its {why} it would have to be one: export it anew "
        f"at opset {MIN_OPSET} or newer, in float32, with one input and one output"
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
    """Inline local functions."""
    return onnx.inliner.inline_local_functions(proto) if proto.functions else proto


def _lift(proto: onnx.ModelProto, opset: int, sizes: _Sizes) -> onnx.ModelProto:
    """Take apart what is fused, convert to the opset the rules are written for, and expand functions that save rules."""
    for value in proto.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if dim.HasField("dim_value") and dim.dim_value < 1:  # some write -1, some 0, for what is open
                dim.Clear()
    del proto.graph.value_info[:]  # whoever changed the input's size by hand left these as they were
    for value in proto.graph.output:
        value.type.tensor_type.ClearField("shape")
    if is_fused(proto):
        _rehearse(proto, sizes)
        proto = take_apart(proto)
    if opset >= MIN_OPSET and not expandable(proto):
        return proto
    _rehearse(proto, sizes)
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
    return expand(proto)


def _rehearse(proto: onnx.ModelProto, sizes: _Sizes) -> None:
    """Walk the graph once before onnx's own passes do."""
    model = ir.from_proto(proto)
    x = _image_input(model)
    rehearse(model, x, _sizes(x, *sizes))


def _simplify(model: ir.Model) -> None:
    """Remove what does nothing at inference time, and bring constants into one form."""
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    passes.RemoveInitializersFromInputsPass()(model)
    for node in list(model.graph):
        if node.op_type == "Dropout" and node.domain == "" and node.inputs[0] is not None:
            _bypass(model.graph, node)
        elif node.op_type == "Cast" and _is_idle(node):
            node.op_type = "Identity"
            node.attributes.clear()
    passes.IdentityEliminationPass()(model)
    passes.RemoveUnusedNodesPass()(model)
    passes.TopologicalSortPass()(model)
    passes.NameFixPass()(model)
    for index, node in enumerate(model.graph):
        node.name = node.name or f"{node.op_type}_{index}"


def _is_idle(node: ir.Node) -> bool:
    """Tell a Cast to the type that is there already."""
    source = node.inputs[0]
    return source is not None and source.dtype is not None and int(source.dtype) == node.attributes["to"].as_int()


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


def _sizes(x: ir.Value, size: tuple[int, int] | None, open_size: tuple[int, int] | None) -> list[int | None]:
    """Return the shape of the image input, an open size filled in, None for a free batch."""
    if x.shape is None:
        raise AssertionError("checked by _image_input")
    given = [d if isinstance(d, int) and d > 0 else None for d in x.shape]
    channels_last = given[3] in (1, 3, 4) and given[1] not in (1, 3, 4)
    places = (1, 2) if channels_last else (2, 3)
    for place, length, fallback in zip(places, size or (None, None), open_size or (None, None), strict=True):
        if given[place] is None:
            given[place] = length or fallback
        elif length is not None and given[place] != length:
            raise ModelError(
                f"the model's input is {[given[p] for p in places]} pixels (H, W), size={size} does not fit"
            )
    if any(d is None for d in given[1:]):
        raise ModelError(f"input {x.name!r} leaves its size open ({x.shape}): give it, for example size=(224, 224)")
    return given


def _annotate(model: ir.Model, x: ir.Value, sizes: _Sizes) -> int | None:
    """Find every shape with a free batch; where the graph does not allow that, at its own fixed batch."""
    given = _sizes(x, *sizes)
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
