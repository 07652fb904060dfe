"""
The folder that models are served from: which models and versions it holds, and what in it does not fit.

::

    repository/
      resnet50/            a name: letters, digits, ``_ . -``
        1/                 a version: a positive whole number
          manifest.json    a bundle, as `camrt.export` writes it; or
          model.onnx       a raw model, which `preparing.py` makes a bundle of, with labels.txt and preprocess.json

Nothing is opened here. Folders are real ones: a symbolic link anywhere in the repository is reported, never followed.
What begins with a dot is passed over, as bundles that are being written do.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from camrt.export.bundle import MANIFEST

from ..errors import InputError
from .faults import NotFoundError

__all__ = ["NAME", "RAW", "RESERVED", "VERSION", "Entry", "Misfit", "check_name", "check_repository", "find", "scan"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
VERSION = re.compile(r"[1-9][0-9]{0,8}")
EMBEDDED = "camrt-demo"  # served where there is no repository
RESERVED = frozenset({"stats", "ready", "versions", "infer", "index", EMBEDDED})  # words of the routes
RAW = "model.onnx"


@dataclass(frozen=True, order=True)
class Entry:
    """One version of a model: a folder with a bundle, or with a raw model."""

    name: str
    version: int
    folder: Path
    is_raw: bool = False


@dataclass(frozen=True, order=True)
class Misfit:
    """
    Something in a repository that cannot be served.

    Attributes
    ----------
    name : str
        Of the model, or of whatever lies where models do.
    version : str
        The version's folder; empty where it is about the whole.
    reason : str
        Why not; one line.
    is_model : bool
        Whether it is, or should be, a model.
    """

    name: str
    version: str
    reason: str
    is_model: bool = True


def check_name(name: str) -> str:
    """
    Refuse a name that no model can have.

    Parameters
    ----------
    name : str
        As a request or a folder says it.

    Returns
    -------
    str
        The same.

    Raises
    ------
    NotFoundError
        If it is of other characters, too long, or reserved.
    """
    if not NAME.fullmatch(name) or name in RESERVED - {EMBEDDED}:
        raise NotFoundError(f"there is no model {name[:64]!r}")
    return name


def check_version(name: str, version: str) -> int:
    """
    Read a version.

    Parameters
    ----------
    name : str
        The model's name, for the message.
    version : str
        As a request or a folder says it.

    Returns
    -------
    int
        From 1 to 999,999,999.

    Raises
    ------
    NotFoundError
        If it is no such number.
    """
    if not VERSION.fullmatch(version):
        raise NotFoundError(f"model {name!r} has no version {version[:64]!r}")
    return int(version)


def check_repository(repository: Path) -> None:
    """
    Refuse a repository that is not a folder of its own.

    Parameters
    ----------
    repository : Path
        As the settings name it.

    Raises
    ------
    InputError
        If it is absent, a file or a symbolic link.
    """
    if repository.is_symlink():
        raise InputError("the model repository is a symbolic link: give the folder itself")
    if not repository.is_dir():
        raise InputError("the model repository is not a folder: make it, with <model>/<version>/ inside")


def scan(repository: Path) -> tuple[list[Entry], list[Misfit]]:
    """
    List a repository.

    Parameters
    ----------
    repository : Path
        Its folder.

    Returns
    -------
    entries : list of Entry
        What can be loaded, by name and version.
    misfits : list of Misfit
        What cannot, and why.

    Raises
    ------
    InputError
        If the repository is not a folder.
    """
    check_repository(repository)
    entries: list[Entry] = []
    misfits: list[Misfit] = []
    for item in _items(repository):
        reason = _why_no_model(item)
        if reason:
            misfits.append(Misfit(_printable(item.name), "", reason, is_model=False))
            continue
        found, wrong = _versions(item.name, Path(item.path))
        entries += found
        misfits += wrong
    return sorted(entries), sorted(misfits)


def find(repository: Path, name: str, version: str | None = None) -> Entry:
    """
    Find one version of a model.

    Parameters
    ----------
    repository : Path
        Its folder.
    name : str
        The model.
    version : str, optional
        The highest where absent.

    Returns
    -------
    Entry
        Inside the repository.

    Raises
    ------
    NotFoundError
        If there is no such model or version.
    InputError
        If there is one, but it cannot be served.
    """
    check_repository(repository)
    check_name(name)
    wanted = None if version is None else check_version(name, version)
    item = next((item for item in _items(repository) if item.name == name), None)
    if item is None or name in RESERVED:
        raise NotFoundError(f"the repository holds no model {name!r}")
    if reason := _why_no_model(item):
        raise InputError(f"model {name!r} cannot be served: {reason}")
    entries, misfits = _versions(name, Path(item.path))
    for entry in sorted(entries, reverse=True):
        if wanted in (None, entry.version):
            return entry
    for misfit in misfits:
        if version is None or misfit.version == version:
            raise InputError(f"model {name!r} cannot be served: {misfit.reason}")
    raise NotFoundError(f"the repository holds no version {version} of model {name!r}")


def _items(folder: Path) -> list[os.DirEntry[str]]:
    """List a folder in order, what begins with a dot left out."""
    with os.scandir(folder) as items:
        return sorted((item for item in items if not item.name.startswith(".")), key=lambda item: item.name)


def _why_no_model(item: os.DirEntry[str]) -> str:
    """Say why something in the repository is not a model; nothing where it may be one."""
    if item.is_symlink():
        return "a symbolic link: put the real folder here"
    if not item.is_dir(follow_symlinks=False):
        return "not a folder: the repository holds <model>/<version>/"
    if not NAME.fullmatch(item.name):
        return "a model's name has up to 64 letters, digits and _ . - and begins with a letter or digit"
    return "the name is reserved" if item.name in RESERVED else ""


def _versions(name: str, folder: Path) -> tuple[list[Entry], list[Misfit]]:
    """List a model's folder."""
    entries: list[Entry] = []
    misfits: list[Misfit] = []
    for item in _items(folder):
        files = set()
        if item.is_symlink():
            reason = "a symbolic link: put the real folder here"
        elif not item.is_dir(follow_symlinks=False):
            reason = "not a folder: a model holds one folder a version"
        elif not VERSION.fullmatch(item.name):
            reason = "a version is a whole number from 1 to 999999999"
        else:
            files = {inner.name for inner in _items(Path(item.path))}
            reason = "" if files & {MANIFEST, RAW} else f"neither {MANIFEST} nor {RAW} is in it"
        if reason:
            misfits.append(Misfit(name, _printable(item.name), reason))
        else:
            entries.append(Entry(name, int(item.name), Path(item.path), MANIFEST not in files))
    return entries, misfits or ([] if entries else [Misfit(name, "", "no version is in it")])


def _printable(name: str) -> str:
    """Return a file's name as an answer can hold it."""
    return name[:64] if name.isprintable() else ascii(name)[1:-1][:64]
