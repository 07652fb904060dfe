"""
Grad-CAM++: pixel-wise weighted mean of positive gradients, and the seven other definitions in use.

Activations and gradients of one layer go in, channel weights come out. Chattopadhay et al. 2018, arXiv:1710.11063,
eq. 19. With S the sum of a channel's activations and g its gradient at a position, every definition is

    w = reduce over positions of  alpha * max(g, 0),      alpha = g^2 / (2 g^2 + g^3 S)  =  1 / (2 + g S)

and they differ in alpha. The second form needs no eps and does not underflow; the positive factor exp(logit) of the
theory is left out, since it disappears in the scaling.
"""

from __future__ import annotations

from .arrays import Array, namespace, total
from .table import Method, register

CANCELS = 4e-6  # a millionth of the terms 2 and g S, which both have size 2 where they cancel
VARIANTS = (
    "paper",
    "official",
    "tf-keras-vis",
    "pytorch-grad-cam",
    "cube-inside",
    "torchcam",
    "xplique",
    "no-relu",
)


def gradcampp(acts: Array, grads: Array, *, variant: str = "paper") -> Array:
    """
    Weigh channels by a pixel-wise weighted sum of their positive gradients.

    Parameters
    ----------
    acts, grads : ndarray of float, shape (N, K, h, w)
        Activations, and the gradient of the target with respect to them.
    variant : str
        "paper"; "official" and "tf-keras-vis" (alpha normalised per channel, over cells with g > 0 and over all);
        "pytorch-grad-cam" (1e-6 added to the denominator); "cube-inside" (sum of A g^3 in the denominator);
        "torchcam" (as shipped: alpha = g^2); "xplique" (means for sums); "no-relu" (the paper's ablation).

    Returns
    -------
    ndarray of float, shape (N, K)
        Channel weights.

    Notes
    -----
    A cell whose denominator vanishes against its own terms contributes nothing in "paper", "no-relu" and
    "cube-inside"; the other variants keep their authors' constants. Cost: a few passes over the arrays.

    References
    ----------
    Chattopadhay et al. 2018, Grad-CAM++, arXiv:1710.11063, eq. 19; table 7 for "no-relu".
    """
    xp = namespace(acts)
    positive = xp.maximum(grads, 0)
    weights: Array
    if variant == "torchcam":
        weights = (grads * grads * positive).sum(axis=(2, 3))
    elif variant == "xplique":
        alpha = _guarded_by_one(grads, total(acts) / (acts.shape[2] * acts.shape[3]))
        weights = (alpha * positive).mean(axis=(2, 3))
    elif variant in ("paper", "no-relu"):
        gradient = grads if variant == "no-relu" else positive
        denominator = 2 + gradient * total(acts)
        denominator = xp.where(abs(denominator) <= CANCELS, xp.inf, denominator)
        weights = (gradient / denominator).sum(axis=(2, 3))
    else:
        weights = (_alpha(acts, grads, variant) * positive).sum(axis=(2, 3))
    return weights


def _alpha(acts: Array, grads: Array, variant: str) -> Array:
    """Return the coefficient of each position; (N,K,h,w) -> (N,K,h,w)."""
    xp = namespace(acts)
    square = grads * grads
    alpha: Array
    if variant == "pytorch-grad-cam":
        alpha = xp.where(grads != 0, square / (2 * square + total(acts) * square * grads + 1e-6), 0)
    elif variant == "cube-inside":
        alpha = ratio(square, 2 * square, total(acts * square * grads))
    else:
        alpha = _guarded_by_one(grads, total(acts))
        norm = total(xp.where(grads > 0, alpha, 0) if variant == "official" else alpha)
        alpha = alpha / xp.where(norm == 0, 1, norm)
    return alpha


def _guarded_by_one(grads: Array, activation: Array) -> Array:
    """Return 1 / (2 + g S), where a denominator 2 g^2 + g^3 S of exactly zero is replaced by 1."""
    xp = namespace(grads)
    denominator = 2 + grads * activation
    vanishes = denominator == 0
    alpha: Array = xp.where(vanishes, grads * grads, 1 / xp.where(vanishes, 1, denominator))
    alpha = alpha * (grads != 0)
    return alpha


def ratio(numerator: Array, first: Array, second: Array) -> Array:
    """
    Divide by a sum of two terms, giving 0 where they cancel.

    Parameters
    ----------
    numerator : ndarray of float
        What is divided.
    first, second : ndarray of float
        The terms of the denominator.

    Returns
    -------
    ndarray of float
        ``numerator / (first + second)``, and 0 where ``abs(first + second) <= 1e-6 * (abs(first) + abs(second))``.
    """
    xp = namespace(numerator)
    denominator = first + second
    cancels = abs(denominator) <= 1e-6 * (abs(first) + abs(second))
    quotient: Array = xp.where(cancels, 0, numerator / xp.where(cancels, 1, denominator))
    return quotient


register(
    Method(
        id="gradcampp",
        function=gradcampp,
        needs=("acts", "grads"),
        gives="weights",
        family="gradient",
        work=1.1,
        paper="arXiv:1710.11063",
        title="Grad-CAM++",
        variants=VARIANTS,
        nonnegative=True,
    )
)
