"""Small models for the server's tests: bundles, and single models with weights in odd places."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, SparseTensorProto, TensorProto, helper, numpy_helper

from camrt.export.bundle import MANIFEST, _digest
from camrt.export.write import export
from tests import tiny

PLACES = ("initializer", "constant", "sparse constant", "sparse initializer")
PATHS = ("inside", "parent", "absolute", "symlink", "symlinked folder", "hardlink")
COUNT = 4  # numbers in the weight that lies outside


def write_bundle(folder: Path, seed: int = 0, **options: Any) -> Path:
    """Export a tiny classifier, some of whose weights are large enough to lie outside, and return its folder."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    export(tiny.mlp(seed=seed), folder, **options)
    return folder


def seal(folder: Path, change: Callable[[dict[str, Any]], None] = lambda data: None) -> None:
    """Write a manifest whose hashes fit what lies in the folder now, as whoever forges a bundle can."""
    path = folder / MANIFEST
    data = json.loads(path.read_text("utf-8"))
    change(data)
    if isinstance(data.get("files"), dict):
        for name in data["files"]:
            if (folder / name).is_file():
                data["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    path.write_text(json.dumps({**data, "sha256": _digest(data)}), "utf-8")


def rewrite(folder: Path, change: Callable[[ModelProto], None], name: str = "forward-0.onnx") -> None:
    """Change one program of a bundle, and make the manifest fit."""
    model = ModelProto.FromString((folder / name).read_bytes())
    change(model)
    (folder / name).write_bytes(model.SerializeToString())
    seal(folder)


def outside(location: str, offset: str | None = "0", length: str | None = "16", name: str = "w") -> TensorProto:
    """Return four float32 numbers that lie in another file."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[COUNT], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        if value is not None:
            tensor.external_data.add(key=key, value=value)
    return tensor


def _sparse(values: TensorProto) -> SparseTensorProto:
    indices = numpy_helper.from_array(np.arange(COUNT), "indices")
    return SparseTensorProto(values=values, indices=indices, dims=[COUNT])


def model_with(place: str, tensor: TensorProto) -> ModelProto:
    """Return ``y = x + w`` whose weight stands in one of `PLACES`."""
    nodes: list[NodeProto] = [helper.make_node("Add", ["x", "w"], ["y"])]
    if place == "constant":
        nodes.insert(0, helper.make_node("Constant", [], ["w"], value=tensor))
    if place == "sparse constant":
        nodes.insert(0, helper.make_node("Constant", [], ["w"], sparse_value=_sparse(tensor)))
    graph = helper.make_graph(
        nodes,
        "outside",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [COUNT])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [COUNT])],
        [tensor] if place == "initializer" else [],
        sparse_initializer=[_sparse(tensor)] if place == "sparse initializer" else [],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def lay(folder: Path, path: str) -> str:
    """Put a weights file where `path`, one of `PATHS`, says; return what a model in `folder` calls it."""
    elsewhere = folder.parent / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    (elsewhere / "w.bin").write_bytes(np.arange(COUNT, dtype="f4").tobytes())
    if path == "inside":
        shutil.copy(elsewhere / "w.bin", folder / "w.bin")
    if path == "symlink":
        (folder / "w.bin").symlink_to(elsewhere / "w.bin")
    if path == "symlinked folder":
        (folder / "sub").symlink_to(elsewhere)
    if path == "hardlink":
        (folder / "w.bin").hardlink_to(elsewhere / "w.bin")
    names = {"parent": "../elsewhere/w.bin", "absolute": str(elsewhere / "w.bin"), "symlinked folder": "sub/w.bin"}
    return names.get(path, "w.bin")
