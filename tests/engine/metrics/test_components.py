"""Components, contours and outlines of all levels at once, against SciPy level by level and against hand counts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from camrt.metrics.components import Boxes, components, contours, outlines, runs_of

MAPS = arrays(np.int64, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 4))
CORNERS = {4: None, 8: np.ones((3, 3))}


def slices(labels: np.ndarray) -> list[list[int]]:
    """Return the boxes of labels as x0 y0 x1 y1."""
    return [[x.start, y.start, x.stop, y.stop] for y, x in ndimage.find_objects(labels)]


def at(found: Boxes, level: int) -> list[list[int]]:
    """Return the boxes of a level."""
    return found.corners[found.level == level].tolist()


@pytest.mark.parametrize("connectivity", [4, 8])
@given(MAPS)
@settings(max_examples=60, deadline=None)
def test_components_of_every_level_are_scipys_in_raster_order(connectivity, ranks):
    found = components(ranks, connectivity)
    assert set(found.level.tolist()) == set(range(ranks.max()))
    for level in range(ranks.max()):
        labels, _ = ndimage.label(ranks > level, CORNERS[connectivity])
        assert at(found, level) == slices(labels)
        assert found.size[found.level == level].tolist() == np.bincount(labels.ravel())[1:].tolist()


@given(MAPS)
@settings(max_examples=60, deadline=None)
def test_contours_are_those_around_components_and_around_holes(ranks):
    found = contours(ranks)
    for level in range(ranks.max()):
        inside = ranks > level
        holes, _ = ndimage.label(ndimage.binary_fill_holes(inside, None) & ~inside)
        around = [[x0 - 1, y0 - 1, x1 + 1, y1 + 1] for x0, y0, x1, y1 in slices(holes)]
        assert sorted(at(found, level)) == sorted(slices(ndimage.label(inside, CORNERS[8])[0]) + around)


@given(MAPS)
@settings(max_examples=60, deadline=None)
def test_outlines_are_filled_components_and_their_area_is_counted_in_squares_of_four_centres(ranks):
    found = outlines(ranks)
    for level in range(ranks.max()):
        filled = ndimage.binary_fill_holes(ranks > level, None)
        labels, n = ndimage.label(filled, CORNERS[8])
        assert at(found, level) == slices(labels)
        for label, area in zip(range(1, n + 1), found.size[found.level == level], strict=True):
            own = (labels == label).astype(int)
            square = own[:-1, :-1] + own[1:, :-1] + own[:-1, 1:] + own[1:, 1:]
            assert area == (square == 4).sum() + (square == 3).sum() / 2  # whole squares, and halves cut by a diagonal


def test_a_ring_with_an_island_by_hand():
    ranks = np.zeros((7, 7), int)
    ranks[0:7, 0:6] = 1
    ranks[1:6, 1:5] = 0
    ranks[3, 2] = 2  # an island in the hole, at two levels
    found = contours(ranks)
    assert at(found, 0) == [
        [0, 0, 6, 7],
        [2, 3, 3, 4],
        [0, 0, 6, 7],
    ]  # ring, island, and the ring again around its hole
    assert at(found, 1) == [[2, 3, 3, 4]]
    assert found.size.tolist() == [22.0, 1.0, 1.0, 19.0]  # the hole's pixels last, the island is none of them
    assert outlines(ranks).size.tolist() == [30.0, 0.0]  # (6 - 1) (7 - 1) between centres; a single pixel has no area
    assert components(ranks, 8).size.tolist() == [22.0, 1.0, 1.0]


def test_pixels_that_touch_at_a_corner_are_one_component_of_eight_neighbours_only():
    cross = np.array([[1, 0], [0, 1]])
    assert components(cross, 8).size.tolist() == [2.0]
    assert components(cross, 4).size.tolist() == [1.0, 1.0]


def test_a_hole_that_is_open_at_a_corner_is_a_hole_and_one_at_the_border_is_none():
    diamond = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]])
    assert at(contours(diamond), 0) == [[0, 0, 3, 3], [0, 0, 3, 3]]
    assert at(contours(np.array([[1, 1, 1], [1, 0, 1], [1, 0, 1]])), 0) == [[0, 0, 3, 3]]


def test_a_winding_component_is_one():
    snake = np.zeros((31, 31), bool)
    snake[::2] = True
    snake[1::4, 0] = snake[3::4, -1] = True
    assert components(snake, 4).size.tolist() == [snake.sum()]
    assert components(snake.T, 4).size.tolist() == [snake.sum()]


def test_an_empty_map_has_nothing():
    empty = np.zeros((3, 4), int)
    assert not len(runs_of(empty).row)
    assert not len(components(empty, 4).size) and not len(contours(empty).size) and not len(outlines(empty).size)
