"""Grad-CAM: channels weighted by their mean gradient."""

from __future__ import annotations

import numpy as np

from camrt.methods import resolve
from tests.engine.methods.heads import evidence, make_acts, make_head, raw


def test_the_map_is_written_out_by_hand():
    acts = np.array([[[[1.0, 2.0]], [[3.0, 0.0]]]])
    grads = np.array([[[[2.0, 4.0]], [[-1.0, 0.0]]]])  # means 3 and -0.5
    np.testing.assert_allclose(raw("gradcam", {"acts": acts, "grads": grads}), [[[3 - 1.5, 6.0]]])


def test_under_a_gap_head_it_is_cam_over_the_number_of_cells(rng):
    given = evidence(make_head("gap", rng), make_acts(rng))
    np.testing.assert_allclose(raw("gradcam", given), raw("cam", given) / 20, atol=1e-12)


def test_under_a_flattened_head_its_sum_is_not_the_logit(rng):
    head, acts = make_head("flatten", rng), make_acts(rng)
    given = evidence(head, acts)
    target = given["target"]
    gap = raw("gradcam", given).sum((1, 2)) - (given["logits"][range(3), target] - head.bias[target])
    assert (abs(gap) > 1e-3).all()


def test_captum_has_the_same_raw_map_and_no_relu(rng):
    given = evidence(make_head("two-layer", rng), make_acts(rng))
    np.testing.assert_array_equal(raw("gradcam", given), raw("gradcam", given, "captum"))
    assert resolve("gradcam").relu_of("paper")
    assert not resolve("gradcam").relu_of("captum")
