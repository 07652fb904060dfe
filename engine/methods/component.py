"""
Sign and certainty of a leading principal component.

A singular vector is known up to its sign, and not at all where two singular values tie. The methods built on one choose
the sign by a stated rule and flag ties, both here.
"""

from __future__ import annotations

from camrt import kernels

from .arrays import Array, namespace


def agree(maps: Array, reference: Array) -> Array:
    """
    Turn each map so that it agrees with a reference.

    Parameters
    ----------
    maps, reference : ndarray of float, shape (N, h, w)
        Maps of arbitrary sign, and what they should point along.

    Returns
    -------
    ndarray of float, shape (N, h, w)
        The maps, negated where their inner product with the reference is negative.
    """
    return _flip(maps, (maps * reference).sum(axis=(1, 2)) < 0)


def upright(maps: Array) -> Array:
    """
    Turn each map so that its largest magnitude is positive.

    Parameters
    ----------
    maps : ndarray of float, shape (N, h, w)
        Maps of arbitrary sign.

    Returns
    -------
    ndarray of float, shape (N, h, w)
        The maps, negated where ``abs(min) > abs(max)``.

    References
    ----------
    Chung and Ying 2025, Seg-Eigen-CAM, Applied Sciences 15(13) 7562, eq. 13.
    """
    return _flip(maps, abs(maps.min(axis=(1, 2))) > abs(maps.max(axis=(1, 2))))


def is_tied(values: Array) -> Array:
    """
    Tell where a leading component is not well determined.

    Parameters
    ----------
    values : ndarray of float, shape (N, 2)
        The two largest singular values, the larger first.

    Returns
    -------
    ndarray of bool, shape (N,)
        True where they differ by less than a thousandth of the larger.
    """
    tied: Array = (values[:, 0] - values[:, 1]) < 1e-3 * values[:, 0]
    return tied


def lapack_component(tensor: Array) -> tuple[Array, Array]:
    """
    Project centred channels on their first principal axis, with the sign the SVD routine happens to return.

    Parameters
    ----------
    tensor : ndarray of float, shape (N, K, h, w)
        One vector of K channels a position.

    Returns
    -------
    maps : ndarray of float, shape (N, h, w)
        The projection.
    values : ndarray of float, shape (N, 2)
        The two largest singular values.

    Notes
    -----
    Only for reproducing pytorch-grad-cam: the sign depends on the linear algebra library. Cost: a thin SVD an image,
    a hundred times `kernels.leading_component` for 2048 channels.
    """
    xp = namespace(tensor)
    n, k, h, w = tensor.shape
    rows = tensor.reshape(n, k, h * w).transpose(0, 2, 1)  # (N, Z, K)
    rows = rows - rows.mean(axis=1, keepdims=True)
    _, values, axes = xp.linalg.svd(rows, full_matrices=False)
    maps: Array = (rows @ axes[:, 0, :, None]).reshape(n, h, w)
    second = values[:, 1:2] if values.shape[1] > 1 else xp.zeros_like(values)
    return maps, xp.concatenate([values[:, :1], second], axis=1)


def smooth(acts: Array, weights: Array) -> tuple[Array, Array]:
    """
    Replace the sum over channels by the first principal component of the weighted activations.

    Parameters
    ----------
    acts : ndarray of float, shape (N, K, h, w)
        Activations of one layer.
    weights : ndarray of float, shape (N, K) or (N, K, h, w)
        A method's weights.

    Returns
    -------
    maps : ndarray of float, shape (N, h, w)
        The component, with the sign that agrees with the sum it replaces.
    unstable : ndarray of bool, shape (N,)
        Where the two leading singular values tie.

    References
    ----------
    The option ``eigen_smooth`` of pytorch-grad-cam; no paper.
    """
    weighted = weights.reshape(*weights.shape, *(1,) * (4 - weights.ndim)) * acts
    maps, values = kernels.leading_component(weighted, center=True)
    return agree(maps, weighted.sum(axis=1)), is_tied(values)


def _flip(maps: Array, wrong: Array) -> Array:
    """Negate the maps that are wrong; (N,h,w), (N,) bool -> (N,h,w)."""
    sign: Array = 1 - 2 * wrong.astype(maps.dtype)
    return maps * sign[:, None, None]
