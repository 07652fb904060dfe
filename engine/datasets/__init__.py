"""
Labelled pictures from folders, lists and archives.

::

    open_dataset ---> Dataset of Sample ---> read_ahead ---> Read or Broken, in order

A data set is a listing; pictures are decoded when they are read. Each kind has a module with a function of the same name:
`folder`, `manifest` (CSV, Parquet), `imagenet`, `wsol`, `coco`, `voc`, `webdataset`; `open_dataset` finds out which it is.
"""

from __future__ import annotations

from .classmap import class_indices
from .opening import KINDS, open_dataset
from .reading import Broken, Read, read_ahead, read_sample
from .sample import Dataset, Listing, Sample
from .subset import Subset, known_of

__all__ = [
    "KINDS",
    "Broken",
    "Dataset",
    "Listing",
    "Read",
    "Sample",
    "Subset",
    "class_indices",
    "known_of",
    "open_dataset",
    "read_ahead",
    "read_sample",
]
