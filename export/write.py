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
from .load import Classifier, load
from .manifest import Program
from .programs import KINDS, ON_REQUEST, WITHOUT_LAYER, build
from .verify import verify

__all__ = ["export", "installed_version"]

_SHARED_FROM = 1024  # bytes; smaller tensors stay inside their graph
_ALIGN = 4096  # a page, so that ONNX Runtime can map weights instead of copying them


def export(
    source: str | Path | bytes,
    folder: str | Path,
    *,
    layers: Sequence[str] | None = None,
    kinds: Iterable[str] | None = None,
    also: Iterable[str] = (),
    labels: Sequence[str] = (),
    preprocess: Mapping[str, Any] | None = None,
    output: str | None = None,
    input: str | None = None,
    fixed: Mapping[str, Any] | None = None,
    size: tuple[int, int] | None = None,
    open_size: tuple[int, int] | None = None,
    grid: tuple[int, int] | None = None,
    prefix: int | None = None,
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
    kinds : iterable of str, optional
        Which programs: all of `camrt.export.programs.KINDS` unless told otherwise, without ``input_gradient`` where
        the model takes whole numbers; those of `ON_REQUEST`, for guided gradients, relevance, DeepLIFT, FullGrad and LeGrad,
        only when they are named.
    also : iterable of str
        More programs beside `kinds`, or beside the usual ones.
    labels : sequence of str
        Class names.
    preprocess : mapping, optional
        Fields of `camrt.image.Preprocess`, kept in the manifest.
    output, input : str, optional
        As in `camrt.export.load.load`.
    fixed : mapping of str to array_like, optional
        As in `camrt.export.load.load`.
    size, open_size : tuple of int, optional
        As in `camrt.export.load.load`.
    grid : tuple of int, optional
        As in `camrt.export.layers.find`.
    prefix : int, optional
        As in `camrt.export.layers.find`.
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
    asked, more = None if kinds is None else tuple(kinds), tuple(also)
    unknown = {*(asked or ()), *more} - {*KINDS, *ON_REQUEST}
    if unknown:
        known = ", ".join((*KINDS, *ON_REQUEST))
        raise InputError(f"programs to export are {known}; {', '.join(sorted(unknown))} came")
    check_free(folder, overwrite=overwrite)
    classifier = load(source, output=output, input=input, fixed=fixed, size=size, open_size=open_size)
    kinds = tuple(dict.fromkeys((*(_all_kinds(classifier) if asked is None else asked), *more)))
    name = "model" if isinstance(source, bytes) else Path(source).stem
    first = layers[0] if layers else None
    manifest = manifest_of(
        classifier, name=name, labels=labels, preprocess=preprocess, layer=first, grid=grid, prefix=prefix
    )
    live = Live(classifier, manifest)
    asked_for = {live.resolve(layer).name for layer in layers or [manifest.default_layer.name]}
    chosen = [layer.name for layer in manifest.layers if layer.name in asked_for]  # as an explainer asks for them
    checked = [] if "gradient" not in kinds else chosen
    manifest = replace(manifest, verification=verify(classifier, live, checked, gradients=bool(checked)))
    weights = _Weights()
    programs = [
        weights.share(*build(classifier, kind, [live.resolve(n) for n in group]))
        for kind, group in _plan(kinds, chosen)
    ]
    return write(folder, manifest, programs, weights.data, installed_version(), overwrite=overwrite)


def _all_kinds(classifier: Classifier) -> tuple[str, ...]:
    """Return the programs a model has."""
    is_float = classifier.x.dtype is not None and classifier.x.dtype.is_floating_point()
    return tuple(kind for kind in KINDS if is_float or kind != "input_gradient")


def _plan(kinds: Iterable[str], layers: Sequence[str]) -> list[tuple[str, tuple[str, ...]]]:
    """List the programs to build: one a layer, and joint ones where several layers can share a run."""
    plan: list[tuple[str, tuple[str, ...]]] = []
    for kind in kinds:
        if kind in WITHOUT_LAYER:
            plan.append((kind, ()))
            continue
        plan += [(kind, (layer,)) for layer in layers]
        if len(layers) > 1 and (KINDS | ON_REQUEST)[kind].layers == "several":
            plan.append((kind, tuple(layers)))
    return plan


def installed_version() -> str:
    """
    Return the installed version of camrt.

    Returns
    -------
    str
        ``"unknown"`` where it is not installed.
    """
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
