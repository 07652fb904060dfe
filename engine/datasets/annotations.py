"""
Boxes from Pascal-like XML, as Pascal VOC and ImageNet write them.

A stranger's XML may declare entities that grow to gigabytes or name other files. Without a DOCTYPE there are none, so a
file that has one is refused before it is parsed. The text is decoded here and the parser told that it is UTF-8, so no other
encoding can hide the word from that look.
"""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from dataclasses import dataclass

from ..errors import InputError
from .files import read_text

__all__ = ["Annotation", "Marked", "read_annotation"]

MAX_SIDE = 2**31  # what formats of pictures can say
MAX_BYTES = 4_000_000  # a picture with 10,000 boxes has 3 MB


@dataclass(frozen=True)
class Marked:
    """
    One object of a picture.

    Attributes
    ----------
    name : str
        Its class.
    corners : tuple of float
        ``xmin ymin xmax ymax`` as written; what they count from is the data set's to know.
    difficult : bool
        Whether Pascal VOC marks it so.
    """

    name: str
    corners: tuple[float, float, float, float]
    difficult: bool = False


@dataclass(frozen=True)
class Annotation:
    """
    What one file says.

    Attributes
    ----------
    file : str
        The picture's name, empty where it is not given.
    size : tuple of int
        ``(height, width)`` of the picture, 0 where it is not given.
    things : tuple of Marked
        Its objects, in order.
    """

    file: str
    size: tuple[int, int]
    things: tuple[Marked, ...]


def read_annotation(path: str | os.PathLike[str]) -> Annotation:
    """
    Read one annotation file.

    Parameters
    ----------
    path : str or path-like
        An ``.xml`` file.

    Returns
    -------
    Annotation
        Its size and objects.

    Raises
    ------
    InputError
        If it cannot be read, declares a document type or entities, is no annotation, or a number in it is none.
    """
    what = f"annotation {os.fspath(path)!r}"
    text = read_text(path, "the annotation")
    if len(text) > MAX_BYTES:
        raise InputError(f"{what} is longer than {MAX_BYTES} characters; that is no annotation of one picture")
    if "\0" in text:  # the parser takes such for UTF-16, whatever it is told
        raise InputError(f"{what} is not UTF-8 text; save it as UTF-8")
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise InputError(f"{what} declares a document type or entities, which are refused; take the declaration out")
    try:
        root = ET.fromstring(text.encode(), ET.XMLParser(encoding="utf-8"))
    except (ET.ParseError, ValueError) as error:
        raise InputError(f"{what} is not XML ({error})") from error
    try:
        things = tuple(_thing(item) for item in root.iterfind("object"))
        size = (int(float(root.findtext("size/height") or 0)), int(float(root.findtext("size/width") or 0)))
        if max(size) >= MAX_SIDE:
            raise ValueError(f"no picture has {size[1]} x {size[0]} pixels")
    except (ValueError, OverflowError) as error:
        raise InputError(f"{what}: {error}; want <object> with <name> and <bndbox> of four numbers") from error
    return Annotation((root.findtext("filename") or "").strip(), size, things)


def _thing(item: ET.Element) -> Marked:
    """Read one ``<object>``."""
    name = (item.findtext("name") or "").strip()
    if not name:
        raise ValueError("an object has no name")
    texts = [item.findtext(f"bndbox/{corner}") for corner in ("xmin", "ymin", "xmax", "ymax")]
    if None in texts:
        raise ValueError(f"object {name!r} has no bndbox with xmin, ymin, xmax and ymax")
    x0, y0, x1, y1 = (float(text or "") for text in texts)
    return Marked(name, (x0, y0, x1, y1), (item.findtext("difficult") or "").strip() == "1")
