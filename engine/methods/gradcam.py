"""
Grad-CAM: channels weighted by their mean gradient.

Activations and gradients of one layer go in, channel weights come out. Selvaraju et al. 2017, arXiv:1610.02391,
eqs. 1-2.
"""

from __future__ import annotations

from .arrays import Array, total
from .table import Method, register


def gradcam(acts: Array, grads: Array, *, variant: str = "paper") -> Array:
    """
    Weigh channels by the mean of their gradient.

    The variant "captum" has the same weights and no ReLU: its raw map is Captum's attribution.

    Parameters
    ----------
    acts, grads : ndarray of float, shape (N, K, h, w)
        Activations, and the gradient of the target with respect to them.
    variant : {"paper", "captum"}
        The definition.

    Returns
    -------
    ndarray of float, shape (N, K)
        Channel weights, in target units a unit of activation and position.

    References
    ----------
    Selvaraju et al. 2017, Grad-CAM, arXiv:1610.02391, eq. 1.
    """
    weights: Array = total(grads)[:, :, 0, 0] / (grads.shape[2] * grads.shape[3])
    return weights


register(
    Method(
        id="gradcam",
        function=gradcam,
        needs=("acts", "grads"),
        gives="weights",
        family="gradient",
        work=1.1,
        paper="arXiv:1610.02391",
        title="Grad-CAM",
        variants=("paper", "captum"),
        relu={"paper": True, "captum": False},
    )
)
