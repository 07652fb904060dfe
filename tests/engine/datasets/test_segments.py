"""Polygons and run lengths against masks drawn another way; compressed text against what COCO's own encoder wrote."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camrt.datasets.segments import fill_polygon, read_rle, read_segment
from camrt.errors import ImageError


@settings(deadline=None)
@given(st.lists(st.integers(-3, 12), min_size=4, max_size=4), st.integers(1, 9), st.integers(1, 9))
def test_a_rectangle_on_pixel_borders_is_the_slice(corners: list[int], height: int, width: int) -> None:
    (x0, x1), (y0, y1) = sorted(corners[:2]), sorted(corners[2:])
    want = np.zeros((height, width), bool)
    want[max(0, y0) : max(0, y1), max(0, x0) : max(0, x1)] = True
    np.testing.assert_array_equal(fill_polygon([x0, y0, x1, y0, x1, y1, x0, y1], height, width), want)
    np.testing.assert_array_equal(fill_polygon([x0, y1, x1, y1, x1, y0, x0, y0], height, width), want)


def test_a_triangle_takes_the_pixels_whose_centres_are_inside() -> None:
    """x + y < 4.2: centres (column + 1/2) + (row + 1/2) < 4.2 are column + row <= 3."""
    rows, columns = np.indices((5, 5))
    np.testing.assert_array_equal(fill_polygon([0, 0, 4.2, 0, 0, 4.2], 5, 5), rows + columns <= 3)


def test_any_star_equals_the_even_odd_rule_at_every_centre(rng: np.random.Generator) -> None:
    """Oracle: a ray to the left of each centre, counted edge by edge."""
    for _ in range(20):
        points = rng.uniform(-2, 14, (7, 2))
        want = np.zeros((11, 12), bool)
        for row in range(11):
            for column in range(12):
                x, y, crossings = column + 0.5, row + 0.5, 0
                for (ax, ay), (bx, by) in zip(points, np.roll(points, -1, 0), strict=True):
                    if (ay <= y) != (by <= y) and ax + (y - ay) * (bx - ax) / (by - ay) <= x:
                        crossings += 1
                want[row, column] = crossings % 2 == 1
        np.testing.assert_array_equal(fill_polygon(points.reshape(-1).tolist(), 11, 12), want)


def test_several_polygons_are_their_union() -> None:
    one, two = [0, 0, 3, 0, 3, 3, 0, 3], [2, 2, 5, 2, 5, 5, 2, 5]
    want = fill_polygon(one, 5, 5) | fill_polygon(two, 5, 5)
    np.testing.assert_array_equal(read_segment([one, two], 5, 5), want)
    assert want.sum() == 9 + 9 - 1


def test_runs_go_down_the_columns_and_begin_with_zeros() -> None:
    mask = read_rle({"size": [3, 2], "counts": [0, 1, 3, 2]}, 3, 2)
    np.testing.assert_array_equal(mask, np.array([[1, 0, 0], [0, 1, 1]], bool).T)


def encode(mask: np.ndarray) -> str:
    """Write compressed RLE by the format's description."""
    flat = mask.T.reshape(-1).astype(int)
    changes = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *changes, flat.size]).tolist()
    runs = [0, *runs] if flat[0] else runs
    text = ""
    for place, run in enumerate(runs):
        value = run - (runs[place - 2] if place > 2 else 0)
        while True:
            digit, value = value & 31, value >> 5
            done = value == -1 if digit & 16 else value == 0
            text += chr(48 + digit + (0 if done else 32))
            if done:
                break
    return text


def test_compressed_text_that_cocos_encoder_wrote() -> None:
    """Both texts come from pycocotools 2.0.11; the second is a block of rows 14 to 28, columns 2 to 7 of 56 x 8."""
    np.testing.assert_array_equal(read_rle({"size": [1, 8], "counts": "314"}, 1, 8), [[0, 0, 0, 1, 0, 0, 0, 0]])
    block = np.zeros((56, 8), bool)
    block[14:29, 2:] = True
    text = "n3?Y1000000000B"
    np.testing.assert_array_equal(read_rle({"size": [56, 8], "counts": text}, 56, 8), block)
    assert encode(block) == text


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1), st.integers(0, 99))
def test_compressed_text_comes_back(height: int, width: int, share: float, seed: int) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < share
    np.testing.assert_array_equal(read_rle({"size": [height, width], "counts": encode(mask)}, height, width), mask)


BAD: list[tuple[Any, str]] = [
    ({"size": [2, 3], "counts": [6]}, "lies on a picture of height 3"),
    ({"counts": [6]}, "lies on a picture"),
    ({"size": [3, 2]}, "whole numbers|runs from 0"),
    ({"size": [3, 2], "counts": [5]}, "sum to 6"),
    ({"size": [3, 2], "counts": [7, -1]}, "sum to 6"),
    ({"size": [3, 2], "counts": [2**62, 2**62, 6]}, "sum to 6"),
    ({"size": [3, 2], "counts": "Ã©"}, "whole numbers"),
    ({"size": [3, 2], "counts": "o"}, "whole numbers"),
    ({"size": [3, 2], "counts": "oooooooooooo0"}, "whole numbers"),
    ({"size": [3, 2], "counts": ""}, "sum to 6"),
    ("polygon", "list of polygons"),
    ([[0, 0, 1]], "three finite points"),
    ([[0, 0, 1, 1, 2, float("nan")]], "three finite points"),
    ([["a", "b"]], "list of numbers"),
    ([{"x": 1}], "list of numbers"),
]


@pytest.mark.parametrize(("segment", "message"), BAD)
def test_damaged_segmentations_are_one_image_error(segment: Any, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        read_segment(segment, 3, 2)


def test_a_mask_of_a_size_nobody_has_takes_no_memory() -> None:
    with pytest.raises(ImageError, match="above the limit"):
        read_segment([[0, 0, 1, 0, 1, 1]], 10**6, 10**6)
