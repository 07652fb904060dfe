"""
FEM: channels weighted by how much of the grid stands out.

Activations of one layer go in, channel weights come out, the same for every class. Fuad et al. 2020, IPTA, HAL
hal-02963298.
"""

from __future__ import annotations

from .arrays import Array
from .table import Method, Option, register


def fem(acts: Array, *, variant: str = "pytorch-grad-cam", k: float = 2.0) -> Array:
    """
    Weigh channels by the fraction of positions above mean plus `k` standard deviations.

    Parameters
    ----------
    acts : ndarray of float, shape (N, K, h, w)
        Activations of one layer.
    variant : {"pytorch-grad-cam"}
        The only definition.
    k : float
        How many (population) standard deviations; the comparison is strict.

    Returns
    -------
    ndarray of float, shape (N, K)
        Channel weights in [0, 1].

    References
    ----------
    Fuad et al. 2020, Features Understanding in 3D CNNs for Actions Recognition in Video, IPTA, hal-02963298.
    """
    threshold = acts.mean(axis=(2, 3), keepdims=True) + k * acts.std(axis=(2, 3), keepdims=True)
    weights: Array = (acts > threshold).mean(axis=(2, 3)).astype(acts.dtype)
    return weights


register(
    Method(
        id="fem",
        function=fem,
        needs=("acts",),
        gives="weights",
        family="activation",
        work=1.0,
        paper="hal-02963298",
        title="FEM",
        variants=("pytorch-grad-cam",),
        options={"k": Option(2.0, "number", "standard deviations above the mean", low=0)},
        class_free=True,
    )
)
