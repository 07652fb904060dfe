"""
Integrated Grad-CAM: Grad-CAM along the straight path from a baseline to the image.

Activations, the model's input and a callable that gives activations and gradients at another input go in; a raw map
comes out. Sattarzadeh et al. 2021, arXiv:2102.07805. With x_i = b + (x - b) i / n,

    S = sum over i of  max(sum over channels of  mean(G(x_i)) A(x_i), 0)          i = 0, ..., n - 1
"""

from __future__ import annotations

from collections.abc import Callable

from camrt import kernels

from ..errors import MethodError
from .arrays import Array, namespace
from .table import Method, Option, register

GradientsAt = Callable[[Array], tuple[Array, Array]]


def integratedgradcam(
    acts: Array,
    x: Array,
    gradients_at: GradientsAt,
    *,
    variant: str = "official",
    steps: int = 50,
    baseline: float = 0.0,
) -> Array:
    """
    Sum Grad-CAM maps, or average gradients, along a path.

    Parameters
    ----------
    acts : ndarray of float, shape (N, K, h, w)
        Activations of the image itself.
    x : ndarray of float, shape (N, ...)
        The model's input.
    gradients_at : callable
        Takes an input like `x`, returns activations and gradients (N,K,h,w) there, for the same targets.
    variant : {"official", "path-gradient", "tetutaro"}
        "official" sums whole Grad-CAM maps, the baseline included and the image left out. "path-gradient" weighs the
        difference of activations between image and baseline by the mean gradient on the same points. "tetutaro" weighs
        the image's activations by the mean gradient, the image included and the baseline left out.
    steps : int
        Points on the path.
    baseline : float
        Every value of the input where the path starts.

    Returns
    -------
    ndarray of float, shape (N, h, w)
        Raw map.

    Raises
    ------
    MethodError
        If the model's input is not of a floating type.

    Notes
    -----
    Cost: `steps` runs of `gradients_at`.

    References
    ----------
    Sattarzadeh et al. 2021, Integrated Grad-CAM, arXiv:2102.07805.
    """
    if x.dtype.kind != "f":
        raise MethodError(f"integratedgradcam scales the input and needs a model that takes floats; got {x.dtype}")
    xp = namespace(x)
    start = xp.full_like(x, baseline)
    first = 1 if variant == "tetutaro" else 0
    maps = xp.zeros((len(acts), *acts.shape[2:]), acts.dtype)
    weights = xp.zeros(acts.shape[:2], acts.dtype)
    lifted = acts
    for index in range(first, first + steps):
        there, grads = gradients_at(start + (x - start) * x.dtype.type(index / steps))
        mean = grads.mean(axis=(2, 3))
        if variant == "official":
            maps += xp.maximum(kernels.weighted_sum(there, mean), 0)
        else:
            weights += mean / steps
            lifted = acts - there if variant == "path-gradient" and index == 0 else lifted
    return maps if variant == "official" else kernels.weighted_sum(lifted, weights)


register(
    Method(
        id="integratedgradcam",
        function=integratedgradcam,
        needs=("acts", "x", "gradients_at"),
        gives="map",
        family="gradient",
        work=56.0,
        paper="arXiv:2102.07805",
        title="Integrated Grad-CAM",
        variants=("official", "path-gradient", "tetutaro"),
        options={
            "steps": Option(50, "integer", "points on the path", low=1, by_variant={"tetutaro": 8}),
            "baseline": Option(0.0, "number", "every value of the input where the path starts"),
        },
    )
)
