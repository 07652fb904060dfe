"""
What is told of versions: those that answer, one that is being loaded, one that could not be, and what is none.

In: what the registry knows. Out: the rows of its index, or the error that a request gets which asks for what is not there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..errors import CamrtError
from .faults import NotFoundError, UnreadyError
from .repository import Entry, Misfit

__all__ = ["LOADING", "READY", "SOON", "UNAVAILABLE", "Note", "absence", "rows"]

READY, LOADING, UNAVAILABLE = "READY", "LOADING", "UNAVAILABLE"
SOON = 5.0  # seconds after which a model that loads is asked for again
LATER = 30.0  # and one that did not load, which somebody must mend


@dataclass(frozen=True)
class Note:
    """What is to be told of one version that is loading or did not load."""

    state: str
    reason: str = ""


Notes = Mapping[tuple[str, int], Note]


def rows(
    entries: Iterable[Entry], misfits: Iterable[Misfit], notes: Notes, served: Mapping[str, Iterable[int]]
) -> list[dict[str, str]]:
    """
    Write the index.

    Parameters
    ----------
    entries : iterable of Entry
        What there is in the repository.
    misfits : iterable of Misfit
        What cannot be served.
    notes : mapping of (str, int) to Note
        What is known of versions that are loading or did not load, also where others of them answer.
    served : mapping of str to iterable of int
        What answers.

    Returns
    -------
    list of dict
        ``name``, ``version``, ``state`` and ``reason``, by name and version; what cannot be served comes last.
    """
    told = {(entry.name, entry.version): Note(UNAVAILABLE, "not loaded") for entry in entries} | dict(notes)
    for name, versions in served.items():
        for version in versions:
            note = notes.get((name, version))
            reason = "" if note is None else f"it still answers; loading it again: {note.reason or 'going on'}"
            told[name, version] = Note(READY, reason)
    found = [
        {"name": name, "version": str(version), "state": note.state, "reason": note.reason}
        for (name, version), note in sorted(told.items(), key=lambda item: item[0])
    ]
    return found + [
        {"name": misfit.name, "version": misfit.version, "state": UNAVAILABLE, "reason": misfit.reason}
        for misfit in misfits
    ]


def absence(
    name: str, version: int | None, notes: Notes, wanted: set[tuple[str, int | None]], versions: Sequence[int]
) -> CamrtError:
    """
    Say why a model does not answer.

    Parameters
    ----------
    name : str
        The model.
    version : int or None
        Which version was asked for, if any.
    notes : mapping of (str, int) to Note
        As in `rows`.
    wanted : set of (str, int or None)
        What should be there.
    versions : sequence of int
        The model's versions that answer.

    Returns
    -------
    UnreadyError or NotFoundError
        The first where it is worth while to ask again.
    """
    states = {note.state for (known, v), note in notes.items() if known == name and version in (None, v)}
    if LOADING in states:
        return UnreadyError(f"model {name!r} is being loaded", SOON)
    if UNAVAILABLE in states or (name, version) in wanted:
        return UnreadyError(f"model {name!r} could not be loaded; the repository's index says why", LATER)
    if versions:
        held = ", ".join(map(str, sorted(versions)))
        return NotFoundError(f"version {version} of model {name!r} is not served; it has {held}")
    return NotFoundError(f"there is no model {name[:64]!r}")
