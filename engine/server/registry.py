"""
The models that are served: each is verified, opened and warmed up before one assignment makes it the one that answers.

::

    repository --find--> folder --trust--> bundle --load--> Explainer --warm--> Served --swap--> leases

Whoever answers a request holds a lease, which is a strong reference to one version and nothing else. The registry drops
its own when a version is replaced, so the old version's sessions are closed when the last lease on it ends. A load that
fails changes nothing but what `Registry.index` says.

With ``control="none"`` every model of the repository is served in its highest version, and stays. With
``control="explicit"`` those of ``settings.load`` are, and `Registry.load` and `Registry.unload` change them: loading a
name without a version serves the highest one there is in place of the one before; loading a name with a version adds
that version beside the others. A request that names no version gets the highest of those loaded.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ..demo import MODEL
from ..errors import CamrtError, InputError
from ..explainer import Explainer
from ..methods import resolve
from ..opening import load
from .faults import NotFoundError, UnreadyError, UnsupportedError
from .heap import trim_after
from .preparing import prepare
from .priority import give_way
from .repository import EMBEDDED, Entry, Misfit, check_name, check_repository, check_version, find, scan
from .settings import Settings
from .trust import check_bundle, without_paths
from .warming import warm

__all__ = ["Lease", "Registry", "Served"]

READY, LOADING, UNAVAILABLE = "READY", "LOADING", "UNAVAILABLE"
SOON = 5.0  # seconds after which a model that loads is asked for again
LATER = 30.0  # and one that did not load, which somebody must mend
LONGEST = 300  # letters of a reason

log = logging.getLogger("camrt.server")


@dataclass(frozen=True, eq=False)
class Served:
    """
    One version of one model, ready to answer.

    Attributes
    ----------
    name : str
        The model's name in the repository.
    version : str
        A whole number.
    explainer : Explainer
        Opened and warmed up.
    load_seconds : float
        From the request to load it until it was ready.
    rate : float
        Forwards a second in full runs, measured when it was warmed up.
    """

    name: str
    version: str
    explainer: Explainer
    load_seconds: float
    rate: float


class Lease:
    """
    The right to use one version until it is released; also a context manager.

    Parameters
    ----------
    served : Served
        What is used. Its sessions stay open as long as anybody holds a lease.
    """

    def __init__(self, served: Served) -> None:
        self._served: Served | None = served

    @property
    def served(self) -> Served:
        """The version; a released lease has none."""
        if self._served is None:
            raise RuntimeError("the lease was released")
        return self._served

    def release(self) -> None:
        """End the lease; more than once is as good as once."""
        self._served = None

    def __enter__(self) -> Self:
        """Return the lease."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the lease."""
        self.release()


@dataclass(frozen=True)
class _Note:
    """What is to be told of one version that is loading or did not load."""

    state: str
    reason: str = ""


class Registry:
    """
    The models that are served, by name and version.

    Parameters
    ----------
    settings : Settings
        Where the models are, which of them to load, and how they run.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()  # of everything below; held for dictionary work alone
        self._served: dict[str, dict[int, Served]] = {}
        self._pinned: set[tuple[str, int]] = set()  # loaded by their version; a load without one leaves them
        self._notes: dict[tuple[str, int], _Note] = {}
        self._wanted: set[tuple[str, int | None]] = set()  # what must be there before the registry is ready
        self._turns: dict[str, threading.Lock] = {}  # one change of a model at a time
        self._is_open = False  # what is wanted is known
        self._is_closed = False
        self._stop = threading.Event()  # what is being prepared need not be

    # what answers need ------------------------------------------------------------------------------------------------

    def lease(self, name: str, version: str | None = None) -> Lease:
        """
        Take a model for a request.

        Parameters
        ----------
        name : str
            The model.
        version : str, optional
            The highest that is loaded where absent.

        Returns
        -------
        Lease
            To be released when the request is over.

        Raises
        ------
        NotFoundError
            If there is no such model or version.
        UnreadyError
            If it is being loaded, could not be loaded, or the server stops.
        """
        wanted = None if version is None else check_version(check_name(name), version)
        with self._lock:
            versions = self._served.get(name)
            served = versions.get(max(versions) if wanted is None else wanted) if versions else None
            if served is None:
                raise self._absent(name, wanted)
            return Lease(served)

    def is_ready(self, name: str, version: str | None = None) -> bool:
        """
        Tell whether a model answers.

        Parameters
        ----------
        name : str
            The model.
        version : str, optional
            Any of its versions where absent.

        Returns
        -------
        bool
            True where `lease` would give it.

        Raises
        ------
        NotFoundError
            If there is no such model or version.
        """
        try:
            self.lease(name, version).release()
        except UnreadyError:
            return False
        return True

    @property
    def ready(self) -> bool:
        """Whether every model that should be there is there."""
        with self._lock:
            there = all(
                name in self._served and (version is None or version in self._served[name])
                for name, version in self._wanted
            )
            something = bool(self._served) or self._settings.control == "explicit"
            return self._is_open and not self._is_closed and there and something

    def names(self) -> list[str]:
        """
        List the models that answer.

        Returns
        -------
        list of str
            In order.
        """
        with self._lock:
            return sorted(self._served)

    def versions(self, name: str) -> list[str]:
        """
        List the versions of a model that answer.

        Parameters
        ----------
        name : str
            The model.

        Returns
        -------
        list of str
            The lowest first; empty where it is not loaded.
        """
        with self._lock:
            return [str(version) for version in sorted(self._served.get(name, ()))]

    def index(self) -> list[dict[str, str]]:
        """
        Tell of every version in the repository, or loaded, whether it answers.

        Returns
        -------
        list of dict
            ``name``, ``version``, ``state`` (READY, LOADING or UNAVAILABLE) and ``reason``, by name and version. What does
            not fit the repository is listed with the reason.

        Notes
        -----
        Cost: lists the repository's folders.
        """
        entries, misfits = self._listed()
        with self._lock:
            notes = {(entry.name, entry.version): _Note(UNAVAILABLE, "not loaded") for entry in entries} | self._notes
            for name, versions in self._served.items():
                for version in versions:
                    note = self._notes.get((name, version))
                    reason = "" if note is None else f"it still answers; loading it again: {note.reason or 'going on'}"
                    notes[name, version] = _Note(READY, reason)
        rows = [
            {"name": name, "version": str(version), "state": note.state, "reason": note.reason}
            for (name, version), note in sorted(notes.items())
        ]
        return rows + [
            {"name": misfit.name, "version": misfit.version, "state": UNAVAILABLE, "reason": misfit.reason}
            for misfit in misfits
        ]

    # what changes them ------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """
        Load what the settings say, one after the other; one that fails does not keep the others.

        Raises
        ------
        InputError
            If the repository is not a folder, ``load`` names no model, or a method to warm up does not exist.

        Notes
        -----
        Cost: blocks until everything is loaded. `ready` and `index` tell how it went.
        """
        for method in self._settings.warm:
            resolve(method)
        if self._settings.repository is not None:
            check_repository(self._settings.repository)
        wanted = self._asked()
        entries: list[Entry] = []
        for name, version in wanted:
            try:
                entries.append(self._find(name, None if version is None else str(version)))
            except InputError as error:
                log.error("model %s: %s", name, without_paths(str(error)))
        with self._lock:
            self._wanted = set(wanted)
            self._notes.update({(entry.name, entry.version): _Note(LOADING) for entry in entries})
            self._is_open = True
        pinned = {(name, version) for name, version in wanted if version is not None}
        for entry in entries:
            try:
                with self._turn(entry.name):
                    self._replace(entry, pinned=(entry.name, entry.version) in pinned)
            except InputError as error:
                log.error("%s", error)

    def load(self, name: str, version: str | None = None) -> None:
        """
        Load a model, or load it again; what answers goes on answering until the new one is ready.

        Parameters
        ----------
        name : str
            The model.
        version : str, optional
            Serve this version too. The highest in the repository where absent, in place of the one before.

        Raises
        ------
        UnsupportedError
            If models are not loaded on request here.
        NotFoundError
            If the repository holds no such model or version.
        InputError
            If it cannot be loaded; the message says why, and the old one goes on answering.

        Notes
        -----
        Cost: blocks until the model is ready. Loads of one model wait for each other.
        """
        self._check_explicit()
        self._find(name, version)  # names that are not there get no lock
        with self._turn(name):
            self._replace(self._find(name, version), pinned=version is not None)

    def unload(self, name: str) -> None:
        """
        Stop serving a model, all its versions; requests under way are finished.

        Parameters
        ----------
        name : str
            The model.

        Raises
        ------
        UnsupportedError
            If models are not unloaded on request here.
        NotFoundError
            If it is not loaded.

        Notes
        -----
        Cost: waits for a load of the same model that is under way.
        """
        self._check_explicit()
        check_name(name)
        if name not in self._turns:
            raise NotFoundError(f"model {name!r} is not loaded")
        with self._turn(name), self._lock:
            dropped = self._served.pop(name, None)
            self._notes = {key: note for key, note in self._notes.items() if key[0] != name}
            self._pinned = {key for key in self._pinned if key[0] != name}
            self._wanted = {key for key in self._wanted if key[0] != name}
        if dropped is None:
            raise NotFoundError(f"model {name!r} is not loaded")
        log.info("model %s was unloaded", name)

    def close(self) -> None:
        """Serve nothing any more, and prepare nothing; requests under way keep what they hold."""
        self._stop.set()
        with self._lock:
            self._is_closed = True
            dropped, self._served = self._served, {}
        del dropped  # sessions close outside the lock

    # steps ------------------------------------------------------------------------------------------------------------

    def _asked(self) -> list[tuple[str, int | None]]:
        """Return what the settings say is to be there, in order."""
        if self._settings.repository is None:
            return [(EMBEDDED, None)]
        if self._settings.control == "none":
            entries, misfits = scan(self._settings.repository)
            broken = [misfit.name for misfit in misfits if misfit.is_model]
            return [(name, None) for name in sorted({*(entry.name for entry in entries), *broken})]
        asked: list[tuple[str, int | None]] = []
        for text in self._settings.load:
            name, colon, version = text.partition(":")
            asked.append((check_name(name), check_version(name, version) if colon else None))
        return list(dict.fromkeys(asked))

    def _listed(self) -> tuple[list[Entry], list[Misfit]]:
        """List the repository as it is now."""
        if self._settings.repository is None:
            return [Entry(EMBEDDED, 1, MODEL)], []
        try:
            return scan(self._settings.repository)
        except (InputError, OSError):  # it went away; what is loaded goes on answering
            return [], []

    def _find(self, name: str, version: str | None) -> Entry:
        """Return where one version lies."""
        if self._settings.repository is None:
            if name != EMBEDDED or version not in (None, "1"):
                raise NotFoundError(f"there is no model {name[:64]!r} beside the embedded {EMBEDDED!r}")
            return Entry(EMBEDDED, 1, MODEL)
        return find(self._settings.repository, name, version)

    def _turn(self, name: str) -> threading.Lock:
        """Return what is held while a model is changed; of names that are known to be there, so they are not many."""
        with self._lock:
            return self._turns.setdefault(name, threading.Lock())

    def _check_explicit(self) -> None:
        """Refuse to change anything where the settings say that nothing changes."""
        if self._settings.control != "explicit":
            raise UnsupportedError("models are loaded and unloaded on request under control=explicit only")

    def _absent(self, name: str, version: int | None) -> CamrtError:
        """Say why a model does not answer; called with the lock held."""
        if self._is_closed:
            return UnreadyError("the server is stopping", SOON)
        if not self._is_open:
            return UnreadyError("the models are being loaded", SOON)
        states = {n.state for (known, v), n in self._notes.items() if known == name and version in (None, v)}
        if LOADING in states:
            return UnreadyError(f"model {name!r} is being loaded", SOON)
        if UNAVAILABLE in states or (name, version) in self._wanted:
            return UnreadyError(f"model {name!r} could not be loaded; the repository's index says why", LATER)
        if name in self._served:
            held = ", ".join(map(str, sorted(self._served[name])))
            return NotFoundError(f"version {version} of model {name!r} is not served; it has {held}")
        return NotFoundError(f"there is no model {name[:64]!r}")

    def _replace(self, entry: Entry, *, pinned: bool) -> None:
        """Load one version and put it in its place, or leave everything as it was and say why."""
        key = (entry.name, entry.version)
        with self._noted(key):
            served = self._opened(entry)
            with self._lock:
                if self._is_closed:
                    return
                before = self._served.get(entry.name, {})
                kept = {v: other for v, other in before.items() if pinned or (entry.name, v) in self._pinned}
                self._served[entry.name] = {**kept, entry.version: served}
                if pinned:
                    self._pinned.add(key)
            del before, kept  # sessions that nobody uses close here, not under the lock
        log.info("model %s version %s answers after %.2f s", entry.name, served.version, served.load_seconds)

    @contextmanager
    def _noted(self, key: tuple[str, int]) -> Iterator[None]:
        """Tell the index that a version is loading, and how that ended."""
        with self._lock:
            self._notes[key] = _Note(LOADING)
        reason = ""
        try:
            yield
        except Exception as error:
            reason = _reason(error)
            if not isinstance(error, CamrtError):
                log.exception("model %s version %s did not load", *key)
        with self._lock:
            if reason:
                self._notes[key] = _Note(UNAVAILABLE, reason)
            else:
                self._notes.pop(key, None)
        if reason:
            raise InputError(f"model {key[0]!r} version {key[1]} could not be loaded: {reason}")

    def _opened(self, entry: Entry) -> Served:
        """Verify, open and warm up one version."""
        settings, start = self._settings, time.perf_counter()
        give_way()
        source = MODEL if entry.name == EMBEDDED else check_bundle(*self._bundle(entry))
        explainer = load(
            source,
            providers=settings.providers,
            precision=settings.precision,
            threads=settings.run_threads,
            memory=settings.memory,
        )
        rate = warm(explainer, settings.warm, settings.batch)
        trim_after(explainer)
        return Served(entry.name, str(entry.version), explainer, time.perf_counter() - start, rate)

    def _bundle(self, entry: Entry) -> tuple[Path, Path]:
        """Return the folder of the bundle, which is made first where there is only a raw model, and what it must lie in."""
        if not entry.is_raw:
            return entry.folder, entry.folder.parents[1]
        if not self._settings.prepare:
            raise InputError("a raw model; make a bundle of it with `camrt export`, or set prepare")
        return prepare(entry, self._settings, self._stop), self._settings.cache or entry.folder.parents[1]


def _reason(error: Exception) -> str:
    """Say in one line, without paths, why a model did not load."""
    if isinstance(error, CamrtError):
        return without_paths(str(error))[:LONGEST]
    if isinstance(error, MemoryError):
        return "there is not enough memory for it"
    if isinstance(error, OSError):
        return f"its files cannot be read: {error.strerror or type(error).__name__}"
    return f"it is not a model that can be served ({type(error).__name__})"
