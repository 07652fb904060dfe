"""
The explained model: a classifier and its explanation as one ``.onnx`` that any runtime runs.

::

    x, target (N,) int64, -1 = the predicted class  ->  logits (N, C), heatmap (N, H, W) in [0, 1]

In: an ``.onnx`` file, a method, a layer or several. Out: one self-contained file of standard operators, written whole or
not at all: the model, its gradient, the method's combination, ReLU, resize and min-max. C++, Java, a browser or an
inference server then explain without camrt.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
from google.protobuf.message import EncodeError  # type: ignore[import-untyped]

from camrt.errors import LayerError, MethodError, ModelError, OutputError

from .layers import find, linear_layers, resolve
from .load import Classifier, load
from .manifest import Layer
from .maps import MAPS
from .programs import build
from .write import installed_version

__all__ = ["explained_model"]

REFUSED = {
    "guidedgradcam": "it gives a map of single pixels, which no form inside a graph does yet",
    "integratedgradcam": "it runs the model 50 times",
    "randomcam": "its weights are drawn from a hash of each picture",
    "shapleycam": "it takes a difference of two runs, which every runtime rounds differently, by up to 1e-4 of a heatmap",
    "smoothgradcampp": "its noise is drawn from a hash of each picture, and every sample is a run of its own",
}
STANDARD = ("", "ai.onnx")
MIN_IR_VERSION = 8  # of opset 18; before version 4 every weight had to be an input too


def explained_model(
    source: str | Path | bytes,
    path: str | Path,
    *,
    method: str = "gradcam",
    layer: str | Sequence[str] | None = None,
    variant: str | None = None,
    output: str | None = None,
    input: str | None = None,
    fixed: Mapping[str, Any] | None = None,
    size: tuple[int, int] | None = None,
    grid: tuple[int, int] | None = None,
    prefix: int | None = None,
    overwrite: bool = False,
) -> Path:
    """
    Write a model that explains itself.

    Parameters
    ----------
    source : str, Path or bytes
        An ``.onnx`` file or its bytes; it is only read.
    path : str or Path
        The ``.onnx`` file to write.
    method : str, default "gradcam"
        A method id; every gradient and activation method whose map is a function of the model alone.
    layer : str or sequence of str, optional
        A tensor, node or module path; several are fused the method's own way. The default layer without it.
    variant : str, optional
        The method's default variant; no other has a form inside the graph.
    output, input : str, optional
        As in `camrt.export.load.load`.
    fixed : mapping of str to array_like, optional
        As in `camrt.export.load.load`.
    size : tuple of int, optional
        As in `camrt.export.load.load`.
    grid : tuple of int, optional
        As in `camrt.export.layers.find`.
    prefix : int, optional
        As in `camrt.export.layers.find`.
    overwrite : bool, default False
        Replace a file that is there.

    Returns
    -------
    Path
        The file written. Its ``metadata_props`` say what it is: ``camrt.method``, ``camrt.variant``, ``camrt.layers`` (JSON),
        ``camrt.source_sha256``, ``camrt.output``, ``camrt.version``.

    Raises
    ------
    MethodError
        If the method, or its variant, has no form inside a graph; the message says why.
    ModelError
        If the file is not a classifier that can be read, holds operators outside the standard, or is too large for one
        file.
    LayerError
        If a layer does not exist, or the method is not defined there.
    OutputError
        If the file exists or cannot be written; nothing is left behind then.

    Notes
    -----
    Scores come out as logits, even where the given model ends in a softmax. The heatmap is that of
    ``Explainer.explain`` with default options; where the map has no contrast it is all zero. Opset: the model's own,
    and at least 18. Cost of a run: that of the method, see METHODS' column of work.

    Examples
    --------
    >>> explained_model("resnet50.onnx", "explained.onnx", method="gradcam")  # doctest: +SKIP
    """
    method, chosen = _method(method, variant)
    path = Path(path)
    _check_free(path, overwrite=overwrite)
    classifier = load(source, output=output, input=input, fixed=fixed, size=size)
    layers = _layers(classifier, method, layer, find(classifier, grid=grid, prefix=prefix))
    model, _ = build(classifier, f"explained_{method}", layers)
    _check_standard(model)
    model.ir_version = max(model.ir_version, MIN_IR_VERSION)
    model.metadata_props.update(
        {
            "camrt.method": method,
            "camrt.variant": chosen,
            "camrt.layers": json.dumps([item.name for item in layers]),
            "camrt.source_sha256": classifier.sha256,
            "camrt.output": classifier.output,
            "camrt.version": installed_version(),
        }
    )
    _put(path, _serialised(model))
    return path


def _method(name: str, variant: str | None) -> tuple[str, str]:
    """Return the canonical id and variant, or say why there is no explained model of them."""
    method = name.lower().replace("++", "pp").translate({ord(letter): None for letter in "-_ "})
    if method not in MAPS:
        reason = REFUSED.get(method, "it has no form inside a graph")
        raise MethodError(
            f"no explained model can be made of {name!r}: {reason}; choose from {', '.join(sorted(MAPS))}, or run it with "
            "`camrt explain`"
        )
    row = MAPS[method]
    if variant is not None and variant.lower() != row.variant:
        raise MethodError(
            f"an explained model of {method} holds its default variant {row.variant!r}; got {variant!r}: leave the variant "
            "out, or run it with `camrt explain`"
        )
    return method, row.variant


def _layers(
    classifier: Classifier, method: str, wanted: str | Sequence[str] | None, known: Sequence[Layer]
) -> list[Layer]:
    """Return the layers, each once, the shallowest first."""
    names = [wanted] if wanted is None or isinstance(wanted, str) else list(wanted)
    if not names:
        raise LayerError("at least one layer was wanted; an empty list came")
    chosen = {resolve(known, name).name for name in names}
    layers = [item for item in known if item.name in chosen]
    linear = linear_layers(classifier, known) if MAPS[method].linear_head else ()
    for item in layers:
        _check_place(method, item, linear)
    return layers


def _check_place(method: str, item: Layer, linear: Sequence[str]) -> None:
    """Refuse a layer where a method, or its form inside a graph, is not defined."""
    if MAPS[method].linear_head and item.name not in linear:
        hint = f", or layer {linear[0]!r}" if linear else ""
        raise LayerError(
            f"{method} needs global average pooling and one linear layer between the layer and the logits; "
            f"{item.name!r} has more: use gradcam, which generalises it{hint}"
        )


def _check_standard(model: ir.Model) -> None:
    """Refuse operators that only some runtimes have, and forget domains that nothing uses."""
    foreign = {
        f"{node.domain}:{node.op_type}": node.name for node in model.graph.all_nodes() if node.domain not in STANDARD
    }
    if foreign:
        raise ModelError(
            f"an explained model holds standard ONNX operators only; this model has {', '.join(sorted(foreign))} (node "
            f"{next(iter(foreign.values()))!r}): export it again without optimising it for one runtime"
        )
    for domain in [name for name in model.opset_imports if name not in STANDARD]:
        del model.opset_imports[domain]


def _serialised(model: ir.Model) -> bytes:
    """Return the model in one message."""
    try:
        proto = ir.to_proto(model)
        onnx.checker.check_model(proto)
        return bytes(proto.SerializeToString())
    except (EncodeError, ValueError) as error:
        raise ModelError(
            "the model with its weights is larger than the 2 GiB one .onnx file may hold: export a bundle with "
            "`camrt export`, whose weights lie in a file of their own"
        ) from error


def _check_free(path: Path, *, overwrite: bool) -> None:
    """Refuse a place where the file may not be written."""
    if path.is_dir() or (path.exists() and not overwrite):
        raise OutputError(
            f"{str(path)!r} is already there: give another path{'' if path.is_dir() else ' or overwrite=True'}"
        )


def _put(path: Path, data: bytes) -> None:
    """Write beside the target and rename, so that the file is whole or absent."""
    scratch: Path | None = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        scratch = Path(name)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        scratch.chmod(0o644)  # mkstemp makes it private
        scratch.replace(path)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"{str(path)!r} cannot be written: {reason}") from error
    finally:
        if scratch is not None:
            scratch.unlink(missing_ok=True)
