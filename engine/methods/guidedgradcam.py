"""
Guided Grad-CAM: the guided gradient at the image, weighed by the Grad-CAM map.

Activations, gradients and a callable that gives the guided gradient at the image go in; a map of the image's size comes
out. Selvaraju et al. 2017, arXiv:1610.02391, section 3.2; the guided gradient is that of Springenberg et al. 2014,
arXiv:1412.6806. With S the Grad-CAM map after its ReLU and R the guided gradient,

    raw_input = up(S) R          map = sum over the image's channels of |raw_input|
"""

from __future__ import annotations

from collections.abc import Callable

from camrt import kernels

from .arrays import Array, namespace, planes
from .gradcam import gradcam
from .table import Method, Result, register


def guidedgradcam(
    acts: Array,
    grads: Array,
    size: tuple[int, int],
    seed: Callable[[], Array],
    guided_of: Callable[[Array], Array],
    *,
    variant: str = "paper",
) -> Result:
    """
    Multiply the guided gradient by the Grad-CAM map.

    Parameters
    ----------
    acts, grads : ndarray of float, shape (N, K, h, w)
        Activations, and the gradient of the target with respect to them.
    size : tuple of int
        ``(H, W)`` of the image.
    seed : callable
        Returns the target's cotangent at the logits.
    guided_of : callable
        Takes a cotangent, returns the guided gradient at the image.
    variant : {"paper"}
        The only definition.

    Returns
    -------
    Result
        A raw map (N,H,W), never negative, and `raw_input` (N,C,H,W), signed and one plane a channel of the image.

    Notes
    -----
    Cost: a Grad-CAM, and one forward and one guided pass to the image.

    References
    ----------
    Selvaraju et al. 2017, Grad-CAM, arXiv:1610.02391; Springenberg et al. 2014, arXiv:1412.6806.
    """
    raw = kernels.weighted_sum(acts, gradcam(acts, grads))
    coarse = kernels.resize(namespace(raw).maximum(raw, 0), size)
    fine = coarse[:, None] * planes(guided_of(seed()), size)
    return Result(abs(fine).sum(axis=1), raw_input=fine)


register(
    Method(
        id="guidedgradcam",
        function=guidedgradcam,
        needs=("acts", "grads", "size", "seed", "guided_of"),
        gives="map",
        family="fusion",
        work=3.4,
        paper="arXiv:1610.02391; arXiv:1412.6806",
        title="Guided Grad-CAM",
        variants=("paper",),
    )
)
