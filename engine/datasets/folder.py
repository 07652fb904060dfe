"""
A folder of pictures: one sub-folder a class, or all in one place without labels.
"""

from __future__ import annotations

import os

from ..errors import InputError
from .classmap import Labels, class_indices, label_columns
from .files import SUFFIXES, Files, pictures, root_folder
from .sample import Listing

__all__ = ["folder"]


def folder(root: str | os.PathLike[str], *, labels: Labels = None) -> Listing:
    """
    List a folder of pictures.

    Parameters
    ----------
    root : str or path-like
        Either sub-folders, each called after the class of the pictures in it (at any depth), or pictures alone, which have
        no label then.
    labels : path, sequence of str, mapping, "sorted" or "none", optional
        What the sub-folders' names mean, as in `camrt.datasets.classmap.class_indices`; "none" takes all pictures without
        labels.

    Returns
    -------
    Listing
        In order of the paths, which are the ids.

    Raises
    ------
    InputError
        If there is no such folder, no picture in it, or pictures lie both beside and in sub-folders.
    TargetError
        If a sub-folder's name is no class.
    """
    base = root_folder(root, "an image folder")
    names = pictures(base)
    if not names:
        raise InputError(f"no picture lies in {str(base)!r}; looked for {' '.join(sorted(SUFFIXES))} at any depth")
    tops = {name.split("/", 1)[0] for name in names if "/" in name}
    if not tops or labels == "none":
        return Listing(base.name, names, Files(str(base), names))
    loose = [name for name in names if "/" not in name]
    if loose:
        raise InputError(
            f"{str(base)!r} holds {len(loose)} pictures beside its sub-folders (the first is {loose[0]!r}); "
            "put each in the sub-folder of its class, or say labels='none'"
        )
    own = [name.split("/", 1)[0] for name in names]
    indices, occurring, stay = label_columns(own, class_indices(tops, labels))
    kept = [name for name, stays in zip(names, stay, strict=True) if stays]
    return Listing(base.name, kept, Files(str(base), kept), indices[stay], classes=occurring)
