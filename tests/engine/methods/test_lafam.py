"""LaFAM: the mean of the activations."""

from __future__ import annotations

import numpy as np

from camrt.methods import resolve
from tests.engine.methods.heads import make_acts, raw


def test_the_map_is_the_mean_over_channels(rng):
    acts = make_acts(rng, signed=True)
    np.testing.assert_allclose(raw("lafam", {"acts": acts}), acts.mean(1), atol=1e-12)


def test_the_pipeline_cuts_nothing_off():
    assert not resolve("lafam").relu_of("paper")
