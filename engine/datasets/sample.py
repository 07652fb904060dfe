"""
What a data set is: a listing of pictures, and for each what is known about it.

A reader (`folder`, `manifest`, `coco`, ...) hands in ids, class indices, boxes and where the pictures lie; a `Listing` of
`Sample` comes out. Only the listing is held: a picture or a mask is read when somebody asks for it, so a data set may be
of any size, is reached in any order, and travels to other processes by pickle.
"""

from __future__ import annotations

import hashlib
import json
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from ..errors import InputError

__all__ = ["Dataset", "Listing", "Marks", "Mask", "Ragged", "Sample", "Store"]

Mask: TypeAlias = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Sample:
    """
    One picture of a data set and what is known about it.

    Attributes
    ----------
    index : int
        Its place in the data set.
    id : str
        Unique and stable: the path relative to the data set's root, and the category behind ``#`` where one picture gives
        several samples.
    read : callable
        Returns the picture's content as bytes, or its path; raises `ImageError` where it cannot be had.
    label : int or None
        The true class, an index of the model's classes.
    boxes : ndarray of float64, shape (B, 4), or None
        ``x0 y0 x1 y1`` in pixels of the picture as `camrt.image.decode` returns it, half-open: pixel column 0 is the box
        from 0 to 1.
    mask : callable or None
        Returns the object's pixels, (height, width) of bool, or None where there is no mask.
    ignored : callable or None
        Returns pixels that count neither way, in the same form.
    size : tuple of int or None
        ``(height, width)`` of the picture that the boxes were drawn on; `read_ahead` skips a picture of another size.
    """

    index: int
    id: str
    read: Callable[[], bytes | str]
    label: int | None = None
    boxes: npt.NDArray[np.float64] | None = None
    mask: Callable[[], Mask | None] | None = None
    ignored: Callable[[], Mask | None] | None = None
    size: tuple[int, int] | None = None


@runtime_checkable
class Dataset(Protocol):
    """What `read_ahead` and an evaluation need; `Listing` is one, and any class with these members is another."""

    @property
    def name(self) -> str:
        """What to call it in reports."""

    @property
    def classes(self) -> Mapping[int, str]:
        """The data set's own names of the classes that occur, by class index."""

    @property
    def fingerprint(self) -> str:
        """A text that changes when the listing does."""

    def __len__(self) -> int:
        """Return the number of samples."""

    def __getitem__(self, index: int) -> Sample:
        """Return a sample; nothing is decoded."""


class Store(Protocol):
    """Where the pictures of a listing lie."""

    def reader(self, index: int) -> Callable[[], bytes | str]:
        """
        Return what reads a picture.

        Parameters
        ----------
        index : int
            Of the sample, from 0.

        Returns
        -------
        callable
            It returns the picture's bytes or its path.
        """

    def n_bytes(self, index: int) -> int:
        """
        Return the size of a picture's file.

        Parameters
        ----------
        index : int
            Of the sample, from 0.

        Returns
        -------
        int
            In bytes; -1 where there is none.
        """


class Marks(Protocol):
    """Where the masks of a listing come from."""

    def mask(self, index: int) -> Callable[[], Mask | None] | None:
        """
        Return what reads the object's pixels.

        Parameters
        ----------
        index : int
            Of the sample, from 0.

        Returns
        -------
        callable or None
            It returns (height, width) of bool; None where there is no mask.
        """

    def ignored(self, index: int) -> Callable[[], Mask | None] | None:
        """
        Return what reads the pixels that count neither way.

        Parameters
        ----------
        index : int
            Of the sample, from 0.

        Returns
        -------
        callable or None
            The same of the ignored pixels.
        """

    def stamp(self, index: int) -> int | str:
        """
        Return what stands for the mask in the fingerprint.

        Parameters
        ----------
        index : int
            Of the sample, from 0.

        Returns
        -------
        int or str
            The size of its file, or a checksum.
        """


@dataclass(frozen=True, eq=False)
class Ragged:
    """
    Boxes of all samples in one array.

    Attributes
    ----------
    values : ndarray of float64, shape (T, 4)
        All boxes, sample after sample.
    ends : ndarray of int64, shape (N,)
        Where those of each sample end.
    """

    values: npt.NDArray[np.float64]
    ends: npt.NDArray[np.int64]

    @classmethod
    def of(cls, rows: Sequence[Sequence[Sequence[float]] | npt.NDArray[np.float64] | None]) -> Ragged:
        """
        Put the boxes of each sample end to end.

        Parameters
        ----------
        rows : sequence
            Boxes of each sample; None or an empty list where there are none.

        Returns
        -------
        Ragged
            What `row` reads.
        """
        counts = [0 if row is None else len(row) for row in rows]
        flat = [box for row in rows if row is not None for box in row]
        return cls(np.array(flat, np.float64).reshape(-1, 4), np.cumsum(counts, dtype=np.int64))

    def row(self, index: int) -> npt.NDArray[np.float64] | None:
        """
        Return the boxes of one sample.

        Parameters
        ----------
        index : int
            From 0.

        Returns
        -------
        ndarray of float64, shape (B, 4), or None
            None where there are none.
        """
        start = int(self.ends[index - 1]) if index else 0
        found = self.values[start : int(self.ends[index])]
        return found if len(found) else None


@dataclass(frozen=True, eq=False)
class Listing:
    """
    A data set whose listing is held in memory: about 150 bytes a sample, and 32 a box.

    Attributes
    ----------
    name : str
        What to call it in reports.
    ids : sequence of str
        One a sample, each unique.
    store : Store
        Where the pictures lie.
    labels : ndarray of int64, shape (N,), or None
        Class indices, -1 where unknown.
    boxes : Ragged or None
        Boxes in pixels of the pictures.
    marks : Marks or None
        Masks.
    sizes : ndarray of int64, shape (N, 2), or None
        ``(height, width)`` that boxes and masks were drawn on, 0 where unknown.
    classes : mapping of int to str
        The data set's own names of the classes that occur.

    Raises
    ------
    InputError
        If there is no sample, an id occurs twice, or the columns are of different lengths.
    """

    name: str
    ids: Sequence[str]
    store: Store
    labels: npt.NDArray[np.int64] | None = None
    boxes: Ragged | None = None
    marks: Marks | None = None
    sizes: npt.NDArray[np.int64] | None = None
    classes: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a listing that is empty or at odds with itself."""
        if not len(self.ids):
            raise InputError(f"data set {self.name!r} is empty; give one with at least one picture")
        if len(set(self.ids)) != len(self.ids):
            seen: dict[str, int] = {}
            for index, name in enumerate(self.ids):
                first = seen.setdefault(name, index)
                if first != index:
                    raise InputError(f"data set {self.name!r}: samples {first} and {index} have the same id {name!r}")
        columns = {
            "labels": self.labels,
            "boxes": None if self.boxes is None else self.boxes.ends,
            "sizes": self.sizes,
        }
        for column, values in columns.items():
            if values is not None and len(values) != len(self.ids):
                raise InputError(
                    f"data set {self.name!r}: {len(self.ids)} ids but {len(values)} {column}; want one a sample"
                )

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        """Return a sample; negative indices count from the end."""
        place = operator.index(index)
        place += len(self) if place < 0 else 0
        if not 0 <= place < len(self):
            raise IndexError(f"data set {self.name!r} has samples 0 to {len(self) - 1}; got {index}")
        label = -1 if self.labels is None else int(self.labels[place])
        height, width = (0, 0) if self.sizes is None else self.sizes[place].tolist()
        return Sample(
            index=place,
            id=self.ids[place],
            read=self.store.reader(place),
            label=None if label < 0 else label,
            boxes=None if self.boxes is None else self.boxes.row(place),
            mask=None if self.marks is None else self.marks.mask(place),
            ignored=None if self.marks is None else self.marks.ignored(place),
            size=(height, width) if height > 0 and width > 0 else None,
        )

    @cached_property
    def fingerprint(self) -> str:
        """
        SHA-256 over ids, labels, boxes, sizes of the picture files, and sizes or checksums of the masks.

        Pixels are not read: a file that is replaced by another of the same length is not noticed. Neither the name nor
        the place of the data set counts, so that a moved copy is the same. Cost: one ``stat`` a file.
        """
        digest = hashlib.sha256(b"camrt data set 1")
        for index, name in enumerate(self.ids):
            label = -1 if self.labels is None else int(self.labels[index])
            stamp = "" if self.marks is None else self.marks.stamp(index)
            digest.update(json.dumps([name, label, self.store.n_bytes(index), stamp]).encode())
        if self.boxes is not None:
            digest.update(self.boxes.ends.astype("<i8").tobytes() + self.boxes.values.astype("<f8").tobytes())
        return digest.hexdigest()
