"""
From pictures with many objects to samples with one class.

COCO and Pascal VOC mark every object of a picture; a class activation map explains one class. Either each class of a
picture is a sample, as the pointing game's protocols have it, or the picture is one sample with the class of its largest
object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ..errors import InputError

__all__ = ["Per", "Thing", "grouped"]

Per: TypeAlias = Literal["class", "image"]


@dataclass(frozen=True, slots=True)
class Thing:
    """
    One object of a picture.

    Attributes
    ----------
    name : str
        Its class in the data set.
    index : int
        Its class in the model.
    box : tuple of float
        ``x0 y0 x1 y1``, half-open, in pixels of the picture.
    area : float
        In pixels, of its mask or else of its box.
    number : int
        Its place in the picture's annotation.
    """

    name: str
    index: int
    box: tuple[float, float, float, float]
    area: float
    number: int


def grouped(things: Sequence[Thing], per: Per) -> list[list[Thing]]:
    """
    Split the objects of a picture into samples.

    Parameters
    ----------
    things : sequence of Thing
        All whose class the model has.
    per : {"class", "image"}
        A sample for each class, in order of the model's classes; or one, of the class of the largest object (the first of
        equal ones).

    Returns
    -------
    list of list of Thing
        The objects of each sample, all of one class; no list is empty.

    Raises
    ------
    InputError
        If `per` is neither.

    Examples
    --------
    >>> cat, dog = Thing("cat", 1, (0, 0, 2, 2), 4, 0), Thing("dog", 0, (0, 0, 3, 3), 9, 1)
    >>> [[thing.name for thing in group] for group in grouped([cat, dog], "class")]
    [['dog'], ['cat']]
    >>> [[thing.name for thing in group] for group in grouped([cat, dog], "image")]
    [['dog']]
    """
    if per not in ("class", "image"):
        raise InputError(f"per must be 'class' or 'image'; got {per!r}")
    groups: dict[int, list[Thing]] = {}
    for thing in things:
        groups.setdefault(thing.index, []).append(thing)
    if per == "class" or not groups:
        return [groups[index] for index in sorted(groups)]
    largest = max(things, key=lambda thing: thing.area)
    return [groups[largest.index]]
