"""Pixel flipping: every variant by hand, and as deletion under another name."""

from __future__ import annotations

import numpy as np
import pytest

from camrt.metrics.changes import Clean, Order, Substrate, Swapped, Whole
from camrt.metrics.curves import DELETION
from camrt.metrics.flipping import PIXEL_FLIPPING, PROTOCOLS, flips, pixel_flipping
from camrt.metrics.table import validate
from tests.engine.metrics.linear import Linear, judged, p, scored

BLACK, MINIMUM = Substrate("black"), Substrate("minimum")
HEAT = np.array([[[0.9, 0.1], [0.5, 0.3]]])


def by_hand(variant, probabilities, heat=HEAT, **given):
    """Return the changes and the value where each change in turn has one of the probabilities."""
    chosen, full = validate(PIXEL_FLIPPING, variant, given)
    changes = PIXEL_FLIPPING.changes(heat.shape[1:], variant=chosen, **full)
    case = scored(heat, {Clean(): p(0.99), **dict(zip(changes, map(p, probabilities), strict=True))})
    return changes, PIXEL_FLIPPING.values(case, variant=chosen, **full)["pixel_flipping"][0]


def test_camrt_is_the_area_over_the_fraction_made_black():
    """p = .9 .5 .3 .2 .1 at quarters: (.45 + .5 + .3 + .2 + .05) / 4 = .375."""
    changes, value = by_hand("camrt", (0.9, 0.5, 0.3, 0.2, 0.1))
    assert changes == (Clean(), *(Swapped(Order(), 0, k, BLACK) for k in (1, 2, 3)), Whole(BLACK))
    assert value == pytest.approx(0.375, abs=1e-12)


def test_quantus_leaves_the_first_point_out_and_fills_with_the_minimum():
    """p = .5 .3 .2 .1 on three intervals: (.25 + .3 + .2 + .05) / 3."""
    changes, value = by_hand("quantus", (0.9, 0.5, 0.3, 0.2, 0.1))
    assert changes[1:] == (*(Swapped(Order(), 0, k, MINIMUM) for k in (1, 2, 3)), Whole(MINIMUM))
    assert value == pytest.approx(0.8 / 3, abs=1e-12)
    assert by_hand("quantus", (0.9, 0.1), steps=1)[1] == pytest.approx(0.1, abs=1e-12)  # a lone point is its own area


def test_region_is_the_mean_drop_over_the_first_squares():
    """A picture of 2 x 3 squares, the first 4 of them: p = .8 and then .6 .7 .3 .2 lose .2 .1 .5 .6, 1.4 / 4 on average."""
    heat = np.zeros((1, 16, 20))
    changes, value = by_hand("region", (0.8, 0.6, 0.7, 0.3, 0.2), heat, steps=4)
    assert changes == (Clean(), *(Swapped(Order(patch=8), 0, k, MINIMUM) for k in (1, 2, 3, 4)))
    assert value == pytest.approx(0.35, abs=1e-12)
    assert flips((16, 20), variant="region", steps=100) == (6, tuple(range(7)))
    assert len(flips((224, 224), variant="region", steps=100)[1]) == 101


@pytest.mark.parametrize(("variant", "descending"), [("chefer-positive", True), ("chefer-negative", False)])
def test_chefer_is_the_area_of_the_hits_from_10_to_90_percent(variant, descending):
    """Hits 1 1 1 0 0 0 1 0 0: trapezoids .5 + .1 x ... = (.1 + .1 + .05 + .05 + .05) / .8."""
    heat = np.linspace(0, 1, 100).reshape(1, 10, 10)
    hits = (0.9, 0.8, 0.7, 0.2, 0.2, 0.2, 0.6, 0.1, 0.1)  # hit above one half
    changes, value = by_hand(variant, hits, heat)
    assert changes == tuple(Swapped(Order(descending), 0, k, BLACK) for k in range(10, 100, 10))
    assert value == pytest.approx((0.1 + 0.1 + 0.05 + 0.05 + 0.05) / 0.8, abs=1e-12)


def test_chefer_takes_whole_pixels_as_its_code_does():
    """The integer part of the share of 50176 pixels."""
    expected = (5017, 10035, 15052, 20070, 25088, 30105, 35123, 40140, 45158)
    assert flips((224, 224), variant="chefer-positive", steps=9) == (50176, expected)


@pytest.mark.parametrize("variant", PROTOCOLS)
def test_a_constant_score_is_its_own_value_and_no_drop(variant, rng):
    linear = Linear(np.zeros((1, 16, 16)), 0.7)
    x, heat = rng.normal(size=(2, 1, 16, 16)), rng.random((2, 16, 16))
    expected = {"region": 0.0, "chefer-positive": 1.0, "chefer-negative": 1.0}.get(variant, 1 / (1 + np.exp(-0.7)))
    np.testing.assert_allclose(judged(PIXEL_FLIPPING, linear, x, heat, variant)["pixel_flipping"], expected, atol=1e-12)


def test_flipping_to_a_colour_is_deletion_to_it(rng):
    """A linear whose black is its grey: shift pictures so that black pixels are zero."""
    weights, x = rng.normal(size=(2, 4, 5)), rng.normal(size=(3, 2, 4, 5))
    heat = rng.random((3, 4, 5))
    flipped = judged(PIXEL_FLIPPING, Linear(weights), x, heat, steps=7)
    shifted = Linear(weights, -1.5 * weights.sum())  # x' = x + 1.5 is zero where x is black
    deleted = judged(DELETION, shifted, x + 1.5, heat, steps=7)
    np.testing.assert_allclose(flipped["pixel_flipping"], deleted["deletion"], rtol=1e-10)


@pytest.mark.parametrize("steps", [1, 3, 9])
def test_least_first_is_most_first_of_the_negative(steps, rng):
    linear, x = Linear(rng.normal(size=(1, 6, 6))), rng.normal(size=(4, 1, 6, 6))
    heat = rng.permuted(np.tile(np.linspace(0, 1, 36), (4, 1)), axis=1).reshape(4, 6, 6)
    np.testing.assert_array_equal(
        judged(PIXEL_FLIPPING, linear, x, heat, "chefer-negative", steps=steps)["pixel_flipping"],
        judged(PIXEL_FLIPPING, linear, x, 1 - heat, "chefer-positive", steps=steps)["pixel_flipping"],
    )


def test_each_variant_says_which_way_is_better():
    better = {variant: PIXEL_FLIPPING.fields_of(variant)[0].better for variant in PROTOCOLS}
    assert {name for name, way in better.items() if way == "higher"} == {"region", "chefer-negative"}


@pytest.mark.parametrize("variant", PROTOCOLS)
def test_the_function_gives_what_pixel_by_pixel_pictures_give(variant, rng):
    linear = Linear(rng.normal(size=(2, 18, 20)) / 10)
    x, heat = rng.normal(size=(2, 2, 18, 20)), rng.random((2, 18, 20))
    found = pixel_flipping(linear.model(), x, heat, np.zeros(2, np.int64), variant=variant, steps=6)
    expected = judged(PIXEL_FLIPPING, linear, x, heat, variant, steps=6)["pixel_flipping"]
    np.testing.assert_allclose(found, expected, rtol=1e-9)
