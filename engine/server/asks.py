"""
What a request comes down to, whichever protocol it came by.

Plain data between the protocols, which read and write bytes, and the scheduler, which runs.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..anytime import Budget

__all__ = ["Ask", "Wish"]


@dataclass(frozen=True, eq=False)
class Wish:
    """
    How to explain; requests whose wishes are equal may run in one batch.

    Attributes
    ----------
    method : str
        A method's id, resolved.
    variant : str
        One of its variants.
    options : tuple of (str, object)
        Every option, sorted by name.
    layer : tuple of str or None
        As `camrt.Explainer.explain` takes it.
    pipeline, fuse, eigen_smooth, tta, mask_space
        As `camrt.Explainer.explain` takes them.
    budget : tuple or None
        The fields of a `camrt.Budget`.
    """

    method: str = "gradcam"
    variant: str = ""
    options: tuple[tuple[str, Any], ...] = ()
    layer: tuple[str, ...] | None = None
    pipeline: str = "camrt"
    fuse: str | None = None
    eigen_smooth: bool = False
    tta: bool = False
    mask_space: str = "normalised"
    budget: Budget | None = None

    @property
    def key(self) -> tuple[Any, ...]:
        """Everything that must be equal for two requests to share a batch."""
        return (
            self.method, self.variant, self.options, self.layer, self.pipeline, self.fuse, self.eigen_smooth, self.tta,
            self.mask_space, repr(self.budget),
        )  # fmt: skip

    def arguments(self) -> dict[str, Any]:
        """Return the keyword arguments of `camrt.Explainer.explain`."""
        return {
            "method": self.method, "variant": self.variant or None, "options": dict(self.options) or None,
            "layer": list(self.layer) if self.layer else None, "pipeline": self.pipeline, "fuse": self.fuse,
            "eigen_smooth": self.eigen_smooth, "tta": self.tta, "mask_space": self.mask_space, "budget": self.budget,
        }  # fmt: skip


@dataclass(frozen=True, eq=False)
class Ask:
    """
    One request for explanations, or for scores alone.

    Attributes
    ----------
    images : tuple of bytes or ndarray
        N encoded pictures; or an array: uint8 (N, H, W, 3) pictures, or inputs prepared in the model's layout.
    targets : list or None
        N lists of T targets each, as `camrt.Explainer.explain` takes one (a class index, a label, a text such as
        ``"prob:3"``); None for the predicted class.
    wish : Wish or None
        How to explain; None where only the model's scores are wanted.
    timeout : float
        Seconds from the request's arrival.
    arrived : float
        When the request arrived (`time.monotonic`); now, where nothing is said.
    """

    images: tuple[bytes, ...] | npt.NDArray[np.generic]
    targets: list[list[Any]] | None
    wish: Wish | None
    timeout: float
    arrived: float = field(default_factory=time.monotonic)

    @property
    def count(self) -> int:
        """How many images."""
        return len(self.images)

    @property
    def width(self) -> int:
        """How many targets an image."""
        return 1 if self.targets is None else len(self.targets[0])
