"""
KPCA-CAM: the first component of a kernel principal component analysis of the activations.

Activations of one layer go in, a raw map comes out, the same for every class. Karmani et al. 2024, arXiv:2410.00267;
kernels and their defaults as in scikit-learn.
"""

from __future__ import annotations

from .arrays import Array, namespace
from .component import upright
from .table import Method, Option, register

KERNELS = ("sigmoid", "rbf", "poly", "linear", "cosine")


def kpcacam(
    acts: Array,
    *,
    variant: str = "pytorch-grad-cam",
    kernel: str = "sigmoid",
    gamma: float | None = None,
    coef0: float = 1.0,
) -> Array:
    """
    Project positions on the first component of their kernel matrix.

    Parameters
    ----------
    acts : ndarray of float, shape (N, K, h, w)
        Activations of one layer; each channel is centred over positions first.
    variant : {"pytorch-grad-cam"}
        The only definition.
    kernel : {"sigmoid", "rbf", "poly", "linear", "cosine"}
        ``tanh(gamma <a,b> + coef0)``, ``exp(-gamma |a-b|^2)``, ``(gamma <a,b> + coef0)^3``, ``<a,b>``, or the cosine.
    gamma : float, optional
        Scale of the kernel; ``1/K`` where None.
    coef0 : float
        Offset of "sigmoid" and "poly".

    Returns
    -------
    ndarray of float, shape (N, h, w)
        Raw map, its largest magnitude positive; all zero where the largest eigenvalue is not positive.

    Notes
    -----
    Cost: the eigenvalues of a matrix of the number of positions, ``O((h w)^3)``, in float64.

    References
    ----------
    Karmani et al. 2024, KPCA-CAM, arXiv:2410.00267.
    """
    xp = namespace(acts)
    n, k, h, w = acts.shape
    rows = acts.reshape(n, k, h * w).transpose(0, 2, 1).astype(xp.float64)  # (N, Z, K)
    rows = rows - rows.mean(axis=1, keepdims=True)
    matrix = _kernel_matrix(rows, kernel, 1.0 / k if gamma is None else gamma, coef0)
    largest = abs(matrix).max(axis=(1, 2))
    mean = matrix.mean(axis=1, keepdims=True)
    matrix = matrix - mean - mean.transpose(0, 2, 1) + mean.mean(axis=2, keepdims=True)
    values, vectors = xp.linalg.eigh(matrix)
    value = values[:, -1]
    noise = 1e-13 * h * w * largest  # what rounding leaves of a kernel matrix that centring makes zero
    scale = xp.sqrt(xp.where(value > noise, value, 0))
    maps: Array = (scale[:, None] * vectors[:, :, -1]).reshape(n, h, w).astype(acts.dtype)
    return upright(maps)


def _kernel_matrix(rows: Array, kernel: str, gamma: float, coef0: float) -> Array:
    """Return the kernel of every pair of positions; (N,Z,K) -> (N,Z,Z)."""
    xp = namespace(rows)
    if kernel == "cosine":
        length = xp.sqrt((rows * rows).sum(axis=2, keepdims=True))
        rows = rows / xp.where(length == 0, 1, length)
    inner: Array = rows @ rows.transpose(0, 2, 1)
    if kernel == "sigmoid":
        inner = xp.tanh(gamma * inner + coef0)
    elif kernel == "poly":
        inner = (gamma * inner + coef0) ** 3
    elif kernel == "rbf":
        squares = (rows * rows).sum(axis=2)
        inner = xp.exp(-gamma * xp.maximum(squares[:, :, None] + squares[:, None, :] - 2 * inner, 0))
    return inner


register(
    Method(
        id="kpcacam",
        function=kpcacam,
        needs=("acts",),
        gives="map",
        family="activation",
        work=1.0,
        paper="arXiv:2410.00267",
        title="KPCA-CAM",
        variants=("pytorch-grad-cam",),
        options={
            "kernel": Option("sigmoid", "choice", "the kernel between two positions", choices=KERNELS),
            "gamma": Option(None, "number", "scale of the kernel; 1/K where none", low=0, optional=True),
            "coef0": Option(1.0, "number", "offset of the sigmoid and poly kernels"),
        },
        class_free=True,
    )
)
