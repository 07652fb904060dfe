"""
Whether a map points at the object: how much of its energy lies in there, and whether its maximum does.

In: maps, and boxes or masks. Out: one number an image. Neither asks the model. Images of which nothing is known do not
count (`camrt.metrics.ground`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from camrt import kernels

from ..device import on_host
from ..methods.arrays import namespace
from ..methods.table import Option
from .case import Case, Ground
from .ground import boxes_of, counted, known_ground, pixels_of, regions_of, shares
from .plain import judged
from .table import Field, Metric, register

__all__ = ["energy_pointing_game", "pointing_game", "small_single_box"]

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def energy_pointing_game(
    heatmaps: Any,
    boxes: Sequence[Any] | None = None,
    masks: Sequence[Any] | None = None,
    *,
    variant: str = "paper",
) -> Floats:
    """
    Return the share of each map's energy that lies on the object.

    ``sum of M inside / sum of M``, in [0, 1], higher is better.

    Parameters
    ----------
    heatmaps : array_like, shape (N, H, W) or (H, W)
        Maps in [0, 1], from any library.
    boxes : sequence of array_like, optional
        For each image, its boxes (B, 4) or one box (4,): ``x0 y0 x1 y1``, half-open, in pixels of the map. What lies outside
        the picture is cut off; of a box's edge, the pixels whose centres it holds count. Several boxes count as their union.
    masks : sequence of array_like, optional
        For each image, a mask (H, W), not zero on the object; used where an image has no boxes.
    variant : {"paper", "official-swapped"}
        "official-swapped" takes x for rows and y for columns, as the authors' code does by mistake, and needs boxes.

    Returns
    -------
    ndarray of float64, shape (N,)
        The share; 0 for an all-zero map.

    Raises
    ------
    ShapeError, NumericError
        If maps leave [0, 1] or are not finite, boxes are not (B, 4) with x0 < x1 and y0 < y1, or masks have another size.
    InputError
        If there are neither boxes nor masks, or an image has none inside the picture.

    Notes
    -----
    Cost: two sums over the map, no forwards. Score-CAM's table averages over 500 validation images of ImageNet with one box
    that covers half of the picture at most: `small_single_box` tells which those are.

    References
    ----------
    Wang et al. 2020, Score-CAM, arXiv:1910.01279, section 4.3.

    Examples
    --------
    >>> energy_pointing_game([[0.5, 0.5], [1.0, 0.0]], [[0, 0, 1, 2]]).tolist()
    [0.75]
    """
    found = judged(ENERGY, None, None, heatmaps, variant=variant, ground=known_ground(boxes, masks))
    return counted(found, "energy_pointing_game")


def pointing_game(
    heatmaps: Any,
    boxes: Sequence[Any] | None = None,
    masks: Sequence[Any] | None = None,
    *,
    variant: str = "torchray",
    tolerance: int = 15,
) -> Floats:
    """
    Return whether each map's maximum lies on the object.

    1 for a hit, 0 for a miss; higher is better.

    Parameters
    ----------
    heatmaps : array_like, shape (N, H, W) or (H, W)
        Maps in [0, 1], from any library.
    boxes : sequence of array_like, optional
        For each image, its boxes, as in `energy_pointing_game`; used where an image has no mask.
    masks : sequence of array_like, optional
        For each image, a mask (H, W), not zero on the object.
    variant : {"torchray", "quantus"}
        "torchray" hits where a pixel of the object is less than `tolerance` pixels from the maximum, the first in raster
        order. "quantus" allows no distance, and any of several equal maxima may hit.
    tolerance : int, default 15
        For "torchray": distances strictly below it hit, so that 1 allows none.

    Returns
    -------
    ndarray of float64, shape (N,)
        Hits; a constant map points nowhere and misses.

    Raises
    ------
    ShapeError, NumericError, InputError
        As `energy_pointing_game`.

    Notes
    -----
    Cost: a search for the maximum, no forwards. The published number is the accuracy of each class averaged over classes,
    which `camrt.evaluate` reports; the mean of these values weighs every image alike. 15 pixels belong to pictures of the
    size of VOC's; on inputs of 224 they reach further in proportion. Zhang et al. 2016 propose the game.

    References
    ----------
    Zhang et al. 2016, arXiv:1608.00507; its tolerance and mean over classes after TorchRay's benchmark.

    Examples
    --------
    >>> pointing_game([[0.0, 0.2], [1.0, 0.0]], [[0, 0, 1, 1]], tolerance=1).tolist()
    [0.0]
    """
    options = {"tolerance": tolerance}
    ground = known_ground(boxes, masks)
    return counted(judged(POINTING, None, None, heatmaps, variant=variant, options=options, ground=ground), POINTING.id)


def small_single_box(boxes: Sequence[Any], size: tuple[int, int]) -> Bools:
    """
    Tell which images Score-CAM's energy game takes: one box, no more than half of the picture.

    Parameters
    ----------
    boxes : sequence of array_like
        For each image, its boxes (B, 4).
    size : tuple of int
        Height and width of the pictures.

    Returns
    -------
    ndarray of bool, shape (N,)
        Which.

    Examples
    --------
    >>> small_single_box([[0, 0, 2, 1], [0, 0, 2, 2]], (2, 2)).tolist()
    [True, False]
    """
    return _small(known_ground(boxes, None), len(boxes), size)


# what the table calls ---------------------------------------------------------------------------------------------


def energy_values(case: Case, *, variant: str, subset: str) -> dict[str, Array]:
    """
    Return each image's energy on the object.

    Parameters
    ----------
    case : Case
        Maps, boxes and masks.
    variant : str
        As in `energy_pointing_game`.
    subset : str
        "score-cam" counts only images of `small_single_box`.

    Returns
    -------
    dict of str to ndarray
        ``energy_pointing_game`` and ``.counts`` (N,).
    """
    n, asarray = len(case.heat), namespace(case.heat).asarray
    regions, valid = regions_of(case.ground, n, case.size, "boxes")
    if variant == "official-swapped":
        regions = _swapped(case.ground, n, case.size) & valid
    counts: Bools = np.any(regions, (1, 2))
    if subset == "score-cam":
        counts &= _small(case.ground, n, case.size)
    inside, total = (on_host(kernels.region_sums(case.heat, asarray(part))[0]) for part in (regions, valid))
    share = np.divide(inside, total, out=np.zeros(n), where=total > 0)
    return {
        "energy_pointing_game": np.where(counts, share, 0.0),
        "energy_pointing_game.counts": counts.astype(np.float64),
    }


def energy_overall(means: Mapping[str, Array], *, variant: str, subset: str) -> dict[str, Array]:
    """
    Return the mean over the images that count.

    Parameters
    ----------
    means : mapping of str to ndarray
        Means over all images.
    variant, subset : str
        As in `energy_values`.

    Returns
    -------
    dict of str to ndarray
        ``energy_pointing_game``.
    """
    return shares(means, ENERGY.id, ENERGY.id)


def pointing_values(case: Case, *, variant: str, tolerance: int) -> dict[str, Array]:
    """
    Return whether each map's maximum hits.

    Parameters
    ----------
    case : Case
        Maps, boxes and masks.
    variant : str
        As in `pointing_game`.
    tolerance : int
        As in `pointing_game`.

    Returns
    -------
    dict of str to ndarray
        ``pointing_game`` and ``.counts`` (N,).
    """
    heat = case.host
    regions, _ = regions_of(case.ground, len(heat), case.size)
    if variant == "quantus":
        hits = ((heat == heat.max((1, 2), keepdims=True)) & regions).any((1, 2))
    else:
        hits = np.array([_near(one, region, tolerance) for one, region in zip(heat, regions, strict=True)], bool)
    hits &= ~case.degenerate
    return {"pointing_game": hits.astype(np.float64), "pointing_game.counts": regions.any((1, 2)).astype(np.float64)}


def pointing_overall(means: Mapping[str, Array], *, variant: str, tolerance: int) -> dict[str, Array]:
    """
    Return the share of hits among the images that count.

    Parameters
    ----------
    means : mapping of str to ndarray
        Means over images, or over classes of means over their images.
    variant : str
        As in `pointing_game`.
    tolerance : int
        As in `pointing_game`.

    Returns
    -------
    dict of str to ndarray
        ``pointing_game``.
    """
    return shares(means, POINTING.id, POINTING.id)


def _near(heat: Array, region: Bools, tolerance: int) -> bool:
    """Tell whether a region comes nearer to a map's first maximum than a distance."""
    row, column = np.unravel_index(int(heat.argmax()), heat.shape)
    rows, columns = np.nonzero(region)
    return bool(((rows - row) ** 2 + (columns - column) ** 2 < tolerance**2).any())


def _small(ground: Ground, n: int, size: tuple[int, int]) -> Bools:
    """Tell which images have one box that covers half of the picture at most."""
    boxes = boxes_of(Ground(boxes=ground.boxes), n, size)
    sides = [(box[:, 2:] - box[:, :2]).prod(1) for box in boxes]
    return np.array([len(areas) == 1 and areas[0] <= size[0] * size[1] / 2 for areas in sides], bool)


def _swapped(ground: Ground, n: int, size: tuple[int, int]) -> Bools:
    """Return the regions of boxes whose axes are mistaken for each other."""
    regions = np.zeros((n, *size), bool)
    for region, boxes in zip(regions, boxes_of(Ground(boxes=ground.boxes), n, size), strict=True):
        for x0, y0, x1, y1 in pixels_of(boxes):
            region[x0:x1, y0:y1] = True
    return regions


ENERGY = register(
    Metric(
        id="energy_pointing_game",
        title="Energy-based Pointing Game",
        paper="arXiv:1910.01279",
        settings="paper with subset=score-cam: Score-CAM's table, 500 images of ImageNet. official-swapped: its code",
        fields=(
            Field(
                "energy_pointing_game",
                "higher",
                0,
                1,
                "share of the map's energy that lies on the object",
                percent=True,
            ),
        ),
        variants=("paper", "official-swapped"),
        values=energy_values,
        overall=energy_overall,
        needs=("map", "boxes", "masks"),
        options={
            "subset": Option(
                "all",
                "choice",
                "which images count: all with a box or mask, or those with one box of half the picture at most",
                choices=("all", "score-cam"),
            )
        },
        aliases=("epg", "ebpg", "energy"),
    )
)
POINTING = register(
    Metric(
        id="pointing_game",
        title="Pointing Game",
        paper="arXiv:1608.00507",
        settings="torchray: TorchRay's benchmark on VOC 2007 and COCO, mean over classes. quantus: that library",
        fields=(Field("pointing_game", "higher", 0, 1, "share of maps whose maximum hits the object", percent=True),),
        variants=("torchray", "quantus"),
        values=pointing_values,
        overall=pointing_overall,
        by_class=True,
        needs=("map", "boxes", "masks"),
        options={
            "tolerance": Option(
                15, "integer", "pixels from the maximum within which the object is hit, itself not included", low=1
            )
        },
        aliases=("pg",),
    )
)
