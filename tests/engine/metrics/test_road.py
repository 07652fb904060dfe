"""ROAD: how many pixels each definition removes, values by hand, and its identities with noise 0."""

from __future__ import annotations

import numpy as np
import pytest

from camrt.errors import MethodError
from camrt.metrics.changes import Clean, Imputed, Order, depends_on_map
from camrt.metrics.road import PROTOCOLS, ROAD, counts, road
from camrt.metrics.table import validate
from tests.engine.metrics.linear import Linear, imputed, judged, p, scored

UP = Order(descending=False)


def by_hand(variant, morf, lerf, clean=0.9, **given):
    """Return a 10 x 10 map's values where each level's picture has one of the probabilities."""
    chosen, full = validate(ROAD, variant, given)
    changes = ROAD.changes((10, 10), variant=chosen, **full)
    scores = dict(zip(changes, map(p, (*morf, *lerf)), strict=True))
    case = scored(np.linspace(0, 1, 100).reshape(1, 10, 10), {**scores, Clean(): p(clean)})
    return changes, {name: array[0] for name, array in ROAD.values(case, variant=chosen, **full).items()}


def draw(rng, n=3, size=(6, 7)):
    """Return a linear model, pictures, and maps without ties."""
    pixels = size[0] * size[1]
    heat = rng.permuted(np.tile(np.linspace(0, 1, pixels), (n, 1)), axis=1).reshape(n, *size)
    return Linear(rng.normal(size=(2, *size)) / 2, 0.1), rng.normal(size=(n, 2, *size)), heat


def test_values_worked_by_hand():
    """MoRF .4 .2 and LeRF .9 .7: means .3 and .8, combined .25; hits above one half."""
    changes, found = by_hand("camrt", (0.4, 0.2), (0.9, 0.7), levels=(10, 30))
    order = Order()
    assert changes == tuple(Imputed(o, k, 0.01, "raw", 0) for o in (order, UP) for k in (10, 30))
    np.testing.assert_allclose(found["road.curve_morf"], [0.4, 0.2], rtol=1e-12)
    np.testing.assert_allclose(found["road.curve_lerf"], [0.9, 0.7], rtol=1e-12)
    expected = {"road": 0.25, "road.morf": 0.3, "road.lerf": 0.8, "road.accuracy_morf": 0, "road.accuracy_lerf": 1}
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    assert set(expected) == {field.name for field in ROAD.fields_of("camrt")}


def test_pytorch_grad_cam_reports_changes_of_the_score():
    """From .9: MoRF .4 .2 change by -.6 on average, LeRF .9 .7 by -.1; half the difference is .25, as without."""
    changes, found = by_hand("pytorch-grad-cam", (0.4, 0.2), (0.9, 0.7), levels=(20, 80))
    assert [change.count for change in changes] == [80, 20, 80, 20] and {change.unit for change in changes} == {"input"}
    expected = {"road": 0.25, "road.morf": -0.6, "road.lerf": -0.1}
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-12)


def test_quantus_is_the_accuracy_of_most_first_alone():
    changes, found = by_hand("quantus", (0.9, 0.6, 0.2, 0.7), (), levels=(1, 3, 5, 97))
    assert changes == tuple(Imputed(Order(), k, 0.01, "input", 0) for k in (1, 3, 5, 97))
    assert found["road"] == 0.75
    assert ROAD.fields_of("quantus")[0].better == "lower" and len(ROAD.fields_of("quantus")) == 1
    np.testing.assert_array_equal(found["road.hits_morf"], [1, 1, 0, 1])


def test_the_paper_s_levels_and_what_its_code_removes():
    """Its LeRF at p keeps the share p; ties are broken by noise of 1e-4 on the map."""
    changes = ROAD.changes((10, 10), variant="official", **validate(ROAD, "official", {"seed": 5})[1])
    assert [change.count for change in changes] == [10, 20, 30, 40, 50, 70, 90, 90, 80, 70, 60, 50, 30, 10]
    assert {(c.order.jitter, c.order.seed, c.seed) for c in changes} == {(1e-4, 5, 5)}
    assert PROTOCOLS["quantus"].levels[:2] == (1, 3) and PROTOCOLS["quantus"].levels[-1] == 99


@pytest.mark.parametrize("size", [(224, 224), (7, 9), (32, 48)])
def test_exactly_the_floor_is_removed_at_both_ends(size):
    """Whole numbers, so that no level is one short by rounding; Quantus' and the paper's products agree with them."""
    levels, pixels = tuple(range(1, 100)), size[0] * size[1]
    assert counts(size, levels, "level") == tuple(int(pixels * level / 100) for level in levels)
    assert counts(size, levels, "rest") == tuple(min(pixels - pixels * level // 100, pixels - 1) for level in levels)


@pytest.mark.parametrize("size", [(9, 11), (10, 10), (16, 16)])
def test_pytorch_grad_cam_removes_what_numpys_percentile_says(size, rng):
    """Without ties: the pixels not below np.percentile of the map for MoRF, of one less the map for LeRF."""
    heat = rng.random(size)
    levels = tuple(range(5, 100, 5))
    for values in (heat, 1 - heat):
        expected = tuple(int((values >= np.percentile(values, level)).sum()) for level in levels)
        assert counts(size, levels, "percentile") == expected


def test_a_pixel_is_always_left_and_nothing_removed_is_the_picture():
    assert counts((1, 3), (10, 99), "rest") == (2, 1)
    assert counts((1, 2), (1, 99), "percentile") == (1, 1)
    assert ROAD.changes((2, 2), variant="camrt", levels=(10, 50), noise=0.0, seed=0) == (
        Clean(),
        Imputed(Order(), 2),
        Clean(),
        Imputed(UP, 2),
    )
    for level in (0, 100):
        with pytest.raises(MethodError, match="at least 1 and at most 99"):
            validate(ROAD, None, {"levels": (level,)})


@pytest.mark.parametrize("variant", ["camrt", "pytorch-grad-cam"])
def test_a_map_and_its_negative_have_opposite_values(variant, rng):
    """combined(S) = -combined(-S) with noise 0 and no ties."""
    linear, x, heat = draw(rng)
    found = judged(ROAD, linear, x, heat, variant, noise=0)
    mirrored = judged(ROAD, linear, x, 1 - heat, variant, noise=0)
    assert np.abs(found["road"]).min() > 1e-3
    np.testing.assert_allclose(found["road"], -mirrored["road"], atol=1e-12)
    np.testing.assert_allclose(found["road.morf"], mirrored["road.lerf"], atol=1e-12)


def test_a_constant_picture_is_left_unchanged_without_noise(rng):
    linear, x, heat = draw(rng)
    x[:] = x[:, :, :1, :1]
    found = judged(ROAD, linear, x, heat, noise=0)
    clean = linear.scores(x, np.zeros(len(x), np.int64)).p
    np.testing.assert_allclose(found["road.curve_morf"], np.tile(clean[:, None], 7), rtol=1e-9)
    np.testing.assert_allclose(found["road"], 0, atol=1e-9)


def test_a_constant_score_has_no_difference(rng):
    _, x, heat = draw(rng)
    found = judged(ROAD, Linear(np.zeros((2, 6, 7)), 0.7), x, heat, noise=0)
    level = 1 / (1 + np.exp(-0.7))
    np.testing.assert_allclose([found["road.morf"], found["road.lerf"]], level, rtol=1e-12)
    np.testing.assert_array_equal(found["road"], 0)


@pytest.mark.parametrize("change", [np.square, lambda heat: heat / 3 + 0.5])
def test_only_the_order_of_a_map_counts(change, rng):
    linear, x, heat = draw(rng)
    np.testing.assert_array_equal(
        judged(ROAD, linear, x, heat, noise=0)["road"], judged(ROAD, linear, x, change(heat), noise=0)["road"]
    )


def test_a_map_of_the_important_pixels_is_better_than_its_negative(rng):
    """A bright block on dark ground that the logit sums: taking it away hides it, taking the ground away does not."""
    x = np.zeros((1, 1, 8, 8))
    x[0, 0, 2:6, 2:6] = 1
    linear = Linear(np.full((1, 8, 8), 0.2), -1)
    good = x[0] + np.linspace(0, 0.1, 64).reshape(1, 8, 8)
    assert judged(ROAD, linear, x, good / good.max(), noise=0)["road"][0] > 0.1


def test_every_picture_depends_on_the_map_and_none_is_asked_twice():
    for variant in PROTOCOLS:
        changes = ROAD.changes((224, 224), variant=variant, **validate(ROAD, variant)[1])
        assert len(set(changes)) == len(changes) and all(map(depends_on_map, changes))


def test_imputation_of_the_toy_is_the_papers_by_hand():
    """One missing pixel of 1 x 3 is its neighbours' mean; in a corner of 2 x 2 it is (2 a + 2 b + c) / 5."""
    row = np.array([[[1.0, 9.0, 4.0]]])
    np.testing.assert_allclose(imputed(row, {(0, 1)})[0, 0], [1, 2.5, 4], rtol=1e-12)
    corner = np.array([[[9.0, 1.0], [2.0, 3.0]]])
    np.testing.assert_allclose(imputed(corner, {(0, 0)})[0, 0, 0], (2 * 1 + 2 * 2 + 3) / 5, rtol=1e-12)


@pytest.mark.parametrize("variant", [name for name, protocol in PROTOCOLS.items() if not protocol.jitter])
def test_the_function_gives_what_a_dense_system_gives(variant, rng):
    linear, x, heat = draw(rng)
    found = road(linear.model(), x, heat, np.zeros(len(x), np.int64), variant=variant, noise=0)
    np.testing.assert_allclose(found, judged(ROAD, linear, x, heat, variant, noise=0)["road"], atol=1e-6)


def test_jitter_breaks_ties_and_moves_nothing_that_is_further_apart(rng):
    """Levels that the two definitions share: with 42 values 1/41 apart MoRF is the same, and so is LeRF at one half."""
    linear, x, heat = draw(rng)
    classes = np.zeros(len(x), np.int64)
    given = {"levels": (50,), "noise": 0}
    plain, jittered = (road(linear.model(), x, heat, classes, variant=v, **given) for v in ("camrt", "official"))
    np.testing.assert_allclose(plain, jittered, atol=1e-9)
    flat = np.zeros_like(heat)
    seeds = [road(linear.model(), x, flat, classes, variant="official", seed=seed, **given) for seed in (0, 1)]
    assert (np.abs(seeds[0] - seeds[1]) > 1e-6).all()
    assert np.ptp(road(linear.model(), x, flat, classes, **given) - seeds[0]) > 1e-6


def test_noise_is_seeded_by_the_picture_and_a_batch_is_its_images(rng):
    linear, x, heat = draw(rng)
    classes = np.zeros(len(x), np.int64)
    first, again, other = (road(linear.model(), x, heat, classes, seed=seed, noise=0.3) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (np.abs(first - other) > 1e-6).all()
    alone = [road(linear.model(), x[[i]], heat[[i]], classes[[i]], seed=1, noise=0.3)[0] for i in range(len(x))]
    np.testing.assert_allclose(alone, first, atol=1e-6)
