"""Average drop, increase and gain, and win: worked by hand, in closed form, and where floats end."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camrt.errors import NumericError, ShapeError
from camrt.kernels import min_max
from camrt.metrics import resolve
from camrt.metrics.case import Case, Scores
from camrt.metrics.changes import Clean, Masked, Order, Substrate, Swapped
from camrt.metrics.confidence import (
    average_drop,
    average_gain,
    average_increase,
    changes,
    drop_values,
    gain_values,
    increase_values,
    win,
    win_values,
)
from camrt.metrics.model import Model

HIDDEN = Substrate("hidden")
LOGITS = st.lists(st.floats(-30, 30), min_size=2, max_size=5)


def scores(*logits: Any) -> Scores:
    """Score the first class of rows of logits; the rest from the other logits alone."""
    rows = np.array(logits, np.float64)
    whole = np.logaddexp.reduce(rows, axis=1)
    return Scores(rows[:, 0] - whole, np.logaddexp.reduce(rows[:, 1:], axis=1) - whole, rows.argmax(1) == 0)


def said(*p: float) -> Scores:
    """Score images whose class has these probabilities."""
    values = np.array(p)
    with np.errstate(divide="ignore"):
        return Scores(np.log(values), np.log1p(-values), values > 0.5)


def case(clean: Scores, left: Scores, change: Any = None) -> Case:
    """Lay out 3 x 3 maps whose pictures scored so."""
    n = len(clean.p)
    zeros = np.zeros(n, np.int64)
    asked = {Clean(): clean, change or Masked(HIDDEN): left}
    return Case(np.zeros((n, 3, 3)), zeros > 0, zeros, zeros.astype(np.uint64), np.zeros((n, 1, 3, 3)), scores=asked)


def three(made: Case) -> list[Any]:
    """Return drop, increase and gain."""
    return [
        function(made, variant="paper")[name]
        for function, name in (
            (drop_values, "average_drop"),
            (increase_values, "average_increase"),
            (gain_values, "average_gain"),
        )
    ]


def test_by_hand() -> None:
    """From .8 to .2 three quarters are lost; from .2 to .6 half of the missing .8 is won; .5 stays .5."""
    drop, increase, gain = three(case(said(0.8, 0.2, 0.5), said(0.2, 0.6, 0.5)))
    np.testing.assert_allclose(drop, [0.75, 0, 0], atol=1e-15)
    np.testing.assert_array_equal(increase, [0, 1, 0])
    np.testing.assert_allclose(gain, [0, 0.5, 0], atol=1e-15)


def test_variants_by_hand() -> None:
    muted = Swapped(Order(), 5, 9, HIDDEN)  # of nine pixels the five highest stay
    outside = Masked(HIDDEN, inverted=True)
    clean, left = said(0.8, 0.2), said(0.2, 0.6)
    assert changes((3, 3), variant="score-cam") == (muted,)
    assert changes((3, 3), variant="add") == (outside,)
    assert changes((3, 3), variant="raw-drop") == changes((3, 3), variant="paper") == (Masked(HIDDEN),)
    for variant, change, want in (
        ("score-cam", muted, [0.75, 0]),
        ("raw-drop", None, [0.6, 0]),
        ("add", outside, [0.75, -2]),
    ):
        got = drop_values(case(clean, left, change), variant=variant)["average_drop"]
        np.testing.assert_allclose(got, want, atol=1e-15)
    got = increase_values(case(clean, left, muted), variant="score-cam")["average_increase"]
    np.testing.assert_array_equal(got, [0, 1])


@settings(deadline=None)
@given(LOGITS, st.randoms(use_true_random=False))
def test_logarithms_give_what_the_formulas_say(logits: list[float], random: Any) -> None:
    others = [value + random.uniform(-3, 3) for value in logits]
    clean, left = scores(logits), scores(others)
    drop, increase, gain = (float(values[0]) for values in three(case(clean, left)))
    rest, rest_left = float(np.exp(clean.log_rest[0])), float(np.exp(left.log_rest[0]))
    before, after = float(clean.p[0]), float(left.p[0])
    assert drop == pytest.approx(max(0, before - after) / before, abs=1e-9)
    assert gain == pytest.approx(max(0, rest - rest_left) / rest, abs=1e-9)
    assert 0 <= drop <= 1
    assert 0 <= gain <= 1
    assert drop == 0 or gain == 0
    if abs(before - after) > 1e-12:
        assert increase == (after > before)


@settings(deadline=None)
@given(LOGITS, LOGITS)
def test_the_increase_counts_the_images_that_gain(one: list[float], other: list[float]) -> None:
    width = min(len(one), len(other))
    made = case(scores(one[:width], other[:width]), scores(other[:width], one[:width]))
    drop, increase, gain = three(made)
    moved = (
        abs(made.scores[Clean()].log_rest - made.scores[Masked(HIDDEN)].log_rest) > 1e-12
    )  # else the gain is below floats
    np.testing.assert_array_equal(increase[moved], (gain > 0)[moved])
    assert not (increase * drop).any()
    assert not (gain * drop).any()


def test_the_ends_of_the_scale_are_exact() -> None:
    """A class at e^-70 that loses half, one at 1 - e^-70 that wins half of what is missing."""
    rare = case(scores([-70, 0]), scores([-70 - np.log(2), 0]))
    sure = case(scores([70, 0]), scores([70 + np.log(2), 0]))
    np.testing.assert_allclose([values[0] for values in three(rare)], [0.5, 0, 0], rtol=1e-12)
    np.testing.assert_allclose([values[0] for values in three(sure)], [0, 1, 0.5], rtol=1e-12)


def test_nothing_is_left_to_gain_from_a_probability_of_one() -> None:
    one, below = scores([2000, 0]), said(0.5)
    assert np.exp(one.log_rest[0]) == 0
    whole = Scores(np.zeros(1), np.full(1, -np.inf), np.ones(1, bool))
    assert [values[0] for values in three(case(whole, whole))] == [0, 0, 0]
    assert [values[0] for values in three(case(below, whole))] == [0, 1, 1]
    assert [values[0] for values in three(case(whole, below))] == [0.5, 0, 0]


def test_the_drop_in_deletion_may_be_below_what_a_float_holds() -> None:
    made = case(scores([-800, 0]), scores([0, 0]), Masked(HIDDEN, inverted=True))
    assert drop_values(made, variant="add")["average_drop"][0] == -np.inf


# through a model ----------------------------------------------------------------------------------------------------


WEIGHTS = np.array([[1.0, -2.0], [0.5, 1.0]])
PICTURE = np.array([[2.0, 1.0], [-2.0, 1.0]])
MAP = np.array([[1.0, 0.5], [0.25, 0.0]])


def linear(x: Any) -> Any:
    """Give class 0 the weighted sum of the picture and class 1 nothing."""
    margin = (np.asarray(x, np.float64)[:, 0] * WEIGHTS).sum((1, 2))
    return np.stack([margin, np.zeros(len(x))], axis=1)


def sigmoid(margin: float) -> float:
    return float(1 / (1 + np.exp(-margin)))


@pytest.mark.parametrize(
    ("variant", "left"),
    [
        ("paper", 2 * 1 - 2 * 0.5 - 1 * 0.25 + 0),  # each pixel's share of the logit, 2 -2 -1 1, times the map
        ("score-cam", 2 - 2),  # the two highest pixels stay
        ("add", -2 * 0.5 - 1 * 0.75 + 1),
    ],
)
def test_plain_arrays_of_two_by_two_pixels(variant: str, left: float) -> None:
    x, heat = PICTURE[None, None].astype(np.float32), MAP[None]
    before, after = sigmoid(0.0), sigmoid(left)
    want = (before - after) / before if variant == "add" else max(0, before - after) / before
    np.testing.assert_allclose(average_drop(linear, x, heat, variant=variant), [want], atol=1e-7)
    if variant != "add":
        assert average_increase(linear, x, heat, variant=variant)[0] == (left > 0)


def test_gain_and_raw_drop_of_plain_arrays() -> None:
    x, heat = PICTURE[None, None].astype(np.float32), MAP[None]
    np.testing.assert_allclose(average_gain(linear, x, heat, [0]), [(sigmoid(0.75) - 0.5) / 0.5], atol=1e-7)
    np.testing.assert_allclose(average_drop(linear, x, heat, [1]), [(0.5 - sigmoid(-0.75)) / 0.5], atol=1e-7)
    got = average_drop(linear, x, heat, [1], variant="raw-drop")
    np.testing.assert_allclose(got, [0.5 - sigmoid(-0.75)], atol=1e-7)


def test_black_shows_where_the_mask_space_is_raw(rng: np.random.Generator) -> None:
    x, heat = rng.normal(size=(3, 1, 2, 2)), rng.uniform(size=(3, 2, 2))
    model = Model(linear, black=(-1.5,))
    shown = linear(x * heat[:, None] + (1 - heat[:, None]) * -1.5)[:, 0]
    clean = linear(x)[:, 0]
    want = [max(0, sigmoid(a) - sigmoid(b)) / sigmoid(a) for a, b in zip(clean, shown, strict=True)]
    got = average_drop(model, x, heat, [0, 0, 0], mask_space="raw")
    np.testing.assert_allclose(got, want, atol=1e-12)
    assert abs(got - average_drop(model, x, heat, [0, 0, 0])).max() > 1e-3


def test_a_map_of_ones_changes_nothing_and_one_of_zeros_leaves_the_blank(rng: np.random.Generator) -> None:
    x = rng.normal(size=(4, 1, 2, 2))
    for function in (average_drop, average_increase, average_gain):
        np.testing.assert_array_equal(function(linear, x, np.ones((4, 2, 2))), 0)
    classes = np.array([0, 1, 0, 1])
    before = np.array([sigmoid(m if c == 0 else -m) for m, c in zip(linear(x)[:, 0], classes, strict=True)])
    got = average_drop(linear, x, np.zeros((4, 2, 2)), classes)
    np.testing.assert_allclose(got, np.maximum(0, before - 0.5) / before, atol=1e-12)


def test_scaling_a_map_before_min_max_changes_nothing(rng: np.random.Generator) -> None:
    x, raw = rng.normal(size=(3, 1, 2, 2)), rng.normal(size=(3, 2, 2))
    one, two = (average_drop(linear, x, min_max(factor * raw)[0]) for factor in (1, 8))
    np.testing.assert_array_equal(one, two)


def test_maps_that_are_none_are_refused() -> None:
    x = np.zeros((1, 1, 2, 2))
    with pytest.raises(ShapeError, match="as large as the model's input"):
        average_drop(linear, x, np.zeros((1, 3, 3)))
    for bad in (np.full((1, 2, 2), np.nan), np.full((1, 2, 2), 2.0)):
        with pytest.raises(NumericError, match="heatmaps must"):
            average_gain(linear, x, bad)


# win ----------------------------------------------------------------------------------------------------------------


def test_win_by_hand() -> None:
    """Of four images two drop less for a, one for b, and one is a tie."""
    a, b = [0.1, 0.5, 0.0, 0.2], [0.2, 0.4, 0.0, 0.3]
    assert (win(a, b), win(b, a)) == (0.5, 0.25)
    assert win(a, a) == 0


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1))
def test_two_methods_win_no_more_than_all_images(pairs: list[tuple[float, float]]) -> None:
    a, b = zip(*pairs, strict=True)
    ties = sum(one == two for one, two in pairs) / len(pairs)
    assert win(a, b) + win(b, a) + ties == pytest.approx(1)


@pytest.mark.parametrize(("a", "b"), [([], []), ([0.1], [0.1, 0.2]), ([np.nan], [0.1]), ([[0.1]], [[0.2]])])
def test_rows_that_cannot_be_compared_are_refused(a: Any, b: Any) -> None:
    with pytest.raises(ShapeError, match="two equally long rows"):
        win(a, b)


def test_the_table_compares_the_drops_of_two_methods() -> None:
    made = case(said(0.8, 0.2), said(0.2, 0.6))
    row = resolve("win")
    assert row.pairwise
    np.testing.assert_array_equal(
        win_values(made, variant="paper")["win"], drop_values(made, variant="paper")["average_drop"]
    )


def test_the_drop_in_deletion_is_better_where_it_is_higher() -> None:
    row = resolve("Average Drop")
    assert [row.fields_of(v)[0].better for v in row.variants] == ["lower", "lower", "lower", "higher"]
