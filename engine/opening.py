"""
Open a model for explaining: from an ``.onnx`` file, its bytes, or a prepared bundle.

In: a file or folder and what the caller knows of it. Out: an `Explainer`. This is the only place where the engine needs
the exporter, and only for a raw model; labels and preprocessing come from the caller, the bundle, the file's own
metadata, or a guess with its reason, in this order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from camrt.export.bundle import read
from camrt.export.manifest import Manifest, Source

from .errors import MethodError, MissingExtraError, TargetError
from .explainer import Explainer
from .labels import load_labels
from .preprocess import Preprocess
from .presets import choose
from .session import Sessions, parse_providers

__all__ = ["KEPT", "load"]

KEPT = "It was kept in the bundle."  # why a preprocess is what it is, where nothing was guessed


def load(
    source: str | Path | bytes,
    *,
    layer: str | None = None,
    providers: str | Sequence[str | tuple[str, Mapping[str, Any]]] | None = None,
    preprocess: str | Mapping[str, Any] | Preprocess | None = None,
    labels: str | Path | Sequence[str] | None = None,
    precision: str = "float32",
    output: str | None = None,
    size: tuple[int, int] | None = None,
    threads: int | None = None,
) -> Explainer:
    """
    Open a classifier for explaining.

    Parameters
    ----------
    source : str, Path or bytes
        An ``.onnx`` file, its bytes, or a bundle folder.
    layer : str, optional
        Where maps are made unless a call says otherwise: a tensor, node or module path.
    providers : str or sequence, optional
        Execution providers in order, for example ``"cuda,cpu"``; the CPU unless told otherwise.
    preprocess : str, mapping or Preprocess, optional
        A preset (imagenet, caffe, tf, raw, half, cifar10) or its fields; without it the manifest's, the file's own
        metadata, or a guess that `Explainer.preprocess_reason` explains.
    labels : str, Path or sequence of str, optional
        Class names, or a .txt, .json or .csv file of them.
    precision : {"float32"}, default "float32"
        The precision the programs run in; others are refused rather than approximated.
    output : str, optional
        The output that holds the scores, for a raw model with several.
    size : tuple of int, optional
        ``(H, W)`` for a raw model that leaves them open.
    threads : int, optional
        Threads within one run, which then wait without spinning; ONNX Runtime decides when None.

    Returns
    -------
    Explainer
        Immutable, thread-safe; sessions open on first use.

    Raises
    ------
    ModelError
        If the file is not a classifier that can be read.
    BundleError
        If the bundle is incomplete or altered.
    ProviderError
        If a provider is not one.
    MissingExtraError
        If a raw model is given and the extra ``export`` is not installed.

    Examples
    --------
    >>> explainer = load("resnet50.onnx", providers="cpu")  # doctest: +SKIP
    """
    if precision != "float32":
        raise MethodError(f"precision must be 'float32'; got {precision!r}: export the model in that precision instead")
    if isinstance(source, (str, Path)) and Path(source).is_dir():
        opened: Source = read(source)
        metadata: Mapping[str, str] = {}
    else:
        opened, metadata = _open_raw(source, output, size)
    manifest = opened.manifest
    names = _labels(labels, manifest, metadata)
    chosen, reason = _preprocess(preprocess, manifest, metadata)
    return Explainer(
        Sessions(opened, parse_providers(providers), threads),
        chosen,
        names,
        layer=None if layer is None else opened.resolve(layer),
        preprocess_reason=reason,
    )


def _open_raw(
    source: str | Path | bytes, output: str | None, size: tuple[int, int] | None
) -> tuple[Source, Mapping[str, str]]:
    """Build programs in memory; the only place where the engine needs the exporter."""
    try:
        from camrt.export.live import open_model
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("camrt"):
            raise
        raise MissingExtraError(
            f"{error.name} is needed to read a raw .onnx file: pip install 'camrt[export]', or give a prepared bundle"
        ) from error
    live = open_model(source, output=output, size=size)
    return live, live.classifier.metadata


def _labels(
    labels: str | Path | Sequence[str] | None, manifest: Manifest, metadata: Mapping[str, str]
) -> tuple[str, ...]:
    """Return class names: the caller's, the manifest's, or the file's own."""
    if labels is not None:
        names = load_labels(labels)
        if len(names) != manifest.classes:
            raise TargetError(f"{manifest.classes} labels were wanted, one a class; {len(names)} were given")
        return names
    if manifest.labels:
        return manifest.labels
    if "labels" in metadata:
        names = load_labels(metadata["labels"].encode())
        return names if len(names) == manifest.classes else ()
    return ()


def _preprocess(
    given: str | Mapping[str, Any] | Preprocess | None, manifest: Manifest, metadata: Mapping[str, str]
) -> tuple[Preprocess, str]:
    """Return how pictures become inputs, and who said so."""
    shape, dtype, producer = manifest.input["shape"], manifest.input["dtype"], manifest.model["producer"]
    if given is None and manifest.preprocess is not None:
        return choose(manifest.preprocess, shape, dtype)[0], KEPT
    return choose(given, shape, dtype, producer, metadata)
