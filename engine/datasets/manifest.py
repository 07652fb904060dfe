"""
A table of pictures, CSV or Parquet: the file, and what is known of it.

Column names are matched loosely, values exactly: a number that is none, a box of three corners or a file named twice is an
error with its row. The row count starts at 1 below the header.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from ..errors import InputError, MissingExtraError
from ..words import normalise
from .classmap import Labels, class_indices, label_columns
from .files import Files, MaskFiles, read_text, relative_name, root_folder
from .sample import Listing, Ragged

__all__ = ["COLUMNS", "manifest"]

COLUMNS: Mapping[str, tuple[str, ...]] = {  # what a column means: the names it may have, the first one found wins
    "file": ("file", "path", "filename", "file_path", "image", "image_path", "picture"),
    "id": ("id", "image_id", "sample_id"),
    "label": (
        "imagenet_index",
        "class_index",
        "label_index",
        "index",
        "target",
        "class_id",
        "label",
        "class",
        "class_name",
        "category",
        "wnid",
        "synset",
    ),
    "boxes": ("boxes", "box", "bboxes", "bbox", "boxes_x0_y0_x1_y1", "boxes_xyxy", "bbox_xyxy"),
    "mask": ("mask", "mask_path", "mask_file"),
    "width": ("width",),
    "height": ("height",),
}


_Rows: TypeAlias = Callable[[list[str]], Iterator[Mapping[str, Any]]]  # from names of columns


@dataclass(frozen=True, slots=True)
class _Row:
    """One row, checked."""

    file: str
    id: str
    label: str | None
    boxes: tuple[tuple[float, ...], ...]
    mask: str
    size: tuple[int, int]


def manifest(
    path: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    labels: Labels = None,
    columns: Mapping[str, str] | None = None,
    only: str | None = None,
) -> Listing:
    """
    List the pictures of a table.

    Parameters
    ----------
    path : str or path-like
        A ``.csv`` or ``.parquet`` file. Columns: ``file``, relative to `root` (or an absolute path); optionally a class as an
        index, a name or a WordNet id (``label``, ``class``, ``wnid``, ``imagenet_index``...); ``boxes``, as ``x0 y0 x1 y1``
        separated by ``;``, or lists of four numbers in Parquet, half-open in pixels of the picture; ``mask``, a file whose
        pixels other than 0 are the object; ``id``; ``width`` and ``height`` of the picture the boxes were drawn on. Empty
        cells are unknown. Columns of other names are not read.
    root : str or path-like, optional
        The folder that files are relative to; the table's own where absent.
    labels : path, sequence of str, mapping or "sorted", optional
        What class names mean (`class_indices`); indices need none.
    columns : mapping of str to str, optional
        The column to take for ``file``, ``label``, ``boxes``, ... where the usual name is not meant.
    only : str, optional
        Rows to take: those whose file matches this pattern (``images/*.png``; ``*`` crosses ``/``) or begins with it.

    Returns
    -------
    Listing
        In order of the rows.

    Raises
    ------
    InputError
        If the table cannot be read, lacks the column of files, a cell cannot be understood, a relative path leads out of
        `root`, or no row is left.
    TargetError
        If a class has no counterpart in the model.
    MissingExtraError
        If a Parquet file is given and pyarrow is not installed.
    """
    source = Path(os.path.abspath(os.fspath(path)))
    base = root_folder(source.parent if root is None else root, "the manifest's pictures")
    readers = {".csv": _from_csv, ".parquet": _from_parquet, ".pq": _from_parquet}
    reader = readers.get(source.suffix.lower())
    if reader is None:
        raise InputError(f"a manifest is a .csv or .parquet file; got {str(source)!r}")
    header, read = reader(source)
    chosen = _choose(header, columns or {}, repr(str(source)))
    rows = [
        row
        for number, record in enumerate(read(list(chosen.values())), 1)
        if (row := _row(record, chosen, only, f"{source.name} row {number}")) is not None
    ]
    if not rows:
        which = f" matches {only!r}" if only else ""
        raise InputError(f"no row of {str(source)!r}{which}; give a manifest with at least one picture")
    names = [row.label for row in rows]
    indices = class_indices({name for name in names if name is not None}, labels)
    classes, occurring, stay = label_columns(names, indices)
    kept = [row for row, stays in zip(rows, stay, strict=True) if stays]
    return Listing(
        source.stem,
        [row.id for row in kept],
        Files(str(base), [row.file for row in kept]),
        classes[stay],
        Ragged.of([row.boxes for row in kept]) if any(row.boxes for row in kept) else None,
        MaskFiles(str(base), [row.mask for row in kept]) if any(row.mask for row in kept) else None,
        np.array([row.size for row in kept], np.int64).reshape(-1, 2),
        occurring,
    )


def _from_csv(path: Path) -> tuple[list[str], _Rows]:
    """Return the header of a CSV table, and what reads its rows."""
    reader = csv.DictReader(io.StringIO(read_text(path, "the manifest"), newline=""), strict=True)

    def rows(_: list[str]) -> Iterator[Mapping[str, Any]]:
        try:
            for row in reader:
                if None in row or None in row.values():
                    raise InputError(
                        f"{path.name} line {reader.line_num} has another number of fields than the header's {len(header)}"
                    )
                yield row
        except csv.Error as error:
            raise InputError(f"{str(path)!r} line {reader.line_num}: not a CSV table ({error})") from error

    try:
        header = list(reader.fieldnames or [])
    except csv.Error as error:
        raise InputError(f"{str(path)!r}: not a CSV table ({error})") from error
    return header, rows


def _from_parquet(path: Path) -> tuple[list[str], _Rows]:
    """Return the columns of a Parquet table, and what reads some of them."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise MissingExtraError("pyarrow is needed to read Parquet: pip install 'camrt[eval]'") from error
    try:
        table = parquet.ParquetFile(str(path))
        header = list(table.schema_arrow.names)
    except (OSError, ValueError, LookupError, pyarrow.ArrowException) as error:  # damaged names are ValueErrors
        raise InputError(f"cannot read the manifest {str(path)!r}: {' '.join(str(error).split())[:200]}") from error

    def rows(wanted: list[str]) -> Iterator[Mapping[str, Any]]:
        try:
            for batch in table.iter_batches(batch_size=4096, columns=wanted):
                yield from batch.to_pylist()
        except (OSError, ValueError, LookupError, pyarrow.ArrowException) as error:  # damaged names are ValueErrors
            raise InputError(f"cannot read the manifest {str(path)!r}: {' '.join(str(error).split())[:200]}") from error

    return header, rows


def _choose(header: Sequence[str], columns: Mapping[str, str], what: str) -> dict[str, str]:
    """Return the table's column for each meaning that it has."""
    for meaning, column in columns.items():
        if meaning not in COLUMNS:
            raise InputError(f"columns: {meaning!r} is not one of {', '.join(COLUMNS)}")
        if column not in header:
            raise InputError(f"{what} has no column {column!r}; it has {', '.join(header)}")
    there = {normalise(name): name for name in header if name}
    usual = {
        meaning: next((there[normalise(name)] for name in names if normalise(name) in there), "")
        for meaning, names in COLUMNS.items()
    }
    chosen = {meaning: column for meaning, column in {**usual, **columns}.items() if column}
    if "file" not in chosen:
        raise InputError(
            f"{what} has no column of files; want one called {', '.join(COLUMNS['file'])}, or columns={{'file': ...}}; "
            f"it has {', '.join(header) or 'no columns'}"
        )
    return chosen


def _row(record: Mapping[str, Any], chosen: Mapping[str, str], only: str | None, what: str) -> _Row | None:
    """Check one row; None where `only` leaves it out."""
    cells = {meaning: record[column] for meaning, column in chosen.items()}
    written = _cell(cells["file"])
    if only and not (written.startswith(only) or fnmatchcase(written, only)):
        return None
    mask = _cell(cells.get("mask"))
    size = [_side(cells.get(side), f"{what}: {side}") for side in ("height", "width")]
    file = _file(written, what)
    return _Row(
        file=file,
        id=_cell(cells.get("id")) or file,
        label=_cell(cells.get("label")) or None,
        boxes=_boxes(cells.get("boxes"), what),
        mask=_file(mask, f"{what}: mask") if mask else "",
        size=(size[0], size[1]),
    )


def _cell(value: Any) -> str:
    """Return a cell as text, a whole number without its point."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def _file(name: str, what: str) -> str:
    """Take an absolute path as the user wrote it, hold a relative one to the root."""
    return name if os.path.isabs(name) else relative_name(name, what)


def _side(value: Any, what: str) -> int:
    """Read a width or height; 0 where unknown."""
    text = _cell(value)
    if text and not (text.isascii() and text.isdigit() and len(text) < 10):
        raise InputError(f"{what} must be a whole number of pixels; got {text!r}")
    return int(text or 0)


def _boxes(value: Any, what: str) -> tuple[tuple[float, ...], ...]:
    """Read ``x0 y0 x1 y1;...``, or lists of four numbers."""
    try:
        if value is None or isinstance(value, str | float):
            parts: list[Any] = [part.replace(",", " ").split() for part in _cell(value).split(";") if part.strip()]
        else:
            items = list(value)
            parts = [items] if items and not isinstance(items[0], list | tuple) else items
        boxes = tuple(tuple(float(number) for number in part) for part in parts)
    except (TypeError, ValueError):
        boxes = ((),)
    if any(len(box) != 4 or not all(map(math.isfinite, box)) for box in boxes):
        raise InputError(f"{what}: boxes must be 'x0 y0 x1 y1', separated by ';'; got {str(value)!r:.80}")
    return boxes
