"""Relevance-CAM: where relevance starts, that it is conserved, and what becomes of it."""

from __future__ import annotations

import numpy as np
import pytest

from camrt.errors import TargetError
from camrt.methods.relevancecam import contrastive
from tests.engine.methods.heads import CLASSES, HW, K, TwoLayer, evidence, make_acts, make_head, raw


def test_relevance_starts_at_the_class_against_all_others():
    start = contrastive(np.zeros((2, 4), np.float32), np.array([1, 3]))
    np.testing.assert_array_equal(start, [[-0.25, 1, -0.25, -0.25], [-0.25, -0.25, -0.25, 1]])
    assert start.dtype == np.float32


def test_weights_are_the_mean_relevance_of_each_channel(rng):
    shares = rng.normal(size=(3, K, *HW))
    given = {**evidence(make_head("gap", rng), make_acts(rng)), "relevance_of": lambda start, biased: shares}
    want = np.einsum("nk,nkhw->nhw", shares.mean((2, 3)), given["acts"])
    np.testing.assert_allclose(raw("relevancecam", given), want, atol=1e-12)


def test_the_variants_say_whether_biases_count(rng):
    asked = []
    given = evidence(make_head("two-layer", rng), make_acts(rng))

    def relevance_of(start, biased):
        asked.append(biased)
        return given["acts"]

    for variant in ("official", "official-bias"):
        raw("relevancecam", {**given, "relevance_of": relevance_of}, variant)
    assert asked == [False, True]


def test_relevance_is_conserved_and_sums_over_cells_of_weights(rng):
    """With a positive contribution to every unit nothing is lost, so weights sum to the relevance that started."""
    head = make_head("two-layer", rng)
    given = evidence(TwoLayer(abs(head.first), abs(head.first_bias), head.second, head.second_bias), make_acts(rng))
    start = contrastive(given["logits"], given["target"])
    got = given["relevance_of"](start, False).sum((1, 2, 3))
    np.testing.assert_allclose(got, np.full(3, 1 - (CLASSES - 1) / CLASSES), atol=1e-10)


def test_a_target_that_is_no_class_is_refused(rng):
    given = {**evidence(make_head("two-layer", rng), make_acts(rng)), "target": np.array([0, -1, 2])}
    with pytest.raises(TargetError, match="relevancecam contrasts one class"):
        raw("relevancecam", given)
