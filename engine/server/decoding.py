"""
A request's images become what the model takes: pictures one at a time, arrays as a whole.

In: an `Ask`, the model's preprocessing, and the limits of pictures. Out: prepared inputs, or an error that says which
picture it is about. Which thread does it, and when, is the scheduler's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from ..errors import InputError
from ..image import Prepared, join, prepare
from ..preprocess import Preprocess
from .asks import Ask
from .pictures import decode_picture
from .settings import Settings

__all__ = ["blaming", "bytes_of", "is_quick", "prepare_next"]

INLINE = 4 * 2**20  # bytes of prepared inputs that are checked by whoever submits: 0.2 ms a MB, a thread takes as long


def prepare_next(ask: Ask, parts: list[Prepared], preprocess: Preprocess, settings: Settings) -> Prepared | None:
    """
    Make the next of a request's pictures, or its whole array, the model's input.

    Parameters
    ----------
    ask : Ask
        The request.
    parts : list of Prepared
        The pictures that are done; the next is added.
    preprocess : Preprocess
        The model's.
    settings : Settings
        How large pictures may be.

    Returns
    -------
    Prepared or None
        All images, when they are done.

    Raises
    ------
    ImageError, TooLargeError
        If an image is none, does not fit or is too large; of several pictures the message says which.
    """
    most = settings.max_pixels
    if isinstance(ask.images, np.ndarray):
        return prepare(ask.images, preprocess, max_pixels=most)
    place = len(parts)
    with blaming(place, ask.count):
        picture = decode_picture(ask.images[place], settings)
        parts.append(prepare([picture], preprocess, max_pixels=most))
    if place + 1 < ask.count:
        return None
    return replace(join(parts), names=[f"image_{i:03d}" for i in range(ask.count)])


def is_quick(ask: Ask, preprocess: Preprocess) -> bool:
    """
    Tell whether a request's images need no decoding, only a look.

    Parameters
    ----------
    ask : Ask
        The request.
    preprocess : Preprocess
        The model's.

    Returns
    -------
    bool
        True for prepared inputs of a few megabytes.
    """
    images = ask.images
    if not isinstance(images, np.ndarray) or images.nbytes > INLINE:
        return False
    is_prepared = preprocess.dtype == "uint8" and images.shape[1:] == preprocess.shape
    return images.dtype.kind == "f" or is_prepared


def bytes_of(ask: Ask, preprocess: Preprocess) -> int:
    """
    Count the bytes that a request's images take.

    Parameters
    ----------
    ask : Ask
        The request.
    preprocess : Preprocess
        The model's.

    Returns
    -------
    int
        As they came, and as the model takes them.
    """
    given = ask.images.nbytes if isinstance(ask.images, np.ndarray) else sum(len(content) for content in ask.images)
    return given + ask.count * math.prod(preprocess.shape) * np.dtype(preprocess.dtype).itemsize


@contextmanager
def blaming(place: int, count: int) -> Iterator[None]:
    """
    Let an error say which of several pictures it is about.

    Parameters
    ----------
    place : int
        Which, from 0.
    count : int
        Of how many.
    """
    try:
        yield
    except InputError as error:
        if count == 1:
            raise
        raise type(error)(f"image {place} of {count}: {error}") from error
