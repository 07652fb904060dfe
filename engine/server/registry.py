"""
The models that are served: each is verified, opened and warmed up before one assignment makes it the one that answers.

::

    repository --catalogue.py--> Entry --loading.py--> Served --swap--> leases

Whoever answers a request holds a lease, which is a strong reference to one version and nothing else. The registry drops
its own when a version is replaced, so the old version's sessions are closed when the last lease on it ends. A load that
fails changes nothing but what `Registry.index` says.

With ``control="none"`` every model of the repository is served in its highest version, and stays. With
``control="explicit"`` those of ``settings.load`` are, and `Registry.load` and `Registry.unload` change them: loading a
name without a version serves the highest one there is in place of the one before; loading a name with a version adds
that version beside the others. A request that names no version gets the highest of those loaded. Both sweep away prepared
bundles that nobody needs any more (`prepared.py`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import CamrtError, InputError
from ..methods import resolve
from .catalogue import asked, listed, located
from .faults import NotFoundError, UnreadyError, UnsupportedError
from .loading import open_version, why
from .prepared import sweep
from .repository import Entry, check_name, check_repository, check_version
from .served import Lease, Served
from .settings import Settings
from .states import LOADING, SOON, UNAVAILABLE, Note, absence, rows
from .trust import without_paths

__all__ = ["Registry"]

log = logging.getLogger("camrt.server")


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
        self._notes: dict[tuple[str, int], Note] = {}
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
        entries, misfits = listed(self._settings)
        with self._lock:
            notes, served = dict(self._notes), {name: list(versions) for name, versions in self._served.items()}
        return rows(entries, misfits, notes, served)

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
        wanted = asked(self._settings)
        entries: list[Entry] = []
        for name, version in wanted:
            try:
                entries.append(located(self._settings, name, None if version is None else str(version)))
            except InputError as error:
                log.error("model %s: %s", name, without_paths(str(error)))
        with self._lock:
            self._wanted = set(wanted)
            self._notes.update({(entry.name, entry.version): Note(LOADING) for entry in entries})
            self._is_open = True
        pinned = {(name, version) for name, version in wanted if version is not None}
        for entry in entries:
            try:
                with self._turn(entry.name):
                    self._replace(entry, pinned=(entry.name, entry.version) in pinned)
            except InputError as error:
                log.error("%s", error)
        sweep(self._settings)

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
        located(self._settings, name, version)  # names that are not there get no lock
        with self._turn(name):
            self._replace(located(self._settings, name, version), pinned=version is not None)
            sweep(self._settings, name)

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
        return absence(name, version, self._notes, self._wanted, list(self._served.get(name, ())))

    def _replace(self, entry: Entry, *, pinned: bool) -> None:
        """Load one version and put it in its place, or leave everything as it was and say why."""
        key = (entry.name, entry.version)
        with self._noted(key):
            served = open_version(entry, self._settings, self._stop)
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
            self._notes[key] = Note(LOADING)
        reason = ""
        try:
            yield
        except Exception as error:
            reason = why(error)
            if not isinstance(error, CamrtError):
                log.exception("model %s version %s did not load", *key)
        with self._lock:
            if reason:
                self._notes[key] = Note(UNAVAILABLE, reason)
            else:
                self._notes.pop(key, None)
        if reason:
            raise InputError(f"model {key[0]!r} version {key[1]} could not be loaded: {reason}")
