"""
RefineCAM: the product of the maps of several layers.

Activations and gradients of each layer go in, what the base method gives comes out; the product is taken by the fusion
over layers (`camrt.fuse`), or by `fuse_largest` for torch-cam's definition. "How to Evaluate and Refine your CAM",
2026, arXiv:2605.14641.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

from camrt import kernels

from .arrays import Array, namespace
from .derived import base_options, run_base
from .layers import to_largest
from .table import Method, Result, register


def refinecam(
    acts: Array, grads: Array, *, variant: str = "official", base: str = "gradcampp", base_variant: str | None = None
) -> Result:
    """
    Run the base method on one of the layers.

    Parameters
    ----------
    acts, grads : ndarray of float, shape (N, K, h, w)
        Activations, and the gradient of the target with respect to them.
    variant : {"official", "torchcam", "nth-root"}
        They differ in the fusion: the product of full-resolution heatmaps; of maps at the size of the largest layer;
        the product to the power of one over the number of layers.
    base : str
        The method that turns activations and gradients into a map.
    base_variant : str, optional
        Its variant.

    Returns
    -------
    Result
        What the base gives.

    References
    ----------
    How to Evaluate and Refine your CAM, 2026, arXiv:2605.14641.
    """
    return run_base(acts, grads, base, base_variant, variant)


def fuse_largest(raws: Sequence[Array]) -> Array:
    """
    Multiply maps at the resolution of the largest layer.

    Each map is cut at zero, scaled to [0, 1] at its own resolution and resized to the largest; one layer alone is
    returned as it is.

    Parameters
    ----------
    raws : sequence of ndarray of float, shape (N, h_l, w_l)
        Raw maps of the layers.

    Returns
    -------
    ndarray of float, shape (N, h, w)
        The product.

    Raises
    ------
    ShapeError
        If no map is given, or the numbers of images differ.
    """
    if len(raws) == 1:
        return raws[0]
    xp = namespace(raws[0])
    return reduce(xp.multiply, to_largest([kernels.min_max(xp.maximum(raw, 0))[0] for raw in raws]))


register(
    Method(
        id="refinecam",
        function=refinecam,
        needs=("acts", "grads"),
        gives="weights",
        family="fusion",
        work=1.5,
        paper="arXiv:2605.14641",
        title="RefineCAM",
        variants=("official", "torchcam", "nth-root"),
        options=base_options("gradcampp"),
        fuse={"official": "product", "torchcam": "largest-product", "nth-root": "nth-root"},
    )
)
