"""
COCO's instance annotations: one JSON file beside a folder of pictures.

Boxes are ``x y width height`` from 0, so ``x y x+width y+height`` is half-open already. A crowd (``iscrowd``) is many
objects under one mark: it is no object of its own here, and its pixels are ignored in samples of its class.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from .classmap import Labels, class_indices
from .files import Files, relative_name, root_folder
from .objects import Per, Thing, grouped
from .sample import Listing, Ragged
from .segments import read_segment

__all__ = ["coco"]

MAX_BYTES = 2_000_000_000  # instances_train2017.json has 470 MB


def coco(
    annotations: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    labels: Labels = None,
    per: Per = "class",
) -> Listing:
    """
    List a COCO data set.

    Parameters
    ----------
    annotations : str or path-like
        ``instances_*.json``.
    root : str or path-like, optional
        The folder of the pictures. Absent: the first of ``../<split>`` (as ``val2017`` beside ``annotations``),
        ``../images/<split>``, ``../images`` and the file's own folder that holds the first picture.
    labels : path, sequence of str, mapping or "sorted", optional
        What the category names mean to the model (`class_indices`); absent, the categories in order of their ids are
        classes 0, 1, ... (80 for COCO, whose ids run to 90).
    per : {"class", "image"}, default "class"
        A sample for each category of a picture, or one for its largest object. Pictures without objects give none.

    Returns
    -------
    Listing
        With boxes, and masks where there are segmentations.

    Raises
    ------
    InputError
        If the file is missing or no such JSON, or no picture has an object.
    TargetError
        If a category has no counterpart in the model.

    Notes
    -----
    Segmentations are kept as JSON text and decoded when asked for.
    """
    path = Path(os.path.abspath(os.fspath(annotations)))
    data, checksum = _read(path)
    names, images = _tables(data, path)
    order = [names[key] for key in sorted(names)]
    indices = class_indices(names.values(), labels, order=order)
    base = root_folder(root, "COCO") if root is not None else _beside(path, images)
    by_image: dict[int, list[dict[str, Any]]] = {}
    for item in data["annotations"]:
        if item["image_id"] not in images or item["category_id"] not in names:
            raise InputError(
                f"{str(path)!r}: annotation {item.get('id')} names picture {item['image_id']} or category "
                f"{item['category_id']}, which the file does not list"
            )
        by_image.setdefault(item["image_id"], []).append(item)
    ids, files, groups, sizes, segments, crowds = [], [], [], [], [], []
    for key, (file, size) in images.items():
        items = by_image.get(key, [])
        for group in grouped(_things(items, names, indices), per):
            ids.append(f"{file}#{group[0].name}" if per == "class" else file)
            files.append(file)
            groups.append(group)
            sizes.append(size)
            segments.append(_text([items[thing.number] for thing in group]))
            category = items[group[0].number]["category_id"]
            crowds.append(_text([item for item in items if item.get("iscrowd") and item["category_id"] == category]))
    return Listing(
        path.stem,
        ids,
        Files(str(base), files),
        np.array([group[0].index for group in groups], np.int64),
        Ragged.of([[thing.box for thing in group] for group in groups]),
        _Segments(segments, crowds, sizes, checksum),
        np.array(sizes, np.int64).reshape(-1, 2),
        {group[0].index: group[0].name for group in groups},
    )


def _read(path: Path) -> tuple[dict[str, Any], str]:
    """Read the JSON and its checksum."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{str(path)!r} is larger than {MAX_BYTES} bytes; split it")
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read annotations from {str(path)!r}: {error.strerror or error}") from error
    try:
        data = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{str(path)!r} is not JSON ({error})") from error
    wanted = ("images", "annotations", "categories")
    if not isinstance(data, dict) or not all(isinstance(data.get(key), list) for key in wanted):
        raise InputError(f"{str(path)!r} holds no COCO instances; want an object with lists {', '.join(wanted)}")
    return data, hashlib.sha256(content).hexdigest()


def _tables(data: dict[str, Any], path: Path) -> tuple[dict[int, str], dict[int, tuple[str, tuple[int, int]]]]:
    """Return category names and pictures by id, with every field that is used checked."""
    try:
        names = {int(item["id"]): str(item["name"]) for item in data["categories"]}
        images = {
            item["id"]: (
                relative_name(item["file_name"], f"picture {item['id']}"),
                (int(item.get("height") or 0), int(item.get("width") or 0)),
            )
            for item in data["images"]
        }
        if any(max(size) >= 2**31 for _, size in images.values()):
            raise ValueError("a picture's height or width is beyond any format's")
        for item in data["annotations"]:
            x, y, width, height = (float(number) for number in item["bbox"])
            item["bbox"] = (x, y, x + width, y + height)
            item["area"] = float(item["area"]) if item.get("area") is not None else width * height
            if not isinstance(item["image_id"], int | str) or not isinstance(item["category_id"], int):
                raise TypeError("image_id and category_id must be numbers")
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(
            f"{str(path)!r}: not as COCO writes instances ({type(error).__name__}: {error}); want categories with id and "
            "name, images with id and file_name, annotations with image_id, category_id and bbox"
        ) from error
    return names, images


def _things(items: Sequence[dict[str, Any]], names: dict[int, str], indices: dict[str, int | None]) -> list[Thing]:
    """Return the objects whose category the model has; crowds are none."""
    found = []
    for number, item in enumerate(items):
        name = names[item["category_id"]]
        index = indices[name]
        if index is not None and not item.get("iscrowd"):
            found.append(Thing(name, index, item["bbox"], item["area"], number))
    return found


def _text(items: Sequence[dict[str, Any]]) -> bytes:
    """Pack segmentations; empty where none is there."""
    found = [item["segmentation"] for item in items if item.get("segmentation")]
    return json.dumps(found, separators=(",", ":")).encode() if found and len(found) == len(items) else b""


def _beside(path: Path, images: dict[int, tuple[str, tuple[int, int]]]) -> Path:
    """Find the folder of the pictures."""
    first = next((file for file, _ in images.values()), "")
    split = path.stem.rsplit("_", 1)[-1]
    above = path.parent.parent
    places = [above / split, above / "images" / split, above / "images", above, path.parent / "images", path.parent]
    found = next((place for place in places if (place / first).is_file()), None)
    if found is None:
        shown = ", ".join(str(place) for place in places)
        raise InputError(f"found no picture {first!r} of {str(path)!r}; looked in {shown}; give root=")
    return found


@dataclass(frozen=True, eq=False)
class _Segments:
    """
    Masks as polygons and run lengths; `Marks`.

    Attributes
    ----------
    objects, crowds : sequence of bytes
        JSON lists of segmentations of each sample, empty where there are none.
    sizes : sequence of tuple of int
        ``(height, width)`` of the pictures.
    checksum : str
        Of the file they come from.
    """

    objects: Sequence[bytes]
    crowds: Sequence[bytes]
    sizes: Sequence[tuple[int, int]]
    checksum: str

    def mask(self, index: int) -> Callable[[], npt.NDArray[np.bool_]] | None:
        """Return what decodes the objects' pixels."""
        return partial(_union, self.objects[index], *self.sizes[index]) if self.objects[index] else None

    def ignored(self, index: int) -> Callable[[], npt.NDArray[np.bool_]] | None:
        """Return what decodes the crowds' pixels."""
        return partial(_union, self.crowds[index], *self.sizes[index]) if self.crowds[index] else None

    def stamp(self, index: int) -> str:
        """Return the file's checksum, with the first sample alone: it stands for all."""
        return "" if index else self.checksum


def _union(segments: bytes, height: int, width: int) -> npt.NDArray[np.bool_]:
    """Decode the union of segmentations."""
    masks = (read_segment(segment, height, width) for segment in json.loads(segments))
    return reduce(np.logical_or, masks)
