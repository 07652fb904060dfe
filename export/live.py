"""
A model in memory as a source of programs: each is built when it is asked for.

In: a `Classifier`. Out: what a bundle on disk offers too (`camrt.export.manifest.Source`), so that the engine does not
care which of the two it runs.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from camrt.errors import ModelError

from .heavy import is_heavy, split
from .layers import find, linear_layers, resolve
from .load import Classifier, load
from .manifest import Layer, Manifest, Program
from .programs import KINDS, ON_REQUEST, build
from .randomised import randomised, weight_layers
from .vjp.emit import Emit, dims
from .work import row_bytes

__all__ = ["Live", "manifest_of", "open_model"]

_BRIEF = 16  # elements of a held input that are written out


class Live:
    """
    Programs of one classifier, built on demand; none is kept, because each holds all the weights.

    Parameters
    ----------
    classifier : Classifier
        As `camrt.export.load.load` gives it.
    manifest : Manifest
        As `manifest_of` gives it.
    """

    def __init__(self, classifier: Classifier, manifest: Manifest) -> None:
        self.classifier = classifier
        self.manifest = manifest
        self._is_heavy = is_heavy(classifier.model)
        self._lock = threading.Lock()

    def program(self, kind: str, layers: Sequence[str] = ()) -> Program:
        """
        Build the program of one kind for some layers.

        Parameters
        ----------
        kind : str
            A key of `camrt.export.programs.KINDS` or `ON_REQUEST`.
        layers : sequence of str
            Layer names, in order.

        Returns
        -------
        Program
            With its weights inside; beside the graph where there are many (`camrt.export.heavy`).

        Raises
        ------
        ModelError
            If the graph cannot be differentiated.
        """
        with self._lock:  # one at a time: a program being built holds the weights twice
            return self._build(kind, tuple(layers))

    def _build(self, kind: str, layers: Sequence[str]) -> Program:
        model, program = build(self.classifier, kind, [self.resolve(name) for name in layers])
        if self._is_heavy:
            graph, weights = split(model)
            return replace(program, model=graph, weights=weights)
        return replace(program, model=ir.to_proto(model).SerializeToString())

    def offers(self, kind: str, layers: Sequence[str] = ()) -> bool:
        """
        Tell whether a program can be built.

        Parameters
        ----------
        kind : str
            A key of `camrt.export.programs.KINDS` or `ON_REQUEST`.
        layers : sequence of str
            Layer names; any of the model's.

        Returns
        -------
        bool
            True for every kind there is.
        """
        return kind in KINDS or kind in ON_REQUEST

    def twin(self) -> Live:
        """
        Return the float twin of a quantised model alone: what it would give if nothing were rounded.

        Returns
        -------
        Live
            The twin as a model of its own.

        Raises
        ------
        ModelError
            If the model is not quantised.
        """
        if self.classifier.quantised is None:
            raise ModelError("a float twin alone is a quantised model's, and this one is not quantised")
        model = self.classifier.model.clone()
        model.graph.outputs.pop()  # the given model's own logits
        x, logits = model.graph.inputs[0], model.graph.outputs[0]
        alone = replace(self.classifier, model=model, x=x, logits=logits, quantised=None)
        described = {name: value for name, value in self.manifest.model.items() if name != "quantised"}
        return Live(alone, replace(self.manifest, model=described))

    def resolve(self, name: str) -> Layer:
        """
        Return the layer of a name.

        Parameters
        ----------
        name : str
            A tensor, a node, a module path, or ``"torchcam-auto"``.

        Returns
        -------
        Layer
            The candidate of that name.

        Raises
        ------
        LayerError
            If there is none; near names are offered.
        """
        return resolve(self.manifest.layers, name)

    def weight_layers(self) -> tuple[str, ...]:
        """
        Name the layers whose weights can be drawn anew.

        Returns
        -------
        tuple of str
            From the logits to the image, as in `camrt.export.randomised.weight_layers`.

        Raises
        ------
        ModelError
            If the model is quantised, or has no weights.
        """
        return tuple(layer.name for layer in weight_layers(self.classifier))

    def randomised(self, layers: Sequence[str], seed: int = 0) -> Live:
        """
        Return the same model with some weights drawn anew.

        Parameters
        ----------
        layers : sequence of str
            Names of `weight_layers`.
        seed : int, default 0
            Of the numbers.

        Returns
        -------
        Live
            A model of its own, which says in its manifest what was drawn; it shares the other weights with this one.

        Raises
        ------
        LayerError
            If there is no such layer of weights.
        ModelError
            If the model is quantised, or has no weights.
        """
        drawn = {"randomised": {"layers": list(layers), "seed": seed}}
        other = randomised(self.classifier, layers, seed)
        return Live(other, replace(self.manifest, model=self.manifest.model | drawn))


def manifest_of(
    classifier: Classifier,
    *,
    name: str,
    labels: Sequence[str] = (),
    preprocess: Mapping[str, Any] | None = None,
    layer: str | None = None,
    grid: tuple[int, int] | None = None,
    prefix: int | None = None,
) -> Manifest:
    """
    Describe a classifier.

    Parameters
    ----------
    classifier : Classifier
        As `camrt.export.load.load` gives it.
    name : str
        The model's name in results.
    labels : sequence of str
        Class names, or none.
    preprocess : mapping, optional
        Fields of `camrt.image.Preprocess`.
    layer : str, optional
        The default layer, in place of the one found.
    grid : tuple of int, optional
        As in `camrt.export.layers.find`.
    prefix : int, optional
        As in `camrt.export.layers.find`.

    Returns
    -------
    Manifest
        With every candidate layer; nothing verified yet.

    Raises
    ------
    ModelError
        If the number of labels is not the number of classes.
    LayerError
        If the model has no spatial layer, or none called `layer`.
    """
    if labels and len(labels) != classifier.classes:
        raise ModelError(f"{classifier.classes} labels were wanted, one a class; {len(labels)} were given")
    layers = find(classifier, grid=grid, prefix=prefix)
    if layer is not None:
        chosen = resolve(layers, layer)
        layers = tuple(_with_default(item, item.name == chosen.name) for item in layers)
    x = classifier.x
    return Manifest(
        model={
            "name": name,
            "sha256": classifier.sha256,
            "producer": classifier.producer,
            "opset": classifier.opset,
            "precision": classifier.precision,
            **({} if classifier.quantised is None else {"quantised": classifier.quantised.operators}),
        },
        input={
            "name": x.name,
            "shape": list(dims(x)),
            "dtype": Emit.numpy_dtype(x).name,
            "held": {name: _brief(array) for name, array in classifier.held.items()},
        },
        output=classifier.output,
        head=classifier.head,
        classes=classifier.classes,
        batch=classifier.batch,
        labels=tuple(labels),
        preprocess=None if preprocess is None else dict(preprocess),
        layers=layers,
        linear_layers=linear_layers(classifier, layers),
        row_bytes=row_bytes(classifier),
        verification={},
    )


def _brief(array: np.ndarray[Any, Any]) -> Any:
    """Return the value of a held input as JSON can keep it: small ones whole, others by their hash."""
    if array.size <= _BRIEF:
        return array.tolist()
    return f"{array.dtype} {list(array.shape)} sha256 {hashlib.sha256(array.tobytes()).hexdigest()}"


def _with_default(layer: Layer, is_default: bool) -> Layer:
    """Return `layer` marked as the default or not."""
    reason = "default: chosen by the caller" if is_default else layer.reason.removeprefix("default: ")
    return replace(layer, default=is_default, reason=reason)


def open_model(
    source: str | Path | bytes,
    *,
    output: str | None = None,
    input: str | None = None,
    fixed: Mapping[str, Any] | None = None,
    size: tuple[int, int] | None = None,
    open_size: tuple[int, int] | None = None,
    layer: str | None = None,
    grid: tuple[int, int] | None = None,
    prefix: int | None = None,
) -> Live:
    """
    Read a classifier and offer its programs from memory.

    Parameters
    ----------
    source : str, Path or bytes
        An ``.onnx`` file or its bytes.
    output, input : str, optional
        As in `camrt.export.load.load`.
    fixed : mapping of str to array_like, optional
        As in `camrt.export.load.load`.
    size, open_size : tuple of int, optional
        As in `camrt.export.load.load`.
    layer : str, optional
        The default layer, in place of the one found.
    grid : tuple of int, optional
        As in `camrt.export.layers.find`.
    prefix : int, optional
        As in `camrt.export.layers.find`.

    Returns
    -------
    Live
        The source of programs.

    Raises
    ------
    ModelError
        If the file is not a classifier that can be read.
    """
    classifier = load(source, output=output, input=input, fixed=fixed, size=size, open_size=open_size)
    name = "model" if isinstance(source, bytes) else Path(source).stem
    return Live(classifier, manifest_of(classifier, name=name, layer=layer, grid=grid, prefix=prefix))
