"""Infidelity and max-sensitivity: by hand, by their identities, and asked of a model in plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from camrt.errors import InputError
from camrt.metrics import resolve, validate
from camrt.metrics.case import Again, Case
from camrt.metrics.changes import Shifted
from camrt.metrics.model import Model
from camrt.metrics.robustness import infidelity, infidelity_from, max_sensitivity
from camrt.metrics.shifting import shift_of
from camrt.noise import content_ids

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 2, 9, 8)).astype(np.float32)
HEAT = RNG.random((3, 9, 8))
CLASSES = np.array([0, 3, 1])
WEIGHTS = RNG.normal(size=(2 * 9 * 8, 4)) * 0.2
NUMBERS = arrays(np.float64, (3, 5), elements=st.floats(-4, 4, width=32).filter(lambda v: v == 0 or abs(v) > 1e-3))


def probability(x, classes):
    """Return softmax of linear scores."""
    scores = np.exp(x.reshape(len(x), -1).astype(np.float64) @ WEIGHTS)
    return (scores / scores.sum(1, keepdims=True))[np.arange(len(x)), classes]


def logits(x):
    """Return linear scores."""
    return x.reshape(len(x), -1).astype(np.float64) @ WEIGHTS


def shifts(kind, scale, samples, seed=0):
    """Return what is added to each picture, (samples, N, C, H, W)."""
    ids = content_ids(X)
    return np.stack(
        [
            [shift_of(Shifted(kind, scale, seed, j), x.shape, int(i), x) for x, i in zip(X, ids, strict=True)]
            for j in range(samples)
        ]
    )


def test_infidelity_by_hand():
    # beta = (1 + 8) / (1 + 4) = 1.8; squares 0.8^2 and 0.4^2; their standard deviation 0.48 / sqrt 2
    value, error = infidelity_from([[1, 2]], [[1, 4]])
    np.testing.assert_allclose([value, error], [[0.4], [0.24]])
    value, error = infidelity_from([[1, 2]], [[1, 4]], scaled=False)
    np.testing.assert_allclose([value, error], [[2.0], [2.0]])
    value, error = infidelity_from([[0, 0]], [[1, 3]])  # nothing to scale: beta is 0
    np.testing.assert_allclose([value, error], [[5.0], [4.0]])
    assert infidelity_from([[2.0]], [[3.0]], scaled=False)[1].tolist() == [0.0]


@given(NUMBERS, NUMBERS, st.floats(0.01, 100))
def test_scaled_infidelity_is_no_larger_and_does_not_care_for_the_maps_scale(products, drops, factor):
    scaled, plain = infidelity_from(products, drops)[0], infidelity_from(products, drops, scaled=False)[0]
    assert (scaled <= plain * (1 + 1e-9) + 1e-12).all()
    assert (scaled <= (drops**2).mean(1) + 1e-12).all()
    np.testing.assert_allclose(infidelity_from(factor * products, drops)[0], scaled, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(infidelity_from(products, factor * products)[0], 0, atol=1e-9 * factor**2)


@pytest.mark.parametrize("variant", ["scaled", "unscaled", "square"])
def test_infidelity_asks_the_model_for_pictures_less_noise(variant):
    taken = shifts(*(("square", 0.0) if variant == "square" else ("gaussian", 0.3)), 4, seed=2)
    clean = probability(X, CLASSES)
    want = []
    for i in range(3):
        shared = np.broadcast_to(HEAT[i] / 2, X[i].shape)  # the map, shared by two channels
        told = np.array([(shift[i].astype(np.float64) * shared).sum() for shift in taken])
        seen = np.array([clean[i] - probability((X - shift)[i : i + 1], CLASSES[i : i + 1])[0] for shift in taken])
        beta = 1 if variant == "unscaled" else told @ seen / (told @ told)
        want.append(((beta * told - seen) ** 2).mean())
    got = infidelity(logits, X, HEAT, CLASSES, variant=variant, samples=4, scale=0.3, seed=2)
    np.testing.assert_allclose(got, want, rtol=1e-4)


def test_infidelity_of_pictures_with_channels_last_sums_over_the_right_axis():
    last = np.ascontiguousarray(np.moveaxis(X, 1, 3))
    model = Model(lambda x: logits(np.moveaxis(x, 3, 1)), channels_last=True)
    ids = content_ids(last)
    told, seen = np.zeros((3, 2)), np.zeros((3, 2))
    for i in range(3):
        for j in range(2):
            shift = shift_of(Shifted("square", 0.0, 0, j), last[i].shape, int(ids[i]), last[i], channels_last=True)
            left = np.moveaxis(last[i] - shift, 2, 0)[None]
            told[i, j] = (shift.mean(2) * HEAT[i]).sum()
            seen[i, j] = (probability(X[i : i + 1], CLASSES[i : i + 1]) - probability(left, CLASSES[i : i + 1]))[0]
    got = infidelity(model, last, HEAT, CLASSES, variant="square", samples=2)
    np.testing.assert_allclose(got, infidelity_from(told, seen)[0], rtol=1e-4, atol=1e-12)


def test_infidelity_shares_its_pictures_between_scaled_and_unscaled():
    metric = resolve("infidelity")
    asked = [metric.changes((9, 8), variant=v, **validate(metric, v)[1]) for v in metric.variants]
    assert asked[0] == asked[1] == tuple(Shifted("gaussian", 0.2, 0, j, -1) for j in range(10))
    assert asked[2] == tuple(Shifted("square", 0.0, 0, j, -1) for j in range(10))


def sensitivity(heat, moved):
    """Return what the row makes of maps of pictures with noise."""
    n, metric = len(heat), resolve("max sensitivity")
    none = np.zeros(n, bool)
    again = {Shifted("uniform", 0.02, 0, j): Again(maps, none) for j, maps in enumerate(moved)}
    case = Case(heat, none, np.zeros(n, np.int64), np.zeros(n, np.uint64), heat[:, None], again=again)
    return metric.values(case, variant="captum", samples=len(moved), radius=0.02, seed=0)


def test_sensitivity_by_hand():
    heat = np.array([[[0.6, 0.8]], [[0.0, 0.0]]])  # norms 1 and 0
    found = sensitivity(heat, [np.array([[[0.6, 0.5]], [[0.3, 0.4]]]), np.array([[[0.5, 0.8]], [[0.0, 0.1]]])])
    np.testing.assert_allclose(found["max_sensitivity"], [0.3, 0.5])
    np.testing.assert_allclose(found["max_sensitivity.mean"], [0.2, 0.3])
    assert found["max_sensitivity.all_zero"].tolist() == [0, 1]


@given(arrays(np.float64, (2, 3, 3), elements=st.floats(0.01, 1)), st.floats(0.1, 10))
def test_sensitivity_does_not_care_for_scale_and_grows_with_samples(heat, factor):
    moved = [heat[::-1], heat**2, heat]
    all_ = sensitivity(heat, moved)["max_sensitivity"]
    scaled = sensitivity(factor * heat, [factor * one for one in moved])["max_sensitivity"]
    np.testing.assert_allclose(scaled, all_, atol=1e-12)  # of equal maps it is a rounding
    assert (sensitivity(heat, moved[:1])["max_sensitivity"] <= all_).all()
    assert not sensitivity(heat, moved[2:])["max_sensitivity"].any()


def test_the_same_classes_are_explained_again_at_pictures_with_noise_that_is_added():
    seen = []

    def explain(x, classes):
        assert np.array_equal(classes, CLASSES)
        seen.append(x)
        return np.clip(np.abs(x).mean(1) / 8, 0, 1)

    heat = np.clip(np.abs(X).mean(1) / 8, 0, 1)
    got = max_sensitivity(logits, X, heat, CLASSES, explain=explain, samples=3, radius=0.1, seed=4)
    noisy = [X + shift for shift in shifts("uniform", 0.1, 3, seed=4)]
    assert np.array_equal(sorted(seen, key=lambda x: x[0, 0, 0, 0]), sorted(noisy, key=lambda x: x[0, 0, 0, 0]))
    moved = np.array([np.linalg.norm((np.abs(x).mean(1) / 8 - heat).reshape(3, -1), axis=1) for x in noisy])
    np.testing.assert_allclose(got, moved.max(0) / np.linalg.norm(heat.reshape(3, -1), axis=1), rtol=1e-5)


def test_a_method_that_always_says_the_same_has_no_sensitivity():
    assert not max_sensitivity(logits, X, HEAT, explain=lambda x, classes: HEAT).any()
    with pytest.raises(InputError, match="give explain"):
        max_sensitivity(logits, X, HEAT, explain=None)


def test_quantus_takes_more_samples_from_a_larger_ball():
    metric = resolve("max sensitivity")
    for variant, samples, radius in (("captum", 10, 0.02), ("quantus", 200, 0.2)):
        asked = metric.again((9, 8), variant=variant, **validate(metric, variant)[1])
        assert asked == tuple(Shifted("uniform", radius, 0, j) for j in range(samples))
