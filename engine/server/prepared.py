"""
The bundles of raw models: where they lie, who holds them, and which nobody needs any more.

::

    <model>/.prepared-<version>-<made of>      beside the version's folder; in a cache: <model>-<version>-<made of>
    <model>/.preparing-<random>                where one is being made, or taken away

A bundle is named after all that it was made of, so a source that changes gets another one, and `sweep` removes those
whose source has changed or gone, and what preparations left that were interrupted.

Several servers may work on one repository. Who makes or serves a bundle holds its folder by a shared lock (flock), and
a sweep removes a folder only when it gets the lock for itself. A lock ends with the processes that have it, however
they end; the process that prepares inherits its server's, so it is not disturbed where the server was killed. That
holds among processes of one machine, and of several where their file system shares such locks. Where it refuses to
lock folders alone, as NFS does, nothing is removed. Where it keeps locks to each machine and says nothing (Lustre,
mounted so), a machine may take away what another serves: give each a cache of its own.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path

from ..errors import BundleError, CamrtError
from .catalogue import listed
from .faults import UnsupportedError
from .repository import NAME, RAW, VERSION, Entry
from .settings import Settings
from .trust import MAX_FILE, check_folder

__all__ = ["FILES", "LABELS", "PREPROCESS", "hold", "place_of", "scratch", "sweep"]

LABELS, PREPROCESS = "labels.txt", "preprocess.json"
FILES = (RAW, f"{RAW}.data", LABELS, PREPROCESS)
SCRATCH, BUNDLE = ".preparing-", ".prepared-"
_MADE_OF = "[0-9a-f]{16}"
_BESIDE = re.compile(rf"{re.escape(BUNDLE)}(?P<version>{VERSION.pattern})-(?P<made_of>{_MADE_OF})")
_CACHED = re.compile(rf"(?P<name>{NAME.pattern})-(?P<version>{VERSION.pattern})-(?P<made_of>{_MADE_OF})")

log = logging.getLogger("camrt.server")


def place_of(entry: Entry, settings: Settings) -> Path:
    """
    Say where the bundle of a raw model lies, or will.

    Parameters
    ----------
    entry : Entry
        A version that holds a raw model.
    settings : Settings
        ``cache``.

    Returns
    -------
    Path
        In the cache, or beside the version's folder under a name that begins with a dot.

    Raises
    ------
    BundleError
        If the folder holds something else.

    Notes
    -----
    Cost: reads the model.
    """
    made_of = _made_of(entry)
    if settings.cache is None:
        return entry.folder.parent / f"{BUNDLE}{entry.version}-{made_of}"
    return settings.cache / f"{entry.name}-{entry.version}-{made_of}"


def hold(folder: Path) -> int | None:
    """
    Keep a folder from being swept away.

    Parameters
    ----------
    folder : Path
        A bundle's, or a scratch folder.

    Returns
    -------
    int or None
        A descriptor to close in the end; None where the folder is not there.

    Raises
    ------
    UnsupportedError
        If this system has no such locks; it cannot prepare models either.
    """
    try:
        descriptor = _opened(folder)
    except FileNotFoundError:
        return None
    with suppress(OSError):  # what cannot be locked cannot be swept away
        _lock(descriptor, alone=False)
    with suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(descriptor), os.lstat(folder)):  # it was not swept away meanwhile
            return descriptor
    os.close(descriptor)
    return None


@contextmanager
def scratch(parent: Path) -> Iterator[tuple[Path, int]]:
    """
    Lend a folder to make a bundle in.

    Parameters
    ----------
    parent : Path
        Where the bundle will lie; made where it is absent.

    Yields
    ------
    folder : Path
        Removed in the end.
    descriptor : int
        That holds it; a process that inherits it does too.

    Raises
    ------
    BundleError
        If nothing can be written there.
    """
    descriptor = None
    while descriptor is None:  # a sweep may come between making and holding it
        try:
            parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=parent))
        except OSError as error:
            raise BundleError(f"no bundle can be written beside the model ({error.strerror}): set cache") from None
        descriptor = hold(folder)
    try:
        yield folder, descriptor
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def sweep(settings: Settings, name: str | None = None) -> None:
    """
    Remove what preparations left that were interrupted, and bundles whose source has changed or gone.

    Parameters
    ----------
    settings : Settings
        Where the models and their bundles lie; nothing happens unless ``prepare`` is set.
    name : str, optional
        Of this model alone. Bundles in a cache whose model is not in the repository are left: they may be another's.

    Notes
    -----
    Cost: lists the repository; reads the source of each bundle that nobody holds. What cannot be removed is logged.
    """
    if settings.repository is None or not settings.prepare:
        return
    entries, misfits = listed(settings)
    sources = {(entry.name, entry.version): entry for entry in entries if entry.is_raw}
    models = {entry.name for entry in entries} | {misfit.name for misfit in misfits if misfit.is_model}
    made_of = cache(_made_of)
    for folder, source, made in _made(settings, models if name is None else models & {name}):
        try:
            if _is_held(folder) or (source in sources and made_of(sources[source]) == made):
                continue
            if _removed(folder):
                log.info("%s was removed: nobody needs it", folder.name)
        except (CamrtError, OSError) as error:
            log.info("%s was left: %s", folder.name, getattr(error, "strerror", None) or error)


def _made(settings: Settings, models: set[str]) -> Iterator[tuple[Path, tuple[str, int], str]]:
    """List what was made for some models: folder, name and version, what it was made of; scratch folders are of nothing."""
    cached = settings.cache
    places = [cached] if cached else [settings.repository / model for model in sorted(models) if settings.repository]
    for place in places:
        for folder in _folders(place):
            found = (_CACHED if cached else _BESIDE).fullmatch(folder.name)
            if found and (model := found["name"] if cached else place.name) in models:
                yield folder, (model, int(found["version"])), found["made_of"]
            elif folder.name.startswith(SCRATCH):
                yield folder, ("", 0), ""


def _made_of(entry: Entry) -> str:
    """Return a name for all that a bundle is made of."""
    sizes = {name: stamp[3] for name, stamp in check_folder(entry.folder, entry.folder.parents[1]).items()}
    strange = sorted(name for name in sizes if name not in FILES and not name.startswith("."))
    if strange:
        raise BundleError(f"{strange[0][:64]!r} does not belong to a raw model, which has {', '.join(FILES)}")
    if max(sizes.values()) > MAX_FILE:
        raise BundleError(f"a file has more than {MAX_FILE} bytes")
    digest = hashlib.sha256(version("camrt").encode())
    for name in FILES:
        if (entry.folder / name).is_file():
            with (entry.folder / name).open("rb") as file:
                digest.update(f"{name}:{hashlib.file_digest(file, 'sha256').hexdigest()}".encode())
    return digest.hexdigest()[:16]


def _folders(place: Path) -> list[Path]:
    """List the real folders in a place; none where it is absent."""
    try:
        with os.scandir(place) as items:
            return sorted(Path(item.path) for item in items if item.is_dir(follow_symlinks=False))
    except OSError:
        return []


def _opened(folder: Path) -> int:
    """Open a folder itself, not what a link leads to."""
    if not hasattr(os, "O_DIRECTORY"):
        raise UnsupportedError("this system has no locks on folders: export the model elsewhere")
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)


def _lock(descriptor: int, *, alone: bool) -> None:
    """Share a lock, or have it alone at once or not at all."""
    import fcntl

    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB if alone else fcntl.LOCK_SH)


def _is_held(folder: Path) -> bool:
    """Tell whether anybody holds a folder."""
    descriptor = _opened(folder)
    try:
        _lock(descriptor, alone=True)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _removed(folder: Path) -> bool:
    """Remove a folder unless somebody holds it; under its own name it is there whole or not at all."""
    descriptor = _opened(folder)
    try:
        _lock(descriptor, alone=True)
        gone = folder.with_name(f"{SCRATCH}{secrets.token_hex(8)}")
        folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
