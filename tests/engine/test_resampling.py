"""Averages over drawn images; oracles are closed forms, scipy's bootstrap, and plain loops over the draws."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from camrt import resampling
from camrt.errors import ShapeError
from camrt.resampling import Group, draws, interval, means, spread, win_rates


def groups(values: np.ndarray, classes: np.ndarray | None = None, size: int = 7, name: str = "x") -> list[Group]:
    """Cut a column into groups."""
    labels = np.zeros(len(values), np.int64) if classes is None else classes
    return [
        Group(np.arange(len(values))[s : s + size], labels[s : s + size], {name: values[s : s + size]})
        for s in range(0, len(values), size)
    ]


def mean(values: np.ndarray, counts: np.ndarray, classes: np.ndarray | None = None) -> np.ndarray:
    """Average one column."""
    parts = groups(values, classes)
    return means(parts, counts, spread(parts), () if classes is None else {"x"})["x"]


def once(images: int) -> np.ndarray:
    """Return the counts of the plain mean."""
    return np.ones((1, images), np.uint8)


def test_draws_are_with_replacement_and_the_same_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = np.concatenate([*draws(50, 400, 3)])
    assert counts.shape == (400, 50) and (counts.sum(axis=1) == 50).all()
    shares = np.bincount(counts.ravel(), minlength=4)[:4] / counts.size
    assert shares == pytest.approx(scipy.stats.binom.pmf([0, 1, 2, 3], 50, 1 / 50), abs=0.015)
    monkeypatch.setattr(resampling, "COUNTS", 50 * 33)
    parts = [*draws(50, 400, 3)]
    assert max(map(len, parts)) == 33 and (np.concatenate(parts) == counts).all()
    assert (np.concatenate([*draws(50, 400, 4)]) != counts).any()


def test_a_normal_mean_has_the_interval_of_the_closed_form(rng: np.random.Generator) -> None:
    values = rng.normal(3.0, 2.0, 400)
    low, high = interval(mean(values, np.concatenate([*draws(400, 4000, 0)])), 0.95)
    half = 1.959964 * values.std() / np.sqrt(400)  # the bootstrap's own variance is that with n
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.08 * half)


def test_an_interval_is_scipys(rng: np.random.Generator) -> None:
    values = rng.exponential(1.0, 60)
    low, high = interval(mean(values, np.concatenate([*draws(60, 5000, 0)])), 0.9)
    peer = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=5000, confidence_level=0.9, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert (low, high) == pytest.approx((peer.low, peer.high), abs=0.03 * (peer.high - peer.low))


def test_means_are_those_of_the_images_drawn(rng: np.random.Generator) -> None:
    values, curves = rng.random(23), rng.random((23, 4))
    counts = np.concatenate([*draws(23, 9, 0)])
    parts = [Group(one.places, one.classes, {**one.values, "c": curves[one.places]}) for one in groups(values)]
    found = means(parts, counts, spread(parts))
    for row, count in enumerate(counts):
        drawn = np.repeat(np.arange(23), count)
        assert found["x"][row] == pytest.approx(values[drawn].mean(), rel=1e-12)
        assert found["c"][row] == pytest.approx(curves[drawn].mean(axis=0), rel=1e-12)


def test_images_without_a_value_do_not_count(rng: np.random.Generator) -> None:
    values = rng.random(40)
    values[rng.random(40) < 0.4] = np.nan
    counts = np.concatenate([*draws(40, 20, 0)])
    expected = [np.nanmean(np.repeat(values, count)) for count in counts]
    assert mean(values, counts) == pytest.approx(expected, rel=1e-12)
    there = values[~np.isnan(values)]
    found = spread(groups(values))["x"]
    assert (found.n, found.least, found.most) == (len(there), there.min(), there.max())
    assert found.std == pytest.approx(there.std(ddof=1), rel=1e-12)


def test_a_draw_without_any_value_has_no_mean_and_is_left_out_of_intervals() -> None:
    values = np.array([np.nan, 2.0, 4.0])
    found = mean(values, np.array([[3, 0, 0], [1, 2, 0], [0, 1, 2]], np.uint8))
    assert np.isnan(found[0]) and found[1:].tolist() == pytest.approx([2.0, 10 / 3])
    assert interval(found, 0.5) == pytest.approx((2 + 1 / 3, 3.0))
    assert np.isnan(interval(np.full(3, np.nan), 0.5)).all()


def test_classes_count_alike_however_many_images_they_have() -> None:
    values, classes = np.array([1.0, 0.0, 1.0, 0.0, 0.0, 1.0]), np.array([5, 2, 5, 2, 2, 9])
    assert mean(values, once(6), classes).tolist() == [2 / 3]
    drawn = np.array([[1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 6], [2, 2, 0, 0, 2, 0]], np.uint8)
    assert mean(values, drawn, classes).tolist() == [0.5, 1.0, 0.5]  # a class that is not drawn is not there


def test_a_constant_has_its_own_mean_to_the_bit() -> None:
    values = np.full(37, 0.1)
    found = mean(values, np.concatenate([*draws(37, 50, 0)]))
    assert set(found.tolist()) == {0.1}
    assert spread(groups(values))["x"].std == 0.0
    assert interval(found, 0.95) == (0.1, 0.1)


def test_one_image_has_no_deviation() -> None:
    one = spread(groups(np.array([0.3])))["x"]
    assert (one.n, one.std) == (1, None)
    assert mean(np.array([0.3]), np.concatenate([*draws(1, 5, 0)])).tolist() == [0.3] * 5


def test_curves_of_different_lengths_are_refused() -> None:
    parts = [*groups(np.ones((2, 3))), *groups(np.ones((2, 4)))]
    with pytest.raises(ShapeError, match=r"'x' differ in length, \(3,\) and \(4,\)"):
        spread(parts)


def test_wins_by_hand() -> None:
    values = np.array([[0.9, 0.2, 0.5, np.nan], [0.1, 0.2, 0.6, 0.3], [0.9, 0.1, 0.7, 0.4]])
    wins, both = win_rates(values, "higher")
    assert wins.tolist() == [[0, 1, 1], [1, 0, 1], [1, 3, 0]]
    assert both.tolist() == [[3, 3, 3], [3, 4, 4], [3, 4, 4]]
    assert win_rates(values, "lower")[0].tolist() == wins.T.tolist()
