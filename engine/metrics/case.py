"""
What a metric judges: one method's maps of a batch, and what the model says about the pictures it asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ..device import on_host
from .changes import Change

__all__ = ["Again", "Case", "Ground", "Scores"]

Array = npt.NDArray[Any]
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Scores:
    """
    What the model says of one changed picture of each of N images, on the host.

    Attributes
    ----------
    log_p : ndarray of float64, shape (N,)
        Logarithm of the class's softmax probability.
    log_rest : ndarray of float64, shape (N,)
        Logarithm of 1 - p, from the other logits, so that it is exact where p is nearly 1; -inf for a p of 1.
    hit : ndarray of bool, shape (N,)
        Whether the class has the highest logit, the first of equal ones.
    """

    log_p: npt.NDArray[np.float64]
    log_rest: npt.NDArray[np.float64]
    hit: npt.NDArray[np.bool_]

    @cached_property
    def p(self) -> npt.NDArray[np.float64]:
        """The probability, (N,)."""
        return np.exp(self.log_p)


@dataclass(frozen=True, eq=False)
class Again:
    """Maps of the same method and class at a changed picture: (N,H,W) in [0,1], which are constant, and `Case.raw` there."""

    heat: Array
    degenerate: npt.NDArray[np.bool_]
    raw: Array | None = None


@dataclass(frozen=True, eq=False)
class Ground:
    """
    What is known of the pictures, in pixels of the network's input.

    Attributes
    ----------
    boxes : sequence of ndarray or None
        For each image, boxes (B, 4) of float64, ``x0 y0 x1 y1``, half-open, clipped to the window; None where unknown.
    masks : sequence of ndarray or None
        For each image, a mask (H, W) of bool; None where unknown.
    labels : ndarray of int64, shape (N,), or None
        True classes, -1 where unknown.
    ignored : sequence of ndarray or None
        For each image, pixels (H, W) that count neither way; None where there are none.
    """

    boxes: Sequence[Array | None] | None = None
    masks: Sequence[Array | None] | None = None
    labels: npt.NDArray[np.int64] | None = None
    ignored: Sequence[Array | None] | None = None


@dataclass(frozen=True, eq=False)
class Case:
    """
    One method's maps of a batch, ready to be judged.

    Attributes
    ----------
    heat : ndarray of float, shape (N, H, W)
        Heatmaps in [0, 1], on the host or on a device; kernels take them as they are.
    degenerate : ndarray of bool, shape (N,)
        Which maps are constant; they are all zero.
    classes : ndarray of int64, shape (N,)
        The class each map explains.
    ids : ndarray of uint64, shape (N,)
        A content hash of each image; seeded noise depends on it.
    x : ndarray, shape (N, ...)
        The model's inputs, as `heat` on the host or a device.
    channels_last : bool
        Whether they are (N, H, W, C).
    scores : mapping of Change to Scores
        The answer to every change that the metric's `changes` asked for, and to `Clean`.
    again : mapping of Change to Again
        Maps at every change that its `again` asked for.
    ground : Ground
        Boxes, masks and labels.
    raw : ndarray of float or None
        What the method returned before ReLU, resize and scaling, (N, h, w).
    relu : bool
        Whether its parts below zero are cut off before they are resized.
    shift_means : mapping of (Change, int) to ndarray of float64, shape (H, W)
        Of noise that was taken away from an image, the mean over channels, where it is still known.
    accounted : mapping of str to ndarray of float64, shape (N,)
        For `completeness`: "output" and "sum", the logit and what the method accounts for.
    """

    heat: Array
    degenerate: npt.NDArray[np.bool_]
    classes: npt.NDArray[np.int64]
    ids: npt.NDArray[np.uint64]
    x: Array
    channels_last: bool = False
    scores: Mapping[Change, Scores] = field(default_factory=dict)
    again: Mapping[Change, Again] = field(default_factory=dict)
    ground: Ground = field(default_factory=Ground)
    raw: Array | None = None
    relu: bool = True
    accounted: Mapping[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    shift_means: Mapping[tuple[Change, int], npt.NDArray[np.float64]] = field(default_factory=dict)

    def once(self, name: str, make: Callable[[], T]) -> T:
        """
        Work something out once for all metrics that need it.

        Parameters
        ----------
        name : str
            What it is called; the same name always stands for the same thing.
        make : callable
            How it is made.

        Returns
        -------
        object
            What `make` returned when it was first asked for.
        """
        if name not in self._made:
            self._made[name] = make()
        made: T = self._made[name]
        return made

    @cached_property
    def _made(self) -> dict[str, Any]:
        """What `once` has made."""
        return {}

    @cached_property
    def host(self) -> Array:
        """The heatmaps on the host; for metrics that need the map itself."""
        return on_host(self.heat)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the maps."""
        height, width = self.heat.shape[1:]
        return int(height), int(width)
