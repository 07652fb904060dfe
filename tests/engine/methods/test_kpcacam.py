"""KPCA-CAM: kernel principal components written out with NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from tests.engine.methods.heads import make_acts, raw

FORMULAS = {
    "sigmoid": lambda a, b, gamma: np.tanh(gamma * a @ b + 1),
    "rbf": lambda a, b, gamma: np.exp(-gamma * ((a - b) ** 2).sum()),
    "poly": lambda a, b, gamma: (gamma * a @ b + 1) ** 3,
    "linear": lambda a, b, gamma: a @ b,
    "cosine": lambda a, b, gamma: a @ b / np.linalg.norm(a) / np.linalg.norm(b),
}


@pytest.mark.parametrize("kernel", FORMULAS)
@pytest.mark.parametrize("gamma", [None, 0.3])
def test_the_map_is_the_leading_eigenvector_of_the_centred_kernel(rng, kernel, gamma):
    acts = make_acts(rng)
    got = raw("kpcacam", {"acts": acts}, kernel=kernel, gamma=gamma)
    for image in range(3):
        rows = acts[image].reshape(6, 20).T
        rows = rows - rows.mean(0)
        matrix = np.array([[FORMULAS[kernel](a, b, gamma or 1 / 6) for b in rows] for a in rows])
        centre = np.eye(20) - 1 / 20
        values, vectors = np.linalg.eigh(centre @ matrix @ centre)
        expected = np.sqrt(values[-1]) * vectors[:, -1]
        expected *= np.sign(expected[abs(expected).argmax()])
        np.testing.assert_allclose(got[image].ravel(), expected, atol=1e-9)


def test_the_linear_kernel_is_centred_eigencam(rng):
    given = {"acts": make_acts(rng)}
    np.testing.assert_allclose(raw("kpcacam", given, kernel="linear"), raw("eigencam", given, "centred"), atol=1e-9)


@pytest.mark.parametrize("kernel", FORMULAS)
@pytest.mark.parametrize("value", [0.0, 0.1, 3e4])
def test_constant_activations_give_a_zero_map(kernel, value):
    np.testing.assert_array_equal(raw("kpcacam", {"acts": np.full((2, 3, 7, 7), value)}, kernel=kernel), 0)


def test_an_offset_that_saturates_the_kernel_leaves_no_component(rng):
    np.testing.assert_array_equal(raw("kpcacam", {"acts": make_acts(rng)}, coef0=60.0), 0)
