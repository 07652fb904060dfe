"""CAM: the head's own weights."""

from __future__ import annotations

import numpy as np
import pytest

from camrt.errors import MethodError
from camrt.methods import resolve
from tests.engine.methods.heads import evidence, make_acts, make_head, raw


def test_the_map_is_the_head_s_weighted_sum(rng):
    head, acts = make_head("gap", rng), make_acts(rng)
    target = np.array([4, 0, 4])
    expected = np.einsum("nk,nkhw->nhw", head.weight[target], acts)
    np.testing.assert_allclose(raw("cam", evidence(head, acts, target)), expected, atol=1e-12)


def test_the_map_averages_to_the_logit_less_its_bias(rng):
    head, acts = make_head("gap", rng), make_acts(rng)
    given = evidence(head, acts, np.array([1, 2, 3]))
    np.testing.assert_allclose(raw("cam", given).mean((1, 2)), given["logits"][range(3), [1, 2, 3]] - head.bias[1:4])


def test_only_the_relu_variant_has_a_relu():
    assert resolve("cam").variants[0] == "official"
    assert not resolve("cam").relu_of("official")
    assert resolve("cam").relu_of("relu")


def test_another_head_is_refused_naming_gradcam(rng):
    with pytest.raises(MethodError, match=r"global average pooling and one linear layer .* use gradcam"):
        raw("cam", evidence(make_head("flatten", rng), make_acts(rng)))
