"""
WebDataset: tar shards in which the files of a sample share a name and differ in their endings.

``000/0001.jpg``, ``000/0001.cls`` and ``000/0001.json`` are one sample with the key ``000/0001``: the name up to the first
dot after the last slash. Each shard's headers are walked once; afterwards a picture is one seek and one read. Nothing is
ever unpacked to disk, so a member's name is only a name; an archive with links, devices, absolute names or ``..`` is refused
all the same, because no writer of shards makes such.
"""

from __future__ import annotations

import glob
import json
import os
import re
import tarfile
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import ImageError, InputError
from .classmap import Labels, class_indices, label_columns
from .files import SUFFIXES, relative_name
from .sample import Listing, Ragged

__all__ = ["find_shards", "webdataset"]

MAX_NOTE_BYTES = 1_000_000  # of a .cls or .json member, which is read while indexing
MAX_PICTURE_BYTES = 512_000_000  # a 64-megapixel picture is 256 MB even as 32-bit TIFF
_LABELS = ("label", "class", "cls", "class_index", "index", "wnid", "class_name")
_BOXES = ("boxes", "bboxes", "boxes_xyxy")


@dataclass(slots=True)
class _Entry:
    """What the walk through the headers has found of one sample."""

    key: str
    shard: int
    offset: int = -1
    size: int = 0
    label: str | None = None
    boxes: list[list[float]] = field(default_factory=list)


def webdataset(shards: str | os.PathLike[str] | Sequence[str], *, labels: Labels = None) -> Listing:
    """
    List the samples of tar shards.

    Parameters
    ----------
    shards : str, path-like or sequence of str
        A ``.tar`` file, a folder of them, a pattern (``val-*.tar``, ``val-{000..049}.tar``), or several; not compressed.
    labels : path, sequence of str, mapping or "sorted", optional
        What class names mean (`class_indices`); whole numbers in ``.cls`` members are indices and need none.

    Returns
    -------
    Listing
        In the order of the shards and their members. The class is the text of ``.cls``, else the ``label``, ``class``,
        ``cls``, ``class_index``, ``index``, ``wnid`` or ``class_name`` of ``.json``, whose ``boxes`` are lists of
        ``x0 y0 x1 y1``. Samples without a picture are left out.

    Raises
    ------
    InputError
        If no shard is found, one cannot be read as an uncompressed tar, a member is no plain file or its name leads out,
        or a key occurs twice.
    TargetError
        If a class has no counterpart in the model.

    Notes
    -----
    Cost: one pass over the headers, and a read of each ``.cls`` and ``.json``.
    """
    paths = find_shards(shards)
    entries: list[_Entry] = []
    for number, path in enumerate(paths):
        entries.extend(_index(path, number))
    if not entries:
        raise InputError(f"no picture is in {paths[0]!r}{' and the other shards' if len(paths) > 1 else ''}")
    names = [entry.label for entry in entries]
    classes, occurring, stay = label_columns(names, class_indices({name for name in names if name is not None}, labels))
    kept = [entry for entry, stays in zip(entries, stay, strict=True) if stays]
    store = _Shards(
        paths,
        array("l", [entry.shard for entry in kept]),
        array("q", [entry.offset for entry in kept]),
        array("q", [entry.size for entry in kept]),
    )
    boxes = Ragged.of([entry.boxes for entry in kept]) if any(entry.boxes for entry in kept) else None
    name = Path(paths[0]).stem if len(paths) == 1 else Path(paths[0]).parent.name
    return Listing(name, [entry.key for entry in kept], store, classes[stay], boxes, classes=occurring)


def find_shards(shards: str | os.PathLike[str] | Sequence[str]) -> list[str]:
    """
    Return the files that a pattern means.

    Parameters
    ----------
    shards : str, path-like or sequence of str
        As `webdataset` takes them.

    Returns
    -------
    list of str
        Absolute paths: those of a folder or ``*`` sorted, others in the order given.

    Raises
    ------
    InputError
        If one is missing, or there is none.
    """
    given = [os.fspath(shards)] if isinstance(shards, str | os.PathLike) else [os.fspath(one) for one in shards]
    found: list[str] = []
    for text in given:
        if os.path.isdir(text):
            found.extend(sorted(glob.glob(os.path.join(glob.escape(text), "*.tar"))))
        elif os.path.isfile(text):
            found.append(text)
        else:
            for one in _braces(text):
                matches = sorted(glob.glob(one)) if glob.has_magic(one) else [one] if os.path.isfile(one) else []
                if not matches:
                    raise InputError(f"there is no shard {one!r}; give .tar files, a folder of them or a pattern")
                found.extend(matches)
    if not found:
        raise InputError(
            f"no .tar file lies in {given[0] if given else ''!r}; give shards, a folder of them or a pattern"
        )
    return [os.path.abspath(one) for one in dict.fromkeys(found)]


def _braces(text: str) -> Iterator[str]:
    """Write out ``{000..010}`` and ``{a,b}``."""
    match = re.search(r"\{([^{}]*)\}", text)
    if match is None:
        yield text
        return
    run = re.fullmatch(r"(\d{1,9})\.\.(\d{1,9})", match[1])
    if run and int(run[2]) - int(run[1]) > 100_000:
        raise InputError(f"{match[0]} means more than 100,000 shards; give a smaller range")
    parts = [f"{n:0{len(run[1])}d}" for n in range(int(run[1]), int(run[2]) + 1)] if run else match[1].split(",")
    for part in parts:
        yield from _braces(text[: match.start()] + part + text[match.end() :])


def _index(path: str, shard: int) -> list[_Entry]:
    """Walk the headers of one shard."""
    entries: dict[str, _Entry] = {}
    labels_from_json: dict[str, str] = {}
    try:
        with open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            headers: list[tarfile.TarInfo] = tar.members  # type: ignore[attr-defined]
            while (member := tar.next()) is not None:
                headers.clear()  # tarfile keeps every one otherwise: half a kB a member
                if member.size < 0:  # the next header would be an earlier one, for ever
                    raise InputError(f"{path!r}: member {member.name!r} has a negative size; the archive is damaged")
                if member.isdir():
                    continue
                name = _checked(member, path)
                folder, _, last = name.rpartition("/")
                stem, _, ending = last.partition(".")
                key = f"{folder}/{stem}" if folder else stem
                entry = entries.setdefault(key, _Entry(key, shard))
                suffix = f".{ending.lower()}"
                if suffix in SUFFIXES:
                    if entry.offset >= 0:
                        raise InputError(f"{path!r}: key {key!r} has two pictures; every key must be one sample")
                    entry.offset, entry.size = member.offset_data, member.size
                elif suffix == ".cls":
                    entry.label = _note(tar, member, path).decode("utf-8").strip() or None
                elif suffix == ".json":
                    _describe(entry, json.loads(_note(tar, member, path)), labels_from_json, f"{path!r}: {name!r}")
    except InputError:
        raise
    except (tarfile.TarError, EOFError) as error:
        raise InputError(
            f"{path!r} cannot be read as an uncompressed tar ({error}); unpack a .tar.gz, copy a cut one again"
        ) from error
    except (OSError, ValueError, OverflowError, RecursionError) as error:
        raise InputError(f"cannot index the shard {path!r}: {getattr(error, 'strerror', None) or error}") from error
    for key, label in labels_from_json.items():
        entries[key].label = entries[key].label or label
    return [entry for entry in entries.values() if entry.offset >= 0]


def _checked(member: tarfile.TarInfo, path: str) -> str:
    """Refuse members that are not plain files, or whose names lead out."""
    if not member.isreg() or member.issparse():
        raise InputError(f"{path!r}: member {member.name!r} is a link, device or sparse file; shards hold plain files")
    return relative_name(member.name, repr(path))


def _note(tar: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> bytes:
    """Read a small member."""
    if member.size > MAX_NOTE_BYTES:
        raise InputError(f"{path!r}: member {member.name!r} is larger than {MAX_NOTE_BYTES} bytes; that is no label")
    file: Any = tar.extractfile(member)
    content: bytes = file.read()
    return content


def _describe(entry: _Entry, data: Any, labels: dict[str, str], what: str) -> None:
    """Take label and boxes out of a ``.json`` member."""
    if not isinstance(data, Mapping):
        raise InputError(f"{what} must hold an object; got {type(data).__name__}")
    label = next((data[key] for key in _LABELS if data.get(key) is not None), None)
    if label is not None:
        if not isinstance(label, int | str) or isinstance(label, bool):
            raise InputError(f"{what}: the label must be a number or a text; got {label!r:.60}")
        labels[entry.key] = str(label)
    boxes: Any = next((data[key] for key in _BOXES if data.get(key)), [])
    try:
        entry.boxes = [[float(number) for number in box] for box in boxes]
    except (TypeError, ValueError, OverflowError):
        entry.boxes = [[]]
    if any(len(box) != 4 for box in entry.boxes):
        raise InputError(f"{what}: boxes must be lists of x0, y0, x1, y1; got {boxes!r:.80}")


@dataclass(frozen=True, eq=False)
class _Shards:
    """
    Pictures inside tar files; a `Store`.

    Attributes
    ----------
    paths : sequence of str
        The shards.
    shards, offsets, sizes : array of int
        In which shard each picture lies, where its bytes begin, and how many they are.
    """

    paths: Sequence[str]
    shards: array[int]
    offsets: array[int]
    sizes: array[int]

    def reader(self, index: int) -> Callable[[], bytes]:
        """Return what reads the bytes of picture `index`."""
        return partial(_span, self.paths[self.shards[index]], self.offsets[index], self.sizes[index])

    def n_bytes(self, index: int) -> int:
        """Return the size of the member."""
        return self.sizes[index]


def _span(path: str, offset: int, size: int) -> bytes:
    """Read a part of a file."""
    if size > MAX_PICTURE_BYTES:
        raise ImageError(f"a picture of {size} bytes in {path!r} is above the limit of {MAX_PICTURE_BYTES}")
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            content = file.read(size)
    except OSError as error:
        raise ImageError(f"cannot read {path!r}: {error.strerror or error}") from error
    if len(content) != size:
        raise ImageError(f"{path!r} ends within a picture; it was cut since it was indexed")
    return content
