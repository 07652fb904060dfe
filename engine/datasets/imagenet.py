"""
ImageNet's validation pictures (ILSVRC 2012), in the layouts people have them in.

Classes have two numberings. Everybody's models use the place in the sorted list of WordNet ids, 0 to 999; the development
kit's ``ILSVRC2012_validation_ground_truth.txt`` has ILSVRC ids, 1 to 1000 in another order, which mean nothing without the
kit's list (``synsets=``). Corners in the box XML count from 0 and include the last pixel, unlike Pascal VOC's (see
`camrt.datasets.wsol`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

import numpy as np

from ..errors import InputError, MissingExtraError
from .annotations import Annotation, read_annotation
from .classmap import WNID, Labels, class_indices, label_columns
from .files import Files, pictures, read_text, root_folder
from .sample import Listing, Ragged

__all__ = ["PICTURE", "TRUTHS", "imagenet"]

PICTURE = re.compile(r"ILSVRC2012_val_(\d{8})")
TRUTHS = ("val.txt", "LOC_val_solution.csv", "ILSVRC2012_validation_ground_truth.txt")
_Boxes = list[tuple[float, float, float, float]]


def imagenet(
    root: str | os.PathLike[str],
    *,
    labels: Labels = None,
    truth: str | os.PathLike[str] | None = None,
    boxes: str | os.PathLike[str] | None = None,
    synsets: str | os.PathLike[str] | None = None,
) -> Listing:
    """
    List ImageNet's validation pictures, or some of them.

    Parameters
    ----------
    root : str or path-like
        Folder of ``ILSVRC2012_val_00000001.JPEG`` and so on, flat or in sub-folders called after their WordNet ids.
    labels : path, sequence of str, mapping or "sorted", optional
        What WordNet ids mean to the model (`class_indices`); may be absent where the truth has indices, or all 1000 ids.
    truth : str or path-like, optional
        Where the classes stand: lines ``file index`` or ``file wnid`` (Caffe's ``val.txt``); one WordNet id a line, in order
        of the pictures' numbers; one ILSVRC id a line, which needs `synsets`; or Kaggle's ``LOC_val_solution.csv``, which has
        boxes too. Absent: the sub-folders' names, else one of these files in or beside `root`, else the box XML.
    boxes : str or path-like, optional
        Folder of box XML, ``ILSVRC2012_val_00000001.xml`` and so on. Pictures without one have no boxes.
    synsets : str or path-like, optional
        The WordNet ids in order of the ILSVRC ids: the kit's ``meta.mat`` (needs SciPy), or a text file with one a line.

    Returns
    -------
    Listing
        In order of the paths.

    Raises
    ------
    InputError
        If there are no such pictures, their classes are not to be found, or a file is not as described.
    TargetError
        If a WordNet id has no counterpart in the model.
    MissingExtraError
        If ``meta.mat`` is given and SciPy is not installed.

    References
    ----------
    Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", IJCV 2015; the 2012 development kit's readme.
    """
    base = root_folder(root, "ImageNet's validation pictures")
    files = [name for name in pictures(base) if PICTURE.search(name)]
    if not files:
        raise InputError(f"no picture called ILSVRC2012_val_........ lies in {str(base)!r}")
    stems = [_stem(name) for name in files]
    notes = _xml(root_folder(boxes, "ImageNet's boxes"), stems) if boxes is not None else {}
    found_boxes = {stem: [_half_open(thing.corners) for thing in note.things] for stem, note in notes.items()}
    file = None if truth is None else Path(truth)
    by_folder = [Path(name).parent.name for name in files]
    if file is None and not all(WNID.fullmatch(name) for name in by_folder):
        places = [place / name for place in (base, base.parent) for name in TRUTHS]
        file = next((place for place in places if place.is_file()), None)
        if file is None and not notes:
            shown = ", ".join(TRUTHS)
            raise InputError(
                f"the classes are not to be found: no sub-folders of WordNet ids, no {shown}; give truth=, or say kind='folder'"
            )
    classes: dict[str, str] = dict(zip(stems, by_folder, strict=True))
    if file is not None:
        classes, more = _truth(file, synsets)
        found_boxes = found_boxes or more
    elif not all(WNID.fullmatch(name) for name in by_folder):
        classes = {stem: note.things[0].name for stem, note in notes.items() if note.things}
    missing = next((stem for stem in stems if stem not in classes), None)
    if missing is not None:
        raise InputError(f"{missing} has no class in {str(file or boxes)!r}; give a truth for every picture")
    own = [classes[stem] for stem in stems]
    indices, occurring, stay = label_columns(own, class_indices(own, labels))
    kept = [name for name, stays in zip(files, stay, strict=True) if stays]
    rows = [found_boxes.get(_stem(name)) for name in kept]
    return Listing(
        base.name,
        kept,
        Files(str(base), kept),
        indices[stay],
        Ragged.of(rows) if any(rows) else None,
        None,
        np.array([notes[stem].size if (stem := _stem(name)) in notes else (0, 0) for name in kept], np.int64),
        occurring,
    )


def _stem(name: str) -> str:
    """Return ``ILSVRC2012_val_........`` of a file's name."""
    match = PICTURE.search(name)
    return match[0] if match else ""


def _half_open(corners: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    """Turn inclusive corners from 0 into half-open ones."""
    x0, y0, x1, y1 = corners
    return (x0, y0, x1 + 1, y1 + 1)


def _xml(folder: Path, stems: Sequence[str]) -> Mapping[str, Annotation]:
    """Read the annotations there are."""
    there = {stem: folder / f"{stem}.xml" for stem in stems}
    notes = {stem: read_annotation(path) for stem, path in there.items() if path.is_file()}
    if not notes:
        raise InputError(f"no box XML of these pictures lies in {str(folder)!r}; looked for {stems[0]}.xml and so on")
    return notes


def _truth(file: Path, synsets: str | os.PathLike[str] | None) -> tuple[dict[str, str], dict[str, _Boxes]]:
    """Read the class of each picture, and boxes where the file has them."""
    what = repr(str(file))
    rows = [line.replace(",", " ").split() for line in read_text(file, "the truth").splitlines() if line.strip()]
    if rows and rows[0] == ["ImageId", "PredictionString"]:
        return _kaggle(rows[1:], what)
    if rows and all(len(row) == 1 for row in rows):
        return _by_number([row[0] for row in rows], synsets, what), {}
    if not rows or not all(len(row) == 2 and _stem(row[0]) for row in rows):
        raise InputError(
            f"{what}: want lines 'ILSVRC2012_val_........ class', one class a line, or LOC_val_solution.csv"
        )
    if len(rows) > 1 and all(row[1].isdigit() and int(row[1]) == int(_stem(row[0])[-8:]) for row in rows):
        raise InputError(f"{what} numbers the pictures, it does not say their classes; give another truth")
    return {_stem(row[0]): row[1] for row in rows}, {}


def _by_number(values: Sequence[str], synsets: str | os.PathLike[str] | None, what: str) -> dict[str, str]:
    """Give line k to picture k."""
    if not all(WNID.fullmatch(value) for value in values):
        if synsets is None:
            raise InputError(
                f"{what} has one number a line: ILSVRC ids, whose order is not that of the models' classes; give synsets=, "
                "the kit's meta.mat or a list of WordNet ids in that order, or a truth with lines 'file index'"
            )
        ids = _synsets(Path(synsets))
        bad = next((value for value in values if not value.isdigit() or not 1 <= int(value) <= len(ids)), None)
        if bad is not None:
            raise InputError(f"{what}: ILSVRC ids run from 1 to {len(ids)}; got {bad!r}")
        values = [ids[int(value) - 1] for value in values]
    return {f"ILSVRC2012_val_{number:08d}": value for number, value in enumerate(values, 1)}


def _kaggle(rows: Sequence[Sequence[str]], what: str) -> tuple[dict[str, str], dict[str, _Boxes]]:
    """Read ``ImageId,wnid x0 y0 x1 y1 wnid ...``."""
    classes: dict[str, str] = {}
    boxes: dict[str, _Boxes] = {}
    for number, (name, *fields) in enumerate(rows, 1):
        try:
            groups = [fields[start : start + 5] for start in range(0, len(fields), 5)]
            corners = [(float(a), float(b), float(c), float(d)) for _, a, b, c, d in groups]
            classes[name], boxes[name] = fields[0], [_half_open(box) for box in corners]
        except (ValueError, IndexError) as error:
            raise InputError(f"{what} row {number}: want 'wnid x0 y0 x1 y1' once or more") from error
    return classes, boxes


def _synsets(path: Path) -> list[str]:
    """Return the WordNet ids in order of the ILSVRC ids."""
    if path.suffix.lower() == ".mat":
        return _meta(path)
    found = [match[0] for line in read_text(path, "the synsets").splitlines() if (match := WNID.search(line))]
    if len(found) < 2 or len(set(found)) != len(found):
        raise InputError(f"{str(path)!r}: want one WordNet id a line, in order of the ILSVRC ids, each once")
    return found


def _meta(path: Path) -> list[str]:
    """Read the development kit's ``meta.mat``; inner nodes of the tree have children and no pictures."""
    try:
        matlab = import_module("scipy.io.matlab")
    except ModuleNotFoundError as error:
        raise MissingExtraError("SciPy is needed to read meta.mat: pip install scipy, or give a text file") from error
    try:
        table = matlab.loadmat(str(path), squeeze_me=True)["synsets"]
        leaves = [row for row in table if int(row["num_children"]) == 0]
        return [str(row["WNID"]) for row in sorted(leaves, key=lambda row: int(row["ILSVRC2012_ID"]))]
    except (OSError, LookupError, ValueError, TypeError, NotImplementedError, matlab.MatReadError) as error:
        raise InputError(f"{str(path)!r} is not the development kit's meta.mat ({error})") from error
