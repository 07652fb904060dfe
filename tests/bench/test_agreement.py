"""Cosine and difference of maps small enough to see."""

from __future__ import annotations

import numpy as np
import pytest

from bench.agreement import compare


def test_the_worst_image_and_the_worst_pixel_count() -> None:
    ours = np.array([[[1, 0], [0, 0]], [[1, 0], [0, 1]]], np.float32)
    theirs = np.array([[[1, 0], [0, 0]], [[1, 1], [0, 0]]], np.float32)
    cosine, difference, flat = compare(ours, theirs)
    assert cosine == pytest.approx(0.5)  # (1 * 1) / (sqrt 2 * sqrt 2)
    assert (difference, flat) == (1.0, 0)


def test_two_empty_maps_agree_and_are_counted_and_one_alone_does_not() -> None:
    empty, full = np.zeros((1, 2, 2), np.float32), np.ones((1, 2, 2), np.float32)
    assert compare(empty, empty) == (1.0, 0.0, 1)
    assert compare(empty, full) == (0.0, 1.0, 0)
