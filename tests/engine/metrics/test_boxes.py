"""Boxes from maps: accuracy over thresholds against a slow reading of it, localisation error and the saliency metric."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from camrt.errors import InputError, MethodError, NumericError, ShapeError
from camrt.metrics import resolve, validate
from camrt.metrics.boxes import localisation_error, max_box_acc_v2, saliency_metric
from camrt.metrics.case import Case, Ground, Scores
from camrt.metrics.changes import Clean, Cropped
from camrt.metrics.cropping import crop_and_resize

MAPS = arrays(np.float64, (6, 7), elements=st.sampled_from([0.0, 0.004, 0.2, 0.21, 0.5, 0.77, 1.0]))
SIDES = st.tuples(st.floats(0, 6.5), st.floats(0, 5.5), st.floats(0.6, 7), st.floats(0.6, 6))
BOXES = st.lists(SIDES.map(lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]]), min_size=1, max_size=3)


def laid_out(heat, ground, scores=None, classes=None):
    """Return a case of maps (N, H, W)."""
    n = len(heat)
    flat = heat.max((1, 2)) == heat.min((1, 2))
    classes = np.zeros(n, np.int64) if classes is None else np.array(classes)
    return Case(heat, flat, classes, np.zeros(n, np.uint64), heat[:, None], scores=scores or {}, ground=ground)


def values(name, case, variant=None, **options):
    """Return what a metric's row gives, and the fields over the data set."""
    metric = resolve(name)
    chosen, full = validate(metric, variant, options)
    found = metric.values(case, variant=chosen, **full)
    return found, metric.overall({key: value.mean(0) for key, value in found.items()}, variant=chosen, **full)


def inclusive(a, b):
    """Return the IoU of two boxes that hold both their ends."""
    x, y = (min(a[k + 2], b[k + 2]) - max(a[k], b[k]) + 1 for k in (0, 1))
    inside = max(x, 0) * max(y, 0)
    areas = [(c[2] - c[0] + 1) * (c[3] - c[1] + 1) for c in (a, b)]
    return inside / (sum(areas) - inside)


def slow_hits(heat, boxes, taus, deltas):
    """Read the definition threshold by threshold, contours from SciPy."""
    height, width = heat.shape
    levels = (heat * 255).astype(np.uint8)
    goals = np.trunc(np.clip(boxes, 0, [width, height, width, height]))
    hits = []
    for tau in taus:
        inside = levels > int(tau * levels.max())
        parts = [
            ndimage.label(inside, np.ones((3, 3)))[0],
            ndimage.label(ndimage.binary_fill_holes(inside) & ~inside)[0],
        ]
        drawn = [
            [x.start - hole, y.start - hole, min(x.stop + hole, width - 1), min(y.stop + hole, height - 1)]
            for hole, labels in enumerate(parts)
            for y, x in ndimage.find_objects(labels)
        ]
        best = max(inclusive(box, goal) for box in drawn or [[0, 0, 0, 0]] for goal in goals)
        hits.append([best >= delta / 100 for delta in deltas])
    return np.array(hits, float)


@given(MAPS, BOXES)
@settings(max_examples=40, deadline=None)
def test_hits_are_those_of_the_definition_read_threshold_by_threshold(heat, boxes):
    found, overall = values("max_box_acc_v2", laid_out(heat[None], Ground(boxes=[np.array(boxes)])), step=0.01)
    want = slow_hits(heat, np.array(boxes), np.arange(0, 1, 0.01), (30, 50, 70))
    assert np.array_equal(found["max_box_acc_v2.hits"][0].reshape(-1, 3), want)
    assert overall["max_box_acc_v2"] == found["max_box_acc_v2"][0] == want.max(0).mean()


@given(arrays(np.float64, (3, 6, 7), elements=st.floats(0, 1, width=16)), BOXES)
@settings(max_examples=30, deadline=None)
def test_accuracy_falls_with_delta_and_the_best_threshold_is_no_worse_than_any(maps, boxes):
    case = laid_out(maps, Ground(boxes=[np.array(boxes)] * 3))
    found, overall = values("max_box_acc_v2", case, step=0.01, deltas=(10, 40, 90))
    curve = found["max_box_acc_v2.hits"].mean(0).reshape(-1, 3)
    assert (np.diff(curve) <= 0).all()
    assert (overall["max_box_acc_v2"] >= curve.mean(1)).all()
    assert found["max_box_acc_v2"].mean() >= overall["max_box_acc_v2"]  # an image's own value is an upper bound
    first, _ = values("max_box_acc_v2", case, "v1", step=0.01)
    second, _ = values("max_box_acc_v2", case, step=0.01, deltas=(50,))
    assert (first["max_box_acc_v2.hits"] <= second["max_box_acc_v2.hits"]).all()  # the largest contour is one of them


def test_accuracy_by_hand():
    heat = np.zeros((1, 8, 8))
    heat[0, 1:3, 1:3] = 1.0  # a bright spot inside a dim square
    heat[0, 1:6, 1:6] = np.maximum(heat[0, 1:6, 1:6], 0.5)
    # the spot's box is 1 1 3 3 with both ends, 9 pixels; the square's 1 1 6 6, 36; the object's 1 1 5 5, 25
    assert max_box_acc_v2(heat, [[1, 1, 5, 5]], deltas=(69,)) == 1.0  # 25 / 36 = 0.694
    assert max_box_acc_v2(heat, [[1, 1, 5, 5]], deltas=(70,)) == 0.0
    assert max_box_acc_v2(heat, [[1, 1, 5, 5]]) == pytest.approx(2 / 3)
    found, _ = values("max_box_acc_v2", laid_out(heat, Ground(boxes=[np.array([[1, 1, 5, 5]])])), step=0.25)
    assert found["max_box_acc_v2.hits"].reshape(4, 3).tolist() == [[1, 1, 0], [1, 1, 0], [1, 0, 0], [1, 0, 0]]


def test_one_threshold_serves_all_images():
    low, high = np.zeros((2, 9, 9))
    low[2:7, 2:7], low[4, 4] = 0.3, 1.0  # found below 0.3
    high[:] = 0.6
    high[2:7, 2:7], high[0, 8] = 0.9, 1.0  # found from 0.6 on
    goal = [[2, 2, 7, 7]]
    assert max_box_acc_v2(low[None], [goal]) == max_box_acc_v2(high[None], [goal]) == 1.0
    assert max_box_acc_v2(np.stack([low, high]), [goal, goal], deltas=(50,)) == 0.5


def test_v1_takes_the_largest_contour_alone_by_the_area_it_encloses():
    heat = np.zeros((1, 9, 12))
    heat[0, 0:6, 0:6] = 1.0
    heat[0, 1:5, 1:5] = 0.0  # a ring of 20 pixels around 25 squares
    heat[0, 1:6, 7:12] = 1.0  # a block of 25 pixels around 16
    ring, block = [[0, 0, 6, 6]], [[7, 1, 12, 6]]
    assert max_box_acc_v2(heat, [ring], variant="v1") == 1.0
    assert max_box_acc_v2(heat, [block], variant="v1") == 0.0
    assert max_box_acc_v2(heat, [block]) == 1.0


def test_a_map_without_contour_has_the_box_of_the_first_pixel():
    assert max_box_acc_v2(np.zeros((1, 5, 5)), [[0, 0, 0.9, 0.9]]) == 1.0
    assert max_box_acc_v2(np.zeros((1, 5, 5)), [[2, 2, 5, 5]]) == 0.0


def test_pxap_by_hand_and_of_a_map_that_is_the_mask():
    heat = np.array([[[0.9, 0.6], [0.3, 0.0]]])
    mask = np.array([[1, 0], [1, 0]])
    # from the top: 0.9 right (precision 1, recall 1/2), 0.6 wrong, 0.3 right (2/3, 1): 1/2 + 1/2 * 2/3
    assert max_box_acc_v2(heat, masks=[mask], variant="pxap") == pytest.approx(5 / 6)
    assert max_box_acc_v2(mask[None], masks=[mask], variant="pxap") == 1.0
    assert max_box_acc_v2(np.full((1, 2, 2), 0.4), masks=[mask], variant="pxap") == 0.5  # the mask's share
    ignored = Ground(masks=[mask], ignored=[np.array([[0, 1], [0, 0]])])
    assert values("max_box_acc_v2", laid_out(heat, ignored), "pxap")[1]["max_box_acc_v2"] == 1.0


def test_pxap_pools_the_pixels_of_all_images():
    maps, masks = np.array([[[0.9, 0.6]], [[0.6, 0.2]]]), [np.array([[1, 0]]), np.array([[0, 1]])]
    joined = max_box_acc_v2(maps.reshape(1, 1, 4), masks=[np.hstack(masks)], variant="pxap")
    assert max_box_acc_v2(maps, masks=masks, variant="pxap") == pytest.approx(joined)


@pytest.mark.parametrize("variant", ["v2", "v1", "pxap"])
def test_resampled_means_are_judged_one_by_one_and_images_without_boxes_do_not_count(variant):
    rng = np.random.default_rng(0)
    maps = rng.random((4, 6, 7))
    boxes = [np.array([[0, 0, 4, 4.0]]), None, np.array([[2, 2, 6, 5.0]]), np.array([[1, 1, 7, 6.0]])]
    metric = resolve("max_box_acc_v2")
    chosen, full = validate(metric, variant, {"step": 0.05})
    found = metric.values(laid_out(maps, Ground(boxes=boxes)), variant=chosen, **full)
    assert found["max_box_acc_v2"][1] == 0 and found["max_box_acc_v2.counts"].tolist() == [1, 0, 1, 1]
    picks = rng.integers(0, 4, (2, 3, 4))
    together = metric.overall({k: v[picks].mean(2) for k, v in found.items()}, variant=chosen, **full)["max_box_acc_v2"]
    for i, j in np.ndindex(2, 3):
        kept = [k for k in picks[i, j] if k != 1]
        if not kept:
            assert np.isnan(together[i, j])
            continue
        alone = max_box_acc_v2(maps[kept], [boxes[k] for k in kept], variant=variant, step=0.05)
        assert together[i, j] == pytest.approx(alone)


def test_localisation_by_hand():
    heat = np.zeros((1, 5, 5))
    heat[0, 0:3, 0:3] = 0.8
    heat[0, 4, 4] = 1.0
    assert localisation_error(heat, [[0, 0, 3, 3]]).tolist() == [0.0]
    assert localisation_error(heat, [[0, 0, 3, 6]]).tolist() == [0.0]  # clipped: 9 of 15
    assert localisation_error(heat, [[0, 0, 3, 3]], variant="official-short").tolist() == [1.0]  # 4 of 9
    assert localisation_error(heat, [[[3, 3, 5, 5], [0, 0, 3, 4]]]).tolist() == [0.0]  # the best of two, 9 of 12
    assert localisation_error(heat, masks=[heat[0] == 0.8]).tolist() == [0.0]
    half = np.zeros((1, 4, 4))
    half[0, 0, 0:2] = 1.0
    assert localisation_error(half, [[0, 0, 4, 1]]).tolist() == [1.0]  # an IoU of just 0.5 is none
    assert localisation_error(np.full((1, 5, 5), 0.5), [[0, 0, 5, 5]]).tolist() == [1.0]


def test_f1_is_of_the_maps_energy():
    heat = np.array([[[0.9, 0.8], [0.0, 0.3]]])
    _, overall = values("localisation_error", laid_out(heat, Ground(boxes=[np.array([[0, 0, 2, 1], [1, 1, 2, 2]])])))
    # first box: 1.7 of 2 and 1.7 of 2 pixels; second: 0.3 of 2 and 0.3 of 1 pixel, 2 * .15 * .3 / .45 = .2
    assert overall["localisation_error.f1"] == pytest.approx(0.85)
    assert overall["localisation_error.f1a"] == pytest.approx((0.85 + 0.2) / 2)
    empty, _ = values("localisation_error", laid_out(np.zeros((1, 2, 2)), Ground(boxes=[np.array([[0, 0, 1, 1]])])))
    assert empty["localisation_error.f1"].tolist() == [0.0] and empty["localisation_error"].tolist() == [1.0]


def test_om_also_wants_the_prediction_right_and_is_never_below_le():
    heat = np.stack([np.pad(np.ones((2, 2)), ((0, 2), (0, 2)))] * 6)
    boxes = [np.array([[0, 0, 2, 2]])] * 4 + [np.array([[2, 2, 4, 4]]), None]
    hit = np.array([True, False, True, True, True, True])
    labels = np.array([3, 3, 0, -1, 3, 3])  # right; not predicted; another label; unknown; box misses; no box
    scores = {Clean(): Scores(np.zeros(6), np.zeros(6), hit)}
    case = laid_out(heat, Ground(boxes=boxes, labels=labels), scores, classes=[3] * 6)
    found, overall = values("localisation_error", case)
    assert found["localisation_error"].tolist() == [0, 0, 0, 0, 1, 0]
    assert found["localisation_error.om"].tolist() == [0, 1, 1, 0, 1, 0]
    assert overall["localisation_error"] == pytest.approx(1 / 5) and overall["localisation_error.om"] == pytest.approx(
        3 / 5
    )


@given(
    arrays(np.float64, (5, 6, 7), elements=st.floats(0, 1, width=16)), st.lists(st.booleans(), min_size=5, max_size=5)
)
@settings(max_examples=30, deadline=None)
def test_le_is_at_most_om_and_f1a_at_most_f1(maps, hit):
    scores = {Clean(): Scores(np.zeros(5), np.zeros(5), np.array(hit))}
    goals = Ground(boxes=[np.array([[1, 1, 6, 5], [0, 0, 3, 3]])] * 5)
    found, _ = values("localisation_error", laid_out(maps, goals, scores))
    assert (found["localisation_error"] <= found["localisation_error.om"]).all()
    assert (found["localisation_error.f1a"] <= found["localisation_error.f1"]).all()
    assert (found["localisation_error.f1"] <= 1).all()


WEIGHTS = np.random.default_rng(3).normal(size=(3 * 10 * 10, 4)) * 0.1


def logits(x):
    """Return linear scores."""
    return x.reshape(len(x), -1) @ WEIGHTS


def log_p(x, classes):
    """Return log softmax of a class."""
    scores = logits(x)
    return (scores - np.logaddexp.reduce(scores, axis=1, keepdims=True))[np.arange(len(x)), classes]


def test_the_saliency_metric_is_log_area_less_log_p_of_the_crop():
    x = np.random.default_rng(4).normal(size=(3, 3, 10, 10))
    heat = np.zeros((3, 10, 10))
    heat[0, 2:6, 3:9] = 0.7
    heat[1, 4, 4] = 1.0
    classes = np.array([1, 0, 3])
    crops = [(3, 2, 9, 6), (4, 4, 5, 5), (0, 0, 10, 10)]
    asked = np.stack([crop_and_resize(row, box) for row, box in zip(x, crops, strict=True)])
    want = np.log([0.24, 0.05, 1.0]) - log_p(asked, classes)  # one pixel of a hundred counts as a twentieth
    np.testing.assert_allclose(saliency_metric(logits, x, heat, classes), want, rtol=1e-6)


def test_the_saliency_metric_of_the_whole_picture_is_minus_log_p():
    x = np.random.default_rng(5).normal(size=(2, 3, 10, 10))
    classes = logits(x).argmax(1)
    framed = np.zeros((10, 10))
    framed[0], framed[-1], framed[:, 0] = 1, 1, 1  # its box is the whole picture, and so is a constant map's
    heat = np.stack([framed, np.full((10, 10), 0.5)])
    np.testing.assert_allclose(saliency_metric(logits, x, heat), -log_p(x, classes), rtol=1e-6)


def test_the_saliency_metric_asks_for_one_crop_and_reports_its_area():
    metric = resolve("saliency metric")
    assert metric.changes((10, 10), variant="casme") == (Cropped(),)
    heat = np.zeros((1, 4, 5))
    heat[0, 1:3, 1:3] = 1
    case = laid_out(heat, Ground(), {Cropped(): Scores(np.log([0.5]), np.log([0.5]), np.array([True]))})
    found = metric.values(case, variant="casme")
    assert found["saliency_metric.area"].tolist() == [0.2]
    assert found["saliency_metric"] == pytest.approx(np.log(0.2 / 0.5))


@pytest.mark.parametrize("metric", [max_box_acc_v2, localisation_error])
def test_bad_maps_and_boxes_are_refused(metric):
    heat = np.eye(4)[None]
    with pytest.raises(ShapeError, match="x0 < x1"):
        metric(heat, [[3, 0, 3, 2]])
    with pytest.raises(ShapeError, match="as large as its heatmap"):
        metric(heat, masks=[np.ones((3, 4))])
    with pytest.raises(InputError, match="image 0 has none"):
        metric(heat, [[7, 7, 9, 9]])
    with pytest.raises(NumericError, match="lie in"):
        metric(heat * 2, [[0, 0, 3, 2]])
    with pytest.raises(MethodError, match="no variant"):
        metric(heat, [[0, 0, 3, 2]], variant="v7")
