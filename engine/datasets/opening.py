"""
One way to open every kind of data set: say where it lies, and what lies there says what it is.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..words import match, offer
from .classmap import Labels
from .coco import coco
from .files import SUFFIXES, pictures
from .folder import folder
from .imagenet import PICTURE, imagenet
from .manifest import manifest
from .objects import Per
from .sample import Dataset, Listing
from .voc import voc
from .webdataset import webdataset
from .wsol import FILES, wsol

__all__ = ["KINDS", "open_dataset", "recognise"]

KINDS: Mapping[str, Callable[..., Listing]] = {
    "folder": folder,
    "manifest": manifest,
    "imagenet": imagenet,
    "wsol": wsol,
    "coco": coco,
    "voc": voc,
    "webdataset": webdataset,
}


def open_dataset(
    spec: str | os.PathLike[str] | Dataset,
    *,
    kind: str | None = None,
    labels: Labels = None,
    root: str | os.PathLike[str] | None = None,
    split: str | None = None,
    per: Per | None = None,
    only: str | None = None,
    columns: Mapping[str, str] | None = None,
    truth: str | os.PathLike[str] | None = None,
    boxes: str | os.PathLike[str] | None = None,
    synsets: str | os.PathLike[str] | None = None,
) -> Dataset:
    """
    Open a data set.

    Parameters
    ----------
    spec : str, path-like or Dataset
        A folder of pictures or of sub-folders by class, a ``.csv`` or ``.parquet`` manifest, ImageNet's validation
        pictures, COCO's ``instances_*.json`` or the folder above it, a Pascal VOC folder, tar shards, a split of
        wsolevaluation's metadata; or a data set, which is returned as it is.
    kind : {"folder", "manifest", "imagenet", "wsol", "coco", "voc", "webdataset"}, optional
        What it is; absent, what lies there says.
    labels : path, sequence of str, mapping or "sorted", optional
        What the data set's classes mean to the model (`camrt.datasets.classmap.class_indices`); for folders also "none".
    root : str or path-like, optional
        The folder of the pictures, for manifests, COCO and wsolevaluation.
    split : str, optional
        Pascal VOC's image set; for a folder with several ``instances_*.json``, which of them.
    per : {"class", "image"}, optional
        COCO and Pascal VOC: a sample for each class of a picture (the default), or one for its largest object.
    only : str, optional
        Manifests: which rows, by a pattern or the beginning of the file's name.
    columns : mapping of str to str, optional
        Manifests: columns of unusual names.
    truth, boxes, synsets : str or path-like, optional
        ImageNet: where classes, box XML and the order of ILSVRC ids stand.

    Returns
    -------
    Dataset
        Never empty.

    Raises
    ------
    InputError
        If nothing is there, it is not recognised, an option does not belong to its kind, or a file in it is bad.
    TargetError
        If classes of the data set have no counterpart in the model.
    MissingExtraError
        If the kind needs a package that is not installed.
    """
    if not isinstance(spec, str | os.PathLike):
        if not isinstance(spec, Listing) and not isinstance(spec, Dataset):  # the second asks for every property
            raise InputError(f"a data set is a path or a Dataset; got {type(spec).__name__}")
        if not len(spec):
            raise InputError(f"data set {spec.name!r} is empty; give one with at least one picture")
        return spec
    place: Any = os.fspath(spec)
    named = recognise(place) if kind is None else _kind(kind)
    if named == "coco" and os.path.isdir(place):
        place, split = _instances(Path(place), split), None
    given = {
        name: value
        for name, value in {
            "labels": labels,
            "root": root,
            "split": split,
            "per": per,
            "only": only,
            "columns": columns,
            "truth": truth,
            "boxes": boxes,
            "synsets": synsets,
        }.items()
        if value is not None
    }
    takes = list(inspect.signature(KINDS[named]).parameters)[1:]
    for name in given:
        if name not in takes:
            raise InputError(f"a data set of kind {named!r} takes no {name}; it takes {', '.join(takes)}")
    if named == "wsol" and "root" not in given:
        raise InputError("wsolevaluation's metadata needs root=, the folder of the pictures")
    return KINDS[named](place, **given)


def recognise(spec: str) -> str:
    """
    Say what kind of data set lies at a place.

    Parameters
    ----------
    spec : str
        A path or a pattern of shards.

    Returns
    -------
    str
        One of `KINDS`.

    Raises
    ------
    InputError
        If nothing is there, or it is none of them; the message says what was looked for.
    """
    path = Path(spec)
    suffix = path.suffix.lower()
    if suffix == ".tar":
        return "webdataset"
    if path.is_file():
        found = {".csv": "manifest", ".parquet": "manifest", ".pq": "manifest", ".json": "coco"}.get(suffix)
        if found is None:
            raise InputError(f"{spec!r} is no data set; want a .csv, .parquet, .json or .tar file, or a folder")
        return found
    if not path.is_dir():
        raise InputError(f"there is no data set {spec!r}; give a folder, a manifest, COCO's JSON or tar shards")
    if (path / "JPEGImages").is_dir() and (path / "Annotations").is_dir():
        return "voc"
    if all((path / name).is_file() for name in FILES[:2]):
        return "wsol"
    if any(path.glob("annotations/instances_*.json")):
        return "coco"
    if any(path.glob("*.tar")):
        return "webdataset"
    there = pictures(path)
    if there:
        return "imagenet" if PICTURE.search(there[0]) and PICTURE.search(there[-1]) else "folder"
    raise InputError(
        f"{spec!r} is no data set that is known; looked for pictures ({' '.join(sorted(SUFFIXES))}), JPEGImages and "
        f"Annotations (Pascal VOC), annotations/instances_*.json (COCO), *.tar (WebDataset), {FILES[0]} and {FILES[1]} "
        "(wsolevaluation)"
    )


def _kind(name: str) -> str:
    """Return the kind that is meant."""
    try:
        return match(name, KINDS)
    except ValueError:
        raise InputError(f"no kind of data set is called {name!r}; {offer(name, KINDS)}") from None


def _instances(path: Path, split: str | None) -> Path:
    """Find the annotations under COCO's folder."""
    found = sorted(path.glob("annotations/instances_*.json"))
    chosen = [one for one in found if split is None or one.stem == f"instances_{split}"]
    if len(chosen) != 1:
        names = ", ".join(one.stem.removeprefix("instances_") for one in found) or "none"
        raise InputError(f"{str(path)!r} has these splits under annotations: {names}; give one of them as split=")
    return chosen[0]
