"""The pointing games: worked by hand, where they must be exact, and what does not count."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from camrt.errors import InputError, MethodError, NumericError, ShapeError
from camrt.metrics import resolve, validate
from camrt.metrics.case import Case, Ground
from camrt.metrics.pointing import energy_pointing_game, pointing_game, small_single_box

HEAT = np.array([[0.5, 0.0, 0.0], [0.25, 1.0, 0.25], [0.0, 0.0, 0.0]])
MAPS = arrays(np.float64, (4, 5), elements=st.floats(0, 1, width=16))


def values(name, heat, variant=None, ground=None, **options):
    """Return what a metric's row gives and its mean over the data set."""
    metric = resolve(name)
    chosen, full = validate(metric, variant, options)
    n = len(heat)
    flat = heat.max((1, 2)) == heat.min((1, 2))
    case = Case(heat, flat, np.zeros(n, np.int64), np.zeros(n, np.uint64), heat[:, None], ground=ground or Ground())
    found = metric.values(case, variant=chosen, **full)
    means = {key: value.mean(0) for key, value in found.items()}
    return found, metric.overall(means, variant=chosen, **full)[metric.id]


def test_energy_by_hand():
    # columns 1 and 2 of the first two rows hold 1.25 of 2
    assert energy_pointing_game(HEAT, [[1, 0, 3, 2]]).tolist() == [0.625]
    # with x for rows: rows 1 and 2 of columns 0 and 1, 1.25 as well; of a box of the first row alone, its first column
    assert energy_pointing_game(HEAT, [[0, 0, 3, 1]]).tolist() == [0.25]
    assert energy_pointing_game(HEAT, [[0, 0, 3, 1]], variant="official-swapped").tolist() == [0.375]


def test_energy_of_several_boxes_is_that_of_their_union_and_a_mask_will_do():
    assert energy_pointing_game(HEAT, [[[0, 0, 2, 2], [1, 1, 3, 3]]]).tolist() == [1.0]
    assert energy_pointing_game(HEAT, masks=[HEAT == 1]).tolist() == [0.5]
    assert energy_pointing_game(HEAT, [[0, 0, 1, 1]], [HEAT == 1]).tolist() == [0.25]  # the box, where there are both


def test_energy_leaves_ignored_pixels_out_of_both_sums():
    ground = Ground(boxes=[np.array([[0, 0, 3, 1]])], ignored=[HEAT == 1])
    found, _ = values("energy_pointing_game", HEAT[None], ground=ground)
    assert found["energy_pointing_game"].tolist() == [0.5]


@given(MAPS)
def test_energy_is_one_in_the_whole_picture_and_does_not_care_for_scale(heat):
    if heat.max() > 0:
        assert energy_pointing_game(heat, [[0, 0, 5, 4]]).tolist() == [1.0]
        np.testing.assert_allclose(
            energy_pointing_game(heat / 4, [[1, 1, 3, 3]]), energy_pointing_game(heat, [[1, 1, 3, 3]])
        )


def test_energy_of_a_constant_map_is_the_share_of_the_area_and_of_an_empty_one_zero():
    assert energy_pointing_game(np.full((4, 5), 0.5), [[1, 1, 3, 4]]).tolist() == [6 / 20]
    assert energy_pointing_game(np.zeros((4, 5)), [[1, 1, 3, 4]]).tolist() == [0.0]


def test_images_without_object_or_outside_the_subset_do_not_count():
    maps = np.stack([HEAT] * 4)
    half, small, two = [[0, 0, 3, 2]], [[1, 1, 2, 2]], [[0, 0, 1, 1], [1, 1, 2, 2]]
    ground = Ground(boxes=[np.array(boxes) for boxes in (half, small, two)] + [None])
    found, overall = values("energy_pointing_game", maps, ground=ground)
    assert found["energy_pointing_game"].tolist() == [1.0, 0.5, 0.75, 0.0]
    assert found["energy_pointing_game.counts"].tolist() == [1, 1, 1, 0]
    assert overall == pytest.approx(2.25 / 3)
    found, overall = values("energy_pointing_game", maps, ground=ground, subset="score-cam")
    assert found["energy_pointing_game.counts"].tolist() == [
        0,
        1,
        0,
        0,
    ]  # two thirds of the picture; one; two boxes; none
    assert overall == 0.5
    assert small_single_box([half, small, two], (3, 3)).tolist() == [False, True, False]
    assert small_single_box([[0, 0, 2, 1]], (2, 2)).tolist() == [True]  # just half


def test_the_maximum_is_the_first_and_its_distance_must_be_below_the_tolerance():
    heat = np.zeros((40, 40))
    heat[5, 5] = heat[30, 30] = 1
    for column, hit in ((19, 1.0), (20, 0.0)):  # 14 and 15 pixels to the right of the first maximum
        assert pointing_game(heat, [[column, 5, 40, 6]]).tolist() == [hit]
    assert pointing_game(heat, [[16, 16, 20, 20]]).tolist() == [0.0]  # 11 and 11: 15.6 away
    assert pointing_game(heat, [[15, 16, 20, 20]]).tolist() == [1.0]  # 10 and 11: 14.9
    assert pointing_game(heat, [[30, 30, 31, 31]]).tolist() == [0.0]
    assert pointing_game(heat, [[30, 30, 31, 31]], variant="quantus").tolist() == [1.0]
    assert pointing_game(heat, [[6, 5, 7, 6]], variant="quantus").tolist() == [0.0]


@given(MAPS, st.integers(0, 3), st.integers(0, 4))
def test_a_maximum_inside_hits_with_any_tolerance_and_a_constant_map_never(heat, row, column):
    heat[row, column] = 2
    heat /= 2
    box = [[column, row, column + 1, row + 1]]
    for settings in ({"tolerance": 1}, {}, {"variant": "quantus"}):
        assert pointing_game(heat, box, **settings).tolist() == [1.0]
        assert pointing_game(np.full((4, 5), 0.5), box, **settings).tolist() == [0.0]


def test_a_tolerance_of_one_allows_no_distance():
    assert pointing_game(HEAT, [[0, 1, 1, 2]], tolerance=1).tolist() == [0.0]
    assert pointing_game(HEAT, [[0, 1, 1, 2]], tolerance=2).tolist() == [1.0]
    with pytest.raises(MethodError, match="at least 1"):
        pointing_game(HEAT, [[0, 1, 1, 2]], tolerance=0)


def test_pointing_prefers_masks_and_counts_by_class():
    assert pointing_game(HEAT, [[1, 1, 2, 2]], [HEAT == 0.5], tolerance=1).tolist() == [0.0]
    assert resolve("pointing game").by_class
    found, overall = values("pointing_game", np.stack([HEAT, HEAT]), ground=Ground(masks=[HEAT == 1, None]))
    assert found["pointing_game.counts"].tolist() == [1.0, 0.0] and overall == 1.0


@pytest.mark.parametrize("game", [energy_pointing_game, pointing_game])
def test_bad_maps_boxes_and_masks_are_refused(game):
    with pytest.raises(ShapeError, match="as large as its heatmap"):
        game(HEAT, masks=[np.ones((4, 3))])
    with pytest.raises(ShapeError, match="x0 < x1"):
        game(HEAT, [[2, 2, 1, 1]])
    with pytest.raises(ShapeError, match="every one of 1"):
        game(HEAT, [[0, 0, 1, 1], [0, 0, 1, 1]])
    with pytest.raises(NumericError, match="finite"):
        game(np.where(HEAT == 1, np.nan, HEAT), [[0, 0, 1, 1]])
    with pytest.raises(InputError, match="image 0 has none"):
        game(HEAT, [[5, 5, 6, 6]])
    with pytest.raises(InputError, match="boxes or masks"):
        game(HEAT)
