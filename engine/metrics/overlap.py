"""
How well the part of a map above a threshold covers the object.

In: maps, and masks or boxes. Out: intersection over union and its relatives, one number an image, or a curve over
thresholds where the best one is sought for all images. Images without mask or box do not count (`camrt.metrics.ground`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..methods.table import Option
from .case import Case
from .cropping import above_mean
from .ground import counted, known_ground, regions_of, shares
from .plain import judged
from .table import Field, Metric, register

__all__ = ["iou"]

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

LOC_I = {"loc_i_0": 0.0, "loc_i_25": 0.25, "loc_i_50": 0.5}  # the three of Grad-CAM++'s table
STEP = 0.001  # between the thresholds of "best"


def iou(
    heatmaps: Any,
    boxes: Sequence[Any] | None = None,
    masks: Sequence[Any] | None = None,
    *,
    variant: str = "mean-threshold",
    tau: float = 0.5,
) -> Floats:
    """
    Return the intersection over union of each map's upper part with the object.

    ``|P and G| / |P or G|`` with P the pixels above a threshold, strictly, and G the object. In [0, 1], higher is better.

    Parameters
    ----------
    heatmaps : array_like, shape (N, H, W) or (H, W)
        Maps in [0, 1], from any library.
    boxes : sequence of array_like, optional
        For each image, its boxes (B, 4) or one box (4,): ``x0 y0 x1 y1``, half-open, in pixels of the map; G is their union
        where an image has no mask. What lies outside the picture is cut off; pixels count by their centres.
    masks : sequence of array_like, optional
        For each image, a mask (H, W), not zero on the object.
    variant : {"mean-threshold", "fixed", "best"}
        The threshold: the map's mean; `tau`; or the best of 0, 0.001 ... 0.999 for each image, which bounds from above what an
        evaluation reports, where one threshold serves all images.
    tau : float, default 0.5
        For "fixed".

    Returns
    -------
    ndarray of float64, shape (N,)
        The IoU; 0 for a constant map, which covers nothing.

    Raises
    ------
    ShapeError, NumericError
        If maps leave [0, 1] or are not finite, boxes are not (B, 4) with x0 < x1 and y0 < y1, or masks have another size.
    InputError
        If there are neither boxes nor masks, or an image has none inside the picture.

    Notes
    -----
    Cost: no forwards. An evaluation also reports ``miou``, the mean of the IoUs of object and background; ``f1``, which is
    2 IoU / (1 + IoU) image by image; ``threshold``, the one used; and ``loc_i_0``, ``loc_i_25``, ``loc_i_50``, Grad-CAM++'s
    localisation at thresholds of its own: pixels inside over the box's and those outside, which is the IoU, of boxes where
    there are any.

    References
    ----------
    Chattopadhay et al. 2018, Grad-CAM++, arXiv:1710.11063, equation 26.

    Examples
    --------
    >>> iou([[0.9, 0.8], [0.1, 0.0]], [[0, 0, 1, 1]]).tolist()
    [0.5]
    """
    ground = known_ground(boxes, masks)
    return counted(judged(IOU, None, None, heatmaps, variant=variant, options={"tau": tau}, ground=ground), "iou")


# what the table calls ---------------------------------------------------------------------------------------------


def overlap_values(case: Case, *, variant: str, tau: float) -> dict[str, Array]:
    """
    Return how each map covers the object.

    Parameters
    ----------
    case : Case
        Maps, boxes and masks.
    variant : str
        As in `iou`.
    tau : float
        As in `iou`.

    Returns
    -------
    dict of str to ndarray
        The fields and ``iou.counts``, each (N,). For "best", these at each image's own best threshold, and over the
        thresholds ``iou.curve``, ``iou.f1_curve`` and ``iou.miou_curve`` (N, T).
    """
    n, heat = len(case.heat), case.host.astype(np.float64)
    regions, valid = regions_of(case.ground, n, case.size)
    framed, _ = regions_of(case.ground, n, case.size, "boxes")
    counts: Bools = np.any(regions, (1, 2))
    found: dict[str, Array]
    if variant == "best":
        taus = np.arange(0, 1, STEP)
        sums = np.stack([_over_thresholds(*one, taus) for one in zip(heat, regions, valid, strict=True)])  # (N, T, 2)
        sums[_flat(heat)] = 0
        all_ = _measures(sums[..., 0], sums[..., 1], regions.sum((1, 2))[:, None], valid.sum((1, 2))[:, None])
        curves = [curve * counts[:, None] for curve in all_]
        own = curves[0].argmax(1)
        names = ("iou", "iou.f1", "iou.miou")
        found = {name: curve[np.arange(n), own] for name, curve in zip(names, curves, strict=True)}
        found |= {"iou.curve": curves[0], "iou.f1_curve": curves[1], "iou.miou_curve": curves[2]}
        used = taus[own]
    else:
        used = heat.mean((1, 2)) if variant == "mean-threshold" else np.full(n, tau)
        above = above_mean(heat) if variant == "mean-threshold" else _above(heat, tau)
        measures = _measured(above, regions, valid)
        found = {name: part * counts for name, part in zip(("iou", "iou.f1", "iou.miou"), measures, strict=True)}
    for name, delta in LOC_I.items():
        found[f"iou.{name}"] = _measured(_above(heat, delta), framed, valid)[0] * counts
    return {**found, "iou.threshold": used * counts, "iou.counts": counts.astype(np.float64)}


def overlap_overall(means: Mapping[str, Array], *, variant: str, tau: float) -> dict[str, Array]:
    """
    Return means over the images that count, for "best" at the threshold that is best for the mean IoU.

    Parameters
    ----------
    means : mapping of str to ndarray
        Means over all images.
    variant : str
        As in `iou`.
    tau : float
        As in `iou`.

    Returns
    -------
    dict of str to ndarray
        The fields.
    """
    found = shares(means, "iou", *(field.name for field in IOU.fields))
    if variant == "best":
        curves = {"iou": "iou.curve", "iou.f1": "iou.f1_curve", "iou.miou": "iou.miou_curve"}
        mean = shares(means, "iou", *curves.values())
        best = mean["iou.curve"].argmax(-1)
        for name, curve in curves.items():
            found[name] = np.take_along_axis(mean[curve], best[..., None], -1)[..., 0]
        found["iou.threshold"] = np.where(np.isnan(found["iou"]), np.nan, best * STEP)
    return found


def _flat(heat: Floats) -> Bools:
    """Tell which maps are constant."""
    flat: Bools = heat.max((1, 2)) == heat.min((1, 2))
    return flat


def _above(heat: Floats, tau: float) -> Bools:
    """Return what exceeds a threshold; nothing of a constant map."""
    return (heat > tau) & ~_flat(heat)[:, None, None]


def _measured(above: Bools, regions: Bools, valid: Bools) -> tuple[Floats, Floats, Floats]:
    """Return IoU, F1 and mean IoU of sets of pixels, each (N,)."""
    inside, taken = (above & regions).sum((1, 2)), (above & valid).sum((1, 2))
    return _measures(inside, taken, regions.sum((1, 2)), valid.sum((1, 2)))


def _measures(inside: Array, taken: Array, wanted: Array, pixels: Array) -> tuple[Floats, Floats, Floats]:
    """
    Return IoU, F1 and mean IoU from counts of pixels.

    Of the background, what neither has is ``pixels - union`` and what either lacks ``pixels - inside``; where the object and
    the map are the whole picture there is no background, and the mean is the object's IoU.
    """
    union = taken + wanted - inside
    own = np.divide(inside, union, out=np.zeros(union.shape), where=union > 0)
    background = np.divide(pixels - union, pixels - inside, out=own.copy(), where=pixels > inside)
    f1 = np.divide(2 * inside, taken + wanted, out=np.zeros(union.shape), where=union > 0)
    return own, f1, (own + background) / 2


def _over_thresholds(heat: Floats, region: Bools, valid: Bools, taus: Floats) -> Array:
    """Return how many pixels exceed each threshold: those in the region, and all that count, (T, 2)."""
    passed = np.searchsorted(taus, heat, "left")  # how many thresholds a pixel exceeds
    sums = [np.bincount(passed[part], minlength=len(taus) + 1) for part in (region, valid)]
    return np.stack([one[::-1].cumsum()[::-1][1:] for one in sums], axis=1)


IOU = register(
    Metric(
        id="iou",
        title="IoU",
        paper="arXiv:1710.11063",
        settings="mean-threshold: as CASME binarises maps. loc_i_*: Grad-CAM++ on VOC 2012",
        fields=(
            Field("iou", "higher", 0, 1, "overlap of what exceeds the threshold with the object", percent=True),
            Field("iou.miou", "higher", 0, 1, "mean of the overlaps of object and background", percent=True),
            Field("iou.f1", "higher", 0, 1, "F1 of the pixels that exceed the threshold", percent=True),
            *(
                Field(f"iou.{name}", "higher", 0, 1, f"overlap with the box at {delta:g}, Loc_I of Grad-CAM++")
                for name, delta in LOC_I.items()
            ),
            Field("iou.threshold", "neither", 0, 1, "the threshold used; the best one for the whole set with best"),
        ),
        variants=("mean-threshold", "fixed", "best"),
        values=overlap_values,
        overall=overlap_overall,
        needs=("map", "boxes", "masks"),
        options={"tau": Option(0.5, "number", "threshold of the variant fixed, from 0 to 1", low=0, high=1)},
        aliases=("intersection_over_union", "loc_i"),
    )
)
