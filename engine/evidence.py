"""
What the model says about a batch: logits, activations and gradients, each by the cheapest program that gives it.

In: a prepared batch, layers and target columns. Out: one `Evidence` a column, and the callables that methods use to
ask the model again. One column of plain class logits takes a single run of the gradient program; several columns, or
other targets, run the model up to the layer once and its tail once a column; several layers run the seeded gradient
program once a column.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from camrt.kernels import is_cupy

from . import targets as target_table
from .device import on_host
from .limits import UNLIMITED, Limits
from .scalars import settled
from .session import Sessions, check_logits
from .targets import Logit, Target

__all__ = ["Evidence", "Question", "gather", "map_in_graph", "plain_column"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Question:
    """
    A batch that the model is asked about.

    Attributes
    ----------
    sessions : Sessions
        The model.
    layers : tuple of str
        Layer names, in order.
    x : ndarray
        The prepared batch, first axis N.
    labels : tuple of str
        Class names, or none.
    limits : Limits
        What may end the request.
    """

    sessions: Sessions
    layers: tuple[str, ...]
    x: Array
    labels: tuple[str, ...] = ()
    limits: Limits = UNLIMITED

    def run(self, kind: str, feeds: dict[str, Array], layers: tuple[str, ...] | None = None) -> dict[str, Array]:
        """
        Run one program within the request's limits.

        Parameters
        ----------
        kind : str
            The program.
        feeds : dict of str to ndarray
            Its inputs.
        layers : tuple of str, optional
            Its layers; the question's own where None.

        Returns
        -------
        dict of str to ndarray
            Its outputs.
        """
        return self.sessions.run(kind, self.layers if layers is None else layers, feeds, self.limits)

    def features(self) -> dict[str, Array]:
        """Run the model once for its logits and activations."""
        return self.run("features", {"x": self.x})

    def activations(self, named: dict[str, Array]) -> tuple[Array, ...]:
        """
        Return the activations of every layer.

        Parameters
        ----------
        named : dict of str to ndarray
            A run's outputs.

        Returns
        -------
        tuple of ndarray, shape (N, K, h, w)
            One entry a layer.
        """
        return tuple(named[f"activations.{i}"] for i in range(len(self.layers)))

    def gradients(self, named: dict[str, Array]) -> tuple[Array, ...]:
        """
        Return the gradients of every layer.

        Parameters
        ----------
        named : dict of str to ndarray
            A run's outputs.

        Returns
        -------
        tuple of ndarray, shape (N, K, h, w)
            One entry a layer.
        """
        return tuple(named[f"gradients.{i}"] for i in range(len(self.layers)))


@dataclass(frozen=True)
class Evidence:
    """
    What is known of a batch for one target an image.

    Attributes
    ----------
    logits : ndarray, shape (N, C)
        Scores of the clean input.
    target : ndarray of int64, shape (N,)
        Class explained; -1 where the target is no single class.
    values : ndarray of float32, shape (N,), or None
        The target scalar itself; None where the logits have not been fetched from a device yet.
    names : tuple of str
        What each target is, in words; as `values`.
    acts : tuple of ndarray, shape (N, K, h, w)
        Activations, one entry a layer.
    grads : tuple of ndarray or None
        Gradients of the target, one entry a layer; None where none were asked for.
    gradients_at : callable
        ``(x, layer index) -> (acts, grads)`` for the same targets at other inputs.
    gradients_of : callable
        ``(seed, layer index) -> grads`` for another cotangent at the same input.
    column : sequence of Target
        The target itself, one an image.
    named : dict of str to ndarray
        What a run of the ``features`` program gave, empty where there was none.
    """

    logits: Array
    target: Array
    values: Array | None
    names: tuple[str, ...]
    acts: tuple[Array, ...]
    grads: tuple[Array, ...] | None
    gradients_at: Callable[[Array, int], tuple[Array, Array]]
    gradients_of: Callable[[Array, int], Array]
    column: Sequence[Target]
    named: dict[str, Array] = field(default_factory=dict)

    @cached_property
    def pinned(self) -> list[Target]:
        """The targets with the classes that the clean image's scores settle."""
        if plain_column([self.column]) is not None:
            return [Logit(index) for index in on_host(self.target).tolist()]
        return target_table.pin(self.column, on_host(self.logits))

    def fetched(self, labels: Sequence[str]) -> Evidence:
        """
        Return what a result says of the batch, on the host.

        Parameters
        ----------
        labels : sequence of str
            Class names, or none.

        Returns
        -------
        Evidence
            With NumPy logits, targets and values; itself where they were there.

        Raises
        ------
        NumericError
            If the logits hold NaN or infinity.

        Notes
        -----
        Cost: on a device, the wait for it and a copy of the logits.
        """
        if not is_cupy(self.logits):
            return replace(self, target=on_host(self.target))
        logits, target = on_host(self.logits), on_host(self.target)
        check_logits(logits)
        said = (self.values, self.names) if self.values is not None else _of_class(logits, target, labels)
        return replace(self, logits=logits, target=target, values=said[0], names=said[1])


def plain_column(columns: Sequence[Sequence[Target]]) -> list[Logit] | None:
    """
    Return the one column of plain class logits that a graph can seed by itself.

    Parameters
    ----------
    columns : sequence of sequence of Target
        T columns of N targets.

    Returns
    -------
    list of Logit or None
        None where there are several columns or other targets.
    """
    if len(columns) != 1:
        return None
    plain = [target for target in columns[0] if isinstance(target, Logit)]
    return plain if len(plain) == len(columns[0]) else None


def gather(question: Question, columns: Sequence[Sequence[Target]], *, gradients: bool) -> list[Evidence]:
    """
    Ask the model about a batch.

    Parameters
    ----------
    question : Question
        The model, the layers and the batch.
    columns : sequence of sequence of Target
        T columns of N targets.
    gradients : bool
        Whether gradients are needed.

    Returns
    -------
    list of Evidence
        One a column.

    Raises
    ------
    NumericError
        If the model gives NaN or infinite logits.

    Notes
    -----
    Cost: see the module's description.
    """
    plain = plain_column(columns)
    if gradients and plain is not None:
        return [_in_one_run(question, plain)]
    named = question.features()
    if is_cupy(named["logits"]):  # such targets are worked out on the host
        named["logits"] = on_host(named["logits"])
        check_logits(named["logits"])
    return [_from_features(question, named, column, gradients) for column in columns]


def map_in_graph(question: Question, column: Sequence[Logit], method: str) -> tuple[Evidence, dict[str, Array]]:
    """
    Let the graph make a method's raw map, so that neither activations nor gradients leave it.

    Parameters
    ----------
    question : Question
        The model, one layer and the batch.
    column : sequence of Logit
        N plain class targets.
    method : str
        A method that the source offers a ``map_<method>`` program for.

    Returns
    -------
    evidence : Evidence
        Without activations and gradients.
    named : dict of str to ndarray
        ``map`` (N, h, w), the signed raw map; ``heat`` (N, H, W) and ``degenerate`` (N,), finished by the default
        pipeline; ``signed`` (N,) where the method assumes that no activation is negative and the layer does not ensure it.
    """
    named = question.run(f"map_{method}", {"x": question.x, "target": _asked(column)})
    logits, target = named["logits"], named["explained"]
    evidence = Evidence(
        logits,
        target,
        *_of_class(logits, target, question.labels),
        (),
        None,
        _asker(question, column, logits),
        _seeder(question, {}),
        column,
    )
    return evidence, named


def _asked(column: Sequence[Logit]) -> Array:
    """Return class indices as the graph wants them, -1 for the predicted class."""
    return np.array([-1 if target.index is None else settled(target.index) for target in column], np.int64)


def _of_class(
    logits: Array, target: Array, labels: Sequence[str]
) -> tuple[npt.NDArray[np.float32] | None, tuple[str, ...]]:
    """Return the logit and the name of each image's class; nothing where that would wait for a device."""
    if is_cupy(logits):
        return None, ()
    classes = target.tolist()
    values = np.array([row[index] for row, index in zip(logits, classes, strict=True)], np.float32)
    return values, tuple(target_table.class_name(index, labels) for index in classes)


def _in_one_run(question: Question, column: Sequence[Logit]) -> Evidence:
    """Use the gradient program: forward, seed and gradient in one graph."""
    named = question.run("gradient", {"x": question.x, "target": _asked(column)})
    logits, target = named["logits"], named["explained"]
    return Evidence(
        logits,
        target,
        *_of_class(logits, target, question.labels),
        question.activations(named),
        question.gradients(named),
        _asker(question, column, logits),
        _seeder(question, {}),
        column,
    )


def _from_features(question: Question, named: dict[str, Array], column: Sequence[Target], gradients: bool) -> Evidence:
    """Use activations that are there already; gradients come through the tail, or a run of their own."""
    logits, seeder = named["logits"], _seeder(question, named)
    grads = None
    if gradients:
        grads = _propagate(question, named, target_table.seeds(column, logits).astype(logits.dtype, copy=False))
    return Evidence(
        logits,
        *_described(column, logits, question.labels),
        question.activations(named),
        grads,
        _asker(question, column, logits),
        seeder,
        column,
        named,
    )


def _described(
    column: Sequence[Target], logits: Array, labels: Sequence[str]
) -> tuple[Array, npt.NDArray[np.float32] | None, tuple[str, ...]]:
    """Return the class, the value and the name of each image's target; plain classes without a second look at all scores."""
    plain = plain_column([column])
    if plain is None:
        return (
            target_table.class_indices(column, logits),
            target_table.values(column, logits),
            target_table.describe(column, logits, labels),
        )
    target = np.array(
        [int(row.argmax()) if t.index is None else settled(t.index) for t, row in zip(plain, logits, strict=True)],
        np.int64,
    )
    return (target, *_of_class(logits, target, labels))


def _propagate(question: Question, named: dict[str, Array], seed: Array) -> tuple[Array, ...]:
    """Carry a cotangent at the logits back to every layer."""
    if len(question.layers) > 1:
        return question.gradients(question.run("seeded_gradient", {"x": question.x, "seed": seed}))
    feeds = {name: array for name, array in named.items() if name.startswith(("activations.", "context."))}
    return question.gradients(question.run("tail_gradient", {**feeds, "seed": seed}))


def _seeder(question: Question, named: dict[str, Array]) -> Callable[[Array, int], Array]:
    """Return the callable that carries any cotangent back at the same input."""

    def gradients_of(seed: Array, layer: int) -> Array:
        known = named or question.features()
        return _propagate(question, known, seed.astype(known["logits"].dtype, copy=False))[layer]

    return gradients_of


def _asker(question: Question, column: Sequence[Target], logits: Array) -> Callable[[Array, int], tuple[Array, Array]]:
    """Return the callable that repeats the question for other inputs; the classes stay those of the clean input."""

    def gradients_at(x: Array, layer: int) -> tuple[Array, Array]:
        pinned = target_table.pin(column, on_host(logits))
        moved = x.astype(question.x.dtype, copy=False)  # methods compute half precision in single
        (found,) = gather(replace(question, x=moved), [pinned], gradients=True)
        if found.grads is None:
            raise AssertionError("gradients were asked for")
        return found.acts[layer], found.grads[layer]

    return gradients_at
