"""Random-CAM: weights that depend on seed, image and channel alone."""

from __future__ import annotations

import numpy as np

from camrt.methods.randomcam import randomcam

IDS = np.array([3, 2**64 - 1, 0], np.uint64)


def test_weights_are_uniform_between_minus_one_and_one():
    weights = randomcam(np.zeros((3, 20_000, 1, 1)), IDS)
    assert weights.min() >= -1 and weights.max() < 1
    np.testing.assert_allclose(weights.mean(1), 0, atol=0.02)
    np.testing.assert_allclose(weights.var(1), 1 / 3, atol=0.01)


def test_the_same_seed_gives_the_same_bits_and_another_seed_others():
    acts = np.zeros((3, 8, 2, 2))
    np.testing.assert_array_equal(randomcam(acts, IDS, seed=1), randomcam(acts, IDS, seed=1))
    assert (randomcam(acts, IDS, seed=1) != randomcam(acts, IDS, seed=2)).all()


def test_a_weight_depends_on_no_other_image_channel_or_activation(rng):
    acts = np.zeros((3, 8, 2, 2))
    weights = randomcam(acts, IDS)
    np.testing.assert_array_equal(randomcam(acts, IDS[::-1]), weights[::-1])
    np.testing.assert_array_equal(randomcam(acts[:1], IDS[1:2]), weights[1:2])
    np.testing.assert_array_equal(randomcam(acts[:, :5], IDS), weights[:, :5])
    np.testing.assert_array_equal(randomcam(rng.normal(size=(3, 8, 5, 7)), IDS), weights)


def test_weights_take_the_type_of_the_activations():
    assert randomcam(np.zeros((3, 8, 2, 2), np.float32), IDS).dtype == np.float32
