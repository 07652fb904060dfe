"""
Part of a data set, and what a data set knows of its pictures.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from .sample import Dataset, Sample

__all__ = ["Subset", "known_of"]

LOOKED_AT = 500  # samples that tell what a data set knows; nothing is decoded


@dataclass(frozen=True, eq=False)
class Subset:
    """
    Some samples of a data set, numbered from 0 again.

    Attributes
    ----------
    of : Dataset
        The whole.
    indices : ndarray of int64, shape (N,)
        Which samples, in their order.
    """

    of: Dataset
    indices: npt.NDArray[np.int64]

    @classmethod
    def drawn(cls, dataset: Dataset, count: int, seed: int = 0) -> Subset:
        """
        Draw samples.

        Parameters
        ----------
        dataset : Dataset
            The whole.
        count : int
            How many.
        seed : int
            Of the draw; the same seed draws the same samples, and fewer of them are among more.

        Returns
        -------
        Subset
            In the order of the whole.

        Raises
        ------
        InputError
            If there are not so many.
        """
        if not 1 <= count <= len(dataset):
            raise InputError(f"from 1 to {len(dataset)} samples can be drawn of {dataset.name!r}; got {count}")
        order = np.random.Generator(np.random.Philox(seed)).permutation(len(dataset))
        return cls(dataset, np.sort(order[:count]).astype(np.int64))

    @property
    def name(self) -> str:
        """What to call it in reports."""
        return f"{len(self.indices)} of {self.of.name}"

    @property
    def classes(self) -> Mapping[int, str]:
        """The whole's own names of its classes."""
        return self.of.classes

    @property
    def fingerprint(self) -> str:
        """The whole's, and which samples."""
        return hashlib.sha256(self.of.fingerprint.encode() + self.indices.tobytes()).hexdigest()

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        """Return a sample; nothing is decoded."""
        if not 0 <= index < len(self.indices):
            raise IndexError(f"{self.name} has samples 0 to {len(self) - 1}; got {index}")
        return replace(self.of[int(self.indices[index])], index=index)


def known_of(dataset: Dataset) -> frozenset[str]:
    """
    Say what is known of the pictures of a data set.

    Parameters
    ----------
    dataset : Dataset
        Any.

    Returns
    -------
    frozenset of str
        Of "labels", "boxes" and "masks" those that at least one of 500 evenly spaced samples has.
    """
    found: set[str] = set()
    for index in np.unique(np.linspace(0, len(dataset) - 1, LOOKED_AT).astype(int)).tolist():
        sample = dataset[index]
        has = {"labels": sample.label is not None, "boxes": sample.boxes is not None, "masks": sample.mask is not None}
        found |= {name for name, there in has.items() if there}
        if len(found) == len(has):
            break
    return frozenset(found)
