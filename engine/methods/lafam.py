"""
LaFAM: the mean of the activations.

Activations of one layer go in, equal channel weights come out, the same for every class. Karjauv and Albayrak 2024,
arXiv:2407.06059.
"""

from __future__ import annotations

from .arrays import Array, namespace
from .table import Method, register


def lafam(acts: Array, *, variant: str = "paper") -> Array:
    """
    Weigh all channels alike.

    Parameters
    ----------
    acts : ndarray of float, shape (N, K, h, w)
        Activations of one layer.
    variant : {"paper"}
        The only definition; it has no ReLU.

    Returns
    -------
    ndarray of float, shape (N, K)
        ``1/K`` throughout.

    References
    ----------
    Karjauv and Albayrak 2024, LaFAM, arXiv:2407.06059.
    """
    n, k = acts.shape[:2]
    weights: Array = namespace(acts).full((n, k), 1 / k, dtype=acts.dtype)
    return weights


register(
    Method(
        id="lafam",
        function=lafam,
        needs=("acts",),
        gives="weights",
        family="activation",
        work=1.0,
        paper="arXiv:2407.06059",
        title="LaFAM",
        variants=("paper",),
        aliases=("mean-activation",),
        relu=False,
        class_free=True,
    )
)
