"""
How far a map may still be from its end: what the rows that were not run could change.

Activations and the share of each channel's forwards that has not been run go in; flags for the reader come out. A weight
that lies in [0, 1] cannot move by more than its missing share, so that no cell of the map can move by more than

    sum over channels of  share * |A_k(u)|
"""

from __future__ import annotations

from camrt import kernels

from .arrays import Array, namespace

__all__ = ["constant_maps", "remaining"]


def constant_maps(acts: Array) -> Array:
    """
    Tell which channels are constant at the layer's resolution; as masks they hide everything, so they are not run.

    Parameters
    ----------
    acts : ndarray of float, shape (N, K, h, w)
        Activations of one layer.

    Returns
    -------
    ndarray of bool, shape (N, K)
        True where `camrt.kernels.min_max` calls a channel constant.

    Notes
    -----
    Cost: two passes over `acts`.
    """
    flags: Array = kernels.min_max(acts.reshape(-1, *acts.shape[2:]))[1].reshape(acts.shape[:2])
    return flags


def remaining(acts: Array, present: Array, missing: Array) -> Array:
    """
    Bound what is still to come, in units of the present map's maximum.

    Parameters
    ----------
    acts : ndarray of float, shape (N, K, h, w)
        What the weights combine.
    present : ndarray of float, shape (N, h, w)
        The raw map so far.
    missing : ndarray of float, shape (N, K)
        The share of each channel's forwards that has not been run: 0 where its weight is settled.

    Returns
    -------
    ndarray of float, shape (N,)
        No cell of the raw map can change by more than this times the present maximum: 0 where the map is complete,
        infinity where nothing has been found yet.

    Notes
    -----
    It holds for weights in an interval of length 1, such as probabilities, and for their means.
    Cost: one weighted sum.
    """
    xp = namespace(acts)
    change = kernels.weighted_sum(abs(acts), missing.astype(acts.dtype)).max(axis=(1, 2))
    top = present.max(axis=(1, 2))
    found = top > 0
    bound: Array = xp.where(found, change / xp.where(found, top, 1), xp.where(change > 0, xp.inf, 0)).astype(acts.dtype)
    return bound
