"""What a request for masks says of itself, and that what it leaves out changes nothing."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from camrt.masks import Lazy, Masks, Noise, Scored

Array = Any


def numbered(image: int, rows: Array) -> Array:
    """Make masks that hold their own numbers."""
    return np.broadcast_to((10 * image + rows)[:, None, None], (len(rows), 2, 3)).astype("f4")


@pytest.mark.parametrize(
    ("maps", "count"),
    [
        (np.zeros((2, 7, 3, 5), "f4"), 7),
        (np.zeros((4, 1, 1, 1), "f8"), 1),
        (np.zeros((3, 0, 4, 4), "f4"), 0),
        (Lazy(4000, numbered), 4000),
        (Lazy(0, numbered), 0),
    ],
)
def test_masks_are_counted_for_one_image(maps: Array | Lazy, count: int) -> None:
    assert Masks(maps).count == count
    assert isinstance(Masks(maps).count, int)


def test_counting_makes_no_mask() -> None:
    def make(image: int, rows: Array) -> Array:
        raise AssertionError("nothing was to be made")

    assert Masks(Lazy(9, make)).count == 9


def test_nothing_said_means_score_cams_mask() -> None:
    """Wang et al. 2020: the resized map scaled to [0, 1], times the image; no noise, no gain, nothing inverted."""
    masks = Masks(np.zeros((1, 1, 2, 2), "f4"))
    said = {field.name: getattr(masks, field.name) for field in fields(masks) if field.name != "maps"}
    assert said == {
        "scaling": "after", "eps": 0, "align": "half_pixel", "gain": 1, "inverted": False, "noise": None, "hidden": None,
        "constant": "skip", "only": None,
    }  # fmt: skip


def test_noise_is_known_by_its_numbers_and_masks_by_themselves() -> None:
    assert Noise("mask", 0.5, 1, 2) == Noise("mask", 0.5, 1, 2)
    assert len({Noise("mask", 0.5, 1, 2), Noise("mask", 0.5, 1, 3), Noise("input", 0.5, 1, 2)}) == 3
    maps = np.zeros((1, 1, 2, 2), "f4")
    assert Masks(maps) != Masks(maps)  # arrays are not compared behind the caller's back
    logits, live = np.zeros((1, 1, 2), "f4"), np.zeros((1, 1), bool)
    assert Scored(logits, live) != Scored(logits, live)
