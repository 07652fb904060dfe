"""
Boxes drawn from a map against the boxes of the object, and the picture inside the map's box asked of the model.

In: maps, boxes or masks, and for the saliency metric the class's probability on the crop. Out: a curve of hits over
thresholds, or a few numbers an image. Boxes are ``x0 y0 x1 y1`` in pixels of the map, half-open; `max_box_acc_v2` alone
counts both ends, as its code does. Images without boxes or masks do not count (`camrt.metrics.ground`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..methods.table import Option
from .case import Case
from .changes import Change, Clean, Cropped
from .components import contours, outlines
from .cropping import largest_box
from .ground import boxes_of, counted, known_ground, pixels_of, regions_of, shares
from .model import Judged
from .plain import judged
from .table import Field, Metric, register, validate

__all__ = ["localisation_error", "max_box_acc_v2", "saliency_metric"]

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

SMALLEST = 0.05  # share of the picture below which a smaller box earns nothing: Dabkowski and Gal


def max_box_acc_v2(
    heatmaps: Any,
    boxes: Sequence[Any] | None = None,
    masks: Sequence[Any] | None = None,
    *,
    variant: str = "v2",
    step: float = 0.001,
    deltas: Sequence[int] | None = None,
) -> float:
    """
    Return the accuracy of boxes around a map's contours, at the threshold that is best for all images.

    A contour's box hits where its IoU with a box of the object is delta or more; a map hits at a threshold where any of its
    contours does. The accuracy is the share of maps that hit, at the best threshold of each delta, averaged over deltas. In
    [0, 1], higher is better.

    Parameters
    ----------
    heatmaps : array_like, shape (N, H, W)
        Maps in [0, 1], from any library; the maps of a whole data set, because one threshold is sought for all.
    boxes : sequence of array_like, optional
        For each image, its boxes (B, 4) or one box (4,): ``x0 y0 x1 y1`` in pixels of the map, cut off at its border.
    masks : sequence of array_like, optional
        For each image, a mask (H, W): its tight box where there are no boxes, itself for "pxap".
    variant : {"v2", "v1", "pxap"}
        "v1" looks at the contour of largest area alone, at an IoU of 0.5. "pxap" is for masks: the area under precision
        over recall of all pixels of the data set over the same thresholds, what is to be ignored left out.
    step : float, default 0.001
        Between thresholds, from 0 up to 1, which is left out; times the map's largest byte, rounded down, strictly above.
    deltas : sequence of int, optional
        IoUs in percent: 30, 50, 70, and 50 for "v1".

    Returns
    -------
    float
        The accuracy. One image's own value would be an upper bound: its own best threshold.

    Raises
    ------
    ShapeError, NumericError
        If maps leave [0, 1] or are not finite, boxes are not (B, 4) with x0 < x1 and y0 < y1, or masks have another size.
    InputError
        If there are neither boxes nor masks, or an image has none inside the picture.

    Notes
    -----
    As the authors' code: maps become bytes; contours are those around components (8 neighbours) and those around holes;
    boxes count both their ends, one beyond their last pixel except at the picture's border; a map without contour has the
    box of the first pixel; boxes of the object are rounded down. It resizes maps by cubic interpolation to 224 x 224 first:
    do so before, for its numbers. Ties for the largest contour go to the last in raster order, as in OpenCV.

    Cost: no forwards. All thresholds at once, because a map of bytes has 255 at most that differ: about 50 ms for a smooth
    map of 224 x 224, 0.8 s for noise.

    References
    ----------
    Choe et al. 2020, Evaluating Weakly Supervised Object Localization Methods Right, arXiv:2001.07437, sections 4.2 and 4.3;
    code clovaai/wsolevaluation.

    Examples
    --------
    >>> max_box_acc_v2(np.eye(4)[None, ::-1] > 0, [[0, 0, 3, 3]])
    1.0
    """
    options: dict[str, object] = {"step": step} if deltas is None else {"step": step, "deltas": tuple(deltas)}
    chosen, full = validate(MAX_BOX_ACC, variant, options)
    found = judged(MAX_BOX_ACC, None, None, heatmaps, variant=chosen, options=full, ground=known_ground(boxes, masks))
    counted(found, "max_box_acc_v2")
    means = {name: values.mean(0) for name, values in found.items()}
    return float(box_overall(means, variant=chosen, **full)["max_box_acc_v2"])  # type: ignore[arg-type]


def localisation_error(
    heatmaps: Any,
    boxes: Sequence[Any] | None = None,
    masks: Sequence[Any] | None = None,
    *,
    variant: str = "casme",
) -> Floats:
    """
    Return whether the box of each map's largest part misses the object.

    0 where its IoU with a box of the object is above 0.5, else 1; lower is better.

    Parameters
    ----------
    heatmaps : array_like, shape (N, H, W) or (H, W)
        Maps in [0, 1], from any library.
    boxes : sequence of array_like, optional
        For each image, its boxes (B, 4) or one box (4,): ``x0 y0 x1 y1``, half-open, in pixels of the map. What lies outside
        the picture is cut off; of a box's edge, the pixels whose centres it holds count.
    masks : sequence of array_like, optional
        For each image, a mask (H, W), whose tight box is taken where there are no boxes.
    variant : {"casme", "official-short"}
        "official-short" ends the map's box one pixel early at the right and at the bottom, as that code does by mistake.

    Returns
    -------
    ndarray of float64, shape (N,)
        1 for a miss; a constant map misses.

    Raises
    ------
    ShapeError, NumericError
        If maps leave [0, 1] or are not finite, boxes are not (B, 4) with x0 < x1 and y0 < y1, or masks have another size.
    InputError
        If there are neither boxes nor masks, or an image has none inside the picture.

    Notes
    -----
    The map's box is the tight box of the largest component (4 neighbours) of what exceeds the map's mean. Cost: no
    forwards, 1 ms a map. An evaluation also reports ``om``, which misses too where the model's prediction is wrong, and
    ``f1`` of the map itself, not of its box: precision is the share of its energy in a box, recall the energy there over the
    box's pixels; the best of the boxes, or their mean in ``f1a``. CASME's code adds 1e-6 to the denominators; here nothing
    is added.

    References
    ----------
    Code zphang/saliency_investigation (CASME), which the group of Opti-CAM uses, arXiv:2301.07002.

    Examples
    --------
    >>> localisation_error([[0.9, 0.8], [0.0, 0.0]], [[0, 0, 2, 1]]).tolist()
    [0.0]
    """
    found = judged(LOCALISATION, None, None, heatmaps, variant=variant, ground=known_ground(boxes, masks))
    return counted(found, "localisation_error")


def saliency_metric(model: Judged, x: Array, heatmaps: Any, classes: Any = None) -> Floats:
    """
    Return how small a part of each picture the model still knows the class by.

    ``log max(a, 0.05) - log p``, with a the share of the picture that the map's box covers and p the class's probability on
    that box, cut out and resized to the whole picture. In [log 0.05, inf), lower is better.

    Parameters
    ----------
    model : camrt.metrics.Model, camrt.Explainer or callable
        The classifier; a function takes inputs (M, ...) and gives logits (M, C).
    x : ndarray, shape (N, ...)
        The model's inputs, after preprocessing.
    heatmaps : ndarray, shape (N, H, W)
        Maps in [0, 1], from any library.
    classes : array of int, shape (N,), optional
        The classes the maps explain; the predictions where None.

    Returns
    -------
    ndarray of float64, shape (N,)
        The metric; -log p of the picture itself for a constant map, whose box is the whole picture.

    Raises
    ------
    ShapeError, NumericError
        If heatmaps have another size than the pictures, hold NaN or leave [0, 1], or logits are not finite.

    Notes
    -----
    The box is that of `localisation_error`; the crop is resized by cubic interpolation of the prepared input, as CASME's code
    does. That code asks of a map without part above its mean an all-zero picture and takes a share of 0; here it is the
    whole picture. Cost: two forwards an image, of the picture and of the crop.

    References
    ----------
    Dabkowski and Gal 2017, Real Time Image Saliency for Black Box Classifiers, arXiv:1705.07857.
    """
    return judged(SALIENCY, model, x, heatmaps, classes)["saliency_metric"]


# what the table calls ---------------------------------------------------------------------------------------------


def box_values(case: Case, *, variant: str, step: float, deltas: tuple[int, ...]) -> dict[str, Array]:
    """
    Return each image's hits at every threshold and IoU, or its histograms of scores.

    Parameters
    ----------
    case : Case
        Maps, boxes and masks.
    variant : str
        As in `max_box_acc_v2`.
    step : float
        Between thresholds.
    deltas : tuple of int
        IoUs in percent.

    Returns
    -------
    dict of str to ndarray
        ``max_box_acc_v2`` (N,), each image at its own best thresholds, which bounds its part in the headline from above;
        ``.hits`` (N, T D), thresholds first; ``.counts`` (N,). For "pxap" ``.true`` and ``.false`` (N, T + 1), pixels of
        the mask and others by score; the main value is the image's own area under the curve.
    """
    name, n, taus = "max_box_acc_v2", len(case.heat), np.arange(0, 1, step)
    if variant == "pxap":
        regions, valid = regions_of(case.ground, n, case.size)
        covered: Bools = np.any(regions, (1, 2))
        edges = np.append(taus, [1.0, 2.0])
        heat = case.host.astype(np.float64)
        true = np.stack([np.histogram(heat[i][regions[i]], edges)[0] for i in range(n)]).astype(np.float64)
        false = np.stack([np.histogram(heat[i][valid[i] & ~regions[i]], edges)[0] for i in range(n)]).astype(np.float64)
        true, false = true * covered[:, None], false * covered[:, None]
        own = np.where(covered, _average_precision(true, false), 0.0)
        return {name: own, f"{name}.true": true, f"{name}.false": false, f"{name}.counts": covered.astype(np.float64)}
    goals = [np.trunc(boxes) for boxes in boxes_of(case.ground, n, case.size)]
    counts = np.array([len(boxes) > 0 for boxes in goals], np.float64)
    best = np.stack([_best_ious(case.host[i], goals[i], taus, variant) for i in range(n)])
    hits = (best[:, :, None] >= np.array(deltas) / 100).astype(np.float64) * counts[:, None, None]  # (N, T, D)
    own = hits.max(1).mean(1)
    return {name: own, f"{name}.hits": hits.reshape(n, -1), f"{name}.counts": counts}


def box_overall(means: Mapping[str, Array], *, variant: str, step: float, deltas: tuple[int, ...]) -> dict[str, Array]:
    """
    Return the accuracy at the best threshold of each IoU, averaged; or the area under precision and recall.

    Parameters
    ----------
    means : mapping of str to ndarray
        Means over images.
    variant : str
        As in `max_box_acc_v2`.
    step : float
        Between thresholds.
    deltas : tuple of int
        IoUs in percent.

    Returns
    -------
    dict of str to ndarray
        ``max_box_acc_v2``.
    """
    name = "max_box_acc_v2"
    if variant == "pxap":
        true, false = np.asarray(means[f"{name}.true"]), np.asarray(means[f"{name}.false"])
        area = _average_precision(true, false)
        return {name: np.where(true.sum(-1) > 0, area, np.nan)}
    hits = shares(means, name, f"{name}.hits")[f"{name}.hits"]
    return {name: hits.reshape(*hits.shape[:-1], -1, len(deltas)).max(-2).mean(-1)}


def error_values(case: Case, *, variant: str) -> dict[str, Array]:
    """
    Return how each map's box and energy lie to the object's boxes.

    Parameters
    ----------
    case : Case
        Maps, boxes, and the clean picture's scores for ``om``.
    variant : str
        As in `localisation_error`.

    Returns
    -------
    dict of str to ndarray
        ``localisation_error``, ``.f1``, ``.f1a``, ``.counts`` and, where the model was asked, ``.om``, each (N,).

    Notes
    -----
    The prediction is right where the model's first class is the label; where no label is known, where it is the class that is
    explained.
    """
    name, n = "localisation_error", len(case.heat)
    goals = [pixels_of(boxes) for boxes in boxes_of(case.ground, n, case.size)]
    counts = np.array([len(boxes) > 0 for boxes in goals])
    hit, f1, f1a = np.zeros(n, bool), np.zeros(n), np.zeros(n)
    for i in np.flatnonzero(counts):
        heat, boxes = case.host[i], goals[i]
        if heat.max() > heat.min():
            box = np.array([largest_box(heat)]) - ([0, 0, 1, 1] if variant == "official-short" else [0])
            hit[i] = _ious(box, boxes).max() > 0.5
        scores = _f1(heat, boxes)
        f1[i], f1a[i] = scores.max(), scores.mean()
    found = {name: (counts & ~hit).astype(np.float64), f"{name}.f1": f1, f"{name}.f1a": f1a}
    if Clean() in case.scores:
        labels = case.classes if case.ground.labels is None else np.asarray(case.ground.labels)
        right = case.scores[Clean()].hit & ((labels < 0) | (labels == case.classes))
        found[f"{name}.om"] = (counts & ~(hit & right)).astype(np.float64)
    return {**found, f"{name}.counts": counts.astype(np.float64)}


def error_overall(means: Mapping[str, Array], *, variant: str) -> dict[str, Array]:
    """
    Return means over the images that count.

    Parameters
    ----------
    means : mapping of str to ndarray
        Means over all images.
    variant : str
        As in `localisation_error`.

    Returns
    -------
    dict of str to ndarray
        The fields.
    """
    fields = [field.name for field in LOCALISATION.fields if field.name in means]
    return shares(means, LOCALISATION.id, *fields)


def saliency_changes(size: tuple[int, int], *, variant: str) -> tuple[Change, ...]:
    """
    Name the picture that is asked: the crop.

    Parameters
    ----------
    size : tuple of int
        Height and width of the maps.
    variant : str
        The only one.

    Returns
    -------
    tuple of Change
        One.
    """
    return (Cropped(),)


def saliency_values(case: Case, *, variant: str) -> dict[str, Array]:
    """
    Return the saliency metric of each image.

    Parameters
    ----------
    case : Case
        Maps, and scores of the crop.
    variant : str
        The only one.

    Returns
    -------
    dict of str to ndarray
        ``saliency_metric`` and the share of the picture, ``saliency_metric.area``, (N,).
    """
    boxes = np.array([largest_box(heat) for heat in case.host], np.float64)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) / (case.size[0] * case.size[1])
    metric = np.log(np.maximum(area, SMALLEST)) - case.scores[Cropped()].log_p
    return {"saliency_metric": metric, "saliency_metric.area": area}


def _best_ious(heat: Array, goals: Floats, taus: Floats, variant: str) -> Floats:
    """Return the best IoU of a map's contours with the object's boxes at every threshold, (T,)."""
    if not len(goals):
        return np.zeros(len(taus))
    levels = (heat.astype(np.float64) * 255).astype(np.uint8)
    cuts, which = np.unique((taus * levels.max()).astype(np.int64), return_inverse=True)
    ranks = np.searchsorted(cuts, levels, "left")  # how many thresholds a pixel exceeds
    there = np.bincount(ranks.ravel(), minlength=len(cuts) + 1) > 0
    there[0] = True
    place = np.cumsum(there) - 1  # thresholds between which no pixel lies show the same picture
    found = outlines(place[ranks]) if variant == "v1" else contours(place[ranks])
    level, corners = found.level, found.corners
    if variant == "v1":
        order = np.lexsort((found.size, level))  # the last of the largest of each level
        last = order[np.flatnonzero(np.diff(level[order], append=-1))]
        level, corners = level[last], corners[last]
    if not len(level):  # an all-zero map: the box of the first pixel
        level, corners = np.zeros(1, np.int64), np.zeros((1, 4), np.int64)
    height, width = heat.shape
    corners = np.minimum(corners, [width - 1, height - 1, width - 1, height - 1])
    best = np.zeros(len(cuts) + 1)
    np.maximum.at(best, level, _ious(corners, goals, ends=1).max(1))
    found_at: Floats = best[place[which]]
    return found_at


def _ious(boxes: Array, goals: Array, ends: int = 0) -> Floats:
    """Return intersection over union of every box with every goal; `ends` is 1 where both ends of a box count, (B, G)."""
    overlap = np.minimum(boxes[:, None, 2:], goals[:, 2:]) - np.maximum(boxes[:, None, :2], goals[:, :2]) + ends
    inside = np.maximum(overlap, 0).prod(2)
    areas = [(part[:, 2:] - part[:, :2] + ends).prod(1) for part in (boxes, goals)]
    quotient: Floats = inside / (areas[0][:, None] + areas[1] - inside)
    return quotient


def _f1(heat: Array, boxes: Array) -> Floats:
    """Return the F1 score of a map's energy with each box, (B,)."""
    energy = heat.astype(np.float64)
    inside = np.array([energy[y0:y1, x0:x1].sum() for x0, y0, x1, y1 in boxes])
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    f1: Floats = 2 * inside / (energy.sum() + areas)  # 2 P R / (P + R), P = inside / energy and R = inside / area
    return f1


def _average_precision(true: Floats, false: Floats) -> Floats:
    """Return the area under precision over recall from histograms of scores, ascending, (..., P) to (...)."""
    hits, others = (counts[..., ::-1].cumsum(-1) for counts in (true, false))
    taken, total = hits + others, hits[..., -1:]
    precision = np.divide(hits, taken, out=np.zeros_like(taken), where=taken > 0)
    recall = np.divide(hits, total, out=np.zeros_like(taken), where=total > 0)
    area: Floats = (precision * np.diff(recall, axis=-1, prepend=0)).sum(-1)
    return area


MAX_BOX_ACC = register(
    Metric(
        id="max_box_acc_v2",
        title="MaxBoxAccV2",
        paper="arXiv:2001.07437",
        settings="v2: the evaluation of Choe et al., with step=0.01 on its command line. v1: MaxBoxAcc. pxap: OpenImages",
        fields=(
            Field("max_box_acc_v2", "higher", 0, 1, "boxes that hit at the best threshold, over IoUs", percent=True),
        ),
        variants=("v2", "v1", "pxap"),
        by_variant={
            "pxap": (
                Field("max_box_acc_v2", "higher", 0, 1, "area under the precision and recall of pixels", percent=True),
            )
        },
        values=box_values,
        overall=box_overall,
        needs=("map", "boxes", "masks"),
        options={
            "step": Option(0.001, "number", "between thresholds, from 0 to 1", low=0.0001, high=1),
            "deltas": Option(
                (30, 50, 70), "integers", "IoUs that hit, in percent", low=1, high=100, by_variant={"v1": (50,)}
            ),
        },
        aliases=("max_box_acc",),
    )
)
LOCALISATION = register(
    Metric(
        id="localisation_error",
        title="Localisation Error",
        paper="arXiv:1805.08249",
        settings="casme: the numbers of the group of Opti-CAM (LE, OM, F1). official-short: that code, to the pixel",
        fields=(
            Field("localisation_error", "lower", 0, 1, "boxes of the map that miss the object (LE)", percent=True),
            Field("localisation_error.om", "lower", 0, 1, "boxes that miss, or predictions that do (OM)", percent=True),
            Field("localisation_error.f1", "higher", 0, 1, "F1 of the map's energy, best box", percent=True),
            Field("localisation_error.f1a", "higher", 0, 1, "F1 of the map's energy, mean over boxes", percent=True),
        ),
        variants=("casme", "official-short"),
        values=error_values,
        overall=error_overall,
        needs=("map", "boxes", "masks"),
        aliases=("localization_error", "le"),
    )
)
SALIENCY = register(
    Metric(
        id="saliency_metric",
        title="Saliency Metric",
        paper="arXiv:1705.07857",
        settings="casme: Dabkowski and Gal, CASME, the group of Opti-CAM",
        fields=(
            Field(
                "saliency_metric",
                "lower",
                float(np.log(SMALLEST)),
                np.inf,
                "log area of the map's box, less log p there",
            ),
            Field("saliency_metric.area", "neither", 0, 1, "share of the picture in the map's box", percent=True),
        ),
        variants=("casme",),
        values=saliency_values,
        changes=saliency_changes,
        needs=("map", "scores"),
        aliases=("sm",),
    )
)
