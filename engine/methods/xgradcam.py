"""
XGrad-CAM: channels weighted by their gradient, averaged with the activations as weights.

Activations and gradients of one layer go in, channel weights come out. Fu et al. 2020, arXiv:2008.02312: the
choice that satisfies the axioms of sensitivity and conservation.
"""

from __future__ import annotations

from .arrays import Array, namespace, total
from .table import Method, Result, register

EPS = {"official": 1e-6, "pytorch-grad-cam": 1e-7, "torchcam": 1e-8}  # each as its authors published it


def xgradcam(acts: Array, grads: Array, *, variant: str = "paper") -> Array | Result:
    """
    Weigh channels by their activation-weighted mean gradient.

    Parameters
    ----------
    acts, grads : ndarray of float, shape (N, K, h, w)
        Activations, and the gradient of the target with respect to them.
    variant : {"paper", "official", "pytorch-grad-cam", "torchcam"}
        "paper" divides by the plain sum of activations; the others add 1e-6, 1e-7 and 1e-8 to it.

    Returns
    -------
    ndarray of float, shape (N, K), or Result
        Channel weights. For "paper" with the flag ``skipped_channels`` (N,): channels whose sum vanishes against its
        own terms, ``abs(sum A) <= 1e-6 * sum abs(A)``, and which therefore weigh 0.

    References
    ----------
    Fu et al. 2020, Axiom-based Grad-CAM, arXiv:2008.02312.
    """
    xp = namespace(acts)
    weighted, summed = total(acts * grads), total(acts)
    weights: Array
    if variant in EPS:
        weights = (weighted / (summed + EPS[variant]))[:, :, 0, 0]
        return weights
    skipped = abs(summed) <= 1e-6 * total(abs(acts))
    weights = xp.where(skipped, 0, weighted / xp.where(skipped, 1, summed))[:, :, 0, 0]
    return Result(weights, {"skipped_channels": skipped.sum(axis=(1, 2, 3))})


register(
    Method(
        id="xgradcam",
        function=xgradcam,
        needs=("acts", "grads"),
        gives="weights",
        family="gradient",
        work=1.1,
        paper="arXiv:2008.02312",
        title="XGrad-CAM",
        variants=("paper", "official", "pytorch-grad-cam", "torchcam"),
        nonnegative=True,
    )
)
