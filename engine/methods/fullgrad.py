"""
FullGrad: the gradient at the image and at every bias, which together are the whole logit.

The model's input and a callable that gives the full gradient go in; a map of the image's size comes out, whatever the
layer. Srinivas and Fleuret 2019, arXiv:1905.00780, equations 2 and 6. In a piecewise linear network

    logit = sum of x dT/dx  +  sum over tensors z with a bias b of  sum of b dT/dz

and the map adds up the terms after a common scaling: S = psi(x dT/dx) + sum of psi(b dT/dz), summed over channels, with
psi the absolute value, scaled to [0, 1] and resized.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from camrt import kernels

from ..errors import MethodError
from .arrays import Array, planes
from .table import Method, register

FullOf = Callable[[Array, bool], tuple[Array, Sequence[Array]]]
PEER_EPS = 1e-7  # pytorch-grad-cam adds it to every channel's maximum


def fullgrad(
    x: Array, size: tuple[int, int], seed: Callable[[], Array], full_of: FullOf, *, variant: str = "official"
) -> Array:
    """
    Add up the gradient at the image and at every bias.

    Parameters
    ----------
    x : ndarray of float, shape (N, ...)
        The model's input.
    size : tuple of int
        ``(H, W)`` of the image.
    seed : callable
        Returns the target's cotangent at the logits.
    full_of : callable
        Takes a cotangent and whether to multiply by the biases; returns the gradient at the image, and one tensor for
        each that receives a bias. Only those with a grid (N,K,h,w) enter the map.
    variant : {"official", "pytorch-grad-cam", "simple"}
        "official" scales each tensor as a whole and resizes between the centres of the corner cells;
        "pytorch-grad-cam" scales each channel by itself, adds 1e-7 to its maximum, and resizes between the edges;
        "simple" is the official form with gradients that are not multiplied by the biases.

    Returns
    -------
    ndarray of float, shape (N, H, W)
        Raw map, never negative.

    Raises
    ------
    MethodError
        If the model's input is not of a floating type.

    Notes
    -----
    Cost: a forward and a backward pass to the image; every biased tensor leaves the model once, some 50 to 60 MB an
    image for VGG-16 or ResNet-50.

    References
    ----------
    Srinivas and Fleuret 2019, FullGrad, arXiv:1905.00780.
    """
    if x.dtype.kind != "f":
        raise MethodError(
            f"fullgrad multiplies the input by its gradient and needs a model that takes floats; got {x.dtype}"
        )
    gradient, terms = full_of(seed(), variant != "simple")
    add = _by_channel if variant == "pytorch-grad-cam" else _by_tensor
    made = add(planes(x * gradient, size), size)
    for term in terms:
        if term.ndim == 4:
            made = made + add(term, size)
    return made


def _by_tensor(term: Array, size: tuple[int, int]) -> Array:
    """Scale a tensor (N, C, h, w) as a whole, add its channels, and resize between centres of the corner cells."""
    images, channels, height, width = term.shape
    scaled, _ = kernels.min_max(abs(term).reshape(images, channels * height, width))
    return kernels.resize(scaled.reshape(term.shape).sum(axis=1), size, align="corners")


def _by_channel(term: Array, size: tuple[int, int]) -> Array:
    """Scale each channel of a tensor (N, C, h, w), add them, and resize between edges."""
    sizes = abs(term)
    sizes = sizes - sizes.min(axis=(2, 3), keepdims=True)
    scaled = sizes / (sizes.max(axis=(2, 3), keepdims=True) + PEER_EPS)
    return kernels.resize(scaled.sum(axis=1), size)


register(
    Method(
        id="fullgrad",
        function=fullgrad,
        needs=("x", "size", "seed", "full_of"),
        gives="map",
        family="gradient",
        work=3.5,
        paper="arXiv:1905.00780",
        title="FullGrad",
        variants=("official", "pytorch-grad-cam", "simple"),
        relu=False,
    )
)
