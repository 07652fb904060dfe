"""
What can be served, and what is to be: the versions of the repository, or the embedded model where there is none.

In: the settings. Out: entries, which `loading.py` opens. Nothing is remembered here; the folder is looked at each time.
"""

from __future__ import annotations

from ..demo import MODEL
from ..errors import InputError
from .faults import NotFoundError
from .repository import EMBEDDED, Entry, Misfit, check_name, check_version, find, scan
from .settings import Settings

__all__ = ["asked", "listed", "located"]


def asked(settings: Settings) -> list[tuple[str, int | None]]:
    """
    Say what is to be there.

    Parameters
    ----------
    settings : Settings
        ``repository``, ``control`` and ``load``.

    Returns
    -------
    list of (str, int or None)
        Names, in order, and the versions that are named.

    Raises
    ------
    InputError
        If ``load`` names no model, or the repository is not a folder.
    """
    if settings.repository is None:
        return [(EMBEDDED, None)]
    if settings.control == "none":
        entries, misfits = scan(settings.repository)
        broken = [misfit.name for misfit in misfits if misfit.is_model]
        return [(name, None) for name in sorted({*(entry.name for entry in entries), *broken})]
    wanted: list[tuple[str, int | None]] = []
    for text in settings.load:
        name, colon, version = text.partition(":")
        wanted.append((check_name(name), check_version(name, version) if colon else None))
    return list(dict.fromkeys(wanted))


def listed(settings: Settings) -> tuple[list[Entry], list[Misfit]]:
    """
    List what there is now.

    Parameters
    ----------
    settings : Settings
        ``repository``.

    Returns
    -------
    entries : list of Entry
        What can be loaded.
    misfits : list of Misfit
        What cannot, and why. Both are empty where the repository went away: what is loaded goes on answering.
    """
    if settings.repository is None:
        return [Entry(EMBEDDED, 1, MODEL)], []
    try:
        return scan(settings.repository)
    except (InputError, OSError):
        return [], []


def located(settings: Settings, name: str, version: str | None) -> Entry:
    """
    Say where one version lies.

    Parameters
    ----------
    settings : Settings
        ``repository``.
    name : str
        The model.
    version : str or None
        The highest where absent.

    Returns
    -------
    Entry
        Not opened yet.

    Raises
    ------
    NotFoundError
        If there is no such model or version.
    InputError
        If there is one, but it cannot be served.
    """
    if settings.repository is None:
        if name != EMBEDDED or version not in (None, "1"):
            raise NotFoundError(f"there is no model {name[:64]!r} beside the embedded {EMBEDDED!r}")
        return Entry(EMBEDDED, 1, MODEL)
    return find(settings.repository, name, version)
