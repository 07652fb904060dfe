"""Poly-CAM: loops over masked images, percentiles and the fusion by hand, and the layers an explainer takes."""

from __future__ import annotations

import numpy as np
import pytest

from camrt.fuse import fuse_layers
from camrt.kernels import resize
from camrt.methods import resolve
from camrt.methods.polycam import fuse_polycam, scaled_by_percentiles
from camrt.pipeline import PIPELINES
from tests.engine.methods.heads import CLASSES, K, input_evidence, make_head, make_stem, raw
from tests.engine.methods.masked import masked_evidence

SIZE = (8, 10)


@pytest.fixture
def setting(rng):
    """Return a forward pass, images, targets and the evidence of both."""
    stem, head = make_stem(rng, pooled=True), make_head("two-layer", rng)
    x, target = rng.normal(size=(3, 3, *SIZE)), np.array([2, 0, 5])
    return lambda images: head.logits(stem.acts(images)), x, target, input_evidence(stem, head, x, target)


def by_hand(setting, variant, channels=K):
    """Return the map of the first channels, one masked image after the other."""
    forward, x, target, given = setting

    def score(image, n):
        odds = np.exp(forward(image[None])[0])
        return odds[target[n]] / odds.sum()

    total = np.zeros((len(x), *given["acts"].shape[2:]))
    for n, image in enumerate(x):
        for act in given["acts"][n, :channels]:
            low, high = np.percentile(act, [0.1, 99.9])
            if high <= 0:
                continue
            mask = resize(np.clip((act - low) / high, 0, 1)[None], SIZE)[0]
            shown, drop = score(image * mask, n), score(image, n) - score(image * (1 - mask), n)
            total[n] += {"p": shown, "m": max(drop, 0), "pm": max(shown + drop, 0)}[variant] * act
    return total


@pytest.mark.parametrize("variant", ["pm", "p", "m"])
def test_weights_are_those_of_a_loop_over_masked_images(setting, variant):
    np.testing.assert_allclose(raw("polycam", setting[3], variant), by_hand(setting, variant), atol=1e-9)


def test_the_default_is_both_what_is_shown_and_what_is_hidden():
    assert resolve("Poly-CAM").variants[0] == "pm"


def test_percentiles_scale_a_channel_by_hand():
    act = np.arange(-1.0, 3.0, 0.002).reshape(
        1, 1, 40, 50
    )  # 2000 values: the percentiles lie at places 1.999 and 1997.001
    low, high = -1 + 0.002 * 1.999, -1 + 0.002 * 1997.001
    want = np.minimum(np.maximum((act - low) / high, 0), 1)
    np.testing.assert_allclose(scaled_by_percentiles(act), want, atol=1e-12)
    assert want.max() == 1
    assert scaled_by_percentiles(act)[0, 0, 0, 0] == 0


@pytest.mark.parametrize("value", [0.0, -2.0, 3.0])
def test_a_channel_without_contrast_weighs_nothing_and_is_never_run(setting, value):
    given, asked = setting[3], []

    def masked_of(masks):
        asked.append(masks.only)
        return given["masked_of"](masks)

    acts = given["acts"].copy()
    acts[:, 1] = value
    made = raw("polycam", {**given, "acts": acts, "masked_of": masked_of})
    without = acts.copy()
    without[:, 1] = 0
    np.testing.assert_allclose(made, raw("polycam", {**given, "acts": without}), atol=1e-12)
    assert not any(only[:, 1].any() for only in asked)
    assert np.isfinite(made).all()


def test_channels_whose_masks_were_not_run_weigh_nothing(setting, rng):
    forward, x, target, given = setting
    acts = rng.uniform(0.1, 1, given["acts"].shape)  # every channel has a mask
    setting = forward, x, target, {**given, "acts": acts}
    some = {**setting[3], **masked_evidence(x, forward, target, budget=K + 2)}
    np.testing.assert_allclose(raw("polycam", some), by_hand(setting, "pm", channels=2), atol=1e-9)
    none = {**setting[3], **masked_evidence(x, forward, target, budget=0)}
    assert not raw("polycam", none).any()


def test_the_score_is_a_probability_of_the_target(setting):
    forward, x, target, given = setting
    shifted = masked_evidence(x, lambda images: forward(images) + 3.0, target)
    moved = {**given, **shifted, "logits": given["logits"] + 3.0}
    np.testing.assert_allclose(raw("polycam", moved), raw("polycam", given), atol=1e-12)
    other = {**given, **masked_evidence(x, forward, (target + 1) % CLASSES)}
    assert abs(raw("polycam", other) - raw("polycam", given)).max() > 1e-6


# ----- several layers -----


def test_one_layer_is_its_own_map(rng):
    raws = rng.normal(size=(2, 4, 5))
    np.testing.assert_array_equal(fuse_polycam([raws]), np.maximum(raws, 0))


def test_two_layers_by_hand():
    """The mean of [[4,0],[0,0]] is 1, so that LNorm is the map itself, and the deep map's 3 multiplies it."""
    fine, deep = np.array([[[4.0, 0.0], [0.0, -9.0]]]), np.array([[[3.0]]])
    np.testing.assert_allclose(fuse_polycam([fine, deep]), [[[12.0, 0.0], [0.0, 0.0]]])


def test_three_layers_by_hand():
    """Each pair of a row is divided by its mean, resized from the pairs' means; the deepest map weighs left and right."""
    deep, middle = np.array([[[1.0, 2.0]]]), np.array([[[1.0, 3.0, 5.0, 5.0]]])
    fine = np.array([[[2.0, 2.0, 2.0, 2.0, 0.0, 0.0, 7.0, 7.0]]])
    smooth = np.array([2.0, 2.75, 4.25, 5.0])  # the pairs' means, 2 and 5, resized to four
    second = middle[0, 0] / smooth * [1.0, 1.25, 1.75, 2.0]
    means = np.array([2.0, 2.0, 0.0, 7.0])
    place = np.clip((np.arange(8) + 0.5) / 2 - 0.5, 0, 3)
    factors = [np.interp(place, np.arange(4), row) for row in (means, second)]
    want = np.divide(fine[0, 0], factors[0], out=np.zeros(8), where=factors[0] > 0) * factors[1]
    np.testing.assert_allclose(fuse_polycam([fine, middle, deep])[0, 0], want, atol=1e-12)


def test_nothing_is_found_where_a_layer_is_dead_nearby(rng):
    fine, deep = rng.uniform(1, 2, (1, 8, 8)), np.ones((1, 4, 4))
    fine[0, :, :4] = 0
    made = fuse_polycam([fine, deep])
    assert np.isfinite(made).all()
    assert not made[0, :, :4].any()
    assert made[0, :, 4:].all()
    assert not fuse_polycam([np.zeros((1, 8, 8)), deep]).any()


def test_a_layer_adds_detail_and_no_scale(rng):
    fine, deep = rng.uniform(size=(2, 8, 10)), rng.uniform(size=(2, 4, 5))
    np.testing.assert_allclose(fuse_polycam([7.0 * fine, deep]), fuse_polycam([fine, deep]), atol=1e-12)
    np.testing.assert_allclose(fuse_polycam([np.ones_like(fine), deep]), resize(deep, (8, 10)), atol=1e-12)


def test_the_pipeline_fuses_raw_maps(rng):
    raws = [rng.normal(size=(2, 8, 10)), rng.normal(size=(2, 4, 5))]
    heat, _ = fuse_layers(raws, (16, 20), PIPELINES["camrt"], how=resolve("polycam").fuse_of("pm"))
    want = PIPELINES["camrt"](fuse_polycam(raws), (16, 20), True)[0]
    np.testing.assert_allclose(heat, want, atol=1e-12)
