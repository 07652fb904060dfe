"""CAM: the head's own weights."""

from __future__ import annotations

import numpy as np
import pytest

import camrt
from camrt.errors import MethodError
from camrt.methods import resolve
from tests.engine.methods.heads import evidence, make_acts, make_head, raw
from tests.export.token_models import MODELS, SIZE


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


@pytest.mark.parametrize("name", ["mean of tokens", "windows on a grid", "mixer"])
def test_tokens_that_are_averaged_give_a_map_that_averages_to_the_logit_less_its_bias(name):
    explainer = camrt.load(MODELS[name].build())
    x = np.random.default_rng(5).normal(size=(6, 3, *SIZE)).astype(np.float32)
    result = explainer.explain(x, method="cam", target=2)
    rest = result.logits[:, 2] - result.raw[:, 0].mean((1, 2))
    np.testing.assert_allclose(rest, rest[0], rtol=0, atol=1e-5)  # the bias, whatever the image
    assert result.logits[:, 2].std() > 0.01
