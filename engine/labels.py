"""
The names of classes, from the files they come in, and the class a name means.

A .txt, .json or .csv file (or its content, or a list) goes in, a tuple of names in class order comes out. `find_label`
goes the other way: ImageNet's names are lists of synonyms ("tabby, tabby cat"), and people type one of them.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache
from heapq import nlargest
from pathlib import Path
from typing import Any

from .errors import TargetError

__all__ = ["find_label", "is_known", "load_labels"]

MAX_BYTES = 16_000_000  # ImageNet-21k's names are 1 MB; anything beyond is not a list of labels
COMPARED = 500  # names at most that an unknown one is compared with letter by letter, 10 us each
_WNID = re.compile(r"n\d{8}\s+")  # WordNet id that starts the lines of synset.txt
_INDEX_COLUMNS = ("index", "id", "class", "class_index", "class_id")
_NAME_COLUMNS = ("names", "name", "label", "labels", "class_name")


def load_labels(source: str | os.PathLike[str] | bytes | Sequence[str]) -> tuple[str, ...]:
    """
    Read class names.

    Parameters
    ----------
    source : str, path-like, bytes or sequence of str
        A file: ``.txt`` with one name a line (WordNet ids before the names are dropped), ``.json`` with a list, an
        object ``{index: name}`` or ``{"id2label": {index: name}}``, or ``.csv`` with a column called names, name or
        label and optionally one called index; the content of a .json or .txt file as bytes; or the names themselves.

    Returns
    -------
    tuple of str
        In class order. How many there must be is the caller's to check.

    Raises
    ------
    TargetError
        If the file cannot be read, is of another kind, or leaves a class without a name.

    Examples
    --------
    >>> load_labels(["cat", "dog"])
    ('cat', 'dog')
    >>> load_labels(b'{"1": "dog", "0": "cat"}')
    ('cat', 'dog')
    """
    if isinstance(source, bytes):
        content = _decoded(source, "the labels")
        return (
            _from_json(content, "the labels")
            if content.lstrip()[:1] in ("[", "{")
            else _from_lines(content, "the labels")
        )
    if isinstance(source, str | os.PathLike):
        return _from_file(Path(source))
    if not isinstance(source, Sequence):
        raise TargetError(f"labels must be a .txt, .json or .csv file or a list of names; got {type(source).__name__}")
    return _checked(list(source), "the list of labels")


def find_label(text: str, labels: Sequence[str] | None, n_classes: int) -> int:
    """
    Return the class that a label means.

    Parameters
    ----------
    text : str
        A whole label, or one of its comma-separated synonyms, in any case, underscores for spaces; or a number.
    labels : sequence of str, optional
        The names of the classes.
    n_classes : int
        C.

    Returns
    -------
    int
        The class index: of the exact label; else of the label in another case; else of the one label with that
        synonym; else the number itself, which is not checked.

    Raises
    ------
    TargetError
        If no label matches (near ones are named), or several do.

    Examples
    --------
    >>> find_label("tabby cat", ["tabby, tabby cat", "tiger cat"], 2)
    0
    """
    number = _number(text)
    if not labels:
        if number is None:
            raise TargetError(
                f"label {text!r} was given, but the model has no labels; give a class index, 0 to {n_classes - 1}, or labels="
            )
        return number
    found = _matching(text, labels)
    if len(found) > 1:
        named = ", ".join(f"{i} {labels[i]!r}" for i in found[:5])
        raise TargetError(f"label {text!r} fits {len(found)} classes: {named}; give the index")
    if found:
        return found[0]
    if number is not None:
        return number
    raise TargetError(f"no class is called {text!r}; {_near(_folded(text), labels)}")


def is_known(text: str, labels: Sequence[str] | None) -> bool:
    """
    Tell whether a text means a class, or several; without the search for near ones that `find_label` ends with.

    Parameters
    ----------
    text : str
        As `find_label` takes it.
    labels : sequence of str, optional
        The names of the classes.

    Returns
    -------
    bool
        Also of numbers, whatever they are.

    Examples
    --------
    >>> is_known("cat", ["dog", "cat"]), is_known("7", None), is_known("cow", ["dog", "cat"])
    (True, True, False)
    """
    return _number(text) is not None or bool(labels and _matching(text, labels))


def _number(text: str) -> int | None:
    """Return the class index that a text is, None where it is none."""
    digits = text.strip()
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 10 else None


def _matching(text: str, labels: Sequence[str]) -> list[int]:
    """Return the classes of exactly this label; else of the label in another case; else with that synonym."""
    exact, folded, synonyms = _lookups(tuple(labels))
    wanted = _folded(text)
    return exact.get(text) or folded.get(wanted) or synonyms.get(wanted, [])


@lru_cache(maxsize=8)  # as many models as are open; a request may name hundreds of classes
def _lookups(
    labels: tuple[str, ...],
) -> tuple[Mapping[str, list[int]], Mapping[str, list[int]], Mapping[str, list[int]]]:
    """Return the classes of each label, of each label in small letters, and of each synonym."""
    exact: dict[str, list[int]] = {}
    folded: dict[str, list[int]] = {}
    synonyms: dict[str, list[int]] = {}
    for i, label in enumerate(labels):
        exact.setdefault(label, []).append(i)
        folded.setdefault(_folded(label), []).append(i)
        for synonym in sorted(_synonyms(label)):
            synonyms.setdefault(synonym, []).append(i)
    return exact, folded, synonyms


def _near(wanted: str, labels: Sequence[str]) -> str:
    """Say which labels look or read like the one wanted."""
    _, _, owners = _lookups(tuple(labels))
    close = get_close_matches(wanted, _likely(wanted, owners), n=3)
    close = close or [synonym for synonym in owners if len(wanted) > 2 and wanted in synonym][:3]
    indices = dict.fromkeys(i for synonym in close for i in owners[synonym])
    if not indices:
        return f"there are {len(labels)} classes, the first is {labels[0]!r}; give a label or an index"
    return f"near are {', '.join(f'{i} {labels[i]!r}' for i in list(indices)[:5])}"


def _likely(wanted: str, names: Iterable[str]) -> list[str]:
    """Return the names that may be near: none of a length that rules it out; of many, those that share most pairs of letters."""
    size = len(wanted)
    fitting = [name for name in names if 3 * size <= 7 * len(name) and 3 * len(name) <= 7 * size]  # a ratio of 0.6
    if len(fitting) <= COMPARED:
        return fitting
    pairs = {wanted[i : i + 2] for i in range(size - 1)}
    return nlargest(COMPARED, fitting, lambda name: sum(map(name.__contains__, pairs)) / (size + len(name)))


def _folded(label: str) -> str:
    """Return a label as it is compared: no case, single spaces for underscores and runs of space."""
    return " ".join(label.replace("_", " ").casefold().split())


def _synonyms(label: str) -> set[str]:
    """Return the comma-separated parts of a label, folded."""
    return {_folded(part) for part in label.split(",")} - {""}


def _from_file(path: Path) -> tuple[str, ...]:
    """Read a file by its suffix."""
    readers = {".txt": _from_lines, ".json": _from_json, ".csv": _from_csv}
    what = str(path)
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise TargetError(f"labels come from .txt, .json or .csv files; got {what!r}")
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise TargetError(f"cannot read labels from {what!r}: {getattr(error, 'strerror', None) or error}") from error
    if len(data) > MAX_BYTES:
        raise TargetError(f"{what!r} is larger than {MAX_BYTES} bytes; give a file of labels")
    return reader(_decoded(data, repr(what)), repr(what))


def _decoded(data: bytes, what: str) -> str:
    """Return text."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TargetError(f"{what}: not UTF-8 text (byte {error.start}); save the labels as UTF-8") from error


def _from_lines(content: str, what: str) -> tuple[str, ...]:
    """Read one name a line."""
    lines = [line.strip() for line in content.rstrip().splitlines()]
    if lines and all(_WNID.match(line) for line in lines):
        lines = [_WNID.sub("", line, count=1) for line in lines]
    return _checked(lines, what)


def _from_json(content: str, what: str) -> tuple[str, ...]:
    """Read a list or an object of names."""
    try:
        data = json.loads(content)
    except (json.JSONDecodeError, RecursionError) as error:
        raise TargetError(f"{what}: not JSON ({error}); want a list of names or an object {{index: name}}") from error
    if isinstance(data, Mapping):
        inner = data.get("id2label", data)
        return _by_index(list(inner.items()) if isinstance(inner, Mapping) else [], what)
    if not isinstance(data, list):
        raise TargetError(f"{what}: want a list of names or an object {{index: name}}; got {type(data).__name__}")
    return _checked(data, what)


def _from_csv(content: str, what: str) -> tuple[str, ...]:
    """Read a table with a column of names and, if there is one, a column of indices."""
    try:
        rows = list(csv.DictReader(io.StringIO(content, newline=""), strict=True))
    except csv.Error as error:
        raise TargetError(f"{what}: not a CSV table ({error})") from error
    header = {str(column).strip().lower(): column for column in (rows[0] if rows else {})}
    name = next((header[column] for column in _NAME_COLUMNS if column in header), None)
    index = next((header[column] for column in _INDEX_COLUMNS if column in header), None)
    if name is None:
        raise TargetError(f"{what}: want a header with a column {', '.join(_NAME_COLUMNS)}; got {list(header)[:8]}")
    if index is None:
        return _checked([row[name] for row in rows], what)
    return _by_index([(row[index], row[name]) for row in rows], what)


def _by_index(pairs: Sequence[tuple[Any, Any]], what: str) -> tuple[str, ...]:
    """Put (index, name) pairs in order; every index from 0 up must be there once."""
    names: dict[int, Any] = {}
    for key, name in pairs:
        text = str(key).strip()
        if not (text.isascii() and text.isdigit() and len(text) < 10):
            raise TargetError(f"{what}: want class numbers from 0 up beside the names; got {key!r:.60}")
        if int(text) in names:
            raise TargetError(f"{what}: class {int(text)} has two names; give each class one")
        names[int(text)] = name[-1] if isinstance(name, list) and name else name  # Keras: [WordNet id, name]
    gaps = [index for index in range(len(names)) if index not in names]
    if gaps:
        raise TargetError(f"{what}: class {gaps[0]} has no name; want every class from 0 to {len(names) - 1}")
    return _checked([names[index] for index in range(len(names))], what)


def _checked(names: list[Any], what: str) -> tuple[str, ...]:
    """Refuse what is no name."""
    if not names:
        raise TargetError(f"{what}: there are no labels; want one a class")
    for index, name in enumerate(names):
        if not isinstance(name, str) or not name.strip():
            raise TargetError(f"{what}: class {index} has no name (got {name!r:.60}); want one non-empty text a class")
    return tuple(name.strip() for name in names)
