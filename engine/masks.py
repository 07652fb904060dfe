"""
What a method asks of masked forwards, and what it is answered.

A method says which masks it wants run, at the layer's resolution, and how they become masks of the image; it never sees
an image-sized mask. In: `Masks`. Out: `Scored`, the logits of every masked image, whatever class is explained.
`camrt.forwards` stands between: it leaves out constant and repeated masks, and remembers what has been run.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Literal

import numpy.typing as npt

__all__ = ["Lazy", "Masks", "Noise", "Scaling", "Scored"]

Array = npt.NDArray[Any]
Scaling = Literal["after", "before", "range", "none"]


@dataclass(frozen=True)
class Noise:
    """
    Seeded noise on a mask or on the masked image.

    The noise depends on (seed, image, sample) only: masks of one image share it, so that they are compared under equal
    terms and a permutation of the channels changes nothing.

    Attributes
    ----------
    on : {"mask", "input"}
        "mask": one normal value a pixel, added to the finished mask, so that the colour channels share it. "input": one
        a value of the image, added to the masked image.
    sigma : float
        Its standard deviation.
    seed, sample : int
        The seed, and which of the samples this is.
    """

    on: Literal["mask", "input"]
    sigma: float
    seed: int
    sample: int


@dataclass(frozen=True)
class Lazy:
    """
    Masks too large to be kept: made where they are needed.

    Attributes
    ----------
    count : int
        M, how many masks an image has.
    make : callable
        ``make(image index, rows)`` with `rows` an int64 array of mask indices returns float32 ``(len(rows), h, w)``;
        the same rows always give the same masks.
    key : hashable, optional
        A name of these masks: two with one key are the same and are run once for several targets.
    """

    count: int
    make: Callable[[int, Array], Array]
    key: Hashable = None


@dataclass(frozen=True, eq=False)
class Masks:
    """
    M masks of each of N images, and how they hide: ``x * m + hidden * (1 - m)``.

    Attributes
    ----------
    maps : ndarray of float, shape (N, M, h, w), or Lazy
        The maps masks are made of, at any resolution; they are resized bilinearly to the image.
    scaling : {"after", "before", "range", "none"}
        "after": resized, then ``(map - min) / (max - min)``. "before": the same before it is resized. "range": resized,
        then ``map / (max - min)``, nothing subtracted. "none": resized and used as it is.
    eps : float
        Added to the denominator of the scaling, for variants that do so.
    align : {"half_pixel", "corners"}
        The sampling grid of the resize, as in `camrt.kernels.resize`.
    gain : float
        What the finished mask is multiplied by.
    inverted : bool
        Whether the mask is ``1 - m``.
    noise : Noise, optional
        Added last.
    hidden : ndarray, shape of the images or broadcastable to it, optional
        What is seen where the mask is 0; the request's mask space where None.
    constant : {"skip", "keep"}
        What becomes of a map that is constant: it is not run and not live, or it counts as a mask of zeros.
    only : ndarray of bool, shape (N, M), optional
        Which masks are wanted; all where None.
    """

    maps: Array | Lazy
    scaling: Scaling = "after"
    eps: float = 0.0
    align: Literal["half_pixel", "corners"] = "half_pixel"
    gain: float = 1.0
    inverted: bool = False
    noise: Noise | None = None
    hidden: Array | None = None
    constant: Literal["skip", "keep"] = "skip"
    only: Array | None = None

    @property
    def count(self) -> int:
        """How many masks an image has."""
        return self.maps.count if isinstance(self.maps, Lazy) else int(self.maps.shape[1])


@dataclass(frozen=True, eq=False)
class Scored:
    """
    The logits of masked images, or of edited activations.

    Attributes
    ----------
    logits : ndarray of float32, shape (N, M, C)
        Zero where nothing was run.
    live : ndarray of bool, shape (N, M)
        Which rows were run. A constant map is not, nor is what a budget left out.
    """

    logits: Array
    live: Array
