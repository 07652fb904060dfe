"""Grad-CAM++: every definition against its formula written out, and the closed forms under a GAP head."""

from __future__ import annotations

import numpy as np
import pytest

from camrt.methods import METHODS
from camrt.methods.gradcampp import VARIANTS, gradcampp, ratio
from tests.engine.methods.heads import evidence, make_acts, make_head, raw


@pytest.fixture
def given(rng):
    return evidence(make_head("two-layer", rng), make_acts(rng))


def by_hand(acts, grads, denominator, reduce=np.sum, relu=True):
    """Evaluate sum alpha relu(g) with alpha = g^2 / denominator in the naive form, cell by cell."""
    images, channels = acts.shape[:2]
    weights = np.zeros((images, channels))
    for n in range(images):
        for k in range(channels):
            terms = []
            for g in grads[n, k].ravel():
                below = denominator(g, acts[n, k], grads[n, k])
                terms.append(g**2 / below * (max(g, 0) if relu else g) if g != 0 else 0.0)
            weights[n, k] = reduce(terms)
    return weights


DENOMINATORS = {
    "paper": lambda g, a, gs: 2 * g**2 + g**3 * a.sum(),
    "no-relu": lambda g, a, gs: 2 * g**2 + g**3 * a.sum(),
    "pytorch-grad-cam": lambda g, a, gs: 2 * g**2 + g**3 * a.sum() + 1e-6,
    "cube-inside": lambda g, a, gs: 2 * g**2 + (a * gs**3).sum(),
    "torchcam": lambda g, a, gs: 1.0,
    "xplique": lambda g, a, gs: 2 * g**2 + g**3 * a.mean(),
}


@pytest.mark.parametrize("variant", DENOMINATORS)
def test_weights_equal_the_naive_formula(given, variant):
    reduce = np.mean if variant == "xplique" else np.sum
    expected = by_hand(given["acts"], given["grads"], DENOMINATORS[variant], reduce, relu=variant != "no-relu")
    np.testing.assert_allclose(gradcampp(given["acts"], given["grads"], variant=variant), expected, rtol=1e-9)


@pytest.mark.parametrize("variant", ["official", "tf-keras-vis"])
def test_normalised_weights_equal_the_naive_formula(given, variant):
    acts, grads = given["acts"], given["grads"]
    below = 2 * grads**2 + grads**3 * acts.sum((2, 3), keepdims=True)
    alpha = grads**2 / np.where(below == 0, 1, below)
    over = np.where(grads > 0, alpha, 0) if variant == "official" else alpha
    norm = over.sum((2, 3), keepdims=True)
    expected = (alpha / np.where(norm == 0, 1, norm) * np.maximum(grads, 0)).sum((2, 3))
    np.testing.assert_allclose(gradcampp(acts, grads, variant=variant), expected, rtol=1e-9)


def test_the_variants_are_all_covered():
    assert set(VARIANTS) == {*DENOMINATORS, "official", "tf-keras-vis"}
    assert METHODS["gradcampp"].variants[0] == "paper"


def gap_weights(rng):
    head, acts = make_head("gap", rng), make_acts(rng)
    given = evidence(head, acts)
    return given["acts"], given["grads"], head.weight[given["target"]]


def test_under_a_gap_head_the_paper_s_weights_have_a_closed_form(rng):
    acts, grads, head = gap_weights(rng)
    expected = np.maximum(head, 0) / (2 + head * acts.mean((2, 3)))
    np.testing.assert_allclose(gradcampp(acts, grads), expected, atol=1e-12)


def test_under_a_gap_head_the_official_weights_are_the_positive_head(rng):
    acts, grads, head = gap_weights(rng)
    np.testing.assert_allclose(gradcampp(acts, grads, variant="official"), np.maximum(head, 0) / 20, atol=1e-12)


def test_under_a_gap_head_the_cube_may_stand_inside_or_outside(rng):
    acts, grads, _ = gap_weights(rng)
    np.testing.assert_allclose(gradcampp(acts, grads, variant="cube-inside"), gradcampp(acts, grads), atol=1e-12)


def test_elsewhere_the_cube_s_place_matters(given):
    inside = gradcampp(given["acts"], given["grads"], variant="cube-inside")
    assert abs(inside - gradcampp(given["acts"], given["grads"])).max() > 1e-3


def test_under_a_gap_head_torchcam_cubes_the_head(rng):
    acts, grads, head = gap_weights(rng)
    expected = np.maximum(head, 0) ** 3 / 20**2
    np.testing.assert_allclose(gradcampp(acts, grads, variant="torchcam"), expected, atol=1e-12)


def test_the_eps_of_pytorch_grad_cam_reweighs_small_gradients():
    acts = np.ones((1, 2, 1, 2))
    grads = np.array([1e-4, 1e-2]).reshape(1, 2, 1, 1) * np.ones((1, 2, 1, 2))
    plain = gradcampp(acts, grads)
    shifted = gradcampp(acts, grads, variant="pytorch-grad-cam")
    small, large = (shifted / plain)[0]
    assert small < 0.1
    assert large > 0.9


def test_a_cell_whose_denominator_cancels_contributes_nothing():
    grads = np.full((1, 1, 1, 2), 1.0)
    acts = np.array([-1.0, -1.0 - 1e-9]).reshape(1, 1, 1, 2)  # 2 + g sum(A) = -1e-9 of terms of size 4
    for variant in ("paper", "no-relu", "cube-inside"):
        np.testing.assert_array_equal(gradcampp(acts, grads, variant=variant), [[0.0]])


def test_a_denominator_of_exactly_zero_is_replaced_by_one_in_the_official_code():
    grads, acts = np.full((1, 1, 1, 2), 0.5), np.full((1, 1, 1, 2), -2.0)
    np.testing.assert_allclose(gradcampp(acts, grads, variant="official"), [[0.5]])  # alpha = g^2, normalised to 1/2


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_gradient_weighs_nothing(rng, variant):
    acts = make_acts(rng)
    np.testing.assert_array_equal(gradcampp(acts, np.zeros_like(acts), variant=variant), np.zeros((3, 6)))


def test_the_stable_form_survives_gradients_whose_square_underflows(rng):
    acts = make_acts(rng).astype(np.float32)
    small = np.full_like(acts, 1e-25)
    np.testing.assert_allclose(gradcampp(acts, small), np.full((3, 6), 20 * 1e-25 / 2), rtol=1e-5)


def test_the_map_is_the_weighted_sum(given):
    weights = gradcampp(given["acts"], given["grads"])
    np.testing.assert_allclose(raw("gradcampp", given), np.einsum("nk,nkhw->nhw", weights, given["acts"]), atol=1e-12)


def test_ratio_is_zero_where_the_terms_cancel():
    got = ratio(np.ones(4), np.array([1.0, 1.0, 0.0, 2.0]), np.array([1.0, -1.0, 0.0, -2.0 - 1e-7]))
    np.testing.assert_array_equal(got, [0.5, 0, 0, 0])
