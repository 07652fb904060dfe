"""Element-wise Grad-CAM: the positive part of gradient times activation."""

from __future__ import annotations

import numpy as np
import pytest

from tests.engine.methods.heads import evidence, make_acts, make_head, raw


@pytest.mark.parametrize("signed", [False, True])
def test_the_map_is_the_positive_part_of_each_product(rng, signed):
    given = evidence(make_head("two-layer", rng), make_acts(rng, signed=signed))
    expected = np.maximum(given["grads"] * given["acts"], 0).sum(1)
    np.testing.assert_allclose(raw("elementwisecam", given), expected, atol=1e-12)


def test_on_signed_activations_it_is_not_layercam(rng):
    given = evidence(make_head("two-layer", rng), make_acts(rng, signed=True))
    assert abs(raw("elementwisecam", given) - raw("layercam", given)).max() > 1e-3
