"""
Smooth Grad-CAM++: the Grad-CAM++ formula on powers of the gradient averaged over noisy inputs.

Clean activations, the model's input and a callable that gives activations and gradients at another input go in; channel
weights come out (a raw map for the two variants that combine noisy activations). Omeiza et al. 2019, arXiv:1908.01224.
With D1, D2, D3 the means of g, g^2, g^3 over the noisy inputs and S the sum of a channel's clean activations,

    w = sum over positions of  alpha * max(D1, 0),        alpha = D2 / (2 D2 + D3 S)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from camrt import kernels

from ..errors import MethodError
from ..noise import standard_normal
from .arrays import Array, namespace, total
from .gradcampp import ratio
from .table import Method, Option, Result, register

GradientsAt = Callable[[Array], tuple[Array, Array]]


def smoothgradcampp(
    acts: Array,
    x: Array,
    ids: Array,
    gradients_at: GradientsAt,
    *,
    variant: str = "corrected",
    n: int = 25,
    spread: float = 0.15,
    seed: int = 0,
) -> Array | Result:
    """
    Weigh channels by Grad-CAM++ on gradients averaged over noisy inputs.

    Parameters
    ----------
    acts : ndarray of float, shape (N, K, h, w)
        Activations of the clean input.
    x : ndarray of float, shape (N, ...)
        The model's input.
    ids : ndarray of uint64, shape (N,)
        Content hash of each image; the noise depends on it, on `seed` and on the sample's index, on nothing else.
    gradients_at : callable
        Takes an input like `x`, returns activations and gradients (N,K,h,w) there, for the same targets.
    variant : {"corrected", "paper", "torchcam", "yiskw713"}
        "paper" has D1 for D2 in the numerator of alpha. "torchcam": cube inside the sum, the gradient and the
        activations of the last noisy input for the final weights and map. "yiskw713": the mean of finished maps.
    n : int
        Noisy inputs.
    spread : float
        Standard deviation of the noise as a fraction of each image's ``max(x) - min(x)``; in input units for
        "torchcam"; divided by the range instead for "yiskw713", as published.
    seed : int
        Seed of the noise.

    Returns
    -------
    ndarray of float, shape (N, K), or Result
        Channel weights; for "torchcam" and "yiskw713" a raw map (N,h,w).

    Raises
    ------
    MethodError
        If the model's input is not of a floating type.

    Notes
    -----
    Cost: `n` runs of `gradients_at`; three float64 sums of the size of `acts` in memory.

    References
    ----------
    Omeiza et al. 2019, Smooth Grad-CAM++, arXiv:1908.01224.
    """
    if x.dtype.kind != "f":
        raise MethodError(
            f"smoothgradcampp adds noise to the input and needs a model that takes floats; this one takes {x.dtype}"
        )
    samples = (gradients_at(noisy) for noisy in _noisy_inputs(x, ids, variant, n, spread, seed))
    if variant == "yiskw713":
        return Result(_mean_of_maps(samples), gives="map")
    if variant == "torchcam":
        return Result(_torchcam_map(acts, samples, n), gives="map")
    return _smooth_weights(acts, samples, n, variant)


def _noisy_inputs(x: Array, ids: Array, variant: str, n: int, spread: float, seed: int) -> Iterator[Array]:
    """Yield `n` inputs, each image with its own noise."""
    xp = namespace(x)
    axes = tuple(range(1, x.ndim))
    extent = x.max(axis=axes, keepdims=True) - x.min(axis=axes, keepdims=True)
    if variant == "torchcam":
        deviation = xp.full_like(extent, spread)
    elif variant == "yiskw713":
        deviation = xp.where(extent > 0, spread / xp.where(extent > 0, extent, 1), 0)
    else:
        deviation = spread * extent
    for index in range(n):
        noise = np.stack([standard_normal(x.shape[1:], seed, int(image), index) for image in ids])
        yield x + deviation.astype(x.dtype) * xp.asarray(noise, dtype=x.dtype)


def _smooth_weights(acts: Array, samples: Iterator[tuple[Array, Array]], n: int, variant: str) -> Array:
    """Return the weights of the mean powers; float64 inside, so that cubes of small gradients survive."""
    xp = namespace(acts)
    first, second, third = (xp.zeros(acts.shape, dtype=xp.float64) for _ in range(3))
    for _, grads in samples:
        gradient = grads.astype(xp.float64)
        square = gradient * gradient
        first += gradient
        second += square
        third += square * gradient
    first, second, third = first / n, second / n, third / n
    numerator = first if variant == "paper" else second
    alpha = ratio(numerator, 2 * second, third * total(acts.astype(xp.float64)))
    weights: Array = (alpha * xp.maximum(first, 0)).sum(axis=(2, 3)).astype(acts.dtype)
    return weights


def _torchcam_map(acts: Array, samples: Iterator[tuple[Array, Array]], n: int) -> Array:
    """Return torch-cam's map: alpha from clean activations, everything else from the last noisy input."""
    xp = namespace(acts)
    second, third = xp.zeros(acts.shape, dtype=xp.float64), xp.zeros(acts.shape, dtype=xp.float64)
    for sample in samples:
        gradient = sample[1].astype(xp.float64)
        square = gradient * gradient
        second += square
        third += square * gradient
    second, third = second / n, third / n
    alpha = second / (2 * second + total(third * acts) + 1e-8)
    weights = (alpha * xp.maximum(gradient, 0)).sum(axis=(2, 3)).astype(acts.dtype)
    return kernels.weighted_sum(sample[0], weights)


def _mean_of_maps(samples: Iterator[tuple[Array, Array]]) -> Array:
    """Return the mean of the scaled Grad-CAM++ maps of the noisy inputs, the cube inside the sum."""
    maps: list[Array] = []
    for acts, grads in samples:
        square = grads * grads
        alpha = square / (2 * square + total(acts * square * grads) + 1e-7)
        weights = (alpha * namespace(acts).maximum(grads, 0)).sum(axis=(2, 3))
        maps.append(kernels.min_max(kernels.weighted_sum(acts, weights, relu=True))[0])
    mean: Array = namespace(maps[0]).stack(maps).mean(axis=0)
    return mean


register(
    Method(
        id="smoothgradcampp",
        function=smoothgradcampp,
        needs=("acts", "x", "ids", "gradients_at"),
        gives="weights",
        family="gradient",
        work=28.5,
        paper="arXiv:1908.01224",
        title="Smooth Grad-CAM++",
        variants=("corrected", "paper", "torchcam", "yiskw713"),
        options={
            "n": Option(25, "integer", "noisy inputs", low=1, high=10_000, by_variant={"torchcam": 4}),
            "spread": Option(
                0.15, "number", "noise, as a fraction of the input's range", low=0, by_variant={"torchcam": 0.3}
            ),
            "seed": Option(0, "integer", "seed of the noise", low=0),
        },
        nonnegative=True,
    )
)
