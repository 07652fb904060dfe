"""
The worker that stands for ONNX files in the coverage suite: ``python -m bench.coverage_onnx``.

In: requests of `bench.wire`. Out: scores that ONNX Runtime computes from the file itself, and what torch's autograd says
of an interpreter of its operators. The light graphs of the onnx package make every weight 0.02, which leaves no
direction to a gradient: their weights are drawn here, the graphs stay what they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper

from tests.export.onnx_in_torch import OPERATORS, gradients

from . import pictures
from .coverage_cases import MEMORY
from .coverage_figures import canonical
from .wire import serve

Array = np.ndarray[Any, Any]
HEADS = ("Softmax", "LogSoftmax", "Sigmoid")
PASSED = (
    "Reshape",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "Identity",
    "Dropout",
    "Cast",
    "QuantizeLinear",
    "DequantizeLinear",
)  # behind a head; fmt: skip


class Graphs:
    """One file, and the images it is tried on."""

    def __init__(self) -> None:
        self._given = onnx.ModelProto()
        self._origin = self._file = self._image = self._scores = ""
        self._folder = Path()
        self._shape: list[int] = []

    def take(self, origin: str, name: str, file: str, images: int, folder: str) -> None:
        """Read a file; draw a light graph's weights, choose images."""
        self._origin, self._folder = origin, Path(folder)
        self._file = _light(name) if origin == "light" else file
        self._given = onnx.load(self._file)
        if origin == "light":
            _draw_weights(self._given)
        known = {tensor.name for tensor in self._given.graph.initializer}
        (x,) = (value for value in self._given.graph.input if value.name not in known)
        self._image, self._scores = x.name, _before_head(self._given)
        self._shape = [d.dim_value for d in x.type.tensor_type.shape.dim]
        np.save(self._folder / "images.npy", _draw_images(x, images))

    def make(self) -> dict[str, Any]:
        """Write the scores of the file, and the file whose weights were drawn."""
        x = np.load(self._folder / "images.npy")
        np.save(self._folder / "scores.npy", _run(self._given, self._image, x, self._scores, self._shape[0] or 1))
        made = {"oracle": "torch float64 over the file", "versions": {"onnxruntime": onnxruntime.__version__}}
        if self._origin != "light":
            return {**made, "onnx": self._file}
        onnx.save(self._given, self._folder / "model.onnx")
        return {**made, "onnx": str(self._folder / "model.onnx"), "as_given": self._file}

    def gradients(self, layer: dict[str, Any]) -> bool:
        """Write what autograd says of the classes explained, unless the file holds what the interpreter does not know."""
        known = {name for node in self._given.graph.node for name in node.output}
        if not {node.op_type for node in self._given.graph.node} <= set(OPERATORS) or layer["name"] not in known:
            return False
        x, chosen = np.load(self._folder / "images.npy"), np.load(self._folder / "found.npz")["explained"]
        kept: dict[str, Any] = {}
        for title, dtype in (("rough", torch.float32), ("exact", torch.float64)):
            parts = [
                gradients(self._given, x[i : i + 1], chosen[i : i + 1], [layer["name"]], self._scores, dtype)
                for i in range(len(x))
            ]
            there = [p.layers[layer["name"]] for p in parts]
            shaped = [canonical(tensor, layer["layout"], layer["prefix"], layer["grid"]) for tensor in there]
            kept[f"{title}_layer"] = np.concatenate(shaped)
            kept[f"{title}_image"] = np.concatenate([p.image for p in parts])
        np.savez(self._folder / "answer.npz", of=layer["name"], explained=chosen, **kept)
        return True


def _light(name: str) -> str:
    """Return the file of a light graph."""
    return str(Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / f"light_{name}.onnx")


def _draw_images(x: onnx.ValueInfoProto, images: int) -> Array:
    """Return noise with the structure of a picture, in grey levels where the input takes bytes."""
    kind = x.type.tensor_type.elem_type
    noise = pictures.batch([images, *(d.dim_value for d in x.type.tensor_type.shape.dim[1:])])
    if kind == onnx.TensorProto.UINT8:
        noise = (noise * 48 + 128).clip(0, 255)
    return noise.astype(onnx.helper.tensor_dtype_to_np_dtype(kind))


def _draw_weights(model: onnx.ModelProto) -> None:
    """Put seeded weights in the place of a light graph's constant ones, as their readers need them."""
    rng = np.random.default_rng(0)
    known = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    readers: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            readers.setdefault(name, []).append((node, i))
    for node in [n for n in model.graph.node if n.op_type == "ConstantOfShape"]:
        shape = [int(d) for d in known[node.input[0]]]
        value = _draw(rng, shape, *_reader(readers, node.output[0])).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(value, node.output[0]))
        model.graph.node.remove(node)
        model.graph.input.append(onnx.helper.make_tensor_value_info(node.output[0], 1, shape))  # IR version 3 wants it


def _reader(readers: dict[str, list[tuple[onnx.NodeProto, int]]], name: str) -> tuple[str, int]:
    """Return the operator that reads a weight, and as which input."""
    node, i = readers[name][0]
    return _reader(readers, node.output[0]) if node.op_type == "Unsqueeze" else (node.op_type, i)


def _draw(rng: np.random.Generator, shape: list[int], op: str, position: int) -> Array:
    """Draw a weight that keeps signals at their size."""
    if op in ("Conv", "Gemm") and position == 1:
        return rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
    is_scale = op == "Mul" or (op == "BatchNormalization" and position in (1, 4))
    return rng.uniform(0.7, 1.3, shape) if is_scale else rng.normal(0, 0.1, shape)


def _before_head(model: onnx.ModelProto) -> str:
    """Return the tensor of scores before a final softmax or sigmoid."""
    makers = {output: node for node in model.graph.node for output in node.output}
    name = model.graph.output[0].name
    at = name
    while at in makers and makers[at].op_type in PASSED:
        at = makers[at].input[0]
    return str(makers[at].input[0]) if at in makers and makers[at].op_type in HEADS else name


def _run(model: onnx.ModelProto, image: str, x: Array, scores: str, size: int) -> Array:
    """Run the file on ONNX Runtime and return the scores, (N, C)."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    if scores not in [v.name for v in shown.graph.output]:
        shown.graph.output.append(onnx.ValueInfoProto(name=scores))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(shown.SerializeToString(), options, providers=["CPUExecutionProvider"])
    rows = np.arange(-(-len(x) // size) * size) % len(x)
    parts = [
        session.run([scores], {image: x[rows[i : i + size]]})[0].reshape(size, -1) for i in range(0, len(rows), size)
    ]
    return np.concatenate(parts)[: len(x)]


def main() -> None:
    """Answer requests."""
    graphs = Graphs()
    serve({"take": graphs.take, "make": graphs.make, "gradients": graphs.gradients}, MEMORY)


if __name__ == "__main__":
    main()
