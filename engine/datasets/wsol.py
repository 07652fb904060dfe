"""
The text files of "Evaluating Weakly Supervised Object Localization Methods Right" (Choe et al., CVPR 2020): ``image_ids.txt``,
``class_labels.txt``, ``image_sizes.txt``, ``localization.txt`` in a folder a split, for ImageNet and CUB.

Their boxes ``x0,y0,x1,y1`` count from 0 and include the last pixel: ``0,0,499,374`` is the whole of a picture of 500 x 375,
and 500 never occurs. So ``x0 y0 x1+1 y1+1`` is half-open.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..errors import InputError
from .files import Files, read_text, relative_name, root_folder
from .sample import Listing, Ragged

__all__ = ["FILES", "wsol"]

FILES = ("image_ids.txt", "class_labels.txt", "image_sizes.txt", "localization.txt")


def wsol(metadata: str | os.PathLike[str], *, root: str | os.PathLike[str]) -> Listing:
    """
    List a split of wsolevaluation's metadata.

    Parameters
    ----------
    metadata : str or path-like
        The split's folder, as ``metadata/ILSVRC/test``. Of the four files, sizes and boxes may be missing.
    root : str or path-like
        The folder of the pictures, to which the ids are relative (``val/ILSVRC2012_val_00000001.JPEG``); where the pictures
        lie directly in it, their names alone are taken.

    Returns
    -------
    Listing
        Labels are the file's class numbers: for ImageNet, places in the sorted list of WordNet ids, as in torchvision.

    Raises
    ------
    InputError
        If a file is missing or a line is not as described; files of masks (OpenImages) are not read.
    """
    folder, base = root_folder(metadata, "wsolevaluation's metadata"), root_folder(root, "the pictures")
    names = [relative_name(line, "image_ids.txt") for (line,) in _lines(folder / FILES[0], 1)]
    numbers = {name: _whole(text, "class_labels.txt") for name, text in _lines(folder / FILES[1], 2)}
    sizes: dict[str, tuple[int, int]] = {}
    if (folder / FILES[2]).is_file():
        for name, width, height in _lines(folder / FILES[2], 3):
            sizes[name] = (_whole(height, FILES[2]), _whole(width, FILES[2]))
    boxes: dict[str, list[tuple[float, ...]]] = {}
    if (folder / FILES[3]).is_file():
        for name, *corners in _lines(folder / FILES[3], 5):
            x0, y0, x1, y1 = (_whole(text, FILES[3]) for text in corners)
            boxes.setdefault(name, []).append((x0, y0, x1 + 1, y1 + 1))
    missing = next((name for name in names if name not in numbers), None)
    if missing is not None:
        raise InputError(f"class_labels.txt in {str(folder)!r} has no line for {missing!r}, which image_ids.txt lists")
    labels = np.array([numbers[name] for name in names], np.int64)
    files = names
    if names and not (base / names[0]).exists() and (base / Path(names[0]).name).exists():
        files = [Path(name).name for name in names]
    return Listing(
        f"{folder.parent.name}-{folder.name}",
        names,
        Files(str(base), files),
        labels,
        Ragged.of([boxes.get(name) for name in names]) if boxes else None,
        None,
        np.array([sizes.get(name, (0, 0)) for name in names], np.int64).reshape(-1, 2),
        {int(label): str(label) for label in np.unique(labels)},
    )


def _lines(path: Path, n_fields: int) -> Iterator[list[str]]:
    """Read comma-separated lines."""
    for number, line in enumerate(read_text(path, "the metadata").splitlines(), 1):
        if not line.strip():
            continue
        fields = [text.strip() for text in line.split(",")]
        if len(fields) != n_fields:
            masks = "; files of masks are not read" if path.name == FILES[3] and len(fields) == 3 else ""
            raise InputError(f"{path.name} line {number}: want {n_fields} fields with commas, got {len(fields)}{masks}")
        yield fields


def _whole(text: str, what: str) -> int:
    """Read a whole number."""
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise InputError(f"{what}: want whole numbers from 0; got {text!r}")
    return int(text)
