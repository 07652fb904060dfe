"""
The model's answers to changed pictures, each asked once.

In: a batch, the maps of one or more methods, and for each method the changes that metrics want to know about. Out: for
each method, the `Scores` of every change. Between them: one job of the planner, so that rows of all images and methods
fill chunks together. A change that no map has a part in is run once for all methods, and a substrate that does not
depend on the picture once for the whole batch. Of each row three numbers leave the device.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from camrt import kernels

from ..device import on_host
from ..errors import NumericError, TargetError
from ..limits import UNLIMITED, Limits
from ..maps import joined
from ..methods.arrays import namespace
from ..planner import Job
from .case import Scores
from .changes import Change, Clean, Imputed, Randomised, Swapped, Whole, depends_on_map
from .filling import Pictures, Row

__all__ = ["ask", "ask_predicted", "is_common", "ranked", "scores_of"]

Array = npt.NDArray[Any]
WAITING = 2**20  # bytes of logits that wait to be scored together


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
    TargetError
        If the model has no such class.

    Notes
    -----
    Cost: as many forwards as `camrt.metrics.plan` counts.
    """
    return _asked(pictures, np.asarray(classes, np.int64), wanted, limits, tell)[0]


def ask_predicted(
    pictures: Pictures, wanted: Sequence[Iterable[Change]]
) -> tuple[list[dict[Change, Scores]], npt.NDArray[np.int64]]:
    """
    Do as `ask` for the classes that the model predicts; the clean pictures fill chunks together with the others.

    Parameters
    ----------
    pictures : Pictures
        The batch of N images and the maps of M methods.
    wanted : sequence of iterable of Change
        As in `ask`; `Clean` is asked in any case.

    Returns
    -------
    found : list of dict of Change to Scores
        One entry a method, of `Clean` as well.
    classes : ndarray of int64, shape (N,)
        What the model predicts.

    Raises
    ------
    NumericError
        If the model gives NaN or infinity; the message names the change.
    """
    return _asked(pictures, None, [[Clean(), *changes] for changes in wanted])


def _asked(
    pictures: Pictures,
    classes: npt.NDArray[np.int64] | None,
    wanted: Sequence[Iterable[Change]],
    limits: Limits = UNLIMITED,
    tell: Callable[[int], None] | None = None,
) -> tuple[list[dict[Change, Scores]], npt.NDArray[np.int64]]:
    """Score changed pictures for some classes; without any, for those of the clean pictures, which are among them."""
    if classes is not None and not any(wanted):
        return [{} for _ in wanted], classes
    n = len(pictures.x)
    rows, places, keys = _rows(wanted, n)
    sheet = _Sheet(rows, places, (len(keys), n), classes)

    def _fill(buffer: Array, start: int, stop: int) -> None:
        pictures.fill(buffer, rows[start:stop])

    if rows:
        pictures.model.planner(pictures.x).run(Job(len(rows), _fill, sheet.take, limits, tell=tell))
        sheet.score()
    found = [Scores(*parts) for parts in zip(sheet.log_p, sheet.log_rest, sheet.hit, strict=True)]
    return [
        {change: found[keys[change, method if depends_on_map(change) else 0]] for change in dict.fromkeys(changes)}
        for method, changes in enumerate(wanted)
    ], sheet.classes


class _Sheet:
    """
    Where answers are written down.

    Logits wait until there are many of them: to score those of one chunk takes as long as to score a hundred rows, and
    on a device it would be waited for.

    Parameters
    ----------
    rows : sequence of Row
        What is run.
    places : sequence of int
        For each row, where on the sheet its answer goes.
    shape : tuple of int
        How many places there are, and N images.
    classes : ndarray of int64, shape (N,), optional
        The class whose score is wanted of each image; what the model predicts for the clean pictures where None.

    Raises
    ------
    TargetError
        If the model turns out to have no such class.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        places: Sequence[int],
        shape: tuple[int, int],
        classes: npt.NDArray[np.int64] | None,
    ) -> None:
        self._rows = rows
        self._place = np.array(places, np.int64)
        self._image = np.array([row.image for row in rows], np.int64)
        self._is_common = np.array([is_common(row.change) for row in rows], bool)
        self._is_clean = np.array([isinstance(row.change, Clean) for row in rows], bool)
        self._lock = threading.Lock()
        self._waiting: list[tuple[int, Array]] = []  # a first row, and logits
        self._unknown = 0 if classes is not None else shape[1]  # clean pictures whose class has not been predicted yet
        self.classes = np.zeros(shape[1], np.int64) if classes is None else classes
        self.log_p, self.log_rest, self.hit = np.zeros(shape), np.zeros(shape), np.zeros(shape, bool)

    def take(self, start: int, stop: int, logits: Array) -> None:
        """Keep the logits of some rows, and score all that wait if they are many."""
        with self._lock:
            if self._unknown and (clean := self._is_clean[start:stop]).any():
                self.classes[self._image[start:stop][clean]] = on_host(logits.argmax(1))[clean]
                self._unknown -= int(clean.sum())
            elif not self._unknown and self.classes.max(initial=0) >= logits.shape[1]:
                raise TargetError(f"classes must lie in 0..{logits.shape[1] - 1}; got up to {self.classes.max()}")
            self._waiting.append((start, logits.copy()))  # what a session gave would keep all of its memory
            is_due = not self._unknown and sum(part.nbytes for _, part in self._waiting) >= WAITING
        if is_due:
            self.score()

    def score(self) -> None:
        """Write down what waits."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        row = np.concatenate([np.arange(start, start + len(part)) for start, part in waiting])
        logits = namespace(waiting[0][1]).concatenate([part for _, part in waiting])
        if (shared := self._is_common[row]).any():  # a row that answers for every image, each with its own class
            n = len(self.classes)
            of = np.concatenate(
                [np.arange(n) if every else [one] for every, one in zip(shared, self._image[row], strict=True)]
            )
            again = np.repeat(np.arange(len(row)), np.where(shared, n, 1))
            row, logits = row[again], logits[namespace(logits).asarray(again)]
        else:
            of = self._image[row]
        asked = namespace(logits).asarray(self.classes[of])
        log_p, log_rest, hit = (on_host(part) for part in kernels.log_scores(logits, asked))
        if (bad := np.isnan(log_p)).any():
            raise NumericError(
                f"the model gave NaN or infinite logits for {self._rows[row[bad.argmax()]].change}: check its weights, or "
                "run it in float32"
            )
        place = self._place[row]
        self.log_p[place, of], self.log_rest[place, of], self.hit[place, of] = log_p, log_rest, hit


def scores_of(logits: Sequence[Array], classes: npt.NDArray[np.int64]) -> list[Scores]:
    """
    Score logits that are already there.

    Parameters
    ----------
    logits : sequence of ndarray, shape (N, C)
        One row an image; several such batches are scored at once.
    classes : ndarray of int64, shape (N,)
        The class of each image.

    Returns
    -------
    list of Scores
        On the host, one a batch.

    Raises
    ------
    NumericError
        If a logit is NaN or infinite.
    """
    whole = joined(logits)
    asked = namespace(whole).asarray(np.tile(np.asarray(classes, np.int64), len(logits)))
    log_p, log_rest, hit = (on_host(values) for values in kernels.log_scores(whole, asked))
    if np.isnan(log_p).any():
        raise NumericError("the model gave NaN or infinite logits: check its weights, or run it in float32")
    return [
        Scores(*parts) for parts in zip(*(np.split(all_, len(logits)) for all_ in (log_p, log_rest, hit)), strict=True)
    ]


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


def _rows(wanted: Sequence[Iterable[Change]], n: int) -> tuple[list[Row], list[int], dict[tuple[Change, int], int]]:
    """Lay out the rows to be run; say for each where its answer goes, and number the answers."""
    keys = dict.fromkeys(
        (change, method if depends_on_map(change) else 0) for method, changes in enumerate(wanted) for change in changes
    )
    for change, _ in keys:
        if isinstance(change, Randomised):
            raise TypeError("a randomised model is not asked for scores")
    ordered = sorted(keys, key=lambda key: (type(key[0]).__name__, key[1], ranked(key[0])))
    rows: list[Row] = []
    places: list[int] = []
    for (method, _), group in groupby(enumerate(ordered), lambda item: (item[1][1], ranked(item[1][0])[0])):
        changes = [(place, change) for place, (change, _) in group]
        for image in range(n):
            for place, change in changes:
                if image == 0 or not is_common(change):
                    rows.append(Row(change, image, method))
                    places.append(place)
    return rows, places, {key: place for place, key in enumerate(ordered)}
