"""FEM: the fraction of positions that stand out."""

from __future__ import annotations

import numpy as np
import pytest

from camrt.methods.fem import fem
from tests.engine.methods.heads import make_acts


def test_weights_count_positions_above_the_threshold():
    channel = np.zeros(25)
    channel[3], channel[4] = 10.0, 8.0  # mean 0.72, population std 2.46: threshold 5.6
    np.testing.assert_allclose(fem(channel.reshape(1, 1, 5, 5)), [[2 / 25]])
    np.testing.assert_allclose(fem(channel.reshape(1, 1, 5, 5), k=3.5), [[1 / 25]])


def test_the_comparison_is_strict():
    channel = np.array([0.0, 2.0]).reshape(1, 1, 1, 2)  # mean 1, std 1: 2 is not above 1 + 1*1
    np.testing.assert_array_equal(fem(channel, k=1.0), [[0.0]])
    np.testing.assert_array_equal(fem(channel, k=0.5), [[0.5]])


@pytest.mark.parametrize("value", [0.0, 0.1, -3.7])
def test_a_constant_channel_weighs_nothing(value):
    np.testing.assert_array_equal(fem(np.full((1, 1, 7, 7), value)), [[0.0]])


def test_scaling_and_shifting_a_channel_leaves_its_weight(rng):
    acts = make_acts(rng)
    np.testing.assert_array_equal(fem(acts), fem(acts * 4 + 1))
