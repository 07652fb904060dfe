"""Clustering: k-means against what a fixed point must satisfy, Ward against the greedy algorithm by brute force."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from camrt.methods.clustering import kmeans, ward


def partition(labels):
    """Return groups as sets of points, whatever their numbers."""
    return {frozenset(np.flatnonzero(labels == label).tolist()) for label in np.unique(labels)}


def spread(points):
    """Return the sum of squared distances from the mean."""
    return float(((points - points.mean(0)) ** 2).sum())


def greedy(points, groups):
    """Join, again and again, the two groups whose union adds least to the sum of squares."""
    found = [[i] for i in range(len(points))]
    while len(found) > groups:
        _, one, two = min(
            (spread(points[a + b]) - spread(points[a]) - spread(points[b]), i, j)
            for (i, a), (j, b) in combinations(enumerate(found), 2)
        )
        found[one] += found.pop(two)
    return {frozenset(group) for group in found}


@pytest.mark.parametrize("groups", range(1, 15))
def test_ward_joins_as_the_greedy_algorithm_does(rng, groups):
    points = rng.normal(size=(14, 3)) * np.geomspace(1, 10, 14)[:, None]
    assert partition(ward(points, groups)) == greedy(points, groups)


def test_ward_numbers_groups_by_their_first_points():
    assert ward(np.array([[5.0], [0.0], [5.1], [0.1], [9.0]]), 3).tolist() == [0, 1, 0, 1, 2]


@pytest.mark.parametrize("cluster", [lambda points, groups: kmeans(points, groups, 0), ward])
def test_groups_that_lie_apart_are_found(rng, cluster):
    true = rng.integers(0, 4, 60)
    points = 100 * np.eye(4)[true] + rng.normal(size=(60, 4))
    assert partition(cluster(points, 4)) == partition(true)


@pytest.mark.parametrize("cluster", [lambda points, groups: kmeans(points, groups, 0), ward])
def test_equal_points_stay_together(rng, cluster):
    points = np.concatenate([np.zeros((7, 3)), rng.normal(size=(4, 3)) + 5])
    labels = cluster(points, 3)
    assert len(set(labels[:7].tolist())) == 1
    assert labels[0] not in labels[7:]


@pytest.mark.parametrize("seed", range(4))
def test_k_means_ends_where_every_point_is_nearest_to_the_mean_of_its_group(rng, seed):
    points = rng.normal(size=(80, 5))
    labels = kmeans(points, 6, seed)
    means = np.stack([points[labels == group].mean(0) for group in range(6)])
    gaps = ((points[:, None] - means) ** 2).sum(2)
    np.testing.assert_array_equal(gaps.argmin(1), labels)
    np.testing.assert_array_equal(labels, kmeans(points, 6, seed))


def test_k_means_gives_fewer_groups_where_fewer_points_differ():
    labels = kmeans(np.array([[1.0], [1.0], [4.0], [4.0]]), 4, 0)
    assert partition(labels) == {frozenset({0, 1}), frozenset({2, 3})}
