"""
Export: a classifier file becomes a bundle folder, verified.

In: an ``.onnx`` file. Out: a folder with one graph a purpose, one weights file and a manifest; written whole or not at
all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from camrt.errors import InputError

from .bundle import WEIGHTS, Bundle, check_free, write
from .live import Live, manifest_of
from .load import load
from .manifest import Program
from .programs import KINDS, build
from .verify import verify

__all__ = ["export"]

_SHARED_FROM = 1024  # bytes; smaller tensors stay inside their graph
_ALIGN = 4096  # a page, so that ONNX Runtime can map weights instead of copying them


def export(
    source: str | Path | bytes,
    folder: str | Path,
    *,
    layers: Sequence[str] | None = None,
    kinds: Iterable[str] = tuple(KINDS),
    labels: Sequence[str] = (),
    preprocess: Mapping[str, Any] | None = None,
    output: str | None = None,
    size: tuple[int, int] | None = None,
    overwrite: bool = False,
) -> Bundle:
    """
    Prepare a classifier: build its programs, verify them, and write them as a bundle.

    Parameters
    ----------
    source : str, Path or bytes
        An ``.onnx`` file or its bytes; it is only read.
    folder : str or Path
        The bundle to write.
    layers : sequence of str, optional
        Layers to prepare, the first of them the bundle's default; without it the model's default layer. Several get
        programs each and one for all together.
    kinds : iterable of str
        Which programs; all of them unless told otherwise.
    labels : sequence of str
        Class names.
    preprocess : mapping, optional
        Fields of `camrt.image.Preprocess`, kept in the manifest.
    output : str, optional
        As in `camrt.export.load.load`.
    size : tuple of int, optional
        As in `camrt.export.load.load`.
    overwrite : bool, default False
        Replace a bundle that is there.

    Returns
    -------
    Bundle
        The bundle as read back.

    Raises
    ------
    ModelError
        If the file is not a classifier that can be read, or verification fails.
    LayerError
        If a layer does not exist.
    OutputError
        If the folder exists or cannot be written; nothing is left behind then.

    Notes
    -----
    Cost: a second or so for a ResNet-50, most of it hashing and verification. The weights are written once.

    Examples
    --------
    >>> export("resnet50.onnx", "resnet50.camrt", layers=["layer4"])  # doctest: +SKIP
    """
    unknown = set(kinds := tuple(kinds)) - set(KINDS)
    if unknown:
        raise InputError(f"programs to export are {', '.join(KINDS)}; {', '.join(sorted(unknown))} came")
    check_free(folder, overwrite=overwrite)
    classifier = load(source, output=output, size=size)
    name = "model" if isinstance(source, bytes) else Path(source).stem
    first = layers[0] if layers else None
    manifest = manifest_of(classifier, name=name, labels=labels, preprocess=preprocess, layer=first)
    live = Live(classifier, manifest)
    chosen = list(dict.fromkeys(live.resolve(layer).name for layer in layers or [manifest.default_layer.name]))
    checked = [] if "gradient" not in kinds else chosen
    manifest = replace(manifest, verification=verify(classifier, live, checked, gradients=bool(checked)))
    weights = _Weights()
    programs = [
        weights.share(*build(classifier, kind, [live.resolve(n) for n in group]))
        for kind, group in _plan(kinds, chosen)
    ]
    return write(folder, manifest, programs, weights.data, _version(), overwrite=overwrite)


def _plan(kinds: Iterable[str], layers: Sequence[str]) -> list[tuple[str, tuple[str, ...]]]:
    """List the programs to build: one a layer, and joint ones where several layers can share a run."""
    plan: list[tuple[str, tuple[str, ...]]] = []
    for kind in kinds:
        if kind in ("forward", "input_gradient"):
            plan.append((kind, ()))
            continue
        plan += [(kind, (layer,)) for layer in layers]
        if len(layers) > 1 and not kind.startswith(("tail", "map_")):
            plan.append((kind, tuple(layers)))
    return plan


def _version() -> str:
    """Return the installed version of camrt."""
    try:
        return version("camrt")
    except PackageNotFoundError:
        return "unknown"


class _Weights:
    """The one weights file: each tensor once, whichever program holds it."""

    def __init__(self) -> None:
        self.data = bytearray()
        self._places: dict[bytes, tuple[int, int]] = {}

    def share(self, model: ir.Model, program: Program) -> Program:
        """Move a program's large tensors into the weights file."""
        proto = ir.to_proto(model)
        for tensor in proto.graph.initializer:
            if not tensor.HasField("raw_data"):  # older exporters write numbers one by one
                tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor), tensor.name))
            if len(tensor.raw_data) < _SHARED_FROM:
                continue
            offset, length = self._place(tensor.raw_data)
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            for key, value in (("location", WEIGHTS), ("offset", str(offset)), ("length", str(length))):
                tensor.external_data.add(key=key, value=value)
        return replace(program, model=proto.SerializeToString())

    def _place(self, data: bytes) -> tuple[int, int]:
        """Return where `data` lies, appending it the first time."""
        key = hashlib.sha256(data).digest()
        if key not in self._places:
            self.data.extend(b"\0" * (-len(self.data) % _ALIGN))
            self._places[key] = (len(self.data), len(data))
            self.data.extend(data)
        return self._places[key]
