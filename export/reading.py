"""
Read the file of a model nobody here wrote: whole, of a bearable size, with weights from its own folder only.

In: the path or bytes of an ``.onnx`` file. Out: the parsed model, self-contained, and the sha256 of all that was read.
Every length a file claims is compared with what is there before anything allocates by it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.descriptor import FieldDescriptor  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]

from camrt.errors import ModelError

from .fusions import standard_names

__all__ = ["MAX_MODEL_BYTES", "graphs", "read", "tensors"]

_LARGE = 2**14  # numbers in a tensor that is not worth a copy
MAX_FILE_BYTES = 2**31 - 1  # protobuf's own limit of one message; larger models keep their weights outside
MAX_MODEL_BYTES = 2**33  # with those


def read(source: str | Path | bytes, max_bytes: int = MAX_MODEL_BYTES) -> tuple[onnx.ModelProto, str]:
    """
    Read a model and everything it refers to.

    Parameters
    ----------
    source : str, Path or bytes
        An ``.onnx`` file, or its bytes. Weights beside the file are read only from its own folder.
    max_bytes : int, default 2**33
        The most that is read, external weights included. The file itself may have 2**31 - 1 bytes.

    Returns
    -------
    proto : onnx.ModelProto
        Checked, its weights inside.
    digest : str
        The sha256 of the file, then of its external weights in order.

    Raises
    ------
    ModelError
        If the file is missing, truncated, not ONNX, oversized or unsafe.
    """
    folder = None
    if isinstance(source, bytes):
        data, title = source, "the given data"
    else:
        path = Path(source)
        if not path.is_file():
            raise ModelError(
                f"an .onnx file was wanted, {str(path)!r} is {'a folder' if path.is_dir() else 'not there'}"
            )
        _check_bytes(path.stat().st_size, min(max_bytes, MAX_FILE_BYTES), str(path))
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ModelError(f"{str(path)!r} cannot be read: {error.strerror}") from error
        folder, title = path.resolve().parent, repr(str(path))
    size = len(data)
    _check_bytes(size, max_bytes, title)
    digest = hashlib.sha256(data)
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except (DecodeError, RecursionError) as error:
        raise ModelError(f"{title} is not an ONNX model (or is cut short): give a complete .onnx file") from error
    del data
    if not proto.graph.node or not proto.graph.output:
        raise ModelError(f"{title} holds no graph: give a complete .onnx file")
    _check_text(proto, title)
    _read_external(proto, folder, size, max_bytes, digest)
    _check_tensors(proto)
    try:
        onnx.checker.check_model(standard_names(_without_weights(proto)))
    except (onnx.checker.ValidationError, ValueError) as error:
        raise ModelError(f"{title} is not a valid ONNX model: {' '.join(str(error).split())[:200]}") from error
    return proto, digest.hexdigest()


def _check_bytes(size: int, max_bytes: int, title: str) -> None:
    """Refuse what is empty or too large before it is read."""
    if size == 0:
        raise ModelError(f"{title} is empty: give a complete .onnx file")
    if size > max_bytes:
        raise ModelError(
            f"{title} has {size} bytes, at most {max_bytes} are read: shrink the model, or keep the weights of a large file "
            "in one beside it"
        )


def _without_weights(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Copy a model with its large weights empty: onnx's checker writes a model out and reads it in, and looks at no number."""
    light = onnx.ModelProto()
    for whole, part in ((proto, light), (proto.graph, light.graph)):
        for entry, value in whole.ListFields():
            if entry.name in ("graph", "initializer"):
                continue
            if entry.is_repeated:
                getattr(part, entry.name).extend(value)
            else:
                setattr(part, entry.name, value)
    for tensor in proto.graph.initializer:
        if tensor.HasField("raw_data") and np.prod(tensor.dims, dtype=object) >= _LARGE:
            light.graph.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=[0], raw_data=b"")
        else:
            light.graph.initializer.append(tensor)
    return light


def _check_text(message: Message, title: str) -> None:
    """Refuse names that are not UTF-8; protobuf hands them out as bytes."""
    fields: Any = message.ListFields() if not isinstance(message, onnx.TensorProto) else _texts_of(message)
    for entry, value in fields:
        if entry.type not in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_MESSAGE):
            continue
        for item in [value] if isinstance(value, (str, bytes, Message)) else value:
            if isinstance(item, Message):
                _check_text(item, title)
            elif isinstance(item, bytes):
                raise ModelError(f"{title} holds {item[:40]!r} for a name, which is not UTF-8: the file is damaged")


def _texts_of(tensor: onnx.TensorProto) -> Iterator[tuple[FieldDescriptor, Any]]:
    """Yield what names a tensor: to list its fields would copy its numbers."""
    for entry in onnx.TensorProto.DESCRIPTOR.fields:
        if entry.type == FieldDescriptor.TYPE_STRING or (
            entry.type == FieldDescriptor.TYPE_MESSAGE and entry.is_repeated
        ):
            yield entry, getattr(tensor, entry.name)


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """
    Yield a graph and those inside its nodes (If, Loop, Scan).

    Parameters
    ----------
    graph : onnx.GraphProto
        Any graph.

    Yields
    ------
    onnx.GraphProto
        The outer ones first.
    """
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
                yield from graphs(inner)


def tensors(proto: onnx.ModelProto) -> list[onnx.TensorProto]:
    """
    Return every tensor a model holds: initializers, constants and those of its functions.

    Parameters
    ----------
    proto : onnx.ModelProto
        Any model.

    Returns
    -------
    list of onnx.TensorProto
        The model's own messages, not copies.
    """
    every = list(graphs(proto.graph))
    found = [tensor for graph in every for tensor in graph.initializer]
    nodes = [node for graph in every for node in graph.node] + [node for f in proto.functions for node in f.node]
    for attribute in (a for node in nodes for a in node.attribute):
        found += [attribute.t] if attribute.HasField("t") else list(attribute.tensors)
    return found


def _read_external(proto: onnx.ModelProto, folder: Path | None, size: int, max_bytes: int, digest: Any) -> None:
    """Read weights that lie outside the file, from its own folder only."""
    for tensor in tensors(proto):
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
    for tensor in tensors(proto):
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
