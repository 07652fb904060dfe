"""
ARCC: ADCC with ROAD in the place of the drop, so that what is hidden leaves no edge.

In: maps, the method's maps of what the maps show, and scores of imputed pictures. Out: one number an image, and for a
data set the number of its means:

    ARCC = 3 / (1 / coherency + 1 / (1 - complexity) + 1 / clip(2 ROAD, 0, 1))

with ROAD as pytorch-grad-cam combines it, (LeRF - MoRF) / 2, at the percentiles 20, 40, 60 and 80. Domeniconi et al.
2026 (RefineCAM), arXiv:2605.14641.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..methods.table import Option
from .adcc import coherency_values, complexity_values, harmonic_mean, shown
from .case import Array, Case
from .changes import Change
from .confidence import Floats
from .model import Judged
from .plain import Explain, judged
from .road import road_changes, road_values
from .table import Field, Metric, register

__all__ = ["arcc"]

LEVELS = (20, 40, 60, 80)  # percentiles
NOISE = 0.01  # on imputed pixels, in units of the model's input


def arcc(
    model: Judged,
    x: Array,
    heatmaps: Array,
    classes: Any = None,
    *,
    explain: Explain,
    seed: int = 0,
    mask_space: str = "normalised",
) -> Floats:
    """
    Return the harmonic mean of coherency, 1 - complexity and twice the combined ROAD of each image.

    In [0, 1], higher is better; 0 where any of the three is 0 or below.

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
    explain : callable
        ``explain(x, classes)`` returns the same method's maps (N, H, W) of other inputs.
    seed : int, default 0
        Of the noise on imputed pixels.
    mask_space : {"normalised", "raw"}, default "normalised"
        What hidden pixels show to the coherency; imputed ones show their neighbours.

    Returns
    -------
    ndarray of float64, shape (N,)
        The ARCC of each image. A data set's is the harmonic mean of the means, the ROAD clipped after it is averaged.

    Raises
    ------
    ShapeError, NumericError
        If maps have another size than the pictures, hold NaN or leave [0, 1], or logits are not finite.

    Notes
    -----
    Cost: one more explanation, and eight imputed forwards beside the clean one, an image. Used by RefineCAM. Its code
    adds 1e-8 to every denominator and thresholds the map, so that a map with many zeros loses all of them at once; here
    exactly as many pixels are removed as the percentile says.

    References
    ----------
    Domeniconi et al. 2026, How to Evaluate and Refine your CAM, arXiv:2605.14641.
    """
    found = judged(ARCC, model, x, heatmaps, classes, options={"seed": seed}, explain=explain, mask_space=mask_space)
    return found["arcc"]


# what the table calls ---------------------------------------------------------------------------------------------


def arcc_changes(size: tuple[int, int], *, variant: str, seed: int) -> tuple[Change, ...]:
    """
    Name the imputed pictures.

    Parameters
    ----------
    size : tuple of int
        Height and width of the maps.
    variant : str
        The only one.
    seed : int
        Of the noise.

    Returns
    -------
    tuple of Change
        Eight.
    """
    return road_changes(size, **_road(seed))


def arcc_again(size: tuple[int, int], *, variant: str, seed: int) -> tuple[Change, ...]:
    """
    Name what is explained again: what the map shows.

    Parameters
    ----------
    size : tuple of int
        Height and width of the maps.
    variant : str
        The only one.
    seed : int
        Unused.

    Returns
    -------
    tuple of Change
        One.
    """
    return shown(size, variant=variant)


def arcc_values(case: Case, *, variant: str, seed: int) -> dict[str, Array]:
    """
    Return the ARCC of each image, and what it is made of.

    Parameters
    ----------
    case : Case
        With scores of imputed pictures, and maps of what the maps show.
    variant : str
        The only one.
    seed : int
        Of the noise.

    Returns
    -------
    dict of str to ndarray
        ``arcc``, ``arcc.coherency``, ``arcc.complexity`` and ``arcc.road`` (N,), the last not clipped.
    """
    parts = {
        "arcc.coherency": coherency_values(case, variant="official")["coherency"],
        "arcc.complexity": complexity_values(case, variant="official")["complexity"],
        "arcc.road": road_values(case, **_road(seed))["road"],
    }
    return {"arcc": _arcc(parts), **parts}


def arcc_overall(means: Mapping[str, Array], *, variant: str, seed: int) -> dict[str, Array]:
    """
    Return the ARCC of the means, and the mean of each image's.

    Parameters
    ----------
    means : mapping of str to ndarray
        Means of what `arcc_values` gives, of any shape.
    variant : str
        The only one.
    seed : int
        Unused.

    Returns
    -------
    dict of str to ndarray
        ``arcc`` and ``arcc.per_image_mean``.
    """
    return {"arcc": _arcc(means), "arcc.per_image_mean": np.asarray(means["arcc"])}


def _road(seed: int) -> dict[str, Any]:
    """Return the settings of ROAD."""
    return {"variant": "pytorch-grad-cam", "levels": LEVELS, "noise": NOISE, "seed": seed}


def _arcc(parts: Mapping[str, Array]) -> Floats:
    """Return the harmonic mean of the three parts."""
    road = np.clip(2 * parts["arcc.road"], 0, 1)
    return harmonic_mean(parts["arcc.coherency"], 1 - parts["arcc.complexity"], road)


ARCC = register(
    Metric(
        id="arcc",
        title="ARCC",
        paper="arXiv:2605.14641",
        settings="official: RefineCAM, ROAD at the percentiles 20, 40, 60 and 80",
        fields=(
            Field("arcc", "higher", 0, 1, "arcc_of_means: harmonic mean of the means", percent=True),
            Field("arcc.per_image_mean", "higher", 0, 1, "mean of each image's ARCC", percent=True),
        ),
        variants=("official",),
        values=arcc_values,
        changes=arcc_changes,
        again=arcc_again,
        overall=arcc_overall,
        needs=("map", "scores", "again"),
        options={"seed": Option(0, "integer", "seed of the noise on imputed pixels", low=0)},
    )
)
