"""
From a data set's classes to the model's.

Folders are called ``n01440764`` or ``cats``, manifests say "tabby", COCO says 17: none of these is an index of the model's
logits. Names go in with what the caller knows (the model's class names, a file, a dict); an index for each comes out. A
class that fits nowhere is an error that names it, because a wrong class would spoil every figure without a word.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..errors import TargetError
from ..labels import find_label
from ..words import normalise
from .files import read_text

__all__ = ["WNID", "Labels", "class_indices", "label_columns"]

Labels: TypeAlias = str | os.PathLike[str] | Sequence[str] | Mapping[str, int | None] | None

WNID = re.compile(r"n\d{8}")  # a WordNet id, ImageNet's name of a class
_NAME_COLUMNS = ("wnid", "synset", "folder", "category", "class", "class_name", "name", "names", "label", "labels")
_INDEX_COLUMNS = ("index", "class_index", "imagenet_index", "model_index", "label_index", "target", "class_id", "id")


def class_indices(
    names: Iterable[str], labels: Labels = None, *, order: Sequence[str] | None = None
) -> dict[str, int | None]:
    """
    Return the model's class index of each name.

    Parameters
    ----------
    names : iterable of str
        The data set's classes: names, WordNet ids or numbers.
    labels : path, sequence of str, mapping or "sorted", optional
        What they mean. A sequence: the model's class names, of which each name must be one, or a synonym. A mapping: from
        name to index, None for classes to leave out. A file: ``.csv`` with a column index (or class_index,
        imagenet_index...) and one or more of names (class, name, label, wnid...), ``.json`` with such a mapping, a list, ``{index: name}`` or Keras'
        ``{index: [WordNet id, name]}``, or ``.txt`` with one class a line, WordNet ids before names. "sorted": names in
        alphabetical order are classes 0, 1, ... as in torchvision's ImageFolder. Absent: names that are numbers are
        indices, and any others need `order`. Exactly 1000 WordNet ids are ImageNet's classes in their order, where the
        map knows no such ids.
    order : sequence of str, optional
        The data set's own order of its classes, which holds where `labels` is absent.

    Returns
    -------
    dict of str to int or None
        None where the map says so.

    Raises
    ------
    TargetError
        If a class has no counterpart, or the map cannot be read.

    Examples
    --------
    >>> class_indices(["dog", "tabby"], ["tabby, tabby cat", "dog"])
    {'dog': 1, 'tabby': 0}
    >>> class_indices(["7", "12"])
    {'12': 12, '7': 7}
    """
    wanted = sorted(set(names))
    if isinstance(labels, str) and labels == "sorted":
        return {name: index for index, name in enumerate(wanted)}
    if labels is None:
        return _plain(wanted, order)
    known, model = _read(labels)
    if _is_imagenet(wanted) and not any(WNID.fullmatch(name) for name in known):
        return _plain(wanted, None)
    folded: dict[str, set[int | None]] = {}
    for name, index in known.items():
        folded.setdefault(normalise(name), set()).add(index)
    found: dict[str, int | None] = {}
    missing: list[str] = []
    for name in wanted:
        near = folded.get(normalise(name), set())
        if name in known:
            found[name] = known[name]
        elif len(near) == 1:
            found[name] = next(iter(near))
        else:
            try:
                found[name] = _named(name, model)
            except TargetError:
                missing.append(name)
    if missing:
        shown = ", ".join(repr(name) for name in missing[:10]) + (", ..." if len(missing) > 10 else "")
        raise TargetError(
            f"{len(missing)} of {len(wanted)} classes of the data set fit no class of the model, or several: {shown}; "
            "give a map from name to index, with null for classes to leave out"
        )
    return found


def label_columns(
    names: Sequence[str | None], indices: Mapping[str, int | None]
) -> tuple[npt.NDArray[np.int64], dict[int, str], npt.NDArray[np.bool_]]:
    """
    Turn each sample's class name into the columns of a listing.

    Parameters
    ----------
    names : sequence of str or None
        The class of each sample; None where unknown.
    indices : mapping of str to int or None
        What `class_indices` returned.

    Returns
    -------
    ndarray of int64, shape (N,)
        Class indices, -1 where unknown.
    dict of int to str
        The names of the indices that occur.
    ndarray of bool, shape (N,)
        Which samples stay: all but those whose class is left out.
    """
    found = [None if name is None else indices[name] for name in names]
    labels = np.array([-1 if index is None else index for index in found], np.int64)
    stay = np.array([name is None or index is not None for name, index in zip(names, found, strict=True)], bool)
    occurring: dict[int, str] = {}
    for name, index in zip(names, found, strict=True):
        if name is not None and index is not None:
            occurring.setdefault(index, name)
    return labels, occurring, stay


def _plain(wanted: list[str], order: Sequence[str] | None) -> dict[str, int | None]:
    """Settle the classes where nothing is said about them."""
    if order is not None:
        places: dict[str, int | None] = {name: index for index, name in enumerate(order)}
        unknown = [name for name in wanted if name not in places]
        if not unknown:
            return {name: places[name] for name in wanted}
        raise TargetError(f"no class of the data set is called {unknown[0]!r}; give a map from its classes to indices")
    if all(_is_number(name) for name in wanted):
        return {name: int(name) for name in wanted}
    if _is_imagenet(wanted):
        return {name: index for index, name in enumerate(wanted)}  # ILSVRC's classes are numbered in this order
    shown = ", ".join(repr(name) for name in wanted[:5])
    raise TargetError(
        f"which classes of the model are {shown}{'...' if len(wanted) > 5 else ''}? Give the model's class names, a file "
        "or a map from name to index, or 'sorted' for alphabetical order"
    )


def _read(labels: Any) -> tuple[dict[str, int | None], tuple[str, ...]]:
    """Return every name that has an index, and the model's names where they are known."""
    if isinstance(labels, Mapping):
        return _from_mapping(labels, "the class map"), ()
    if isinstance(labels, str | os.PathLike):
        path = Path(labels)
        readers = {".csv": _from_csv, ".json": _from_json, ".txt": _from_lines}
        reader = readers.get(path.suffix.lower())
        if reader is None:
            raise TargetError(f"class maps come from .csv, .json or .txt files, or are 'sorted'; got {str(labels)!r}")
        return reader(read_text(path, "the class map"), repr(str(path)))
    if isinstance(labels, Sequence) and all(isinstance(name, str) for name in labels):
        return _from_names(list(labels))
    raise TargetError(f"want class names, a file or a map from name to index; got {type(labels).__name__}")


def _from_mapping(pairs: Mapping[Any, Any], what: str) -> dict[str, int | None]:
    """Check a map from name to index."""
    found: dict[str, int | None] = {}
    for name, index in pairs.items():
        is_index = isinstance(index, int | np.integer) and not isinstance(index, bool) and 0 <= index < 2**31
        if not (index is None or is_index):
            raise TargetError(
                f"{what}: class {name!r} must have an index from 0, or null to leave it out; got {index!r}"
            )
        found[str(name)] = None if index is None else int(index)
    return found


def _from_names(names: list[str]) -> tuple[dict[str, int | None], tuple[str, ...]]:
    """Number names in order; one that occurs twice is known by its index alone."""
    known: dict[str, int | None] = {}
    twice: set[str] = set()
    for index, name in enumerate(names):
        if name in known:
            twice.add(name)
        known[name] = index
    return {name: index for name, index in known.items() if name not in twice}, tuple(names)


def _from_lines(content: str, what: str) -> tuple[dict[str, int | None], tuple[str, ...]]:
    """Read one class a line, WordNet ids before the names."""
    lines = [line.strip() for line in content.rstrip().splitlines()]
    if not lines or not all(lines):
        raise TargetError(f"{what}: want one class a line, none empty")
    known, labels = _from_names([WNID.sub("", line, count=1).strip() if WNID.match(line) else line for line in lines])
    known.update({match[0]: index for index, line in enumerate(lines) if (match := WNID.match(line))})
    return known, labels


def _from_json(content: str, what: str) -> tuple[dict[str, int | None], tuple[str, ...]]:
    """Read a list of names, a map from name to index, or one from index to name."""
    try:
        data = json.loads(content)
    except (json.JSONDecodeError, RecursionError) as error:
        raise TargetError(f"{what}: not JSON ({error})") from error
    data = data.get("id2label", data) if isinstance(data, dict) else data
    if isinstance(data, list) and all(isinstance(name, str) for name in data):
        return _from_names(data)
    if not isinstance(data, dict) or not data:
        raise TargetError(f"{what}: want a list of names, or an object that maps names to indices")
    if all(index is None or isinstance(index, int) for index in data.values()):
        return _from_mapping(data, what), ()
    rows = [
        (key, [str(name) for name in (value if isinstance(value, list) else [value])]) for key, value in data.items()
    ]
    return _from_rows(rows, what)


def _from_csv(content: str, what: str) -> tuple[dict[str, int | None], tuple[str, ...]]:
    """Read a table: a column of indices, or the order of the rows, and any columns of names."""
    try:
        rows = list(csv.DictReader(io.StringIO(content, newline=""), strict=True))
    except csv.Error as error:
        raise TargetError(f"{what}: not a CSV table ({error})") from error
    header = {str(column).strip().lower(): column for column in (rows[0] if rows else {})}
    index = next((header[column] for column in _INDEX_COLUMNS if column in header), None)
    named = [header[column] for column in _NAME_COLUMNS if column in header and header[column] != index]
    if index is None or not named:
        raise TargetError(
            f"{what}: want a column of indices ({', '.join(_INDEX_COLUMNS)}) and one of names "
            f"({', '.join(_NAME_COLUMNS)}); got {', '.join(header) or 'no rows'}"
        )
    return _from_rows(
        [(row[index], [text.strip() for column in named if (text := row[column])]) for row in rows],
        what,
    )


def _from_rows(rows: Sequence[tuple[Any, list[str]]], what: str) -> tuple[dict[str, int | None], tuple[str, ...]]:
    """Make every name of a row mean the row's index; one that two rows claim means neither."""
    known: dict[str, int | None] = {}
    twice: set[str] = set()
    for key, names in rows:
        text = str(key or "").strip()
        if text and not _is_number(text):
            raise TargetError(f"{what}: want class indices from 0, empty for classes to leave out; got {key!r:.60}")
        index = int(text) if text else None
        for name in filter(None, names):
            if known.setdefault(name, index) != index:
                twice.add(name)
    numbered = {int(str(key).strip()): names for key, names in rows if str(key or "").strip()}
    full = sorted(numbered) == list(range(len(numbered))) and all(numbered[i] for i in numbered)
    labels = tuple(numbered[i][-1] for i in range(len(numbered))) if full else ()
    return {name: index for name, index in known.items() if name not in twice}, labels


def _is_imagenet(wanted: list[str]) -> bool:
    """Tell whether these are the 1000 WordNet ids of a model of ImageNet."""
    return len(wanted) == 1000 and all(WNID.fullmatch(name) for name in wanted)


def _is_number(text: str) -> bool:
    """Tell whether a text is a class index."""
    return text.isascii() and text.isdigit() and len(text) < 10


def _named(text: str, model: tuple[str, ...]) -> int:
    """Return the class of the model that a text means; beside a map alone, a number means nothing either."""
    if not model:
        raise TargetError(f"the class map has no {text!r}")
    return find_label(text, model, len(model))
