"""
Relevance-CAM: channel weights are the mean relevance of their cells.

Activations, logits and a callable that carries relevance back to the layer go in; channel weights come out. Lee et al.
2021, CVPR, "Relevance-CAM: Your Model Already Knows Where to Look". Relevance starts contrastively, 1 at the class and
-1/C at the others of C classes, and follows layer-wise relevance propagation with alpha 1 and beta 0.
"""

from __future__ import annotations

from collections.abc import Callable

from ..errors import TargetError
from .arrays import Array, namespace
from .table import Method, register


def relevancecam(
    acts: Array,
    logits: Array,
    target: Array,
    relevance_of: Callable[[Array, bool], Array],
    *,
    variant: str = "official",
) -> Array:
    """
    Weigh channels by their relevance.

    Parameters
    ----------
    acts : ndarray of float, shape (N, K, h, w)
        Activations of one layer, which the weights are for.
    logits : ndarray of float, shape (N, C)
        Logits of the clean input; only their number and type matter.
    target : ndarray of int64, shape (N,)
        The class explained.
    relevance_of : callable
        Takes the relevance of the logits (N,C) and whether biases count in the denominators, returns the relevance of
        the layer (N,K,h,w).
    variant : {"official", "official-bias"}
        "official" leaves biases out, so that relevance is conserved; "official-bias" adds a convolution's bias to both
        terms of the denominator, as the official code does.

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
    Cost: one run of the layer's tail and about twice as much for its relevance. The raw map gets no ReLU.

    References
    ----------
    Lee et al. 2021, Relevance-CAM, CVPR.
    """
    shares = relevance_of(contrastive(logits, target), variant == "official-bias")
    weights: Array = shares.mean(axis=(2, 3)).astype(acts.dtype, copy=False)
    return weights


def contrastive(logits: Array, target: Array) -> Array:
    """
    Return the relevance of the logits that propagation starts from.

    Parameters
    ----------
    logits : ndarray of float, shape (N, C)
        Gives C and the type.
    target : ndarray of int64, shape (N,)
        The class explained.

    Returns
    -------
    ndarray of float, shape (N, C)
        1 at the class, -1/C elsewhere.

    Raises
    ------
    TargetError
        If an image's target is not a single class.
    """
    if bool((target < 0).any()):
        raise TargetError("relevancecam contrasts one class with all others and needs its index; got another target")
    xp = namespace(logits)
    start: Array = xp.full_like(logits, -1 / logits.shape[1])
    start[xp.arange(len(logits)), xp.asarray(target)] = 1
    return start


register(
    Method(
        id="relevancecam",
        function=relevancecam,
        needs=("acts", "logits", "target", "relevance_of"),
        gives="weights",
        family="gradient",
        work=1.3,
        paper="CVPR 2021, Lee et al.",
        title="Relevance-CAM",
        variants=("official", "official-bias"),
        relu=False,
    )
)
