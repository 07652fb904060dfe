"""
How concentrated a map is.

In: maps. Out: one number each, 0 where the map is the same everywhere. The default is the Gini index (Hurley and
Rickard 2009, arXiv:0811.4706; for explanations Chalasani et al. 2020, arXiv:1810.06583): with the n values sorted
upwards,

    sum over i of (2 i - n - 1) a_i / (n sum of a),    i = 1 ... n
"""

from __future__ import annotations

import numpy as np

from camrt import kernels

from ..device import on_host
from ..methods.arrays import namespace
from .case import Array, Case
from .confidence import Floats
from .plain import checked_heatmaps
from .table import Field, Metric, register, validate

__all__ = ["sparseness"]


def sparseness(heatmaps: Array, *, variant: str = "gini") -> Floats:
    """
    Return how concentrated each map is.

    Higher is more concentrated; which is better depends on the question.

    Parameters
    ----------
    heatmaps : ndarray, shape (N, H, W)
        Maps in [0, 1], of any size.
    variant : {"gini", "max-over-mean"}
        "gini" is the Gini index: 0 for a constant map, 1 - 1/n for a single pixel of n. "max-over-mean" is the highest
        value over the mean, 1 for a constant map and n for a single pixel.

    Returns
    -------
    ndarray of float64, shape (N,)
        The sparseness of each map; 0 for a map of zeros, both ways.

    Raises
    ------
    ShapeError, NumericError
        If they are no maps, hold NaN or leave [0, 1].

    Notes
    -----
    Needs no model. Quantus' Sparseness is "gini" of the map plus 1e-7; Gomez et al. use "max-over-mean". Neither
    changes with the scale of the map, both change with its offset.

    References
    ----------
    Chalasani et al. 2020, arXiv:1810.06583; Hurley and Rickard 2009, arXiv:0811.4706; Gomez et al. 2022,
    arXiv:2201.13291.

    Examples
    --------
    >>> sparseness([[[0.0, 0.0], [0.0, 1.0]], [[1.0, 1.0], [1.0, 1.0]]])
    array([0.75, 0.  ])
    """
    chosen, _ = validate(SPARSENESS, variant)
    return _FORMS[chosen](checked_heatmaps(heatmaps))


def sparseness_values(case: Case, *, variant: str) -> dict[str, Array]:
    """
    Return how concentrated each map is.

    Parameters
    ----------
    case : Case
        Maps alone.
    variant : str
        As in `sparseness`.

    Returns
    -------
    dict of str to ndarray
        ``sparseness`` (N,).
    """
    return {"sparseness": _FORMS[variant](case.heat)}


def _gini(heat: Array) -> Floats:
    """Return the Gini index, (N,)."""
    xp = namespace(heat)
    values = xp.sort(heat.reshape(len(heat), -1), axis=1).astype(np.float64)
    n = values.shape[1]
    ranks = xp.arange(1 - n, n, 2, dtype=np.float64)  # 2 i - n - 1
    whole = on_host(values.sum(1))
    weighted = on_host((values * ranks).sum(1))
    index: Floats = np.divide(weighted, n * whole, out=np.zeros(len(whole)), where=whole > 0)
    return index


def _peak(heat: Array) -> Floats:
    """Return the highest value over the mean, (N,)."""
    highest, mean = on_host(heat.max((1, 2))).astype(np.float64), on_host(kernels.map_means(heat))
    return np.divide(highest, mean, out=np.zeros(len(mean)), where=mean > 0)


_FORMS = {"gini": _gini, "max-over-mean": _peak}
SPARSENESS = register(
    Metric(
        id="sparseness",
        title="Sparseness",
        paper="arXiv:1810.06583",
        settings="gini: Quantus, with 1e-7 added to the map. max-over-mean: Gomez et al.",
        fields=(Field("sparseness", "neither", 0, 1, "Gini index of the map"),),
        variants=("gini", "max-over-mean"),
        by_variant={"max-over-mean": (Field("sparseness", "neither", 0, np.inf, "highest value over the mean"),)},
        values=sparseness_values,
    )
)
