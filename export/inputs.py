"""
Which input the picture goes into; every other input is held at one value.

In: a model as read, the image input's name where several could be meant, and values for the others. Out: the same
model with the image as its only input; the others became constants, repeated for each image where they follow the
batch. What everybody sets alike at inference time, such as a training flag, need not be given.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from camrt.errors import ModelError

from .head import shown
from .reading import graphs

__all__ = ["hold"]

Array = np.ndarray[Any, Any]

_EXPANDS = 8  # the opset that brought Expand
_OBVIOUS = (  # names of single numbers that are the same in every inference
    (re.compile(r"training|learning_phase|is_train|train_mode"), 0),
    (re.compile(r"keep_prob"), 1),
    (re.compile(r"drop_?out|drop_(rate|prob|ratio)"), 0),
)


def hold(proto: onnx.ModelProto, image: str | None = None, fixed: Mapping[str, Any] | None = None) -> dict[str, Array]:
    """
    Leave a model with the image as its only input, in place.

    Parameters
    ----------
    proto : onnx.ModelProto
        As read.
    image : str, optional
        The input that takes the picture; the only one of rank 4 where absent.
    fixed : mapping of str to array_like, optional
        A value for each other input; where the input follows the batch, the value of one image.

    Returns
    -------
    dict of str to ndarray
        What every other input is held at.

    Raises
    ------
    ModelError
        If the image input is not clear, an input has no value, or a value does not fit.
    """
    graph = proto.graph
    weights = {tensor.name for tensor in graph.initializer}
    free = {value.name: value for value in graph.input if value.name not in weights}
    given = dict(fixed or {})
    for name in [*given, *([image] if image is not None else [])]:
        if name not in free:
            raise ModelError(f"the model has no input {name!r}; it has: {', '.join(map(shown, free.values()))}")
    if len(free) <= 1 and not given:
        return {}
    reads = {name for g in graphs(graph) for node in g.node for name in node.input}
    unread = [name for name in free if name not in reads and name not in given and name != image]
    obvious = {name: _obvious(graph, value) for name, value in free.items()}
    x = _image(free, image, {*given, *unread, *(name for name, value in obvious.items() if value is not None)})
    held: dict[str, Array] = {}
    lacking = []
    for name, value in free.items():
        number = given.get(name, obvious[name])
        if name == x.name or name in unread:
            continue
        if number is None:
            lacking.append(shown(value))
        else:
            held[name] = _fitting(value, x, number)
    if min(o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")) < _EXPANDS and any(
        _follows_batch(free[name], x) for name in held
    ):
        raise ModelError(
            f"an input that follows the batch can be held from opset {_EXPANDS} on: export the model again"
        )
    if lacking:
        first = lacking[0].split(" ")[0]
        raise ModelError(
            f"the model has inputs beside the image {x.name!r}: {', '.join(lacking)}; hold each at a value, for example "
            f"fixed={{{first!r}: 0}} (--fixed {first}=0)"
        )
    for value in [v for v in graph.input if v.name in held or v.name in unread]:
        graph.input.remove(value)
    nodes = [node for name, array in held.items() for node in _constant(free[name], x, array)]
    for node in reversed(nodes):
        graph.node.insert(0, node)
    return held


def _image(free: Mapping[str, onnx.ValueInfoProto], image: str | None, taken: set[str]) -> onnx.ValueInfoProto:
    """Return the input that takes the picture."""
    if image is not None:
        return free[image]
    left = [value for name, value in free.items() if name not in taken]
    found = [value for value in left if len(value.type.tensor_type.shape.dim) == 4] if len(left) > 1 else left
    if len(found) != 1:
        listed = ", ".join(map(shown, free.values())) or "none"
        raise ModelError(
            f"a classifier with one image input was wanted, this model has {len(free)} inputs: {listed}; choose the image "
            "by input= (--input), and hold the others by fixed= (--fixed)"
        )
    return found[0]


def _obvious(graph: onnx.GraphProto, value: onnx.ValueInfoProto) -> Any:
    """Return what every inference sets an input to, None where that is a matter of opinion."""
    if any(d.dim_value != 1 for d in value.type.tensor_type.shape.dim):
        return None
    uses = [
        (node.op_type, place)
        for g in graphs(graph)
        for node in g.node
        for place, n in enumerate(node.input)
        if n == value.name
    ]
    if uses and set(uses) <= {("Dropout", 1), ("Dropout", 2)}:
        return 0  # no ratio and no training flag: Dropout then hands its input on
    return next((number for name, number in _OBVIOUS if name.search(value.name.lower())), None)


def _follows_batch(value: onnx.ValueInfoProto, x: onnx.ValueInfoProto) -> bool:
    """Tell an input whose first dimension is the image's batch."""
    sizes, images = value.type.tensor_type.shape.dim, x.type.tensor_type.shape.dim
    if not sizes or not images or sizes[0].HasField("dim_value"):
        return False
    return bool(sizes[0].dim_param == images[0].dim_param)


def _fitting(value: onnx.ValueInfoProto, x: onnx.ValueInfoProto, number: Any) -> Array:
    """Return a value in the type and shape of its input; one image's where the input follows the batch."""
    tensor = value.type.tensor_type
    sizes = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
    if _follows_batch(value, x):
        sizes[0] = 1
    try:
        array = np.asarray(number).astype(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"input {shown(value)} cannot be held at {number!r}: {error}") from error
    known = [d for d in sizes if d is not None]
    if array.ndim < len(sizes) == len(known) and array.size in (1, int(np.prod(known))):
        array = np.broadcast_to(array, known) if array.size == 1 else array.reshape(known)
    fits = array.ndim == len(sizes) and all(d in (None, got) for d, got in zip(sizes, array.shape, strict=True))
    if not fits:
        raise ModelError(
            f"input {shown(value)} cannot be held at a value of shape {list(array.shape)}: "
            f"{['any' if d is None else d for d in sizes]} was wanted"
        )
    return np.array(array, order="C")


def _constant(value: onnx.ValueInfoProto, x: onnx.ValueInfoProto, array: Array) -> list[onnx.NodeProto]:
    """Return the nodes that make a held input, once or for each image."""
    name = value.name

    def node(op: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
        return helper.make_node(op, inputs, [output], name=f"camrt/{output}", **attributes)

    def constant(output: str, content: Array) -> onnx.NodeProto:
        return node("Constant", [], output, value=numpy_helper.from_array(content, output))

    if not _follows_batch(value, x):
        return [constant(name, array)]
    return [
        constant(f"{name}__one", array),
        constant(f"{name}__first", np.array([0], np.int64)),
        node("Shape", [x.name], f"{name}__shape"),
        node("Gather", [f"{name}__shape", f"{name}__first"], f"{name}__images", axis=0),
        constant(f"{name}__rest", np.array(array.shape[1:], np.int64)),
        node("Concat", [f"{name}__images", f"{name}__rest"], f"{name}__sizes", axis=0),
        node("Expand", [f"{name}__one", f"{name}__sizes"], name),
    ]
