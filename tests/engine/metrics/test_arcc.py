"""ARCC: worked by hand from its three parts, and the pictures it asks for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from camrt.metrics import METRICS
from camrt.metrics.adcc import harmonic_mean
from camrt.metrics.arcc import arcc, arcc_again, arcc_changes, arcc_overall, arcc_values
from camrt.metrics.case import Again, Case, Scores
from camrt.metrics.changes import Change, Clean, Imputed, Masked, Order, Substrate

SHOWN = Masked(Substrate("hidden"))
SIZE = (2, 3)


def said(*p: float) -> Scores:
    """Score images whose class has these probabilities."""
    values = np.array(p)
    return Scores(np.log(values), np.log1p(-values), values > 0.5)


def test_what_is_imputed_by_hand() -> None:
    """Of six distinct values, 1, 2, 3 and 4 lie below the 20th to 80th percentile; the others are removed."""

    def side(descending: bool) -> list[Change]:
        return [Imputed(Order(descending), count, 0.01, "input", 7) for count in (5, 4, 3, 2)]

    assert list(arcc_changes(SIZE, variant="official", seed=7)) == side(True) + side(False)
    assert arcc_again(SIZE, variant="official", seed=7) == (SHOWN,)


def two_images() -> Case:
    """Return an image whose LeRF is .8 and MoRF .3, and one with .2 and .5: ROAD is .25 and -.15."""
    maps = np.array([[[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]] * 2)
    scores = {Clean(): said(0.9, 0.9)}
    for change in arcc_changes(SIZE, variant="official", seed=0):
        assert isinstance(change, Imputed)
        scores[change] = said(0.3, 0.5) if change.order.descending else said(0.8, 0.2)
    flat = np.zeros(2, bool)
    ids = np.zeros(2, np.uint64)
    again = {SHOWN: Again(maps, flat)}
    return Case(maps, flat, ids.astype(np.int64), ids, maps[:, None], scores=scores, again=again)


def test_by_hand() -> None:
    """3 / (1/1 + 1/.5 + 1/.5) = .6, and 0 where ROAD is below 0; of means ROAD is .05 and its term .1."""
    found = arcc_values(two_images(), variant="official", seed=0)
    np.testing.assert_allclose(found["arcc.road"], [0.25, -0.15], atol=1e-15)
    np.testing.assert_allclose(found["arcc"], [0.6, 0], rtol=1e-14)
    whole = arcc_overall({name: values.mean() for name, values in found.items()}, variant="official", seed=0)
    assert float(whole["arcc"]) == pytest.approx(3 / (1 / 1 + 1 / 0.5 + 1 / 0.1), rel=1e-12)
    assert float(whole["arcc.per_image_mean"]) == pytest.approx(0.3)


def test_its_parts_are_the_other_metrics_own() -> None:
    case = two_images()
    found = arcc_values(case, variant="official", seed=0)
    for part in ("coherency", "complexity"):
        want = METRICS[part].values(case, variant="official")[part]
        np.testing.assert_array_equal(found[f"arcc.{part}"], want)


def test_road_counts_as_one_at_most() -> None:
    means = {"arcc.coherency": np.float64(0.9), "arcc.complexity": np.float64(0.1), "arcc": np.float64(0)}
    high = arcc_overall({**means, "arcc.road": np.float64(0.5)}, variant="official", seed=0)
    over = arcc_overall({**means, "arcc.road": np.float64(0.6)}, variant="official", seed=0)
    assert high["arcc"] == over["arcc"] == harmonic_mean(np.float64(0.9), np.float64(0.9), np.float64(1))


def test_plain_arrays(rng: np.random.Generator) -> None:
    """A model that looks where the map does gains from it; the seed alone moves the noise."""
    x = rng.uniform(size=(2, 1, 8, 8)).astype(np.float32)
    maps = np.zeros((2, 8, 8))
    maps[:, 2:5, 2:5] = 1
    x[:, :, 2:5, 2:5] += 2

    def model(pictures: Any) -> Any:
        inside = pictures[:, 0, 2:5, 2:5].mean((1, 2)) - pictures[:, 0].mean((1, 2))
        return np.stack([4 * inside, np.zeros(len(pictures))], 1)

    def explain(pictures: Any, classes: Any) -> Any:
        return maps

    one, two, other = (arcc(model, x, maps, [0, 0], explain=explain, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, two)
    assert (one > 0.1).all()
    assert (one < 1).all()
    assert 0 < abs(one - other).max() < 0.05
