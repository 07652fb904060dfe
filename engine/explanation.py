"""
The result of an explanation: arrays, what they mean, and how they were made.

An `Explanation` never changes. N images and T targets each make the first two axes of all its arrays; `overlay` draws
one of them, `save` writes them all with a manifest from which the result can be made again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from .errors import ShapeError
from .render import overlay as draw_overlay
from .scalars import softmax

__all__ = ["Explanation"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """
    Heatmaps of N images for T targets each, with everything needed to read and repeat them.

    Attributes
    ----------
    logits : ndarray of float32, shape (N, C)
        The model's scores.
    targets : ndarray of int64, shape (N, T)
        Classes explained; -1 for a vector.
    values : ndarray of float32, shape (N, T)
        The scalar explained: a logit, a probability, a contrast...
    labels : sequence of tuple of str, N x T
        The targets' names.
    raw : ndarray of float, shape (N, T, h, w)
        Signed maps at the layer's resolution, before ReLU and scaling; comparable between images.
    heatmaps : ndarray of float32, shape (N, T, H, W)
        In [0, 1], at the model's input resolution.
    degenerate : ndarray of bool, shape (N, T)
        The map was constant; its heatmap is zero and means nothing.
    method, variant : str
        METHODS' ids.
    pipeline : str
        The order of ReLU, scaling and resizing.
    layers : tuple of str
        The layers the maps were made at; `raw` belongs to the last.
    pictures : sequence of ndarray of uint8, N of shape (H, W, 3)
        What the network saw.
    names : sequence of str, N
        The images' names.
    flags : mapping of str to ndarray, shape (N, T)
        What the method reports beside its maps.
    options : mapping
        The method's options, all of them.
    layer_raws : mapping of str to ndarray
        Raw maps of every layer, by name, where there are several.
    provenance : mapping
        Model hash, versions, providers, preprocessing, seeds.
    raw_input : ndarray of float, shape (N, T, C, H, W), optional
        Signed maps for each channel of the image, from methods that make them (Guided Grad-CAM).

    Raises
    ------
    ShapeError
        If the arrays do not agree on N and T.
    """

    logits: Array
    targets: Array
    values: Array
    labels: Sequence[tuple[str, ...]]
    raw: Array
    heatmaps: Array
    degenerate: Array
    method: str
    variant: str
    pipeline: str
    layers: tuple[str, ...]
    pictures: Sequence[npt.NDArray[np.uint8]]
    names: Sequence[str]
    flags: Mapping[str, Array] = field(default_factory=dict)
    options: Mapping[str, object] = field(default_factory=dict)
    layer_raws: Mapping[str, Array] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    raw_input: Array | None = None

    def __post_init__(self) -> None:
        """Check that the arrays agree."""
        pair = self.targets.shape
        paired = {
            "values": self.values,
            "degenerate": self.degenerate,
            "raw": self.raw,
            "heatmaps": self.heatmaps,
            **{f"flag {name!r}": flag for name, flag in self.flags.items()},
            **({} if self.raw_input is None else {"raw_input": self.raw_input}),
        }
        for name, array in paired.items():
            if len(pair) != 2 or array.shape[:2] != pair:
                raise ShapeError(f"an explanation's {name} must start with the axes (N, T) {pair}; got {array.shape}")
        counted = {"logits": self.logits, "labels": self.labels, "pictures": self.pictures, "names": self.names}
        for name, items in counted.items():
            if len(items) != pair[0]:
                raise ShapeError(f"an explanation of {pair[0]} images has {len(items)} {name}; want one an image")
        if any(len(row) != pair[1] for row in self.labels):
            raise ShapeError(f"an explanation of {pair[1]} targets an image needs as many labels for each")

    def __repr__(self) -> str:
        """Return one short line."""
        images, targets, height, width = self.heatmaps.shape
        flat = int(self.degenerate.sum())
        note = f", {flat} degenerate" if flat else ""
        return (
            f"<Explanation {self.method} at {', '.join(self.layers)}: {images} x {targets} heatmaps "
            f"of {height} x {width}{note}>"
        )

    @property
    def probabilities(self) -> npt.NDArray[np.float32]:
        """
        The softmax probability of each target's class; (N, T), NaN where a target is no class.

        A model with one class alone is a yes-or-no one: its logit's sigmoid is given, the softmax of (0, logit).
        """
        scores = np.pad(self.logits, ((0, 0), (1, 0))) if self.logits.shape[1] == 1 else self.logits
        shares = np.take_along_axis(softmax(scores)[:, -self.logits.shape[1] :], np.maximum(self.targets, 0), 1)
        return np.where(self.targets < 0, np.nan, shares).astype(np.float32)

    def part(self, rows: slice) -> Explanation:
        """
        Return the same explanation of some of its images.

        Parameters
        ----------
        rows : slice
            Which of the N images.

        Returns
        -------
        Explanation
            Its arrays are views of this one's.
        """

        def _cut(arrays: Mapping[str, Array]) -> dict[str, Array]:
            """Cut every array."""
            return {name: array[rows] for name, array in arrays.items()}

        return replace(
            self,
            logits=self.logits[rows],
            targets=self.targets[rows],
            values=self.values[rows],
            labels=self.labels[rows],
            raw=self.raw[rows],
            heatmaps=self.heatmaps[rows],
            degenerate=self.degenerate[rows],
            pictures=self.pictures[rows],
            names=self.names[rows],
            flags=_cut(self.flags),
            layer_raws=_cut(self.layer_raws),
            raw_input=None if self.raw_input is None else self.raw_input[rows],
        )

    def overlay(
        self,
        image: int = 0,
        target: int = 0,
        *,
        colormap: str = "jet",
        alpha: float = 0.5,
        colorbar: bool = True,
        title: str | None = None,
        side: int | None = None,
    ) -> Image.Image:
        """
        Draw one heatmap over its picture.

        Parameters
        ----------
        image : int, default 0
            Which of the N images.
        target : int, default 0
            Which of its T targets.
        colormap : {"jet", "viridis"}, default "jet"
            The colours.
        alpha : float, default 0.5
            Their share, in [0, 1].
        colorbar : bool, default True
            Draw the colours from 0 to 1 at the right.
        title : str, optional
            Written above; the target's label, class, probability and the method where None, nothing where empty.
        side : int, optional
            Shorter side of the drawn picture in pixels; see `camrt.render.overlay`.

        Returns
        -------
        PIL.Image.Image
            RGB.

        Raises
        ------
        ShapeError
            If there is no such image or target.
        MethodError
            If an option of the drawing is out of range.
        """
        images, targets = self.targets.shape
        if not (-images <= image < images and -targets <= target < targets):
            raise ShapeError(f"there are {images} images with {targets} targets; got image {image}, target {target}")
        return draw_overlay(
            self.pictures[image],
            self.heatmaps[image, target],
            colormap=colormap,
            alpha=alpha,
            colorbar=colorbar,
            title=self.title(image, target) if title is None else title,
            side=side,
        )

    def title(self, image: int = 0, target: int = 0) -> str:
        """
        Say in two lines what one heatmap shows.

        Parameters
        ----------
        image : int, default 0
            Which of the N images.
        target : int, default 0
            Which of its T targets.

        Returns
        -------
        str
            The label; then class, probability and method.
        """
        index = int(self.targets[image, target])
        known = [] if index < 0 else [f"class {index}", f"p = {self.probabilities[image, target]:.3f}"]
        facts = [*known, f"T = {self.values[image, target]:.4g}", self.method]
        return f"{' '.join(self.labels[image][target].split())}\n{'  ·  '.join(facts)}"

    def save(self, folder: str | os.PathLike[str], *, overlays: bool = True, colormap: str = "jet") -> list[Path]:
        """
        Write the result to a folder.

        Parameters
        ----------
        folder : str or path-like
            Made if it is missing; files of the same names are replaced.
        overlays : bool, default True
            Draw and write an overlay for each image and target.
        colormap : {"jet", "viridis"}, default "jet"
            The overlays' colours.

        Returns
        -------
        list of pathlib.Path
            What was written: ``<name>_<method>_<target>.png`` for each image and target, ``<name>_<method>.npy``
            (heatmaps, (T, H, W)) and ``<name>_<method>_raw.npy`` (raw maps, (T, h, w)) for each image, beside them
            ``<name>_<method>_raw_input.npy`` ((T, C, H, W)) where the method gives it, and last ``manifest.json``.

        Raises
        ------
        OutputError
            If a file cannot be written; each is whole or absent, and the manifest only comes after all others.
        """
        from .saving import save_all

        return save_all([self], folder, overlays=overlays, colormap=colormap)
