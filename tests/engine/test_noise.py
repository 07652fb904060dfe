"""Noise that depends on its numbers only."""

from __future__ import annotations

import numpy as np

from camrt.noise import standard_normal


def test_noise_is_normal_and_its_numbers_are_all_that_matters() -> None:
    noise = standard_normal((200, 300), 3, 2**63 + 5, 7)
    assert noise.dtype == np.float32
    assert abs(float(noise.mean())) < 4 / np.sqrt(noise.size)
    assert abs(float(noise.std()) - 1) < 4 / np.sqrt(2 * noise.size)
    np.testing.assert_array_equal(noise, standard_normal((200, 300), 3, 2**63 + 5, 7))
    for other in ((4, 2**63 + 5, 7), (3, 2**63 + 6, 7), (3, 2**63 + 5, 8)):
        correlation = np.corrcoef(noise.ravel(), standard_normal((200, 300), *other).ravel())[0, 1]
        assert abs(correlation) < 4 / np.sqrt(noise.size)
