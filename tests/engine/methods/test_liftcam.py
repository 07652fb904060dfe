"""LIFT-CAM: contributions that sum to the change of the logit, and what a linear tail makes of the three variants."""

from __future__ import annotations

import numpy as np
import pytest

from camrt.errors import MethodError
from tests.engine.methods.heads import K, evidence, make_acts, make_head, one_hot, raw, run


def weights(given, variant=None, **options):
    """Return the weights alone: the map of activations that are one in a single cell of each channel."""
    from camrt.methods import resolve, validate

    method = resolve("liftcam")
    chosen, full = validate(method, variant, options)
    return method.function(*(given[name] for name in method.needs), variant=chosen, **full)


@pytest.mark.parametrize("kind", ["gap", "flatten", "two-layer"])
def test_weights_sum_to_the_change_of_the_logit_from_activations_of_zero(rng, kind):
    head, acts = make_head(kind, rng), make_acts(rng)
    given = evidence(head, acts)
    change = ((given["logits"] - head.logits(np.zeros_like(acts))) * one_hot(given["target"])).sum(1)
    np.testing.assert_allclose(weights(given).sum(1), change, atol=1e-10)


@pytest.mark.parametrize("kind", ["gap", "flatten"])
def test_through_a_linear_tail_all_variants_are_gradient_times_activation(rng, kind):
    given = evidence(make_head(kind, rng), make_acts(rng))
    want = (given["grads"] * given["acts"]).sum((2, 3))
    np.testing.assert_allclose(weights(given), want, atol=1e-12)
    np.testing.assert_allclose(weights(given, "lrp"), want, atol=1e-12)
    np.testing.assert_allclose(weights(given, "lime", samples=4 * K), want, atol=1e-8)


def test_under_a_gap_head_weights_are_the_classs_own_times_mean_activations(rng):
    head, acts = make_head("gap", rng), make_acts(rng)
    given = evidence(head, acts)
    np.testing.assert_allclose(weights(given), head.weight[given["target"]] * acts.mean((2, 3)), atol=1e-12)


def test_behind_a_kink_the_variants_differ(rng):
    given = evidence(make_head("two-layer", rng), make_acts(rng))
    made = [weights(given, variant) for variant in ("official", "lrp", "lime")]
    for one, two in ((0, 1), (0, 2), (1, 2)):
        assert abs(made[one] - made[two]).max() > 1e-2


def test_lrp_is_refused_where_it_is_not_gradient_times_activation(rng):
    given = {**evidence(make_head("gap", rng), make_acts(rng)), "piecewise": False}
    with pytest.raises(MethodError, match="piecewise linear"):
        raw("liftcam", given, "lrp")


def test_lime_depends_on_its_seed_and_the_image_alone(rng):
    acts = make_acts(rng)
    acts[1] = acts[0]
    given = {**evidence(make_head("two-layer", rng), acts, np.array([1, 1, 1])), "ids": np.array([7, 7, 7], np.uint64)}
    first = weights(given, "lime")
    np.testing.assert_array_equal(first[0], first[1])
    assert abs(weights(given, "lime", noise_seed=1) - first).max() > 1e-6
    assert abs(weights({**given, "ids": np.array([8, 7, 7], np.uint64)}, "lime")[0] - first[0]).max() > 1e-6


def test_lime_asks_as_many_sets_as_it_is_told(rng):
    given, asked = evidence(make_head("two-layer", rng), make_acts(rng)), []

    def logits_from(acts):
        asked.append(acts)
        return given["logits"]

    run("liftcam", {**given, "logits_from": logits_from}, "lime")
    assert len(asked) == K
    run("liftcam", {**given, "logits_from": logits_from}, "lime", samples=9)
    assert len(asked) == K + 9
    for acts in asked:  # whole channels are kept or dropped
        kept = acts.any((2, 3))
        np.testing.assert_array_equal(acts, given["acts"] * kept[:, :, None, None])
