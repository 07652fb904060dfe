"""Smooth Grad-CAM++: averaged powers, and noise that depends on seed, image and sample alone."""

from __future__ import annotations

import numpy as np
import pytest

from camrt.errors import MethodError
from camrt.kernels import min_max
from tests.engine.methods.heads import input_evidence, make_head, make_stem, raw, run


@pytest.fixture
def given(rng):
    stem, head, x = make_stem(rng), make_head("two-layer", rng), rng.normal(size=(3, 3, 4, 5))
    return input_evidence(stem, head, x)


def record(given):
    """Return a copy that also lists the inputs asked for, and what was answered."""
    asked, answered = [], []

    def gradients_at(x):
        asked.append(x.copy())
        answered.append(given["gradients_at"](x))
        return answered[-1]

    return {**given, "gradients_at": gradients_at}, asked, answered


def test_without_noise_it_is_gradcampp(given):
    np.testing.assert_allclose(
        raw("smoothgradcampp", given, spread=0, n=3), raw("gradcampp", given, "paper"), rtol=1e-9, atol=1e-12
    )


def test_without_noise_the_cube_inside_variants_are_gradcampp_s(given):
    cube = raw("gradcampp", given, "cube-inside")
    torchcam = raw("smoothgradcampp", given, "torchcam", spread=0, n=2)
    np.testing.assert_allclose(min_max(torchcam)[0], min_max(cube)[0], atol=1e-4)  # 1e-8 in a denominator
    yiskw713 = raw("smoothgradcampp", given, "yiskw713", spread=0, n=2)
    np.testing.assert_allclose(yiskw713, min_max(np.maximum(cube, 0))[0], atol=1e-4)


def test_the_mean_powers_enter_the_formula(given):
    spy, _, answered = record(given)
    got = raw("smoothgradcampp", spy, n=6)
    grads = np.stack([grads for _, grads in answered])
    first, second, third = grads.mean(0), (grads**2).mean(0), (grads**3).mean(0)
    total = given["acts"].sum((2, 3), keepdims=True)
    below = 2 * second + third * total
    alpha = np.where(second > 0, second / np.where(second > 0, below, 1), 0)
    weights = (alpha * np.maximum(first, 0)).sum((2, 3))
    np.testing.assert_allclose(got, np.einsum("nk,nkhw->nhw", weights, given["acts"]), rtol=1e-8, atol=1e-12)

    spy, _, _ = record(given)
    paper = (np.where(second > 0, first / np.where(second > 0, below, 1), 0) * np.maximum(first, 0)).sum((2, 3))
    np.testing.assert_allclose(
        raw("smoothgradcampp", spy, "paper", n=6),
        np.einsum("nk,nkhw->nhw", paper, given["acts"]),
        rtol=1e-8,
        atol=1e-12,
    )


def test_torchcam_uses_the_last_noisy_gradient_and_activations(given):
    spy, asked, answered = record(given)
    got = raw("smoothgradcampp", spy, "torchcam")
    assert len(asked) == 4
    grads = np.stack([grads for _, grads in answered])
    second, third = (grads**2).mean(0), (grads**3).mean(0)
    alpha = second / (2 * second + (third * given["acts"]).sum((2, 3), keepdims=True) + 1e-8)
    weights = (alpha * np.maximum(grads[-1], 0)).sum((2, 3))
    np.testing.assert_allclose(got, np.einsum("nk,nkhw->nhw", weights, answered[-1][0]), rtol=1e-9)


def test_yiskw713_averages_finished_maps(given):
    spy, _, answered = record(given)
    got = raw("smoothgradcampp", spy, "yiskw713", n=3)
    maps = []
    for acts, grads in answered:
        alpha = grads**2 / (2 * grads**2 + (acts * grads**3).sum((2, 3), keepdims=True) + 1e-7)
        summed = np.einsum("nk,nkhw->nhw", (alpha * np.maximum(grads, 0)).sum((2, 3)), acts)
        maps.append(min_max(np.maximum(summed, 0))[0])
    np.testing.assert_allclose(got, np.mean(maps, 0), atol=1e-12)


def test_the_noise_has_the_stated_spread(rng):
    x = rng.normal(size=(2, 3, 64, 64)) * np.array([1.0, 5.0]).reshape(2, 1, 1, 1)
    given = input_evidence(make_stem(rng), make_head("gap", rng), x)
    extent = x.max((1, 2, 3)) - x.min((1, 2, 3))
    for variant, expected in [("corrected", 0.2 * extent), ("torchcam", [0.2, 0.2]), ("yiskw713", 0.2 / extent)]:
        spy, asked, _ = record(given)
        raw("smoothgradcampp", spy, variant, n=4, spread=0.2)
        noise = np.stack(asked) - x
        np.testing.assert_allclose(noise.std((0, 2, 3, 4)), expected, rtol=0.02)
        np.testing.assert_allclose(noise.mean((0, 2, 3, 4)) / expected, 0, atol=0.03)


def test_a_flat_input_has_no_noise_in_the_inverse_spread(rng):
    x = np.full((1, 3, 4, 5), 0.5)
    spy, asked, _ = record(input_evidence(make_stem(rng), make_head("two-layer", rng), x))
    raw("smoothgradcampp", spy, "yiskw713", n=2)
    np.testing.assert_array_equal(asked, [x, x])


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(given):
    one, two = (raw("smoothgradcampp", given, n=3, seed=4) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert abs(one - raw("smoothgradcampp", given, n=3, seed=5)).max() > 1e-6


def test_the_noise_of_an_image_does_not_depend_on_the_batch(rng):
    stem, head, x = make_stem(rng), make_head("two-layer", rng), rng.normal(size=(3, 3, 4, 5))
    target, ids = np.array([2, 0, 5]), np.array([11, 2**64 - 1, 0], np.uint64)

    def maps(order):
        given = {**input_evidence(stem, head, x[order], target[order]), "ids": ids[order]}
        spy, asked, _ = record(given)
        made = raw("smoothgradcampp", spy, n=3)
        return np.stack(asked), made

    inputs, whole = maps([0, 1, 2])
    turned_inputs, turned = maps([2, 0, 1])
    np.testing.assert_array_equal(inputs[:, [2, 0, 1]], turned_inputs)
    np.testing.assert_allclose(whole[[2, 0, 1]], turned, atol=1e-12)
    for index in range(3):
        np.testing.assert_array_equal(maps([index])[0], inputs[:, [index]])
    assert abs(inputs[0] - inputs[1]).max() > 1e-3


def test_small_gradients_do_not_vanish_in_single_precision(given):
    tiny = {**given, "gradients_at": lambda x: tuple(a.astype(np.float32) for a in given["gradients_at"](x))}
    tiny["acts"] = given["acts"].astype(np.float32)
    scaled = {
        **tiny,
        "gradients_at": lambda x: (tiny["gradients_at"](x)[0], tiny["gradients_at"](x)[1] * np.float32(1e-20)),
    }
    result = raw("smoothgradcampp", scaled, spread=0, n=1)
    assert result.dtype == np.float32
    assert abs(result).max() > 1e-21


def test_an_integer_input_is_refused(given):
    with pytest.raises(MethodError, match="needs a model that takes floats; this one takes uint8"):
        raw("smoothgradcampp", {**given, "x": np.zeros((3, 3, 4, 5), np.uint8)})


def test_weights_are_given_unless_noisy_activations_are_combined(given):
    assert "signed_activations" in run("smoothgradcampp", given, n=1).flags
