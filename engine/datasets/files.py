"""
Files of a data set: which pictures lie in a folder, and reading none that lies outside it.

A name from a manifest or an archive is a stranger's text. `relative_name` refuses one that climbs out of the root as text;
`locate` looks again when the file is read, with links followed, because a link in a folder may lead anywhere.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import ImageError, InputError
from ..image import decode_mask

__all__ = ["SUFFIXES", "Files", "MaskFiles", "locate", "pictures", "read_text", "relative_name", "root_folder"]

SUFFIXES = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".gif",
        ".bmp",
        ".dib",
        ".tif",
        ".tiff",
        ".webp",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
    ]
)  # of the formats that `camrt.image` opens
MAX_TEXT_BYTES = 256_000_000  # a list of a million pictures with boxes is 100 MB; anything beyond is no list


def root_folder(root: str | os.PathLike[str], what: str) -> Path:
    """
    Return a data set's folder.

    Parameters
    ----------
    root : str or path-like
        Where it should be.
    what : str
        What it is for, for the message.

    Returns
    -------
    Path
        The same, absolute.

    Raises
    ------
    InputError
        If it is not a folder.
    """
    path = Path(os.path.abspath(os.fspath(root)))
    if not path.is_dir():
        state = "is not a folder" if path.exists() else "does not exist"
        raise InputError(f"{what}: {str(path)!r} {state}; give the folder of the data set")
    return path


def pictures(root: str | os.PathLike[str]) -> list[str]:
    """
    List the pictures under a folder by their suffix.

    Parameters
    ----------
    root : str or path-like
        The folder.

    Returns
    -------
    list of str
        Paths relative to it with ``/``, sorted. Hidden files and folders are left out, links to folders not followed.

    Raises
    ------
    InputError
        If a folder cannot be listed, or the link to one would have to be followed.
    """
    found: list[str] = []
    pending = [""]
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(os.path.join(root, folder)) as entries:
                for entry in entries:
                    name = f"{folder}/{entry.name}" if folder else entry.name
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(name)
                    elif entry.is_symlink() and entry.is_dir():
                        raise InputError(f"{name!r} in {str(root)!r} is a link to a folder, and links are not followed")
                    elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:
                        found.append(name)
        except OSError as error:
            raise InputError(f"cannot list {os.path.join(root, folder)!r}: {error.strerror or error}") from error
    return sorted(found)


def relative_name(name: str, what: str) -> str:
    """
    Refuse a name that leads out of the root.

    Parameters
    ----------
    name : str
        A path from a list or an archive, with ``/`` or ``\\``.
    what : str
        Where it was found, for the message.

    Returns
    -------
    str
        The path with single ``/`` and without ``.`` parts.

    Raises
    ------
    InputError
        If it is empty, absolute or holds a ``..`` part.

    Examples
    --------
    >>> relative_name("./cats//1.jpg", "row 2")
    'cats/1.jpg'
    """
    path = name.replace("\\", "/")
    if path.startswith("/") or path[1:2] == ":":  # a drive of Windows
        raise InputError(f"{what}: {name!r} is an absolute path; give one relative to the data set's folder")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in name:
        raise InputError(f"{what}: {name!r} leads out of the data set's folder; every file must lie under it")
    if not parts:
        raise InputError(f"{what}: the file's name is empty")
    return "/".join(parts)


def locate(root: str, name: str) -> str:
    """
    Return the path of a file that really lies under the root.

    Parameters
    ----------
    root : str
        The data set's folder; empty where `name` is an absolute path that the user wrote.
    name : str
        Relative to it.

    Returns
    -------
    str
        The path, links followed.

    Raises
    ------
    ImageError
        If a link on the way leads out of the root.
    """
    if not root:
        return name
    real, base = os.path.realpath(os.path.join(root, name)), os.path.realpath(root)
    if os.path.commonpath([real, base]) != base:
        raise ImageError(f"{name!r} is a link out of the data set's folder; every file must lie under it")
    return real


def read_text(path: str | os.PathLike[str], what: str) -> str:
    """
    Read a UTF-8 list.

    Parameters
    ----------
    path : str or path-like
        The file.
    what : str
        What it is, for the message.

    Returns
    -------
    str
        Its text, without a byte order mark.

    Raises
    ------
    InputError
        If it cannot be read, is larger than 256 MB or is not UTF-8.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size  # read(n) holds n bytes at once, however short the file
            data = file.read(min(size, MAX_TEXT_BYTES) + 1)
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot read {what} {os.fspath(path)!r}: {getattr(error, 'strerror', None) or error}"
        ) from error
    if len(data) > MAX_TEXT_BYTES:
        raise InputError(f"{what} {os.fspath(path)!r} is larger than {MAX_TEXT_BYTES} bytes; split it")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{what} {os.fspath(path)!r} is not UTF-8 text (byte {error.start}); save it as UTF-8"
        ) from error


@dataclass(frozen=True, eq=False)
class Files:
    """
    Pictures as files; a `Store`.

    Attributes
    ----------
    root : str
        The folder.
    names : sequence of str
        Relative to it, or absolute where the user wrote so.
    """

    root: str
    names: Sequence[str]

    def reader(self, index: int) -> Callable[[], str]:
        """
        Return what gives the path of a picture.

        Parameters
        ----------
        index : int
            Of the sample, from 0.

        Returns
        -------
        callable
            It raises `ImageError` where a link leads out of the root.
        """
        return partial(locate, _base(self.root, self.names[index]), self.names[index])

    def n_bytes(self, index: int) -> int:
        """
        Return the size of a picture's file.

        Parameters
        ----------
        index : int
            Of the sample, from 0.

        Returns
        -------
        int
            In bytes; -1 where there is none.
        """
        return _n_bytes(self.root, self.names[index])


@dataclass(frozen=True, eq=False)
class MaskFiles:
    """
    Masks as files, every pixel that is not 0 being the object; `Marks`.

    Attributes
    ----------
    root : str
        The folder.
    names : sequence of str
        Relative to it, or absolute where the user wrote so; empty where there is no mask.
    """

    root: str
    names: Sequence[str]

    def mask(self, index: int) -> Callable[[], npt.NDArray[np.bool_]] | None:
        """
        Return what reads the object's pixels.

        Parameters
        ----------
        index : int
            Of the sample, from 0.

        Returns
        -------
        callable or None
            None where there is no mask.
        """
        name = self.names[index]
        return partial(_not_zero, _base(self.root, name), name) if name else None

    def ignored(self, index: int) -> None:
        """
        Return nothing: such masks ignore no pixels.

        Parameters
        ----------
        index : int
            Of the sample, from 0.

        Returns
        -------
        None
            Always.
        """

    def stamp(self, index: int) -> int:
        """
        Return the size of the mask's file.

        Parameters
        ----------
        index : int
            Of the sample, from 0.

        Returns
        -------
        int
            In bytes; 0 where there is none.
        """
        return _n_bytes(self.root, self.names[index]) if self.names[index] else 0


def _base(root: str, name: str) -> str:
    """Return the root that a name is held to; none for an absolute one."""
    return "" if os.path.isabs(name) else root


def _n_bytes(root: str, name: str) -> int:
    """Return a file's size, -1 where there is none."""
    try:
        return os.stat(os.path.join(root, name)).st_size
    except (OSError, ValueError):
        return -1


def _not_zero(root: str, name: str) -> npt.NDArray[np.bool_]:
    """Read a mask file."""
    found: npt.NDArray[np.bool_] = decode_mask(locate(root, name)) != 0
    return found
