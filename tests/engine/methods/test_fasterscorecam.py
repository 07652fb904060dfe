"""Faster Score-CAM: Score-CAM on the channels that vary most."""

from __future__ import annotations

import numpy as np
import pytest

from camrt.methods import resolve
from camrt.methods.fasterscorecam import fasterscorecam
from camrt.methods.scorecam import scorecam
from tests.engine.methods.heads import raw, run
from tests.engine.methods.test_scorecam import World


@pytest.fixture
def given(rng):
    return World(rng).given()


@pytest.mark.parametrize("max_n", [6, 64, None])
@pytest.mark.parametrize("variant", ["official", "paper", "torchcam-0.2"])
def test_with_all_channels_it_is_scorecam(given, variant, max_n):
    np.testing.assert_array_equal(raw("fasterscorecam", given, variant, max_n=max_n), raw("scorecam", given, variant))


def test_it_has_scorecam_s_variants_and_weighting():
    assert resolve("fasterscorecam").variants == resolve("scorecam").variants
    assert resolve("fasterscorecam").options["weighting"] is resolve("scorecam").options["weighting"]


@pytest.mark.parametrize("max_n", [1, 2, 5])
def test_the_channels_with_the_largest_spread_are_kept_with_their_weights(given, max_n):
    whole = scorecam(given["acts"], given["masked_of"], given["score_of"]).array
    kept = fasterscorecam(given["acts"], given["masked_of"], given["score_of"], max_n=max_n)
    for n, acts in enumerate(given["acts"]):
        best = sorted(range(6), key=lambda k, acts=acts: -np.std(acts[k]))[:max_n]
        want = [whole[n, k] if k in best else 0 for k in range(6)]
        np.testing.assert_allclose(kept.array[n], want, atol=1e-12)
    assert not kept.flags  # nothing that was wanted is missing


def test_ties_go_by_channel_index(given):
    acts = np.repeat(given["acts"][:, :1], 6, axis=1)
    weights = fasterscorecam(acts, given["masked_of"], given["score_of"], max_n=2).array
    np.testing.assert_array_equal(weights != 0, np.broadcast_to([1, 1, 0, 0, 0, 0], (3, 6)))


def test_only_kept_channels_can_be_missing(rng):
    assert (run("fasterscorecam", World(rng).given(budget=2), max_n=3).flags["bound"] > 0).all()
    assert "bound" not in run("fasterscorecam", World(rng).given(budget=3), max_n=3).flags
