"""
Pascal VOC: ``JPEGImages``, ``Annotations``, ``ImageSets`` and, for some pictures, masks.

Corners count from 1 and include the last pixel, so ``xmin ymin xmax ymax`` becomes ``xmin-1 ymin-1 xmax ymax``, half-open
from 0. Masks are palette files: 0 is background, 255 is ignored (the outlines), other numbers are the class
(``SegmentationClass``, 1 to 20 in alphabetical order) or the object (``SegmentationObject``).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..image import decode_mask
from .annotations import Annotation, read_annotation
from .classmap import Labels, class_indices
from .files import Files, locate, read_text, relative_name, root_folder
from .objects import Per, Thing, grouped
from .sample import Listing, Ragged

__all__ = ["NAMES", "voc"]

NAMES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
IGNORED = 255


def voc(
    root: str | os.PathLike[str], *, labels: Labels = None, split: str | None = None, per: Per = "class"
) -> Listing:
    """
    List a Pascal VOC data set.

    Parameters
    ----------
    root : str or path-like
        The folder with ``JPEGImages`` and ``Annotations``, as ``VOCdevkit/VOC2012``.
    labels : path, sequence of str, mapping or "sorted", optional
        What the class names mean to the model (`class_indices`); absent, the twenty in alphabetical order.
    split : str, optional
        A list under ``ImageSets``: ``val``, ``Segmentation/val``, ``Main/cat_val`` (whose ``-1`` lines are left out). A bare
        name is looked for in ``Main``, then ``Segmentation``. Absent: every annotated picture.
    per : {"class", "image"}, default "class"
        A sample for each class of a picture, or one for its largest object.

    Returns
    -------
    Listing
        With all boxes of the class, difficult ones too. Masks where ``SegmentationClass`` or ``SegmentationObject`` has
        one: all pixels of the class; 255 is ignored.

    Raises
    ------
    InputError
        If a folder, list or annotation is missing or not as described, or nothing is left.
    TargetError
        If a class has no counterpart in the model.
    """
    base = root_folder(root, "Pascal VOC")
    for name in ("JPEGImages", "Annotations"):
        root_folder(base / name, "Pascal VOC")
    stems = _listed(base, split) if split else sorted(path.stem for path in (base / "Annotations").glob("*.xml"))
    notes = {stem: read_annotation(base / "Annotations" / f"{stem}.xml") for stem in stems}
    indices = class_indices({thing.name for note in notes.values() for thing in note.things}, labels, order=NAMES)
    ids, files, groups, sizes = [], [], [], []
    for stem, note in notes.items():
        for group in grouped(_things(note, indices), per):
            ids.append(f"JPEGImages/{stem}.jpg#{group[0].name}" if per == "class" else f"JPEGImages/{stem}.jpg")
            files.append(f"JPEGImages/{stem}.jpg")
            groups.append(group)
            sizes.append(note.size)
    return Listing(
        base.name,
        ids,
        Files(str(base), files),
        np.array([group[0].index for group in groups], np.int64),
        Ragged.of([[thing.box for thing in group] for group in groups]),
        _masks(base, files, groups),
        np.array(sizes, np.int64).reshape(-1, 2),
        {group[0].index: group[0].name for group in groups},
    )


def _listed(base: Path, split: str) -> list[str]:
    """Read the stems of an image set."""
    name = relative_name(split, "the split")
    places = [f"ImageSets/{folder}{name}.txt" for folder in ("", "Main/", "Segmentation/")]
    found = next((place for place in places if (base / place).is_file()), None)
    if found is None:
        raise InputError(f"Pascal VOC has no image set {split!r}; looked for {', '.join(places)} in {str(base)!r}")
    rows = [line.split() for line in read_text(base / found, "the image set").splitlines() if line.strip()]
    stems = [relative_name(row[0], found) for row in rows if row[-1] != "-1" or len(row) == 1]
    return list(dict.fromkeys(stems))


def _things(note: Annotation, indices: dict[str, int | None]) -> list[Thing]:
    """Return the objects whose class the model has, in half-open boxes."""
    found = []
    for number, marked in enumerate(note.things):
        index = indices[marked.name]
        x0, y0, x1, y1 = marked.corners
        if index is not None:
            box = (x0 - 1, y0 - 1, x1, y1)
            found.append(Thing(marked.name, index, box, (box[2] - box[0]) * (box[3] - box[1]), number))
    return found


def _masks(base: Path, files: Sequence[str], groups: Sequence[Sequence[Thing]]) -> _Masks | None:
    """Find the mask file of each sample and the numbers that are its object."""
    names: list[str] = []
    numbers: list[tuple[int, ...]] = []
    for file, group in zip(files, groups, strict=True):
        stem = Path(file).stem
        by_class, by_object = f"SegmentationClass/{stem}.png", f"SegmentationObject/{stem}.png"
        if group[0].name in NAMES and (base / by_class).is_file():
            names.append(by_class)
            numbers.append((NAMES.index(group[0].name) + 1,))
        elif (base / by_object).is_file():
            names.append(by_object)
            numbers.append(tuple(thing.number + 1 for thing in group))
        else:
            names.append("")
            numbers.append(())
    return _Masks(str(base), names, numbers) if any(names) else None


@dataclass(frozen=True, eq=False)
class _Masks:
    """
    Masks as palette files; `Marks`.

    Attributes
    ----------
    root : str
        The data set's folder.
    names : sequence of str
        The file of each sample, empty where there is none.
    numbers : sequence of tuple of int
        The palette indices that are the object.
    """

    root: str
    names: Sequence[str]
    numbers: Sequence[tuple[int, ...]]

    def mask(self, index: int) -> Callable[[], npt.NDArray[np.bool_]] | None:
        """Return what reads the object's pixels."""
        return partial(_pixels, self.root, self.names[index], self.numbers[index]) if self.names[index] else None

    def ignored(self, index: int) -> Callable[[], npt.NDArray[np.bool_]] | None:
        """Return what reads the outlines."""
        return partial(_pixels, self.root, self.names[index], (IGNORED,)) if self.names[index] else None

    def stamp(self, index: int) -> str:
        """Return the size of the mask's file and the numbers."""
        name = self.names[index]
        return f"{Files(self.root, [name]).n_bytes(0)} {self.numbers[index]}" if name else ""


def _pixels(root: str, name: str, numbers: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Read a mask file's pixels of some numbers."""
    found: npt.NDArray[np.bool_] = np.isin(decode_mask(locate(root, name)), numbers)
    return found
