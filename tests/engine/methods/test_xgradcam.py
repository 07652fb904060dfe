"""XGrad-CAM: activation-weighted mean gradients."""

from __future__ import annotations

import numpy as np
import pytest

from camrt.methods.xgradcam import xgradcam
from tests.engine.methods.heads import evidence, make_acts, make_head, raw, run


def test_weights_are_written_out_by_hand():
    acts, grads = np.array([[[[1.0, 3.0]]]]), np.array([[[[2.0, 4.0]]]])
    np.testing.assert_allclose(xgradcam(acts, grads).array, [[(1 * 2 + 3 * 4) / 4]])


@pytest.mark.parametrize("kind", ["gap", "flatten", "two-layer"])
def test_the_map_sums_to_gradient_times_activation(rng, kind):
    given = evidence(make_head(kind, rng), make_acts(rng))
    expected = (given["grads"] * given["acts"]).sum((1, 2, 3))
    np.testing.assert_allclose(raw("xgradcam", given).sum((1, 2)), expected, atol=1e-10)


def test_under_a_linear_head_the_map_sums_to_the_logit_less_its_bias(rng):
    head, acts = make_head("flatten", rng), make_acts(rng)
    given = evidence(head, acts)
    target = given["target"]
    expected = given["logits"][range(3), target] - head.bias[target]
    np.testing.assert_allclose(raw("xgradcam", given).sum((1, 2)), expected, atol=1e-10)


def test_under_a_gap_head_it_is_gradcam(rng):
    given = evidence(make_head("gap", rng), make_acts(rng))
    np.testing.assert_allclose(raw("xgradcam", given), raw("gradcam", given), atol=1e-12)


def test_dead_and_cancelling_channels_are_skipped_and_counted(rng):
    acts, grads = make_acts(rng), rng.normal(size=(3, 6, 4, 5))
    acts[0, 2] = 0
    acts[1, 1] = np.resize([1.0, -1.0], (4, 5))  # sums to zero against 20
    acts[1, 4] = 0
    result = run("xgradcam", {"acts": acts, "grads": grads})
    assert result.flags["skipped_channels"].tolist() == [1, 2, 0]
    weights = xgradcam(acts, grads).array
    assert weights[0, 2] == weights[1, 1] == weights[1, 4] == 0
    assert (weights[2] != 0).all()


@pytest.mark.parametrize(("variant", "eps"), [("official", 1e-6), ("pytorch-grad-cam", 1e-7), ("torchcam", 1e-8)])
def test_the_other_variants_add_their_eps(rng, variant, eps):
    acts, grads = make_acts(rng) * 1e-6, rng.normal(size=(3, 6, 4, 5))
    expected = (acts * grads).sum((2, 3)) / (acts.sum((2, 3)) + eps)
    np.testing.assert_allclose(xgradcam(acts, grads, variant=variant), expected, rtol=1e-12)
    assert "skipped_channels" not in run("xgradcam", {"acts": acts, "grads": grads}, variant).flags
