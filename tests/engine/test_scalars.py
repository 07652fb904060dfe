"""Every cotangent against central differences of its own value, and the closed forms of the targets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camrt.errors import TargetError
from camrt.scalars import (
    Contrast,
    Logit,
    LogProbability,
    Probability,
    Rest,
    Target,
    Vector,
    cotangent,
    others,
    settled,
    softmax,
    value,
)

TARGETS: list[Target] = [
    Logit(2),
    Probability(2),
    LogProbability(2),
    Rest(2),
    Contrast(2, 0),
    Contrast(2, (0, 3)),
    Contrast(2, (2,)),
    Vector([0.5, -1.0, 2.0, 0.0, 3.0]),
]


@pytest.mark.parametrize("target", TARGETS, ids=repr)
@pytest.mark.parametrize("scale", [0.1, 1.0, 5.0])
def test_the_cotangent_is_the_derivative_of_the_value(target: Target, scale: float) -> None:
    scores = np.random.default_rng(0).normal(size=5) * scale
    step = 1e-6
    differences = [(value(target, scores + d) - value(target, scores - d)) / (2 * step) for d in np.eye(5) * step]
    np.testing.assert_allclose(cotangent(target, scores), differences, atol=2e-9, rtol=1e-7)


def test_the_closed_forms_of_two_classes() -> None:
    scores = np.log([3.0, 1.0])  # p = 3/4, 1/4
    assert value(Logit(0), scores) == pytest.approx(np.log(3))
    assert value(Probability(0), scores) == pytest.approx(0.75)
    assert value(LogProbability(1), scores) == pytest.approx(np.log(0.25))
    assert value(Rest(0), scores) == pytest.approx(np.log(3) + np.log(0.75))
    assert value(Contrast(0, 1), scores) == pytest.approx(np.log(3))
    np.testing.assert_allclose(cotangent(Probability(0), scores), [0.1875, -0.1875])
    np.testing.assert_allclose(cotangent(LogProbability(0), scores), [0.25, -0.25])
    np.testing.assert_allclose(cotangent(Rest(0), scores), [1.25, -0.25])


@settings(deadline=None)
@given(st.integers(0, 4), st.floats(-1000, 1000))
def test_a_common_shift_of_the_scores_changes_no_probability(index: int, shift: float) -> None:
    scores = np.array([3.0, -1.0, 0.5, 2.0, 8.0])
    for target in (Probability(index), LogProbability(index)):
        np.testing.assert_allclose(cotangent(target, scores + shift), cotangent(target, scores), atol=1e-10)
        assert cotangent(target, scores).sum() == pytest.approx(0, abs=1e-15)


def test_a_near_certain_class_keeps_the_digits_of_its_small_gradient() -> None:
    scores = np.array([40.0, 0.0])  # 1 - p = exp(-40) is below the spacing of doubles near 1
    np.testing.assert_allclose(cotangent(LogProbability(0), scores), [np.exp(-40), -np.exp(-40)], rtol=1e-12)
    assert value(LogProbability(1), np.array([2000.0, 0.0])) == -2000.0


def test_softmax_survives_large_scores_and_sums_to_one() -> None:
    shares = softmax([[1000.0, 1000.0], [-1000.0, 0.0]])
    np.testing.assert_allclose(shares, [[0.5, 0.5], [0.0, 1.0]])


def test_a_class_against_itself_is_zero() -> None:
    scores = np.array([1.0, 2.0])
    assert value(Contrast(1, (1,)), scores) == 0
    assert not cotangent(Contrast(1, (1,)), scores).any()


def test_a_vector_is_kept_as_a_copy_that_cannot_change() -> None:
    given_seed = np.array([1.0, 2.0])
    target = Vector(given_seed)
    given_seed[:] = 9
    assert value(target, np.array([1.0, 1.0])) == 3
    cotangent(target, np.zeros(2))[:] = 7
    assert np.asarray(target.seed).tolist() == [1.0, 2.0]
    with pytest.raises(ValueError, match="read-only"):
        np.asarray(target.seed)[0] = 5


@pytest.mark.parametrize("seed", [[[1.0]], [np.nan], [np.inf], "abc", None, 3.0, [1, [2]]])
def test_a_vector_of_no_numbers_is_refused(seed: object) -> None:
    with pytest.raises(TargetError, match="a vector target needs"):
        Vector(seed)  # type: ignore[arg-type]


@pytest.mark.parametrize("index", [None, "cat"])
def test_an_open_class_is_refused(index: str | None) -> None:
    with pytest.raises(TargetError, match="not settled"):
        settled(index)
    with pytest.raises(TargetError, match="not settled"):
        value(Logit(index), np.zeros(3))


def test_the_others_of_a_contrast_are_one_or_several() -> None:
    assert others(Contrast(0, 3)) == [3]
    assert others(Contrast(0, (3, 1))) == [3, 1]
    with pytest.raises(TargetError, match="not settled"):
        others(Contrast(0))
