"""Eigen-Grad-CAM: the leading component of gradient times activation."""

from __future__ import annotations

import numpy as np
import pytest

from tests.engine.methods.heads import evidence, make_acts, make_head, raw, run


@pytest.fixture
def given(rng):
    return evidence(make_head("two-layer", rng), make_acts(rng))


@pytest.mark.parametrize("variant", ["centred", "pytorch-grad-cam", "seg"])
def test_it_is_centred_eigencam_of_the_product(given, variant):
    grads = abs(given["grads"]) if variant == "seg" else given["grads"]
    product = {"acts": grads * given["acts"]}
    eigen = "pytorch-grad-cam" if variant == "pytorch-grad-cam" else "centred"
    np.testing.assert_allclose(raw("eigengradcam", given, variant), raw("eigencam", product, eigen), atol=1e-12)


@pytest.mark.parametrize("variant", ["centred", "seg"])
def test_the_largest_magnitude_is_positive(given, variant):
    got = raw("eigengradcam", given, variant).reshape(3, -1)
    assert (got.max(1) >= -got.min(1)).all()


def test_no_gradient_gives_a_zero_map(given):
    result = run("eigengradcam", {**given, "grads": np.zeros_like(given["acts"])})
    np.testing.assert_array_equal(result.array, 0)
    assert not result.flags["unstable"].any()
