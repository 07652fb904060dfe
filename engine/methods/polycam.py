"""
Poly-CAM: channels of several layers weighted by masked scores, multiplied from the deepest map to the finest.

Activations and masked forwards go in; channel weights of one layer come out, and `fuse_polycam` makes one fine map of
the maps of several layers. Englebert et al. 2022, arXiv:2204.13359. With H_k a channel scaled by percentiles and
upsampled, and p the class's probability,

    p     w_k = p(x * H_k)
    m     w_k = max(p(x) - p(x * (1 - H_k)), 0)
    pm    w_k = max(p(x * H_k) + p(x) - p(x * (1 - H_k)), 0)
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

from camrt import kernels

from ..masks import Masks
from .arrays import Array, namespace
from .scorecam import MaskedOf, ScoreOf
from .table import Method, register

_OUTLIERS = (0.1, 99.9)  # the percentiles a channel is scaled by


def polycam(acts: Array, logits: Array, masked_of: MaskedOf, score_of: ScoreOf, *, variant: str = "pm") -> Array:
    """
    Weigh channels by the class's probability where they show the image, or hide it.

    Parameters
    ----------
    acts : ndarray of float, shape (N, K, h, w)
        Activations of one layer.
    logits : ndarray of float, shape (N, C)
        Logits of the clean input.
    masked_of : callable
        Takes `Masks`, returns the logits of masked images.
    score_of : callable
        Takes logits (N,M,C) and "probability", returns the target's scores (N,M).
    variant : {"pm", "p", "m"}
        "p" (PCAM+) takes the score of what a channel shows, "m" (PCAM-) the drop where it is hidden, "pm" both.

    Returns
    -------
    ndarray of float, shape (N, K)
        Channel weights, never negative; 0 for a channel without contrast between its percentiles, and for one whose
        masks have not been run.

    Notes
    -----
    Cost: K masked forwards, 2 K for "pm"; further targets cost nothing.

    References
    ----------
    Englebert et al. 2022, Poly-CAM, arXiv:2204.13359, equations 3 to 8.
    """
    xp = namespace(acts)
    masks = scaled_by_percentiles(acts)
    shown = (masks.max(axis=(2, 3)) > masks.min(axis=(2, 3))) & (masks.max(axis=(2, 3)) > 0)
    weights, live = xp.zeros(acts.shape[:2]), shown
    if variant != "m":
        kept = masked_of(Masks(masks, scaling="none", only=shown))
        weights = weights + xp.asarray(score_of(kept.logits, "probability"))
        live = live & xp.asarray(kept.live)
    if variant != "p":
        hidden = masked_of(Masks(masks, scaling="none", inverted=True, only=shown))
        clean = score_of(logits[:, None], "probability")
        weights = weights + xp.asarray(clean - score_of(hidden.logits, "probability"))
        live = live & xp.asarray(hidden.live)
    chosen: Array = (weights.clip(0, None) * live).astype(acts.dtype)
    return chosen


def scaled_by_percentiles(acts: Array) -> Array:
    """
    Scale each channel to [0, 1] by its 0.1st and 99.9th percentile: ``(A - low) / high``, clipped.

    Parameters
    ----------
    acts : ndarray of float, shape (N, K, h, w)
        Activations of one layer.

    Returns
    -------
    ndarray of float, shape (N, K, h, w)
        Masks at the layer's resolution; zero for a channel whose upper percentile is not positive.

    Notes
    -----
    The divisor is the upper percentile itself, not the range, as the authors' code has it.
    """
    xp = namespace(acts)
    low, high = xp.percentile(acts, xp.asarray(_OUTLIERS), axis=(2, 3), keepdims=True).astype(acts.dtype)
    scaled: Array = ((acts - low) / xp.where(high > 0, high, 1)).clip(0, 1) * (high > 0)
    return scaled


def fuse_polycam(raws: Sequence[Array]) -> Array:
    """
    Refine the deepest map by the shallower ones, one after the other.

    With M_l = max(raw_l, 0), P of the deepest layer is its M, and ``P_l = LNorm(M_l) * up(P_{l+1})``, where
    ``LNorm(M) = M / up(down(M))`` brings M to the deeper layer's size and back: what is left of it is detail that the
    deeper layer cannot have.

    Parameters
    ----------
    raws : sequence of ndarray of float, shape (N, h_l, w_l)
        Raw maps of each layer, the shallowest first.

    Returns
    -------
    ndarray of float, shape (N, h, w)
        The map at the size of the shallowest layer; zero where ``up(down(M))`` is.

    Notes
    -----
    Cost: three resizes a layer.

    References
    ----------
    Englebert et al. 2022, Poly-CAM, arXiv:2204.13359, equations 1 and 2.
    """
    xp = namespace(raws[0])
    return reduce(_refined, [xp.maximum(raw, 0) for raw in reversed(raws)])


def _refined(deep: Array, fine: Array) -> Array:
    """Multiply a deep map by the local detail of a finer one; (N,h',w'), (N,h,w) -> (N,h,w)."""
    xp, size = namespace(fine), fine.shape[1:]
    smooth = kernels.resize(kernels.resize(fine, deep.shape[1:]), size)
    detail = xp.where(smooth > 0, fine / xp.where(smooth > 0, smooth, 1), 0)
    refined: Array = detail * kernels.resize(deep, size)
    return refined


register(
    Method(
        id="polycam",
        function=polycam,
        needs=("acts", "logits", "masked_of", "score_of"),
        gives="weights",
        family="masked",
        work=2049.0,
        paper="arXiv:2204.13359",
        title="Poly-CAM",
        variants=("pm", "p", "m"),
        fuse="polycam",
        stages=True,
        runs=lambda options, channels, cells: 2 * channels,
    )
)
