"""Insertion and deletion: worked by hand, against a linear model in closed form, and by their identities."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from camrt.errors import MethodError
from camrt.metrics.changes import Clean, Order, Substrate, Swapped, Whole, depends_on_map
from camrt.metrics.curves import DELETION, INSERTION, PROTOCOLS, deletion, insertion, positions, stops, tied
from camrt.metrics.flipping import pixel_flipping
from camrt.metrics.table import validate
from tests.engine.metrics import linear as oracle
from tests.engine.metrics.linear import Linear, judged, p, scored

GREY = Substrate("grey")
HEAT = np.array([[[0.9, 0.1], [0.5, 0.3]]])


def draw(rng, n=3, channels=2, size=(5, 7)):
    """Return a linear model, pictures, and maps without ties."""
    linear = Linear(rng.normal(size=(channels, *size)) / 3, 0.2)
    heat = rng.permuted(np.tile(np.linspace(0, 1, size[0] * size[1]), (n, 1)), axis=1).reshape(n, *size)
    return linear, rng.normal(size=(n, channels, *size)), heat


def options(metric, variant=None, **given):
    """Return the complete options of a variant."""
    chosen, full = validate(metric, variant, given)
    return {"variant": chosen, **full}


def test_insertion_worked_by_hand_on_2x2():
    """Four pixels in four steps, p = .1 .5 .7 .8 .9: the trapezoid is (.05 + .5 + .7 + .8 + .45) / 4 = .625."""
    changes = INSERTION.changes((2, 2), **options(INSERTION, "torchcam"))
    assert changes == (Whole(GREY), *(Swapped(Order(), k, 4, GREY) for k in (1, 2, 3)), Clean())
    found = INSERTION.values(
        scored(HEAT, dict(zip(changes, map(p, (0.1, 0.5, 0.7, 0.8, 0.9)), strict=True))),
        **options(INSERTION, "torchcam"),
    )
    np.testing.assert_allclose(found["insertion"], [0.625], rtol=1e-12)
    np.testing.assert_allclose(found["insertion.curve"], [[0.1, 0.5, 0.7, 0.8, 0.9]], rtol=1e-12)
    assert found["insertion.ties"] == [0.0]


def test_deletion_worked_by_hand_on_3x3_with_a_short_last_step():
    """Nine pixels in two steps are 5 and 4; p = .9 .5 .1: 5/9 x .7 + 4/9 x .3 = 4.7/9."""
    heat = np.arange(9.0).reshape(1, 3, 3) / 8
    given = options(DELETION, "torchcam", steps=2)
    changes = DELETION.changes((3, 3), **given)
    assert changes == (Clean(), Swapped(Order(), 0, 5, GREY), Whole(GREY))
    found = DELETION.values(scored(heat, dict(zip(changes, map(p, (0.9, 0.5, 0.1)), strict=True))), **given)
    np.testing.assert_allclose(found["deletion"], [4.7 / 9], rtol=1e-12)


def test_polycam_is_the_mean_of_the_scores_without_the_first():
    given = options(DELETION, "polycam")
    changes = DELETION.changes((2, 2), **given)
    case = scored(HEAT, dict(zip(changes, map(p, (0.9, 0.8, 0.4, 0.2, 0.1)), strict=True)))
    np.testing.assert_allclose(DELETION.values(case, **given)["deletion"], [(0.8 + 0.4 + 0.2 + 0.1) / 4], rtol=1e-12)


def test_reciprocam_divides_by_the_number_of_scores_and_inserts_as_its_code_does():
    """Two squares of 32: deletion .9 .5 .1 has trapezoids .7 + .3 over 3; insertion begins with one square shown: .6 .9 .9."""
    heat = np.zeros((1, 32, 64))
    heat[0, :, 32:] = 1
    given = options(DELETION, "reciprocam")
    order = Order(patch=32, overlap=1)
    changes = DELETION.changes((32, 64), **given)
    assert changes == (Clean(), Swapped(order, 0, 1, GREY), Whole(GREY))
    case = scored(heat, dict(zip(changes, map(p, (0.9, 0.5, 0.1)), strict=True)))
    np.testing.assert_allclose(DELETION.values(case, **given)["deletion"], [1 / 3], rtol=1e-12)
    changes = INSERTION.changes((32, 64), **given)
    assert changes == (Swapped(order, 1, 2, Substrate("mean")), Clean(), Clean())
    case = scored(heat, {changes[0]: p(0.6), Clean(): p(0.9)})
    np.testing.assert_allclose(INSERTION.values(case, **given)["insertion"], [(0.75 + 0.9) / 3], rtol=1e-12)


@pytest.mark.parametrize(
    ("variant", "pixels", "points"),
    [
        ("official", 224, 225),
        ("polycam", 224, 225),
        ("group-cam", 1792, 29),
        ("ca-stream", 1792, 29),
        ("torchcam", 2509, 21),
        ("gomez", 256, 197),
        ("score-cam", 502, 101),
    ],
)
def test_steps_of_the_papers_at_224(variant, pixels, points):
    """Pixels a step as in section 6.3's sources; 2509 is torch-cam's ceil(50176 / 20), 502 one percent rounded up."""
    found = positions((224, 224), **options(INSERTION, variant)) * 50176
    assert len(found) == points
    np.testing.assert_allclose(np.diff(found)[:-1], pixels, rtol=1e-12)
    assert found[-1] == 50176


def test_reciprocam_has_49_squares_at_224_and_gomez_a_box_of_45():
    assert len(DELETION.changes((224, 224), **options(DELETION, "reciprocam"))) == 50
    assert INSERTION.changes((224, 224), **options(INSERTION, "gomez"))[0] == Whole(Substrate("box", 45))
    assert INSERTION.changes((32, 64), **options(INSERTION, "gomez"))[0] == Whole(Substrate("box", 9))


def test_a_curve_needs_one_forward_less_than_its_points_and_one_of_those_is_not_the_maps():
    for metric in (INSERTION, DELETION):
        changes = metric.changes((224, 224), **options(metric))
        assert len(set(changes)) == 225 and Clean() in changes
        assert sum(map(depends_on_map, changes)) == 223


@given(total=st.integers(1, 5000), steps=st.integers(1, 6000))
def test_steps_are_equal_but_the_last_and_cover_everything(total, steps):
    found = np.array(stops(total, steps))
    lengths = np.diff(found)
    assert found[0] == 0 and found[-1] == total and len(lengths) <= steps
    assert (lengths[:-1] == lengths[0]).all() and 0 < lengths[-1] <= lengths[0]
    assert steps * lengths[0] >= total


@pytest.mark.parametrize("variant", PROTOCOLS)
def test_a_constant_score_is_its_own_area(variant, rng):
    """Of ReciproCAM, n / (n + 1) of it: it divides n trapezoids by n + 1."""
    linear, x, heat = draw(rng)
    flat = Linear(np.zeros_like(linear.weights), 0.7)
    expected = 1 / (1 + np.exp(-0.7)) * (1 / 2 if variant == "reciprocam" else 1)
    for metric in (INSERTION, DELETION):
        np.testing.assert_allclose(judged(metric, flat, x, heat, variant)[metric.id], expected, rtol=1e-12)


@pytest.mark.parametrize("variant", ["official", "polycam", "torchcam", "gomez"])
def test_curves_run_between_the_substrate_and_the_picture(variant, rng):
    linear, x, heat = draw(rng)
    classes = np.zeros(len(x), np.int64)
    whole = linear.scores(x, classes).p
    protocol = PROTOCOLS[variant]
    for metric, substrate, first in ((INSERTION, protocol.insertion, 0), (DELETION, protocol.deletion, -1)):
        curve = judged(metric, linear, x, heat, variant)[f"{metric.id}.curve"]
        empty = linear.scores(np.stack([oracle.substrate(substrate, one) for one in x]), classes).p
        np.testing.assert_allclose(curve[:, first], empty, rtol=1e-12)
        np.testing.assert_allclose(curve[:, -1 - first], whole, rtol=1e-12)


@pytest.mark.parametrize("steps", [4, 20, 35])
def test_points_are_those_of_a_plain_loop(steps, rng):
    """Replace the pixels one after the other, highest first, and score every ceil(HW / steps)."""
    linear, x, heat = draw(rng)
    curve = judged(DELETION, linear, x, heat, "torchcam", steps=steps)["deletion.curve"]
    pixels = -(-35 // steps)
    for image in range(len(x)):
        left, expected = x[image].copy(), []
        for place, at in enumerate(np.argsort(-heat[image].ravel(), kind="stable")):
            if place % pixels == 0:
                expected.append(1 / (1 + np.exp(-(left * linear.weights).sum() - linear.bias)))
            left.reshape(2, -1)[:, at] = 0
        np.testing.assert_allclose(curve[image, :-1], expected, rtol=1e-10)


def test_equal_steps_are_rises_formula(rng):
    """AUC = (sum of y - y_0 / 2 - y_n / 2) / n."""
    linear, x, heat = draw(rng)
    found = judged(INSERTION, linear, x, heat, steps=7)
    y = found["insertion.curve"]
    assert y.shape[1] == 8
    np.testing.assert_allclose(found["insertion"], (y.sum(1) - y[:, 0] / 2 - y[:, -1] / 2) / 7, rtol=1e-12)


@pytest.mark.parametrize("steps", [5, 7, 35])
def test_deleting_by_a_map_is_inserting_by_its_negative(steps, rng):
    """AUC_del(S) = AUC_ins(-S) with one substrate, no ties and steps that divide the pixels; the curves are mirrored."""
    linear, x, heat = draw(rng)
    away = judged(DELETION, linear, x, heat, "torchcam", steps=steps)
    back = judged(INSERTION, linear, x, 1 - heat, "torchcam", steps=steps)
    np.testing.assert_allclose(away["deletion"], back["insertion"], rtol=1e-10)
    np.testing.assert_allclose(away["deletion.curve"][:, ::-1], back["insertion.curve"], rtol=1e-10)


@pytest.mark.parametrize("metric", [INSERTION, DELETION])
@pytest.mark.parametrize("change", [np.square, np.sqrt, lambda heat: heat / 3 + 0.5])
def test_only_the_order_of_a_map_counts(metric, change, rng):
    linear, x, heat = draw(rng)
    heat[:, 0, :3] = heat[:, 1:2, 0]  # ties stay ties
    np.testing.assert_array_equal(
        judged(metric, linear, x, heat, steps=9)[metric.id], judged(metric, linear, x, change(heat), steps=9)[metric.id]
    )


def test_a_constant_map_takes_pixels_by_raster_index(rng):
    linear, x, heat = draw(rng)
    raster = np.broadcast_to(np.linspace(1, 0, 35).reshape(5, 7), heat.shape)
    for metric in (INSERTION, DELETION):
        flat = judged(metric, linear, x, np.zeros_like(heat), steps=9)
        np.testing.assert_array_equal(flat[metric.id], judged(metric, linear, x, raster, steps=9)[metric.id])
        assert (flat[f"{metric.id}.ties"] == 1).all()


def test_the_best_order_inserts_higher_and_deletes_lower_than_any_other(rng):
    """Of linear logits and a grey substrate, pixels by their contribution bound every curve from one side."""
    linear, x, heat = draw(rng)
    contribution = (x * linear.weights).sum(1)
    best = np.argsort(np.argsort(contribution.reshape(3, -1), axis=1), axis=1).reshape(contribution.shape) / 34
    high, low = (judged(m, linear, x, best, "torchcam")[m.id] for m in (INSERTION, DELETION))
    assert (judged(INSERTION, linear, x, heat, "torchcam")["insertion"] < high).all()
    assert (judged(DELETION, linear, x, heat, "torchcam")["deletion"] > low).all()


def test_ties_are_counted_by_hand():
    maps = np.array(
        [[[0.0, 0.0], [0.5, 1.0]], [[0.2, 0.2], [0.2, 0.2]], [[0.1, 0.9], [0.5, 0.3]], [[0.5, 1.0], [1.0, 0.5]]]
    )
    np.testing.assert_array_equal(tied(maps), [0.5, 1, 0, 1])
    np.testing.assert_array_equal(tied(np.zeros((1, 1, 1))), [0])


def test_a_seed_reaches_every_order():
    for metric in (INSERTION, DELETION):
        changes = metric.changes((4, 4), **options(metric, seed=3))
        assert {change.order.seed for change in changes if isinstance(change, Swapped)} == {3}


def test_areas_lie_between_0_and_1(rng):
    linear, x, heat = draw(rng)
    sharp = Linear(40 * linear.weights)
    for variant in PROTOCOLS:
        for metric in (INSERTION, DELETION):
            found = judged(metric, sharp, x, heat, variant)[metric.id]
            assert ((found >= 0) & (found <= 1)).all()


@pytest.mark.parametrize(("function", "metric"), [(insertion, INSERTION), (deletion, DELETION)])
@pytest.mark.parametrize(("variant", "size"), [("torchcam", (5, 7)), ("score-cam", (5, 7)), ("reciprocam", (40, 70))])
def test_the_functions_give_what_pixel_by_pixel_pictures_give(function, metric, variant, size, rng):
    linear, x, heat = draw(rng, size=size)
    found = function(linear.model(), x, heat, np.zeros(len(x), np.int64), variant=variant)
    np.testing.assert_allclose(found, judged(metric, linear, x, heat, variant)[metric.id], rtol=1e-9)


@pytest.mark.parametrize("variant", PROTOCOLS)
def test_every_variant_runs_from_blurred_to_whole(variant, rng):
    """A logit that is minus the contrast of a checkerboard: a blurred picture scores higher, so inserting lowers it."""
    size = (12, 14)
    board = np.where(np.indices(size).sum(0) % 2, 1.0, -1.0)
    linear = Linear(-board[None] / 20)
    x = np.broadcast_to(board, (1, 1, *size)).copy()
    heat = rng.random((1, *size))
    area = insertion(linear.model(), x, heat, np.zeros(1, np.int64), variant=variant, steps=10_000)[0]
    whole = 1 / (1 + np.exp(168 / 20))
    if variant == "reciprocam":
        assert area == pytest.approx(whole / 2, rel=1e-9)  # one square: the whole picture twice, over two scores
    else:
        assert whole < area < 0.55


def test_deletion_on_black_is_pixel_flipping(rng):
    linear, x, heat = draw(rng)
    classes = np.zeros(len(x), np.int64)
    found = deletion(linear.model(), x, heat, classes, mask_space="raw")
    np.testing.assert_allclose(found, pixel_flipping(linear.model(), x, heat, classes), rtol=1e-12)
    assert (np.abs(found - deletion(linear.model(), x, heat, classes)) > 1e-3).any()


def test_ties_are_broken_by_the_seed_and_each_picture_alone(rng):
    """Constant maps: other seeds take other orders, the same seed the same, whatever else is in the batch."""
    linear, x, heat = draw(rng)
    classes, flat = np.zeros(len(x), np.int64), np.zeros_like(heat)
    first, again, other = (deletion(linear.model(), x, flat, classes, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).all()
    alone = [deletion(linear.model(), x[[i]], flat[[i]], classes[[i]], seed=1)[0] for i in range(len(x))]
    np.testing.assert_allclose(alone, first, rtol=1e-12)
    np.testing.assert_array_equal(
        deletion(linear.model(), x, heat, classes, seed=1), deletion(linear.model(), x, heat, classes)
    )


def test_a_step_at_least_and_a_known_variant_are_asked_for(rng):
    linear, x, heat = draw(rng)
    with pytest.raises(MethodError, match="'steps' of insertion must be an integer of at least 1; got 0"):
        insertion(linear.model(), x, heat, steps=0)
    with pytest.raises(MethodError, match="no variant 'polycan'; did you mean polycam"):
        deletion(linear.model(), x, heat, variant="polycan")
