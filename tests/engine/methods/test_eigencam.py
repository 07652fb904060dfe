"""Eigen-CAM: the leading singular vector against NumPy's SVD, its sign and its ties."""

from __future__ import annotations

import numpy as np
import pytest

from tests.engine.methods.heads import make_acts, raw, run


def components(acts, *, centred):
    """Return the projections on the first right singular vectors, of whatever sign."""
    rows = acts.reshape(*acts.shape[:2], -1).transpose(0, 2, 1)
    if centred:
        rows = rows - rows.mean(1, keepdims=True)
    axes = np.linalg.svd(rows, full_matrices=False)[2]
    return (rows @ axes[:, 0, :, None]).reshape(len(acts), *acts.shape[2:])


@pytest.mark.parametrize("variant", ["paper", "centred", "pytorch-grad-cam"])
@pytest.mark.parametrize("signed", [False, True])
def test_the_map_is_the_first_component_up_to_sign(rng, variant, signed):
    acts = make_acts(rng, signed=signed)
    got, expected = raw("eigencam", {"acts": acts}, variant), components(acts, centred=variant != "paper")
    sign = np.sign((got * expected).sum((1, 2), keepdims=True))
    np.testing.assert_allclose(got, sign * expected, atol=1e-10)


def test_the_paper_s_map_points_along_the_sum_of_channels(rng):
    acts = make_acts(rng, images=20, signed=True)
    got = raw("eigencam", {"acts": acts})
    assert ((got * acts.sum(1)).sum((1, 2)) >= 0).all()


def test_on_non_negative_activations_the_paper_s_map_is_non_negative(rng):
    assert (raw("eigencam", {"acts": make_acts(rng, images=20)}) >= -1e-12).all()


def test_the_centred_map_has_its_largest_magnitude_positive(rng):
    got = raw("eigencam", {"acts": make_acts(rng, images=20)}, "centred").reshape(20, -1)
    assert (got.max(1) >= -got.min(1)).all()


@pytest.mark.parametrize("variant", ["centred", "pytorch-grad-cam"])
def test_constant_activations_give_a_zero_map_once_centred(variant):
    acts = np.broadcast_to(np.arange(1.0, 4).reshape(1, 3, 1, 1), (1, 3, 4, 4)).copy()
    np.testing.assert_allclose(raw("eigencam", {"acts": acts}, variant), 0, atol=1e-12)


@pytest.mark.parametrize("variant", ["paper", "centred", "pytorch-grad-cam"])
def test_equal_leading_values_are_flagged_as_unstable(variant):
    acts = np.zeros((2, 2, 1, 4))
    acts[:, 0, 0], acts[:, 1, 0] = [1, -1, 0, 0], [0, 0, 1, -1]  # two orthogonal channels of equal size
    acts[1, 1] *= 0.5
    assert run("eigencam", {"acts": acts}, variant).flags["unstable"].tolist() == [True, False]
