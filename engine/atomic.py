"""
Write files whole or not at all.

Bytes and a path go in; the file appears under its name only when every byte is on the disk's side of the write call.
A reader, or a second process writing the same file, sees the old content or the new, never a part. The idea is POSIX
``rename(2)``: write beside the target under another name, then rename over it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from .errors import OutputError

__all__ = ["write_bytes"]


def write_bytes(path: str | os.PathLike[str], data: bytes) -> Path:
    """
    Write `data` to `path` atomically, making missing folders.

    Parameters
    ----------
    path : str or path-like
        The file to write; an existing file of that name is replaced.
    data : bytes
        The whole content.

    Returns
    -------
    pathlib.Path
        The path written.

    Raises
    ------
    OutputError
        If the folder cannot be made or written, the disk is full, or `path` is a folder. The old file, if there was
        one, is then untouched and no temporary file is left.

    Notes
    -----
    Cost: one write and one rename; no ``fsync``, so the guarantee covers a failing process, not a power cut.
    """
    target = Path(path)
    temporary = target.parent / f".camrt-{secrets.token_hex(8)}.part"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:
            file.write(data)
        os.replace(temporary, target)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise OutputError(
            f"cannot write {str(target)!r}: {reason}; give a path in a folder that exists or can be made, "
            "may be written, and has room"
        ) from error
    finally:
        with contextlib.suppress(OSError, ValueError):
            temporary.unlink(missing_ok=True)
    return target
