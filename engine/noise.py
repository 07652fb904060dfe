"""
Normal noise that depends on its numbers only, never on neighbours, chunks or threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["standard_normal"]


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
