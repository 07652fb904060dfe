"""
Group-CAM: Grad-CAM's weighted channels in groups, each scored by what the class gains where the group unblurs the image.

Activations and gradients of one layer, the image and masked forwards go in; a raw map comes out. Zhang, Rao and Yang
2021, arXiv:2103.13859. With Grad-CAM's weights a_k, a group's map G_g = max(sum over its channels of a_k A_k, 0), its
mask M_g (upsampled, then scaled to [0, 1]), the blurred image b and the class's probability p,

    r_g = max(p(x * M_g + b * (1 - M_g)) - p(b), 0)            S = sum over groups of  r_g G_g
"""

from __future__ import annotations

from camrt import kernels
from camrt.kernels import is_cupy

from ..masks import Masks
from .arrays import Array, namespace
from .clustering import kmeans, ward
from .gradcam import gradcam
from .scorecam import MaskedOf, ScoreOf
from .table import Method, Option, register


def groupcam(
    acts: Array,
    grads: Array,
    x: Array,
    size: tuple[int, int],
    masked_of: MaskedOf,
    score_of: ScoreOf,
    *,
    variant: str = "official",
    groups: int = 32,
    blur_size: int = 51,
    blur_sigma: float = 50.0,
    denoise: float | None = None,
    seed: int = 0,
) -> Array:
    """
    Weigh groups of channels by what the class gains where they unblur the image.

    Parameters
    ----------
    acts, grads : ndarray of float, shape (N, K, h, w)
        Activations, and the gradient of the target with respect to them.
    x : ndarray, shape (N, C, H, W) or (N, H, W, C)
        The model's input.
    size : tuple of int
        ``(H, W)`` of the input.
    masked_of : callable
        Takes `Masks`, returns the logits of masked images.
    score_of : callable
        Takes logits (N,M,C) and "probability", returns the target's scores (N,M).
    variant : {"official", "kmeans", "agglomerative"}
        How channels are grouped: neighbours, as many a group as possible alike; k-means or Ward's clustering of the
        weighted channels, of each image by itself.
    groups : int
        How many groups; all channels alone where there are fewer.
    blur_size : int
        Side of the blur in pixels, odd.
    blur_sigma : float
        Its standard deviation in pixels.
    denoise : float, optional
        A percentile; values of a group's map up to it become zero.
    seed : int
        Seed of k-means.

    Returns
    -------
    ndarray of float, shape (N, h, w)
        Raw map, never negative. A group whose map is constant, or whose mask has not been run, counts for nothing.

    Notes
    -----
    Cost: one masked forward a group, and one of the blurred image for all targets.

    References
    ----------
    Zhang, Rao and Yang 2021, Group-CAM, arXiv:2103.13859, equations 3 to 7.
    """
    xp = namespace(acts)
    weighted = gradcam(acts, grads)[:, :, None, None] * acts
    maps = xp.maximum(_summed(weighted, variant, min(groups, acts.shape[1]), seed), 0)  # (N, G, h, w)
    if denoise is not None:
        maps = maps * (maps > xp.percentile(maps, denoise, axis=(2, 3), keepdims=True))
    blurred = _blurred(x, size, blur_size, blur_sigma)
    nothing = masked_of(Masks(xp.zeros_like(maps[:, :1]), hidden=blurred, constant="keep"))
    scored = masked_of(Masks(maps, hidden=blurred))
    gains = score_of(scored.logits, "probability") - score_of(nothing.logits, "probability")
    rewards = gains.clip(0, None) * (scored.live & nothing.live)
    return kernels.weighted_sum(maps, xp.asarray(rewards, acts.dtype))


def _summed(weighted: Array, variant: str, groups: int, seed: int) -> Array:
    """Sum channels by group; (N,K,h,w) -> (N,groups,h,w)."""
    xp, (images, channels, height, width) = namespace(weighted), weighted.shape
    flat = weighted.reshape(images, channels, height * width)
    if variant == "official":
        labels = xp.broadcast_to(xp.arange(channels) * groups // channels, (images, channels))
    else:
        host = flat.get() if is_cupy(flat) else flat  # type: ignore[attr-defined]
        found = [kmeans(rows, groups, seed) if variant == "kmeans" else ward(rows, groups) for rows in host]
        labels = xp.stack([xp.asarray(row) for row in found])
    members = (labels[:, None] == xp.arange(groups)[:, None]).astype(weighted.dtype)  # (N, groups, K)
    summed: Array = (members @ flat).reshape(images, groups, height, width)
    return summed


def _blurred(x: Array, size: tuple[int, int], side: int, sigma: float) -> Array:
    """Return the image blurred, in a floating type."""
    floating = x if x.dtype.kind == "f" else x.astype("f4")
    return kernels.gaussian_blur(
        floating, side, sigma, layout="channels_first" if x.shape[2:] == size else "channels_last"
    )


register(
    Method(
        id="groupcam",
        function=groupcam,
        needs=("acts", "grads", "x", "size", "masked_of", "score_of"),
        gives="map",
        family="masked",
        work=34.1,
        paper="arXiv:2103.13859",
        title="Group-CAM",
        variants=("official", "kmeans", "agglomerative"),
        options={
            "groups": Option(32, "integer", "groups of channels", low=1),
            "blur_size": Option(51, "integer", "side of the blur in pixels, odd", low=1),
            "blur_sigma": Option(50.0, "number", "standard deviation of the blur in pixels", low=1e-3),
            "denoise": Option(
                None, "number", "percentile up to which a group's map becomes zero", low=0, high=100, optional=True
            ),
            "seed": Option(0, "integer", "seed of k-means", low=0),
        },
        runs=lambda options, channels, cells: min(options["groups"], channels) + 1,
    )
)
