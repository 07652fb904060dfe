"""
Shapley-CAM: channel weights from the gradient and the curvature of a class's logit plus its log-probability.

Activations, logits and three ways to ask the model behind the layer go in; channel weights come out. Cai 2025,
arXiv:2501.06261. With T the target, G = dT/dA and H its Hessian, each channel's share of T in a game of channels is, to
second order,

    w = mean over positions of  G - (H A) / 2

No second sweep is needed. Where the layer's tail is piecewise linear, all curvature comes from the log-probability, and
H A is the gradient of one more cotangent at the logits: with p the softmax and j = (ds/dA) A, the change of the logits
s along A,

    H A  is the gradient of  -(p j - p <p, j>),        so        G - H A / 2  is that of  2 e_c - p + (p j - p <p, j>) / 2

Elsewhere H A is the central difference of gradients at A (1 + step) and A (1 - step).
"""

from __future__ import annotations

from collections.abc import Callable

from ..errors import TargetError
from .arrays import Array, namespace
from .table import Method, Option, register

LogitsFrom = Callable[[Array], Array]
GradientsOf = Callable[[Array], Array]
GradientsFrom = Callable[[Array, Array], Array]


def shapleycam(
    acts: Array,
    logits: Array,
    target: Array,
    piecewise: bool,
    gradients_of: GradientsOf,
    logits_from: LogitsFrom,
    gradients_from: GradientsFrom,
    *,
    variant: str = "rest",
    step: float = 1e-3,
) -> Array:
    """
    Weigh channels by their Shapley values to second order.

    Parameters
    ----------
    acts : ndarray of float, shape (N, K, h, w)
        Activations of one layer.
    logits : ndarray of float, shape (N, C)
        Logits of the clean input.
    target : ndarray of int64, shape (N,)
        The class explained.
    piecewise : bool
        Whether the model is piecewise linear behind the layer.
    gradients_of : callable
        Takes a cotangent at the logits (N,C), returns gradients at the layer (N,K,h,w).
    logits_from : callable
        Takes activations like `acts`, returns the logits they lead to.
    gradients_from : callable
        Takes activations and a cotangent, returns gradients at those activations.
    variant : {"rest", "logit"}
        The target scalar: the logit plus the log-probability, or the logit alone, for which a piecewise linear tail
        gives Grad-CAM.
    step : float
        Relative step of the difference quotients.

    Returns
    -------
    ndarray of float, shape (N, K)
        Channel weights.

    Raises
    ------
    TargetError
        If an image's target is not a single class.

    Notes
    -----
    Cost: two runs of the tail and one gradient through it where it is piecewise linear, else two and three.

    References
    ----------
    Cai 2025, Shapley-CAM, arXiv:2501.06261.
    """
    if bool((target < 0).any()):
        raise TargetError("shapleycam explains one class and needs its index; got another kind of target")
    up, down = acts * acts.dtype.type(1 + step), acts * acts.dtype.type(1 - step)
    seed = target_seed(logits, target, variant)
    if piecewise:
        if variant == "rest":
            change = (logits_from(up) - logits_from(down)) / (2 * step)
            seed = seed - curvature_seed(logits, change) / 2
        slopes = gradients_of(seed.astype(logits.dtype))
    else:
        ends = [gradients_from(at, target_seed(logits_from(at), target, variant)) for at in (up, down)]
        slopes = gradients_of(seed) - (ends[0] - ends[1]) / (4 * step)
    weights: Array = slopes.mean(axis=(2, 3)).astype(acts.dtype)
    return weights


def target_seed(logits: Array, target: Array, variant: str) -> Array:
    """
    Return the cotangent of the target at the logits.

    Parameters
    ----------
    logits : ndarray of float, shape (N, C)
        Where it is taken.
    target : ndarray of int64, shape (N,)
        The class explained.
    variant : {"rest", "logit"}
        As for `shapleycam`.

    Returns
    -------
    ndarray of float, shape (N, C)
        ``2 e_c - p`` or ``e_c``.
    """
    xp = namespace(logits)
    one = xp.zeros_like(logits)
    one[xp.arange(len(logits)), xp.asarray(target)] = 1
    seed: Array = one if variant == "logit" else 2 * one - _softmax(logits)
    return seed


def curvature_seed(logits: Array, change: Array) -> Array:
    """
    Return the cotangent whose gradient is the Hessian of the log-probability times the activations.

    Parameters
    ----------
    logits : ndarray of float, shape (N, C)
        Logits of the clean input.
    change : ndarray of float, shape (N, C)
        Their derivative along the activations.

    Returns
    -------
    ndarray of float, shape (N, C)
        ``-(p j - p <p, j>)``; the same for every class, whose log-probabilities differ by linear terms.
    """
    p = _softmax(logits)
    seed: Array = -p * (change - (p * change).sum(axis=1, keepdims=True))
    return seed


def _softmax(logits: Array) -> Array:
    """Return probabilities."""
    xp = namespace(logits)
    odds = xp.exp(logits - logits.max(axis=1, keepdims=True))
    shares: Array = odds / odds.sum(axis=1, keepdims=True)
    return shares


register(
    Method(
        id="shapleycam",
        function=shapleycam,
        needs=("acts", "logits", "target", "piecewise", "gradients_of", "logits_from", "gradients_from"),
        gives="weights",
        family="gradient",
        work=1.3,
        paper="arXiv:2501.06261",
        title="Shapley-CAM",
        variants=("rest", "logit"),
        options={"step": Option(1e-3, "number", "relative step of the difference quotients", low=1e-6, high=0.1)},
    )
)
