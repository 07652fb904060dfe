"""Coherency, complexity and ADCC: worked by hand, their identities, and the tables that were printed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy, pearsonr

from camrt.errors import InputError, MethodError, NumericError
from camrt.metrics import METRICS
from camrt.metrics.adcc import (
    adcc,
    adcc_of_means,
    adcc_overall,
    adcc_values,
    coherency,
    coherency_values,
    complexity,
    complexity_values,
    harmonic_mean,
    shown,
)
from camrt.metrics.case import Again, Case, Scores
from camrt.metrics.changes import Clean, Masked, Substrate
from camrt.references import REFERENCES

SHOWN = Masked(Substrate("hidden"))
SHARES = st.floats(0, 1)


def case(first: Any, second: Any, **more: Any) -> Case:
    """Lay out maps and the maps of what they show."""
    maps, again = (np.asarray(array, np.float64) for array in (first, second))
    n = len(maps)
    flat = [array.max((1, 2)) == array.min((1, 2)) for array in (maps, again)]
    ids = np.zeros(n, np.uint64)
    return Case(maps, flat[0], ids.astype(np.int64), ids, maps[:, None], again={SHOWN: Again(again, flat[1])}, **more)


def coherent(first: Any, second: Any) -> Any:
    return coherency_values(case(first, second), variant="official")["coherency"]


# coherency ----------------------------------------------------------------------------------------------------------


def test_coherency_by_hand() -> None:
    """1 1 0 0 against 1 0 1 0 is uncorrelated; against 1 0 0 0, r = .25 / sqrt(.25 * .1875 * 4) = 1 / sqrt(3)."""
    maps = np.array([[[1.0, 1.0], [0.0, 0.0]]] * 2)
    again = [[[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 0.0]]]
    np.testing.assert_allclose(coherent(maps, again), [0.5, (1 + 1 / np.sqrt(3)) / 2], atol=1e-15)


def test_coherency_is_scipys_correlation(rng: np.random.Generator) -> None:
    first, second = rng.uniform(size=(2, 4, 7, 5))
    want = [(pearsonr(a.ravel(), b.ravel())[0] + 1) / 2 for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(coherent(first, second), want, atol=1e-12)


def test_a_map_is_coherent_with_its_like_and_not_with_its_negative(rng: np.random.Generator) -> None:
    maps = rng.uniform(size=(3, 6, 4))
    np.testing.assert_allclose(coherent(maps, 0.25 * maps + 0.5), 1, atol=1e-14)
    np.testing.assert_allclose(coherent(maps, 1 - maps), 0, atol=1e-14)


def test_a_constant_map_on_either_side_is_not_coherent_and_flagged(rng: np.random.Generator) -> None:
    maps, again = rng.uniform(size=(2, 4, 3, 3))
    maps[0], again[1], maps[2], again[2] = 0, 0.5, 0, 0
    found = coherency_values(case(maps, again), variant="official")
    assert (found["coherency"][:3] == 0).all()
    assert found["coherency"][3] > 0
    np.testing.assert_array_equal(found["coherency.degenerate"], [1, 1, 1, 0])


def test_maps_before_they_are_resized_are_cut_like_those_after(rng: np.random.Generator) -> None:
    heat, again = rng.uniform(size=(2, 2, 6, 6))
    low, low_again = rng.normal(size=(2, 2, 3, 3))
    for relu in (True, False):
        made = case(heat, again, raw=low, relu=relu)
        made = Case(**{**vars(made), "again": {SHOWN: Again(again, np.zeros(2, bool), low_again)}})
        pairs = zip(*(np.maximum(raw, 0) if relu else raw for raw in (low, low_again)), strict=True)
        want = [(np.corrcoef(a.ravel(), b.ravel())[0, 1] + 1) / 2 for a, b in pairs]
        assert coherency_values(made, variant="official")["coherency"].tolist() == coherent(heat, again).tolist()
        np.testing.assert_allclose(coherency_values(made, variant="low-res")["coherency"], want, atol=1e-12)


def test_low_resolution_needs_maps_of_low_resolution(rng: np.random.Generator) -> None:
    with pytest.raises(MethodError, match="low-res compares maps before they are resized"):
        coherency_values(case(*rng.uniform(size=(2, 1, 3, 3))), variant="low-res")


# complexity ---------------------------------------------------------------------------------------------------------


def test_complexity_by_hand() -> None:
    """Of 1, 1/2, 0, 0: a mean of 3/8; as a distribution 2/3 and 1/3; two pixels in use."""
    maps = np.array([[[1, 0.5], [0, 0]], [[0, 0], [0, 0]], [[1, 1], [1, 1]], [[0, 1], [0, 0]], [[1, 1e-5], [2e-5, 0]]])
    found = complexity_values(case(maps, maps), variant="official")
    np.testing.assert_allclose(found["complexity"], [3 / 8, 0, 1, 1 / 4, (1 + 3e-5) / 4], atol=1e-15)
    want = [np.log(3) - 2 / 3 * np.log(2), 0, np.log(4), 0]
    np.testing.assert_allclose(found["complexity.entropy"][:4], want, atol=1e-15)
    assert not np.signbit(found["complexity.entropy"]).any()  # a table prints no -0
    np.testing.assert_array_equal(found["complexity.effective"], [2, 0, 4, 1, 2])


def test_entropy_is_scipys(rng: np.random.Generator) -> None:
    maps = rng.uniform(size=(3, 5, 7)).astype(np.float32)
    maps = np.concatenate([maps, maps**20])  # most of these next to nothing
    found = complexity_values(case(maps, maps), variant="official")["complexity.entropy"]
    np.testing.assert_allclose(found, [entropy(one.ravel().astype(np.float64)) for one in maps], rtol=1e-12)


def test_entropy_of_a_single_pixel_is_never_below_zero() -> None:
    maps = np.zeros((400, 2, 3))
    maps[:, 1, 1] = np.linspace(0.001, 1, len(maps))
    found = complexity_values(case(maps, maps), variant="official")["complexity.entropy"]
    assert (found >= 0).all() and (found < 1e-14).all()


def test_complexity_of_plain_arrays(rng: np.random.Generator) -> None:
    maps = rng.uniform(size=(3, 5, 7))
    np.testing.assert_allclose(complexity(maps), maps.mean((1, 2)), rtol=1e-14)
    with pytest.raises(NumericError, match="NaN"):
        complexity(np.full((1, 2, 2), np.nan))


# the harmonic mean --------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.floats(0, 1, exclude_min=True), min_size=1, max_size=5))
def test_the_harmonic_mean_lies_between_its_terms(terms: list[float]) -> None:
    made = float(harmonic_mean(*(np.float64(term) for term in terms)))
    slack = 1 + 1e-12
    assert min(terms) <= made * slack
    assert made <= max(terms) * slack
    assert made <= len(terms) * min(terms) * slack
    if min(terms) > 1e-300:
        assert made == pytest.approx(len(terms) / sum(1 / term for term in terms), rel=1e-9)


@settings(deadline=None)
@given(SHARES, SHARES, SHARES, SHARES)
def test_adcc_grows_with_each_of_its_terms(drop: float, coh: float, compl: float, less: float) -> None:
    base = float(adcc_of_means(drop, coh, compl))
    assert 0 <= base <= 1
    slack = 1e-12
    assert float(adcc_of_means(drop * less, coh, compl)) >= base - slack
    assert float(adcc_of_means(drop, coh * less, compl)) <= base + slack
    assert float(adcc_of_means(drop, coh, compl * less)) >= base - slack


@settings(deadline=None)
@given(SHARES)
def test_equal_terms_are_their_own_mean(term: float) -> None:
    assert float(adcc_of_means(1 - term, 1 - (1 - term), 1 - term)) == pytest.approx(1 - (1 - term), abs=1e-15)


@pytest.mark.parametrize("terms", [(1, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 1)])
def test_a_term_of_nothing_leaves_nothing(terms: tuple[float, float, float]) -> None:
    assert adcc_of_means(*terms) == 0


def test_percentages_are_refused() -> None:
    with pytest.raises(InputError, match=r"coherency must be a fraction.*got 69.2"):
        adcc_of_means(0.5, 69.2, 0.1)
    with pytest.raises(InputError, match="average_drop must be a fraction"):
        adcc_of_means(np.array([0.1, np.nan]), 0.5, 0.5)
    with pytest.raises(InputError, match="complexity must be a fraction"):
        adcc_of_means(0.5, 0.5, -0.1)


PRINTED = [row for table in ("poppi", "reciprocam") for row in REFERENCES[table].rows]


@pytest.mark.parametrize("row", PRINTED, ids=lambda row: f"{row.net}-{row.method}-{row.data}".replace(" ", "_"))
def test_every_printed_row_is_the_adcc_of_its_means(row: Any) -> None:
    """To 0.05 in percent, half of what four rounded numbers may add up to."""
    parts = (row.values[name] for name in ("average_drop", "coherency", "complexity"))
    assert 100 * adcc_of_means(*parts) == pytest.approx(100 * row.values["adcc"], abs=0.05)


def test_thirty_rows_were_printed_for_imagenet() -> None:
    assert len(REFERENCES["poppi"].rows) == 30


# ADCC ---------------------------------------------------------------------------------------------------------------


def said(*p: float) -> Scores:
    """Score images whose class has these probabilities."""
    values = np.array(p)
    return Scores(np.log(values), np.log1p(-values), values > 0.5)


def two_images() -> Case:
    """Return one image of coherency 1, complexity .5, drop .75, and one of .5, .5 and 0."""
    maps = np.array([[[1.0, 1.0], [0.0, 0.0]]] * 2)
    again = [[[1.0, 1.0], [0.0, 0.0]], [[1.0, 0.0], [1.0, 0.0]]]
    return case(maps, again, scores={Clean(): said(0.8, 0.2), SHOWN: said(0.2, 0.6)})


def test_adcc_by_hand() -> None:
    """3 / (1/1 + 1/.5 + 1/.25) = 3/7, and 3 / (1/.5 + 1/.5 + 1/1) = 3/5; of means 3 / (1/.75 + 1/.5 + 1/.625)."""
    found = adcc_values(two_images(), variant="official")
    np.testing.assert_allclose(found["adcc.coherency"], [1, 0.5], atol=1e-15)
    np.testing.assert_allclose(found["adcc.complexity"], [0.5, 0.5])
    np.testing.assert_allclose(found["adcc.drop"], [0.75, 0], atol=1e-15)
    np.testing.assert_allclose(found["adcc"], [3 / 7, 3 / 5], rtol=1e-14)
    whole = adcc_overall({name: values.mean() for name, values in found.items()}, variant="official")
    assert float(whole["adcc"]) == pytest.approx(3 / (1 / 0.75 + 1 / 0.5 + 1 / 0.625), rel=1e-14)
    assert float(whole["adcc.per_image_mean"]) == pytest.approx((3 / 7 + 3 / 5) / 2, rel=1e-14)


def test_means_of_many_resamples_are_taken_at_once(rng: np.random.Generator) -> None:
    names = ("adcc", "adcc.coherency", "adcc.complexity", "adcc.drop")
    means = {name: rng.uniform(size=(4, 3)) for name in names}
    whole = adcc_overall(means, variant="official")
    for at in np.ndindex(4, 3):
        one = adcc_overall({name: values[at] for name, values in means.items()}, variant="official")
        assert {name: values[at] for name, values in whole.items()} == {name: float(v) for name, v in one.items()}


@settings(deadline=None)
@given(st.lists(st.tuples(SHARES, SHARES, SHARES), min_size=1, max_size=8))
def test_the_mean_of_each_images_adcc_is_never_the_larger(rows: list[tuple[float, float, float]]) -> None:
    drop, coh, compl = np.array(rows).T
    each = adcc_of_means(drop, coh, compl)
    assert np.mean(each) <= adcc_of_means(drop.mean(), coh.mean(), compl.mean()) + 1e-12


def test_a_map_of_ones_and_fakecam_score_nothing() -> None:
    ones, fake = np.ones((1, 224, 224)), np.ones((1, 224, 224))
    fake[0, 0, 0] = 0
    for maps, low, high in ((ones, 0, 0), (fake, 5e-5, 7e-5)):
        made = case(maps, maps, scores={Clean(): said(0.9), SHOWN: said(0.9)})
        assert low <= adcc_values(made, variant="official")["adcc"][0] <= high


def test_what_is_shown_is_scored_and_explained_once() -> None:
    row = METRICS["adcc"]
    assert row.changes is not None and row.again is not None
    assert (
        row.changes((3, 3), variant="official") == row.again((3, 3), variant="official") == shown((3, 3), variant="x")
    )


def test_plain_arrays_are_explained_again(rng: np.random.Generator) -> None:
    x, maps, again = rng.normal(size=(3, 1, 4, 4)), *rng.uniform(size=(2, 3, 4, 4))
    asked = []

    def explain(pictures: Any, classes: Any) -> Any:
        asked.append((pictures, classes))
        return again

    def model(pictures: Any) -> Any:
        return np.stack([pictures[:, 0].sum((1, 2)), np.zeros(len(pictures))], 1)

    classes = np.array([0, 1, 0])
    np.testing.assert_allclose(coherency(model, x, maps, classes, explain=explain), coherent(maps, again), atol=1e-12)
    np.testing.assert_allclose(asked[0][0], x * maps[:, None], atol=1e-12)
    np.testing.assert_array_equal(asked[0][1], classes)
    margin, left = (np.where(classes == 0, 1, -1) * model(p)[:, 0] for p in (x, x * maps[:, None]))
    before, after = (1 / (1 + np.exp(-m)) for m in (margin, left))
    drop = np.maximum(0, before - after) / before
    want = adcc_of_means(drop, coherent(maps, again), maps.mean((1, 2)))
    np.testing.assert_allclose(adcc(model, x, maps, classes, explain=explain), want, atol=1e-9)
    with pytest.raises(InputError, match="explain"):
        coherency(model, x, maps, classes, explain=None)  # type: ignore[arg-type]
