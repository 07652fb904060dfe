"""
Open a model for explaining: from an ``.onnx`` file, its bytes, or a prepared bundle.

In: a file or folder and what the caller knows of it. Out: an `Explainer`. This is the only place where the engine needs
the exporter, and only for a raw model; labels and preprocessing come from the caller, the bundle, the file's own
metadata, or a guess with its reason, in this order.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from camrt.export.bundle import Bundle, read
from camrt.export.manifest import Manifest, Source

from .errors import BundleError, InputError, MissingExtraError, ModelError, TargetError
from .explainer import Explainer
from .labels import load_labels
from .precision import arrange
from .preprocess import Preprocess
from .presets import choose
from .providers import parse_providers
from .runs import MEMORY
from .session import Sessions

__all__ = ["KEPT", "load", "read_memory"]

KEPT = "It was kept in the bundle."  # why a preprocess is what it is, where nothing was guessed


def load(
    source: str | Path | bytes | Bundle,
    *,
    layer: str | None = None,
    providers: str | Sequence[str | tuple[str, Mapping[str, Any]]] | None = None,
    preprocess: str | Mapping[str, Any] | Preprocess | None = None,
    labels: str | Path | Sequence[str] | None = None,
    precision: str = "float32",
    output: str | None = None,
    input: str | None = None,
    fixed: Mapping[str, Any] | None = None,
    size: tuple[int, int] | None = None,
    grid: tuple[int, int] | None = None,
    prefix: int | None = None,
    model: str | Path | None = None,
    threads: int | None = None,
    memory: int | str = MEMORY,
    threads_beside: int | None = None,
) -> Explainer:
    """
    Open a classifier for explaining.

    Parameters
    ----------
    source : str, Path, bytes or Bundle
        An ``.onnx`` file, its bytes, a bundle folder, or a bundle that was read from one.
    layer : str, optional
        Where maps are made unless a call says otherwise: a tensor, node or module path.
    providers : str or sequence, optional
        Execution providers in order, for example ``"cuda,cpu"``; the CPU unless told otherwise.
    preprocess : str, mapping or Preprocess, optional
        A preset (imagenet, caffe, tf, raw, half, cifar10) or its fields; without it the manifest's, the file's own
        metadata, or a guess that `Explainer.preprocess_reason` explains.
    labels : str, Path or sequence of str, optional
        Class names, or a .txt, .json or .csv file of them.
    precision : {"float32", "tf32", "float16", "bfloat16", "twin"}, default "float32"
        What the programs compute in, as `camrt.precision` tells; one that the first provider cannot give is refused. A
        model in half precision is run as its float32 twin unless told otherwise, and its manifest's
        ``model["precision"]`` says what it was.
    output : str, optional
        The output that holds the scores, for a raw model with several; any tensor inside may be named too.
    input : str, optional
        The input that takes the picture, for a raw model with several.
    fixed : mapping of str to array_like, optional
        What a raw model's other inputs are held at, by name; the value of one image where the input follows the batch.
        A training flag or a dropout ratio need not be given.
    size : tuple of int, optional
        ``(H, W)`` for a raw model that leaves them open; those of `preprocess` where absent.
    grid : tuple of int, optional
        ``(h, w)`` that the tokens of a raw model make up, row by row, in place of what its shapes say.
    prefix : int, optional
        Tokens before the grid (class token, distillation token, registers), in place of what is left over.
    model : str or Path, optional
        The ``.onnx`` file that a bundle must have been made of; one of any other is refused.
    threads : int, optional
        Threads within one run, which then wait without spinning; ONNX Runtime decides when None.
    memory : int or str, default 400 MB
        Bytes that masked forwards may take at a time, the model itself aside: ``2**28``, ``"400MB"``, ``"1.5GB"``.
    threads_beside : int, optional
        Threads within a run on the CPU that begins while others are under way, for a program that serves several callers:
        one caller alone has all `threads`, spinning, and several do not take each other's cores. Every program then has
        two sessions, with weights of their own. None: every run is like any other.

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
    MethodError
        If there is no such precision, or the model or the first provider cannot give it.
    MissingExtraError
        If a raw model is given and the extra ``export`` is not installed.

    Examples
    --------
    >>> explainer = load("resnet50.onnx", providers="cpu")  # doctest: +SKIP
    """
    if isinstance(source, (str, Path)) and Path(source).is_dir():
        source = read(source)
    if isinstance(source, Bundle):
        asked = {"output": output, "input": input, "fixed": fixed, "size": size, "grid": grid, "prefix": prefix}
        opened: Source = _open_bundle(source, {name: value for name, value in asked.items() if value is not None})
        if model is not None:
            _check_origin(opened.manifest, source.folder, model)
        metadata: Mapping[str, str] = {}
    elif model is not None:
        raise BundleError("model= names what a bundle was made of; a raw model was given: leave it out")
    else:
        opened, metadata = _open_raw(
            source, output=output, input=input, fixed=fixed, size=size, open_size=_size_of(preprocess), grid=grid,
            prefix=prefix,
        )  # fmt: skip
    manifest = opened.manifest
    names = _labels(labels, manifest, metadata)
    chosen, reason = _preprocess(preprocess, manifest, metadata)
    return Explainer(
        Sessions(*arrange(precision, opened, parse_providers(providers)), threads, precision, threads_beside),
        chosen,
        names,
        layer=None if layer is None else opened.resolve(layer),
        preprocess_reason=reason,
        memory=read_memory(memory),
    )


def read_memory(memory: int | str) -> int:
    """
    Read an amount of memory.

    Parameters
    ----------
    memory : int or str
        ``2**28``, ``"400MB"``, ``"1.5GB"``.

    Returns
    -------
    int
        Bytes.

    Raises
    ------
    InputError
        If it is neither.
    """
    units = {"kb": 2**10, "mb": 2**20, "gb": 2**30, "b": 1}
    try:
        if isinstance(memory, str):
            text = memory.strip().lower()
            unit = next((name for name in units if text.endswith(name)), "")
            amount = float(text.removesuffix(unit)) * units.get(unit, 1)
        else:
            amount = float(memory)
        if isinstance(memory, bool) or not 1 <= amount < 2**60:
            raise ValueError("out of range")
    except (TypeError, ValueError) as error:
        raise InputError(f"memory must be a number of bytes or a text such as '400MB'; got {memory!r}") from error
    return int(amount)


def _open_bundle(bundle: Bundle, asked: Mapping[str, Any]) -> Source:
    """Accept a bundle, whose model's inputs and output were settled when it was exported."""
    folder = bundle.folder
    if bundle.version != version("camrt"):
        raise BundleError(
            f"the bundle {str(folder)!r} was made by camrt {bundle.version}, this is {version('camrt')}: export it again"
        )
    if asked.get("output") == bundle.manifest.output:
        asked = {name: value for name, value in asked.items() if name != "output"}
    if asked:
        raise BundleError(
            f"{', '.join(asked)} can be chosen for a raw model only; {str(folder)!r} was exported with input "
            f"{bundle.manifest.input['name']!r} and output {bundle.manifest.output!r}: export it again"
        )
    return bundle


def _check_origin(manifest: Manifest, folder: str | Path, model: str | Path) -> None:
    """Refuse a bundle that was not made of a file (with its weights beside it, which only the exporter can find)."""
    try:
        digest = hashlib.sha256(Path(model).read_bytes()).hexdigest()
    except OSError as error:
        raise ModelError(f"{str(model)!r} cannot be read: {error.strerror}") from error
    if digest != manifest.model["sha256"] and importlib.util.find_spec("onnx") is not None:
        from camrt.export.reading import read as read_model

        digest = read_model(model)[1]
    if digest != manifest.model["sha256"]:
        raise BundleError(
            f"the bundle {str(folder)!r} was made of another model (sha256 {manifest.model['sha256'][:12]}) than "
            f"{str(model)!r} ({digest[:12]}): export it again"
        )


def _size_of(preprocess: str | Mapping[str, Any] | Preprocess | None) -> tuple[int, int] | None:
    """Return the size that the caller's preprocessing makes, if it says one."""
    if isinstance(preprocess, Preprocess):
        return preprocess.size
    if isinstance(preprocess, Mapping) and "size" in preprocess:
        return Preprocess.from_dict({"size": preprocess["size"]}).size
    return None


def _open_raw(source: str | Path | bytes, **asked: Any) -> tuple[Source, Mapping[str, str]]:
    """Build programs in memory; the only place where the engine needs the exporter."""
    try:
        from camrt.export.live import open_model
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("camrt"):
            raise
        raise MissingExtraError(
            f"{error.name} is needed to read a raw .onnx file: pip install 'camrt[export]', or give a prepared bundle"
        ) from error
    live = open_model(source, **asked)
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
