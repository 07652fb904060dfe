"""
One version is made ready to answer: its bundle verified, opened and warmed up.

::

    Entry --prepare (raw models)--> bundle --trust--> Sealed --load--> Explainer --warm--> Served

Nothing here knows what else is served; a version that does not get to the end leaves nothing behind.
"""

from __future__ import annotations

import threading
import time
import weakref
from contextlib import ExitStack
from pathlib import Path

from ..demo import MODEL
from ..errors import CamrtError, InputError
from ..opening import load
from .heap import trim_after
from .preparing import prepare
from .priority import give_way
from .repository import EMBEDDED, Entry
from .served import Served
from .settings import Settings
from .trust import check_bundle, without_paths
from .warming import warm

__all__ = ["open_version", "why"]

LONGEST = 300  # letters of a reason


def open_version(entry: Entry, settings: Settings, stop: threading.Event) -> Served:
    """
    Verify, open and warm up one version.

    Parameters
    ----------
    entry : Entry
        Where it lies.
    settings : Settings
        How models run, which methods are warmed up, and whether raw models may be prepared.
    stop : threading.Event
        Set when nobody waits for it any more.

    Returns
    -------
    Served
        A bundle that was prepared is held until its model ends, since programs are opened when they are first asked for.

    Raises
    ------
    CamrtError
        If it cannot be served.

    Notes
    -----
    Cost: hashes the bundle, opens its sessions, and runs each method to be warmed up at each batch size.
    """
    start = time.perf_counter()
    give_way()
    with ExitStack() as held:
        source = MODEL if entry.name == EMBEDDED else check_bundle(*_bundle(entry, settings, stop, held))
        explainer = load(
            source,
            providers=settings.providers,
            precision=settings.precision,
            threads=settings.run_threads,
            threads_beside=settings.run_threads_beside,
            memory=settings.memory,
        )
        rate = warm(explainer, settings.warm, settings.batch)
        trim_after(explainer)
        weakref.finalize(explainer, held.pop_all().close)
    return Served(entry.name, str(entry.version), explainer, time.perf_counter() - start, rate)


def why(error: Exception) -> str:
    """
    Say why a version did not load.

    Parameters
    ----------
    error : Exception
        What `open_version` raised.

    Returns
    -------
    str
        One line without paths; of a bug, its type alone.
    """
    if isinstance(error, CamrtError):
        return without_paths(str(error))[:LONGEST]
    if isinstance(error, MemoryError):
        return "there is not enough memory for it"
    if isinstance(error, OSError):
        return f"its files cannot be read: {error.strerror or type(error).__name__}"
    return f"it is not a model that can be served ({type(error).__name__})"


def _bundle(entry: Entry, settings: Settings, stop: threading.Event, held: ExitStack) -> tuple[Path, Path]:
    """Return the folder of the bundle, which is made first where there is only a raw model, and what it must lie in."""
    if not entry.is_raw:
        return entry.folder, entry.folder.parents[1]
    if not settings.prepare:
        raise InputError("a raw model; make a bundle of it with `camrt export`, or set prepare")
    return held.enter_context(prepare(entry, settings, stop)), settings.cache or entry.folder.parents[1]
