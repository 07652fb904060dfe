"""HiResCAM: gradient times activation."""

from __future__ import annotations

import numpy as np
import pytest

from tests.engine.methods.heads import evidence, make_acts, make_head, one_hot, raw


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("kind", ["gap", "flatten"])
def test_under_a_linear_head_the_map_sums_to_the_logit_less_its_bias(rng, kind, signed):
    head, acts = make_head(kind, rng), make_acts(rng, signed=signed)
    given = evidence(head, acts)
    target = given["target"]
    expected = given["logits"][range(3), target] - head.bias[target]
    np.testing.assert_allclose(raw("hirescam", given).sum((1, 2)), expected, atol=1e-10)


def test_under_a_relu_tail_the_map_sums_to_the_logit_less_the_bias_term(rng):
    head, acts = make_head("two-layer", rng), make_acts(rng)
    given = evidence(head, acts)
    target = given["target"]
    bias_term = head.hidden_grads(acts, one_hot(target)) @ head.first_bias + head.second_bias[target]
    expected = given["logits"][range(3), target] - bias_term
    np.testing.assert_allclose(raw("hirescam", given).sum((1, 2)), expected, atol=1e-10)


def test_under_a_flattened_head_its_sign_differs_from_gradcam_s_on_many_cells(rng):
    given = evidence(make_head("flatten", rng), make_acts(rng))
    assert (np.sign(raw("hirescam", given)) != np.sign(raw("gradcam", given))).mean() > 0.2


def test_under_a_gap_head_it_is_gradcam(rng):
    given = evidence(make_head("gap", rng), make_acts(rng))
    np.testing.assert_allclose(raw("hirescam", given), raw("gradcam", given), atol=1e-12)
