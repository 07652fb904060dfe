"""Intersection over union: by hand, by its identities, and at the best threshold of a data set."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from camrt.errors import InputError, MethodError, ShapeError
from camrt.metrics import resolve, validate
from camrt.metrics.case import Case, Ground
from camrt.metrics.overlap import iou

HEAT = np.array([[0.9, 0.6, 0.0], [0.3, 0.0, 0.0], [0.0, 0.0, 0.0]])
MASK = np.array([[1, 0, 0], [1, 0, 0], [1, 0, 0]], bool)
MAPS = arrays(np.float64, (2, 4, 5), elements=st.floats(0, 1, width=16))
MASKS = arrays(np.bool_, (2, 4, 5)).filter(lambda masks: masks.any((1, 2)).all())


def values(heat, ground, variant=None, **options):
    """Return what the row gives, and the fields over the data set."""
    metric = resolve("iou")
    chosen, full = validate(metric, variant, options)
    n = len(heat)
    case = Case(heat, np.zeros(n, bool), np.zeros(n, np.int64), np.zeros(n, np.uint64), heat[:, None], ground=ground)
    found = metric.values(case, variant=chosen, **full)
    return found, metric.overall({key: value.mean(0) for key, value in found.items()}, variant=chosen, **full)


def test_by_hand():
    # above the mean, 0.2: three pixels, two of the mask's three
    found, overall = values(HEAT[None], Ground(masks=[MASK]))
    assert iou(HEAT, masks=[MASK]).tolist() == [2 / 4] and overall["iou"] == 0.5
    assert overall["iou.f1"] == pytest.approx(2 * 2 / 6)
    assert overall["iou.miou"] == pytest.approx((2 / 4 + 5 / 7) / 2)  # five are of neither, seven not of both
    assert overall["iou.threshold"] == pytest.approx(0.2)
    assert [overall[f"iou.loc_i_{d}"] for d in (0, 25, 50)] == [2 / 4, 2 / 4, 1 / 4]
    assert iou(HEAT, masks=[MASK], variant="fixed", tau=0.6).tolist() == [1 / 3]  # strictly above: 0.9 alone
    assert found["iou.counts"].tolist() == [1.0]


def test_boxes_will_do_and_loc_i_prefers_them():
    assert iou(HEAT, [[0, 0, 2, 1]]).tolist() == [2 / 3]
    _, overall = values(HEAT[None], Ground(masks=[MASK], boxes=[np.array([[0, 0, 2, 1]])]))
    assert overall["iou"] == 0.5 and overall["iou.loc_i_50"] == 1.0


def test_ignored_pixels_are_neither_object_nor_background():
    ignored = np.zeros((3, 3), bool)
    ignored[0, 1] = ignored[2] = True
    _, overall = values(HEAT[None], Ground(masks=[MASK], ignored=[ignored]))
    assert overall["iou"] == 1.0 and overall["iou.miou"] == 1.0
    _, overall = values(HEAT[None], Ground(masks=[MASK], ignored=[ignored]), "best")
    assert overall["iou"] == 1.0 and overall["iou.miou"] == 1.0


@given(MAPS, MASKS, st.sampled_from([0.0, 0.25, 0.5]))
@settings(max_examples=50, deadline=None)
def test_identities(maps, masks, tau):
    ground = Ground(masks=list(masks))
    fixed, _ = values(maps, ground, "fixed", tau=tau)
    np.testing.assert_allclose(fixed["iou.f1"], 2 * fixed["iou"] / (1 + fixed["iou"]))
    np.testing.assert_array_equal(fixed["iou"], fixed[f"iou.loc_i_{round(100 * tau)}"])
    best, overall = values(maps, ground, "best")
    assert (best["iou"] >= fixed["iou"]).all()
    assert best["iou"].mean() >= overall["iou"] >= fixed["iou"].mean()
    for name in ("iou", "iou.f1", "iou.miou"):  # the curve at tau is the fixed variant
        np.testing.assert_allclose(
            best[{"iou": "iou.curve"}.get(name, f"{name}_curve")][:, round(1000 * tau)], fixed[name]
        )
    used = overall["iou.threshold"]
    np.testing.assert_allclose(values(maps, ground, "fixed", tau=used)[1]["iou"], overall["iou"])
    np.testing.assert_allclose(values(maps, ground, "fixed", tau=used)[1]["iou.miou"], overall["iou.miou"])


@given(MAPS, MASKS)
@settings(max_examples=30, deadline=None)
def test_the_mean_threshold_does_not_care_for_scale(maps, masks):
    np.testing.assert_array_equal(iou(maps, masks=list(masks)), iou(maps / 2, masks=list(masks)))


@pytest.mark.parametrize("variant", ["mean-threshold", "fixed", "best"])
@pytest.mark.parametrize("value", [0.0, 0.1, 1.0])
def test_a_constant_map_covers_nothing_and_a_mask_covers_itself(variant, value):
    flat = np.full((30, 30), value, np.float32)
    mask = np.zeros((30, 30), bool)
    mask[3:9] = True
    _, overall = values(flat[None], Ground(masks=[mask]), variant)
    assert [overall[f"iou{name}"] for name in ("", ".f1", ".loc_i_0", ".loc_i_50")] == [0.0] * 4
    assert overall["iou.miou"] == pytest.approx(24 / 30 / 2)  # the background is right where the mask is not
    _, overall = values(mask[None].astype(float), Ground(masks=[mask]), variant)
    assert overall["iou"] == overall["iou.miou"] == overall["iou.f1"] == 1.0


def test_a_whole_picture_has_no_background():
    heat = np.ones((1, 2, 2))
    heat[0, 0, 0] = 0.9
    _, overall = values(heat, Ground(masks=[np.ones((2, 2))]), "fixed", tau=0.5)
    assert overall["iou"] == overall["iou.miou"] == 1.0


@pytest.mark.parametrize("variant", ["mean-threshold", "fixed", "best"])
def test_resampled_means_are_judged_one_by_one_and_unknown_images_do_not_count(variant):
    rng = np.random.default_rng(0)
    maps, masks = rng.random((4, 5, 5)), [rng.random((5, 5)) < 0.4, None, rng.random((5, 5)) < 0.4, np.zeros((5, 5))]
    metric = resolve("iou")
    found, overall = values(maps, Ground(masks=masks), variant)
    assert found["iou.counts"].tolist() == [1, 0, 1, 0] and not found["iou"][[1, 3]].any()
    _, wanted = values(maps[[0, 2]], Ground(masks=[masks[0], masks[2]]), variant)
    for name, value in wanted.items():
        np.testing.assert_allclose(overall[name], value)
    picks = np.array([[0, 0, 1, 2], [2, 2, 2, 3], [1, 3, 1, 3]])
    together = metric.overall({k: v[picks].mean(1) for k, v in found.items()}, variant=variant, tau=0.5)
    for row, expected in ((0, [0, 0, 2]), (1, [2, 2, 2])):
        _, one = values(maps[expected], Ground(masks=[masks[k] for k in expected]), variant)
        for name, value in one.items():
            np.testing.assert_allclose(together[name][row], value)
    assert all(np.isnan(together[field.name][2]) for field in metric.fields)


def test_the_best_threshold_is_one_for_all_images():
    maps = np.array([[[0.9, 0.8, 0.1]], [[0.3, 0.2, 0.0]]])
    masks = [np.array([[1, 0, 0]]), np.array([[1, 0, 0]])]
    found, overall = values(maps, Ground(masks=masks), "best")
    assert found["iou"].tolist() == [1.0, 1.0]
    assert overall["iou"] == 0.75 and overall["iou.threshold"] == pytest.approx(0.2)  # the other two: 1/2 and 1


def test_bad_input_is_refused():
    with pytest.raises(ShapeError, match="as large as its heatmap"):
        iou(HEAT, masks=[MASK[:2]])
    with pytest.raises(InputError, match="image 0 has none"):
        iou(HEAT, masks=[np.zeros((3, 3))])
    with pytest.raises(MethodError, match="at most 1"):
        iou(HEAT, masks=[MASK], variant="fixed", tau=2)
