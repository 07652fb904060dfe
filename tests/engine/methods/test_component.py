"""Signs and ties of a leading component."""

from __future__ import annotations

import numpy as np

from camrt.methods.component import agree, is_tied, lapack_component, smooth, upright


def test_upright_makes_the_largest_magnitude_positive(rng):
    maps = rng.normal(size=(20, 3, 4))
    turned = upright(maps)
    flat = turned.reshape(20, -1)
    assert (flat[np.arange(20), abs(flat).argmax(1)] > 0).all()
    np.testing.assert_array_equal(abs(turned), abs(maps))


def test_agree_gives_a_non_negative_inner_product(rng):
    maps, reference = rng.normal(size=(2, 20, 3, 4))
    turned = agree(maps, reference)
    assert ((turned * reference).sum((1, 2)) >= 0).all()
    np.testing.assert_array_equal(abs(turned), abs(maps))


def test_ties_are_told_at_a_thousandth():
    values = np.array([[1.0, 0.9], [1.0, 0.9995], [0.0, 0.0], [2.0, 0.0]])
    assert is_tied(values).tolist() == [False, True, False, False]


def test_the_lapack_component_is_the_first_principal_component(rng):
    tensor = rng.normal(size=(3, 6, 4, 5))
    maps, values = lapack_component(tensor)
    for image in range(3):
        rows = tensor[image].reshape(6, 20).T
        covariance = np.cov(rows.T, bias=True)
        eigenvalues, axes = np.linalg.eigh(covariance)
        expected = (rows - rows.mean(0)) @ axes[:, -1]
        sign = np.sign(expected @ maps[image].ravel())
        np.testing.assert_allclose(maps[image].ravel(), sign * expected, atol=1e-12)
        np.testing.assert_allclose(values[image] ** 2 / 20, eigenvalues[::-1][:2], rtol=1e-10)


def test_the_lapack_component_of_one_position_is_zero(rng):
    maps, values = lapack_component(rng.normal(size=(2, 6, 1, 1)))
    np.testing.assert_array_equal(maps, np.zeros((2, 1, 1)))
    np.testing.assert_array_equal(values, np.zeros((2, 2)))


def test_smoothing_a_rank_one_tensor_gives_the_centred_sum(rng):
    pattern, strength = rng.normal(size=(1, 1, 4, 5)), np.array([[1.0, 2.0, 0.5]])
    acts = pattern * np.ones((1, 3, 1, 1))
    maps, unstable = smooth(acts, strength)
    centred = pattern[:, 0] - pattern.mean()
    np.testing.assert_allclose(maps, centred * np.linalg.norm(strength), atol=1e-12)
    assert unstable.tolist() == [False]


def test_smoothing_takes_the_sign_of_the_sum_it_replaces(rng):
    acts, weights = np.maximum(rng.normal(size=(10, 5, 4, 4)), 0), rng.normal(size=(10, 5))
    maps, _ = smooth(acts, weights)
    assert ((maps * np.einsum("nk,nkhw->nhw", weights, acts)).sum((1, 2)) >= 0).all()


def test_smoothing_takes_elementwise_weights_too(rng):
    acts, weights = np.maximum(rng.normal(size=(2, 5, 4, 4)), 0), rng.normal(size=(2, 5))
    spread = np.broadcast_to(weights[:, :, None, None], acts.shape)
    np.testing.assert_allclose(smooth(acts, weights)[0], smooth(acts, spread)[0], atol=1e-12)
