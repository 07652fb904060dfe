"""
Rows of a matrix, put into groups: k-means and Ward's agglomerative clustering.

Points (n, d) go in, a group's number for each comes out. Both are exact, small and on the host: they group a layer's
channels, a few thousand points at most.
"""

from __future__ import annotations

import numpy as np

from .arrays import Array

__all__ = ["kmeans", "ward"]

MOST_STEPS = 300  # of k-means; channels of a layer settle in 5 to 30


def kmeans(points: Array, groups: int, seed: int) -> Array:
    """
    Group points around centres that are the means of their groups.

    The centres start as points drawn with odds in proportion to the squared distance from the nearest one so far
    (k-means++), and move to their means until no point changes its group.

    Parameters
    ----------
    points : ndarray of float, shape (n, d)
        The points.
    groups : int
        How many groups, at most n; fewer come out where fewer points differ.
    seed : int
        Seed of the first centres.

    Returns
    -------
    ndarray of int64, shape (n,)
        A group in [0, groups) for each point.

    Notes
    -----
    Cost: ``n * groups * d`` multiplications a step. One start; the result is a local optimum.

    References
    ----------
    Lloyd 1982, Least squares quantization in PCM; Arthur and Vassilvitskii 2007, k-means++.
    """
    points = np.asarray(points, np.float64)
    centres = _spread(points, groups, np.random.Generator(np.random.Philox(seed)))
    labels = np.full(len(points), -1)
    for _ in range(MOST_STEPS):
        moved = _nearest(points, centres)
        if (moved == labels).all():
            break
        labels = moved
        for group in np.unique(labels):
            centres[group] = points[labels == group].mean(axis=0)
    return labels


def _spread(points: Array, groups: int, stream: np.random.Generator) -> Array:
    """Draw the first centres, (groups or fewer, d)."""
    chosen = [int(stream.integers(len(points)))]
    gap = ((points - points[chosen[0]]) ** 2).sum(axis=1)
    while len(chosen) < groups and gap.any():
        chosen.append(int(stream.choice(len(points), p=gap / gap.sum())))
        gap = np.minimum(gap, ((points - points[chosen[-1]]) ** 2).sum(axis=1))
    return points[chosen]


def _nearest(points: Array, centres: Array) -> Array:
    """Return the nearest centre of each point, the first where several are."""
    gaps = (centres**2).sum(axis=1) - 2 * points @ centres.T
    nearest: Array = gaps.argmin(axis=1)
    return nearest


def ward(points: Array, groups: int) -> Array:
    """
    Join the two groups whose union adds least to the squared distances from the means, until so many are left.

    Two groups of a and b points with means p and q add ``a b / (a + b) |p - q|^2``. Groups that are each other's
    nearest are joined as they are met along a chain of nearest neighbours; sorted by what they add, these are the joins
    in the order of the greedy algorithm, of which those that leave `groups` are kept.

    Parameters
    ----------
    points : ndarray of float, shape (n, d)
        The points.
    groups : int
        How many groups, at most n.

    Returns
    -------
    ndarray of int64, shape (n,)
        A group in [0, groups) for each point, numbered by their first points.

    Notes
    -----
    Cost: one matrix product, about ``3 n`` passes over n numbers, and two arrays of ``n * n`` float64 numbers.

    References
    ----------
    Ward 1963, Hierarchical grouping to optimize an objective function; Lance and Williams 1967 for what a union adds;
    Murtagh 1983 for the chain.
    """
    points = np.asarray(points, np.float64)
    squares = (points**2).sum(axis=1) / 2
    added = np.add.outer(squares, squares)
    added -= points @ points.T
    np.minimum(added, added.T, out=added)  # the same both ways, whatever the rounding
    np.fill_diagonal(added, np.inf)
    sizes = np.ones(len(points))
    joins: list[tuple[float, int, int]] = []
    chain: list[int] = []
    alive = np.ones(len(points), bool)
    while len(joins) < len(points) - 1:
        if not chain:
            chain = [int(alive.argmax())]
        tip = chain[-1]
        nearest = int(added[tip].argmin())
        if len(chain) == 1 or added[tip, nearest] < added[tip, chain[-2]]:
            chain.append(nearest)
            continue
        other = chain[-2]  # each is the other's nearest
        least = float(added[tip, other])
        joins.append((least, tip, other))
        union = (sizes + sizes[tip]) * added[tip] + (sizes + sizes[other]) * added[other] - sizes * least
        union /= sizes + sizes[tip] + sizes[other]
        union[[tip, other]] = np.inf
        added[other] = added[:, other] = union
        added[tip] = added[:, tip] = np.inf
        sizes[other] += sizes[tip]
        alive[tip] = False
        del chain[min(chain.index(tip), chain.index(other)) :]
    labels = np.arange(len(points))
    for _, one, two in sorted(joins, key=lambda join: join[0])[: len(points) - groups]:
        labels[labels == labels[one]] = labels[two]
    _, first, numbered = np.unique(labels, return_index=True, return_inverse=True)
    renamed: Array = first.argsort().argsort()[numbered]
    return renamed
