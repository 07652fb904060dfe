"""
LayerCAM: activations weighted position by position by their positive gradients, for any layer and several at once.

Activations and gradients of one layer go in, element-wise weights come out; `fuse_layercam` joins the raw maps of
several layers. Jiang et al. 2021, IEEE Transactions on Image Processing 30, pages 5875-5888.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

from camrt import kernels

from ..errors import MethodError
from .arrays import Array, namespace
from .layers import to_largest
from .table import Method, Option, register

DEEP = 2  # the paper lifts stages 1-3 of 5: all but the last two


def layercam(acts: Array, grads: Array, *, variant: str = "official") -> Array:
    """
    Weigh each activation by its own positive gradient.

    Parameters
    ----------
    acts, grads : ndarray of float, shape (N, K, h, w)
        Activations, and the gradient of the target with respect to them.
    variant : {"official", "torchcam"}
        The same on one layer; "torchcam" differs in how several are fused.

    Returns
    -------
    ndarray of float, shape (N, K, h, w)
        Element-wise weights.

    Notes
    -----
    At a layer that a strided operation follows, gradients lie on a grid and so does the map: choose the layer before
    or after it.

    References
    ----------
    Jiang et al. 2021, LayerCAM, IEEE TIP 30.
    """
    weights: Array = namespace(grads).maximum(grads, 0)
    return weights


def fuse_layercam(raws: Sequence[Array], *, gamma: float = 2.0, scale_layers: str = "shallow") -> Array:
    """
    Join the raw maps of several layers.

    Each map, cut at zero, is divided by its maximum; the layers to be lifted go through ``tanh(gamma * M)``; all are
    resized to the largest and the element-wise maximum is taken. One layer alone is returned as it is.

    Parameters
    ----------
    raws : sequence of ndarray of float, shape (N, h_l, w_l)
        Raw maps, the shallowest layer first.
    gamma : float
        How strongly a map is lifted.
    scale_layers : {"shallow", "all"}
        "shallow" lifts all but the last two layers, as in the paper; "all" scales every map by min-max and lifts it,
        as torch-cam does.

    Returns
    -------
    ndarray of float, shape (N, h, w)
        The fused raw map, at the size of the largest layer.

    Raises
    ------
    ShapeError
        If no map is given, or the numbers of images differ.
    MethodError
        If `scale_layers` is neither.

    References
    ----------
    Jiang et al. 2021, LayerCAM, IEEE TIP 30.
    """
    if scale_layers not in ("shallow", "all"):
        raise MethodError(f"option 'scale_layers' of layercam must be one of shallow, all; got {scale_layers!r}")
    if len(raws) == 1:
        return raws[0]
    scaled = [_to_peak(raw) if scale_layers == "shallow" else _to_unit(raw) for raw in raws]
    lifted = len(raws) - DEEP if scale_layers == "shallow" else len(raws)
    for depth in range(lifted):
        scaled[depth] = namespace(raws[0]).tanh(gamma * scaled[depth])
    return reduce(namespace(raws[0]).maximum, to_largest(scaled))


def _to_peak(raw: Array) -> Array:
    """Divide the positive part of each map by its maximum; (N,h,w) -> (N,h,w)."""
    xp = namespace(raw)
    positive = xp.maximum(raw, 0)
    peak = positive.max(axis=(1, 2), keepdims=True)
    scaled: Array = positive / xp.where(peak == 0, 1, peak)
    return scaled


def _to_unit(raw: Array) -> Array:
    """Scale the positive part of each map to [0, 1]; (N,h,w) -> (N,h,w)."""
    return kernels.min_max(namespace(raw).maximum(raw, 0))[0]


register(
    Method(
        id="layercam",
        function=layercam,
        needs=("acts", "grads"),
        gives="weights",
        family="gradient",
        work=1.1,
        paper="doi:10.1109/TIP.2021.3089943",
        title="LayerCAM",
        variants=("official", "torchcam"),
        fusion_options={
            "gamma": Option(2.0, "number", "how strongly shallow maps are lifted", low=0, high=1000),
            "scale_layers": Option(
                "shallow",
                "choice",
                "which layers are lifted",
                choices=("shallow", "all"),
                by_variant={"torchcam": "all"},
            ),
        },
        nonnegative=True,
        fuse="layercam",
    )
)
