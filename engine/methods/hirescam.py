"""
HiResCAM: gradient times activation, summed over channels, nothing averaged.

Activations and gradients of one layer go in, element-wise weights (the gradients themselves) come out. Draelos and
Carin 2020, arXiv:2011.08891.
"""

from __future__ import annotations

from .arrays import Array
from .table import Method, register


def hirescam(acts: Array, grads: Array, *, variant: str = "official") -> Array:
    """
    Weigh each activation by its own gradient.

    Where the tail is one linear layer on the flattened activations, the raw map sums to the logit less its bias.

    Parameters
    ----------
    acts, grads : ndarray of float, shape (N, K, h, w)
        Activations, and the gradient of the target with respect to them.
    variant : {"official"}
        The only definition.

    Returns
    -------
    ndarray of float, shape (N, K, h, w)
        Element-wise weights; the raw map is the signed sum.

    References
    ----------
    Draelos and Carin 2020, HiResCAM, arXiv:2011.08891.
    """
    return grads


register(
    Method(
        id="hirescam",
        function=hirescam,
        needs=("acts", "grads"),
        gives="weights",
        family="gradient",
        work=1.1,
        paper="arXiv:2011.08891",
        title="HiResCAM",
        variants=("official",),
    )
)
