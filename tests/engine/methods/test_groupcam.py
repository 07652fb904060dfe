"""Group-CAM: a loop over blended images, the Grad-CAM identity, groups by hand, and what is left out."""

from __future__ import annotations

import numpy as np
import pytest

from camrt.kernels import gaussian_blur, resize
from camrt.methods.clustering import kmeans, ward
from tests.engine.methods.heads import CLASSES, K, input_evidence, make_head, make_stem, raw
from tests.engine.methods.masked import masked_evidence

BLUR = {"blur_size": 5, "blur_sigma": 2.0}


@pytest.fixture
def setting(rng):
    """Return a forward pass, images, targets and the evidence of both."""
    stem, head = make_stem(rng, pooled=True), make_head("two-layer", rng)
    x, target = rng.normal(size=(3, 3, 8, 10)), np.array([2, 0, 5])
    return lambda images: head.logits(stem.acts(images)), x, target, input_evidence(stem, head, x, target)


def softmax(logits):
    """Return probabilities."""
    odds = np.exp(logits - logits.max(1, keepdims=True))
    return odds / odds.sum(1, keepdims=True)


def group_maps(given, labels):
    """Return each group's sum of weighted channels, cut at zero."""
    weighted = given["grads"].mean((2, 3))[:, :, None, None] * given["acts"]
    return np.stack(
        [
            [np.maximum(w[row == g].sum(0), 0) for g in range(row.max() + 1)]
            for w, row in zip(weighted, labels, strict=True)
        ]
    )


def by_hand(setting, maps):
    """Blend, score and sum one group after the other; also return every gain before the cut."""
    forward, x, target, _ = setting
    total, gains = np.zeros((len(x), *maps.shape[2:])), np.zeros(maps.shape[:2])
    for n in range(len(x)):
        blurred = gaussian_blur(x[[n]], 5, 2.0)
        floor = softmax(forward(blurred))[0, target[n]]
        for g, small in enumerate(maps[n]):
            mask = resize(small[None], (8, 10))[0]
            if mask.max() == mask.min():
                continue
            mask = (mask - mask.min()) / (mask.max() - mask.min())
            gains[n, g] = softmax(forward(x[[n]] * mask + blurred * (1 - mask)))[0, target[n]] - floor
            total[n] += max(gains[n, g], 0) * small
    return total, gains


LABELS = {
    "official": lambda rows: np.array([0, 0, 1, 1, 2, 2]),
    "kmeans": lambda rows: kmeans(rows, 3, 0),
    "agglomerative": lambda rows: ward(rows, 3),
}


@pytest.mark.parametrize("variant", LABELS)
def test_the_map_is_that_of_a_loop_over_blended_images(setting, variant):
    given = setting[3]
    weighted = given["grads"].mean((2, 3))[:, :, None, None] * given["acts"]
    labels = np.stack([LABELS[variant](rows) for rows in weighted.reshape(3, K, -1)])
    want, gains = by_hand(setting, group_maps(given, labels))
    np.testing.assert_allclose(raw("groupcam", given, variant, groups=3, **BLUR), want, atol=1e-9)
    assert (gains < 0).any()
    assert (gains > 0).any()


def recorded(given):
    """Return the evidence with a list that receives the maps that masks are asked of."""
    asked = []

    def masked_of(masks):
        asked.append(masks.maps)
        return given["masked_of"](masks)

    return {**given, "masked_of": masked_of}, asked


def test_one_group_masks_by_the_grad_cam_map(setting):
    given, asked = recorded(setting[3])
    made = raw("groupcam", given, groups=1, **BLUR)
    gradcam = np.maximum(raw("gradcam", given), 0)
    np.testing.assert_allclose(asked[-1][:, 0], gradcam, atol=1e-12)
    rewards = by_hand(setting, gradcam[:, None])[1].clip(0)
    np.testing.assert_allclose(made, rewards[:, :, None] * gradcam, atol=1e-9)


@pytest.mark.parametrize(("groups", "sizes"), [(1, [6]), (2, [3, 3]), (4, [2, 1, 2, 1]), (6, [1] * 6), (32, [1] * 6)])
def test_neighbours_make_groups_as_equal_as_possible_and_never_more_than_channels(setting, groups, sizes):
    given, asked = recorded(setting[3])
    raw("groupcam", given, groups=groups, **BLUR)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    np.testing.assert_allclose(asked[-1], group_maps(given, np.stack([labels] * 3)), atol=1e-12)


def test_a_dead_group_counts_for_nothing(setting):
    given = dict(setting[3])
    given["acts"] = given["acts"].copy()
    given["acts"][:, :2] = 0
    want = by_hand(setting, group_maps(given, np.stack([np.array([0, 0, 1, 1, 2, 2])] * 3)))[0]
    np.testing.assert_allclose(raw("groupcam", given, groups=3, **BLUR), want, atol=1e-9)
    given["acts"][:] = 0
    assert not raw("groupcam", given, groups=3, **BLUR).any()


def test_groups_that_were_not_run_count_for_nothing(setting):
    forward, x, target, given = setting
    some = {**given, **masked_evidence(x, forward, target, budget=3)}  # the blurred image and two groups
    maps = group_maps(given, np.stack([np.arange(K) // 2] * 3))
    first = np.cumsum(maps.any((2, 3)), axis=1) <= 2  # a dead group takes no run
    want = by_hand(setting, maps * first[:, :, None, None])[0]
    np.testing.assert_allclose(raw("groupcam", some, groups=3, **BLUR), want, atol=1e-9)
    none = {**given, **masked_evidence(x, forward, target, budget=0)}
    assert not raw("groupcam", none, groups=3, **BLUR).any()


def test_denoising_sets_a_group_s_lower_values_to_zero(setting):
    given = setting[3]
    maps = group_maps(given, np.stack([np.arange(K) // 2] * 3))
    cut = np.percentile(maps, 70, axis=(2, 3), keepdims=True)
    want = by_hand(setting, np.where(maps > cut, maps, 0))[0]
    np.testing.assert_allclose(raw("groupcam", given, groups=3, denoise=70, **BLUR), want, atol=1e-9)


def test_clusters_do_not_depend_on_the_order_of_channels_but_neighbours_do(setting, rng):
    given, order = setting[3], rng.permutation(K)
    turned = {**given, "acts": given["acts"][:, order], "grads": given["grads"][:, order]}
    one, two = (raw("groupcam", g, "agglomerative", groups=3, **BLUR) for g in (given, turned))
    np.testing.assert_allclose(one, two, atol=1e-9)
    one, two = (raw("groupcam", g, groups=3, **BLUR) for g in (given, turned))
    assert abs(one - two).max() > 1e-6


def test_scores_are_the_target_s_own(setting):
    forward, x, target, given = setting
    others = (target + 1) % CLASSES
    other = {**given, **masked_evidence(x, forward, others)}
    assert abs(raw("groupcam", given, groups=3, **BLUR) - raw("groupcam", other, groups=3, **BLUR)).max() > 1e-6
