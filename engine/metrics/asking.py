"""
The model's answers to changed pictures, each asked once.

In: a batch, the maps of one or more methods, and for each method the changes that metrics want to know about. Out: for
each method, the `Scores` of every change. Between them: one job of the planner, so that rows of all images and methods
fill chunks together. A change that no map has a part in is run once for all methods, and a substrate that does not
depend on the picture once for the whole batch. Of each row three numbers leave the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
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
    rows, keys = _rows(wanted, n)
    classes = np.asarray(classes, np.int64)
    log_p, log_rest, hit = np.zeros((len(keys), n)), np.zeros((len(keys), n)), np.zeros((len(keys), n), bool)
    sheet = np.array([keys[_key(row)] for row in rows], np.int64)  # a row's answer goes there, to its image's place
    image = np.array([row.image for row in rows], np.int64)
    common = np.array([is_common(row.change) for row in rows], bool)

    def _fill(buffer: Array, start: int, stop: int) -> None:
        pictures.fill(buffer, rows[start:stop])

    def _take(start: int, stop: int, logits: Array) -> None:
        to, of, row = sheet[start:stop], image[start:stop], np.arange(stop - start)
        if (shared := common[start:stop]).any():  # a row that answers for every image, each with its own class
            row = np.repeat(row, np.where(shared, n, 1))
            of = np.concatenate([np.arange(n) if every else [one] for every, one in zip(shared, of, strict=True)])
            to, logits = to[row], logits[namespace(logits).asarray(row)]
        found = [on_host(part) for part in kernels.log_scores(logits, namespace(logits).asarray(classes[of]))]
        if (bad := np.isnan(found[0])).any():
            change = rows[start + int(row[bad.argmax()])].change
            raise NumericError(
                f"the model gave NaN or infinite logits for {change}: check its weights, or run it in float32"
            )
        log_p[to, of], log_rest[to, of], hit[to, of] = found

    if rows:
        pictures.model.planner(pictures.x).run(Job(len(rows), _fill, _take, limits, tell=tell))
    finished = {key: Scores(log_p[place], log_rest[place], hit[place]) for key, place in keys.items()}
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


def _rows(wanted: Sequence[Iterable[Change]], n: int) -> tuple[list[Row], dict[tuple[Change, int], int]]:
    """Lay out the rows to be run, and number the answers."""
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
    return rows, {key: place for place, key in enumerate(keys)}


def _grouped(ordered: list[tuple[Change, int]]) -> list[tuple[tuple[str, int], list[tuple[Change, int]]]]:
    """Group changes of one kind, setting and method."""
    groups: dict[tuple[str, int], list[tuple[Change, int]]] = {}
    for change, method in ordered:
        groups.setdefault((ranked(change)[0], method), []).append((change, method))
    return list(groups.items())
