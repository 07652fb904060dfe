"""
The model's answers to changed pictures, each asked once.

In: a batch, the maps of one or more methods, and for each method the changes that metrics want to know about. Out: for
each method, the `Scores` of every change. Between them: one job of the planner, so that rows of all images and methods
fill chunks together. A change that no map has a part in is run once for all methods, and a substrate that does not
depend on the picture once for the whole batch. Of each row three numbers leave the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from camrt import kernels

from ..device import on_host
from ..errors import NumericError
from ..limits import UNLIMITED, Limits
from ..methods.arrays import namespace
from ..planner import Job
from .case import Scores
from .changes import Change, Imputed, Randomised, Swapped, Whole, depends_on_map
from .filling import Pictures, Row

__all__ = ["ask", "is_common", "ranked", "scores_of"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class _Sheet:
    """Places for the answers of one change and method: what `Scores` is made of."""

    n: int
    log_p: Array = field(init=False)
    log_rest: Array = field(init=False)
    hit: Array = field(init=False)

    def __post_init__(self) -> None:
        for name, kind in (("log_p", float), ("log_rest", float), ("hit", bool)):
            object.__setattr__(self, name, np.zeros(self.n, kind))


def ask(
    pictures: Pictures,
    classes: npt.NDArray[np.int64],
    wanted: Sequence[Iterable[Change]],
    *,
    limits: Limits = UNLIMITED,
    tell: Callable[[int], None] | None = None,
) -> list[dict[Change, Scores]]:
    """
    Score changed pictures.

    Parameters
    ----------
    pictures : Pictures
        The batch of N images and the maps of M methods.
    classes : ndarray of int64, shape (N,)
        The class whose score is wanted of each image.
    wanted : sequence of iterable of Change
        For each method, what to ask; never `Randomised`.
    limits : Limits
        What may end it early.
    tell : callable, optional
        Told how many rows have been run.

    Returns
    -------
    list of dict of Change to Scores
        One entry a method.

    Raises
    ------
    NumericError
        If the model gives NaN or infinity; the message names the change.

    Notes
    -----
    Cost: as many forwards as `camrt.metrics.plan` counts.
    """
    n = len(pictures.x)
    rows, sheets = _rows(wanted, n)
    classes = np.asarray(classes, np.int64)

    def _fill(buffer: Array, start: int, stop: int) -> None:
        pictures.fill(buffer, rows[start:stop])

    def _take(start: int, stop: int, logits: Array) -> None:
        part = rows[start:stop]
        where = [np.arange(n) if is_common(row.change) else np.array([row.image]) for row in part]
        of = np.repeat(np.arange(len(part)), [len(images) for images in where])
        asked = namespace(logits).asarray(classes[np.concatenate(where)])
        found = kernels.log_scores(logits[namespace(logits).asarray(of)], asked)
        log_p, log_rest, hit = (on_host(values) for values in found)
        if np.isnan(log_p).any():
            change = part[int(of[np.isnan(log_p)][0])].change
            raise NumericError(
                f"the model gave NaN or infinite logits for {change}: check its weights, or run it in float32"
            )
        for place, row in enumerate(part):
            mine = of == place
            sheet = sheets[_key(row)]
            sheet.log_p[where[place]] = log_p[mine]
            sheet.log_rest[where[place]] = log_rest[mine]
            sheet.hit[where[place]] = hit[mine]

    if rows:
        pictures.model.planner(pictures.x).run(Job(len(rows), _fill, _take, limits, tell=tell))
    finished = {key: Scores(sheet.log_p, sheet.log_rest, sheet.hit) for key, sheet in sheets.items()}
    return [
        {change: finished[(change, method if depends_on_map(change) else 0)] for change in dict.fromkeys(changes)}
        for method, changes in enumerate(wanted)
    ]


def scores_of(logits: Array, classes: npt.NDArray[np.int64]) -> Scores:
    """
    Score logits that are already there.

    Parameters
    ----------
    logits : ndarray, shape (N, C)
        One row an image.
    classes : ndarray of int64, shape (N,)
        The class of each.

    Returns
    -------
    Scores
        On the host.
    """
    asked = namespace(logits).asarray(np.asarray(classes, np.int64))
    log_p, log_rest, hit = (on_host(values) for values in kernels.log_scores(logits, asked))
    if np.isnan(log_p).any():
        raise NumericError("the model gave NaN or infinite logits: check its weights, or run it in float32")
    return Scores(log_p, log_rest, hit)


def is_common(change: Change) -> bool:
    """
    Tell whether a changed picture is the same for every picture.

    Parameters
    ----------
    change : Change
        Any.

    Returns
    -------
    bool
        True for a substrate of one colour alone.
    """
    return isinstance(change, Whole) and change.substrate.kind in ("hidden", "grey", "black")


def ranked(change: Change) -> tuple[str, int]:
    """
    Return what changes are sorted by, so that neighbours take one call of a kernel and imputation goes from few to many.

    Parameters
    ----------
    change : Change
        Any.

    Returns
    -------
    tuple of str and int
        The kind and settings of the change, and how much it changes.
    """
    if isinstance(change, Imputed):
        return f"Imputed {change.order}", change.count
    if isinstance(change, Swapped):
        return f"Swapped {change.order} {change.substrate}", change.stop - change.start
    return str(change), 0


def _key(row: Row) -> tuple[Change, int]:
    """Return whose sheet a row's answer goes to."""
    return row.change, row.method


def _rows(wanted: Sequence[Iterable[Change]], n: int) -> tuple[list[Row], dict[tuple[Change, int], _Sheet]]:
    """Lay out the rows to be run, and sheets for their answers."""
    keys = dict.fromkeys(
        (change, method if depends_on_map(change) else 0) for method, changes in enumerate(wanted) for change in changes
    )
    for change, _ in keys:
        if isinstance(change, Randomised):
            raise TypeError("a randomised model is not asked for scores")
    ordered = sorted(keys, key=lambda key: (type(key[0]).__name__, key[1], ranked(key[0])))
    rows = [
        Row(change, image, method)
        for (_, method), group in _grouped(ordered)
        for image in range(n)
        for change, _ in group
        if image == 0 or not is_common(change)
    ]
    return rows, {key: _Sheet(n) for key in keys}


def _grouped(ordered: list[tuple[Change, int]]) -> list[tuple[tuple[str, int], list[tuple[Change, int]]]]:
    """Group changes of one kind, setting and method."""
    groups: dict[tuple[str, int], list[tuple[Change, int]]] = {}
    for change, method in ordered:
        groups.setdefault((ranked(change)[0], method), []).append((change, method))
    return list(groups.items())
