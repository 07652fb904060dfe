"""Boxes and masks as metrics use them: pixels, clipping, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from camrt.errors import InputError, ShapeError
from camrt.metrics.case import Ground
from camrt.metrics.ground import boxes_of, counted, known_ground, pixels_of, regions_of, shares

MASK = np.array([[0, 0, 0, 0], [0, 1, 1, 1], [0, 0, 1, 0]], bool)


def test_a_region_is_the_union_of_the_pixels_whose_centres_lie_in_a_box():
    ground = Ground(boxes=[np.array([[0, 0, 1.5, 1], [0.6, 0, 2.4, 2]])])  # 1.5: its centre is the open end
    regions, valid = regions_of(ground, 1, (3, 4))
    assert regions[0].astype(int).tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert valid.all()


def test_boxes_are_clipped_and_those_outside_are_left_out():
    ground = Ground(boxes=[np.array([[-3, 1, 2, 9]]), np.array([[4, 0, 9, 3]]), None])
    found = boxes_of(ground, 3, (3, 4))
    assert found[0].tolist() == [[0, 1, 2, 3]]
    assert found[1].shape == found[2].shape == (0, 4)
    assert regions_of(ground, 3, (3, 4))[0].any((1, 2)).tolist() == [True, False, False]


def test_a_mask_stands_for_a_box_and_the_preferred_one_of_both_is_taken():
    box = np.array([[0, 0, 1, 1]])
    both = Ground(boxes=[box], masks=[MASK])
    assert boxes_of(Ground(masks=[MASK]), 1, (3, 4))[0].tolist() == [[1, 1, 4, 3]]
    assert boxes_of(both, 1, (3, 4))[0].tolist() == box.tolist()
    assert np.array_equal(regions_of(both, 1, (3, 4))[0][0], MASK)
    assert regions_of(both, 1, (3, 4), "boxes")[0].sum() == 1
    assert np.array_equal(regions_of(Ground(boxes=[None], masks=[MASK]), 1, (3, 4), "boxes")[0][0], MASK)


def test_pixels_that_are_ignored_belong_to_nothing():
    ignored = np.zeros((3, 4), bool)
    ignored[1] = True
    regions, valid = regions_of(Ground(masks=[MASK], ignored=[ignored]), 1, (3, 4))
    assert regions[0].sum() == 1 and np.array_equal(valid[0], ~ignored)


def test_boxes_that_hold_no_centre_have_no_pixels():
    assert pixels_of(np.array([[0.6, 0.0, 1.4, 3.0], [0.0, 0.6, 3.0, 1.4]])).shape == (0, 4)


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([[1, 2, 3]], r"image 0 must be finite numbers x0 y0 x1 y1"),
        ([[0, 0, np.nan, 1]], "finite"),
        ([[2, 0, 2, 1]], r"x0 < x1 and y0 < y1.*got \[2"),
        ([[0, 3, 2, 1]], "x0 < x1"),
        ([["a", "b", "c", "d"]], "numbers"),
    ],
)
def test_bad_boxes_are_refused(boxes, message):
    with pytest.raises(ShapeError, match=message):
        boxes_of(known_ground(boxes, None), 1, (3, 4))


def test_a_mask_of_another_size_is_refused():
    for ground in (Ground(masks=[MASK.T]), Ground(masks=[MASK], ignored=[MASK[:2]])):
        with pytest.raises(ShapeError, match=r"image 0 must be as large as its heatmap, \(3, 4\)"):
            regions_of(ground, 1, (3, 4))
    with pytest.raises(ShapeError, match="as large"):
        boxes_of(Ground(masks=[MASK.T]), 1, (3, 4))


def test_nothing_known_is_refused():
    with pytest.raises(InputError, match="boxes or masks are needed"):
        known_ground(None, None)
    with pytest.raises(InputError, match=r"image 1 has none \(1 of 2\)"):
        counted({"iou": np.zeros(2), "iou.counts": np.array([1.0, 0.0])}, "iou")


def test_means_are_taken_over_the_images_that_count_whatever_the_leading_axes():
    means = {"m": np.array([0.3, 0.0]), "m.curve": np.array([[0.3, 0.6], [0.0, 0.0]]), "m.counts": np.array([0.6, 0.0])}
    found = shares(means, "m", "m", "m.curve")
    np.testing.assert_allclose(found["m"], [0.5, np.nan])
    np.testing.assert_allclose(found["m.curve"], [[0.5, 1.0], [np.nan, np.nan]])
    assert shares({"m": 0.3, "m.counts": 1.0}, "m", "m")["m"] == 0.3
