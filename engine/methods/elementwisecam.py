"""
Element-wise Grad-CAM: the positive part of gradient times activation, summed over channels.

Activations and gradients of one layer go in, element-wise weights come out. Introduced by pytorch-grad-cam, without a
paper; the same as LayerCAM wherever no activation is negative.
"""

from __future__ import annotations

from .arrays import Array, namespace
from .table import Method, register


def elementwisecam(acts: Array, grads: Array, *, variant: str = "pytorch-grad-cam") -> Array:
    """
    Weigh each activation by its gradient where their product is positive.

    Parameters
    ----------
    acts, grads : ndarray of float, shape (N, K, h, w)
        Activations, and the gradient of the target with respect to them.
    variant : {"pytorch-grad-cam"}
        The only definition.

    Returns
    -------
    ndarray of float, shape (N, K, h, w)
        Element-wise weights; the raw map is the sum of ``max(grads * acts, 0)`` over channels.

    References
    ----------
    ``GradCAMElementWise`` of pytorch-grad-cam; no paper.
    """
    weights: Array = namespace(acts).where(grads * acts < 0, 0, grads)
    return weights


register(
    Method(
        id="elementwisecam",
        function=elementwisecam,
        needs=("acts", "grads"),
        gives="weights",
        family="gradient",
        work=1.1,
        paper="pytorch-grad-cam",
        title="Grad-CAM element-wise",
        variants=("pytorch-grad-cam",),
        aliases=("gradcam-elementwise",),
    )
)
