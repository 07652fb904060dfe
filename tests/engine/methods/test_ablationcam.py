"""Ablation-CAM by loops, what it is under linear heads, and through a whole model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import camrt
from camrt.methods import resolve, validate
from camrt.methods.component import lapack_component
from tests import tiny
from tests.engine.methods.edited import edited_evidence
from tests.engine.methods.heads import CLASSES, K, evidence, make_acts, make_head, one_hot, raw, run


def weights(given, variant=None, **options):
    """Return the weights alone."""
    method = resolve("ablationcam")
    chosen, full = validate(method, variant, options)
    return method.function(*(given[name] for name in method.needs), variant=chosen, **full).array


def by_hand(head, acts, target, value_of, divisor=lambda s: s):
    """Return weights by loops; `value_of` one channel (h,w) and its place."""
    made = np.zeros(acts.shape[:2])
    for n, c in enumerate(target):
        s = head.logits(acts[[n]])[0, c]
        for k in range(acts.shape[1]):
            edited = acts[[n]].copy()
            edited[0, k] = value_of(acts[n], k)
            made[n, k] = (s - head.logits(edited)[0, c]) / divisor(s)
    return made


VALUES = {
    "zero": lambda a, k: 0,
    "mean": lambda a, k: a[k].mean(),
    "min": lambda a, k: a[k].min(),
    "far": lambda a, k: a.min() - 1e7 * (k % 32 + 1),
}


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize(("variant", "divisor"), [("abs", abs), ("paper", float), ("pytorch-grad-cam", float)])
def test_each_definition_is_its_loop(rng, value, variant, divisor):
    head, acts, target = make_head("two-layer", rng), make_acts(rng, signed=True), np.array([0, 1, 2])
    given = evidence(head, acts, target)
    want = by_hand(head, acts, target, VALUES[value], divisor)
    np.testing.assert_allclose(weights(given, variant, value=value), want, rtol=1e-9, atol=1e-12)


def test_the_peers_variant_goes_far_unless_the_smallest_activation_is_zero(rng):
    head, target = make_head("two-layer", rng), np.array([0, 1, 2])
    for signed, value in ((False, "zero"), (True, "far")):
        given = evidence(head, make_acts(rng, signed=signed), target)
        np.testing.assert_array_equal(
            weights(given, "pytorch-grad-cam"), weights(given, "paper", value=value), err_msg=value
        )
    assert abs(weights(given, "pytorch-grad-cam")).max() > 1e5


@pytest.mark.parametrize("kind", ["gap", "flatten"])
def test_through_a_linear_head_the_lost_score_is_gradient_times_activation(rng, kind):
    given = evidence(make_head(kind, rng), make_acts(rng))
    scores = (given["logits"] * one_hot(given["target"])).sum(1)
    lost = (given["grads"] * given["acts"]).sum((2, 3))
    np.testing.assert_allclose(weights(given, "paper") * scores[:, None], lost, atol=1e-12)
    np.testing.assert_allclose(weights(given) * abs(scores)[:, None], lost, atol=1e-12)


def test_under_a_gap_head_weights_are_the_classs_own_times_mean_activations(rng):
    head, acts = make_head("gap", rng), make_acts(rng)
    given = evidence(head, acts)
    scores = (given["logits"] * one_hot(given["target"])).sum(1)
    want = head.weight[given["target"]] * acts.mean((2, 3)) / abs(scores)[:, None]
    np.testing.assert_allclose(weights(given), want, atol=1e-12)
    np.testing.assert_allclose(weights(given, value="mean"), 0, atol=1e-12)


def test_a_negative_score_turns_the_papers_map_round(rng):
    head, acts = make_head("two-layer", rng), make_acts(rng)
    scores = head.logits(acts)
    given = evidence(head, acts, scores.argmin(1))
    assert (scores.min(1) < 0).all()
    np.testing.assert_allclose(raw("ablationcam", given), -raw("ablationcam", given, "paper"), atol=1e-12)
    given = evidence(head, acts, scores.argmax(1))
    np.testing.assert_array_equal(raw("ablationcam", given), raw("ablationcam", given, "paper"))


@pytest.mark.parametrize("variant", ["abs", "paper", "pytorch-grad-cam"])
def test_a_score_of_zero_divides_by_one(rng, variant):
    head, acts, target = make_head("two-layer", rng), make_acts(rng), np.array([0, 1, 2])
    one = evidence(head, acts[:1], target[:1])
    shifted = replace(head, second_bias=head.second_bias - head.logits(acts[:1])[0])
    zero = {**evidence(shifted, acts[:1], target[:1]), "logits": np.zeros((1, CLASSES))}  # to the bit
    scale = one["logits"][0, 0] if variant != "abs" else abs(one["logits"][0, 0])
    np.testing.assert_allclose(weights(zero, variant), weights(one, variant) * scale, atol=1e-10)


def picked(acts, count):
    """Return which channels lie most and least inside an Eigen-CAM's object, image by image."""
    chosen = np.zeros(acts.shape[:2], bool)
    for n, a in enumerate(acts):
        projected = abs(lapack_component(a[None])[0][0])
        mask = (projected - projected.min()) / np.ptp(projected) > 0.01
        scores = [(s * mask).sum() / s.sum() for s in (abs(c) - abs(c).min() for c in a)]
        order = np.argsort(scores)
        chosen[n, [*order[:count], *order[::-1][:count]]] = True
    return chosen


@pytest.mark.parametrize(("ratio", "count"), [(0.34, 2), (0.17, 1), (0.01, 1), (0.8, 4)])
def test_a_ratio_takes_channels_from_both_ends_and_the_others_weigh_nothing(rng, ratio, count):
    given, asked = evidence(make_head("two-layer", rng), make_acts(rng, signed=True)), []

    def ablated_of(values, only):
        asked.append(only)
        return given["ablated_of"](values, only)

    found = weights({**given, "ablated_of": ablated_of}, ratio=ratio)
    chosen = picked(given["acts"], count)
    np.testing.assert_array_equal(asked[0], chosen)
    np.testing.assert_array_equal(found, np.where(chosen, weights(given), 0))
    runs = resolve("ablationcam").runs({"ratio": ratio}, K, 20)
    assert runs == chosen.sum(1).max()


def test_a_flat_channel_counts_as_most_inside_as_the_peer_sorts_it(rng):
    acts = make_acts(rng)
    acts[:, 3] = 0
    given, asked = evidence(make_head("two-layer", rng), acts), []

    def ablated_of(values, only):
        asked.append(only)
        return given["ablated_of"](values, only)

    weights({**given, "ablated_of": ablated_of}, ratio=0.17)
    assert asked[0][:, 3].all()
    assert (asked[0].sum(1) == 2).all()  # and one from the other end


@pytest.mark.parametrize("budget", [0, 1, 4, K])
def test_channels_that_are_not_run_weigh_nothing(rng, budget):
    head, acts, target = make_head("two-layer", rng), make_acts(rng), np.array([0, 1, 2])
    given = evidence(head, acts, target)
    part = weights({**given, **edited_evidence(head.logits, acts, target, budget=budget)})
    np.testing.assert_array_equal(part[:, budget:], 0)
    np.testing.assert_array_equal(part[:, :budget], weights(given)[:, :budget])


def test_signed_activations_are_flagged(rng):
    for signed in (True, False):
        made = run("ablationcam", evidence(make_head("two-layer", rng), make_acts(rng, signed=signed)))
        assert made.flags["signed_activations"].all() == signed


# through a whole model -------------------------------------------------------------------------------------------


def test_a_linear_heads_map_is_in_closed_form_what_its_parameters_say():
    explainer, x = camrt.load(tiny.gap(), preprocess="half"), tiny.images(3)
    acts = explainer.activations(x)["a2"].astype(np.float64)
    head = tiny.weights()["head"].astype(np.float64)
    result = explainer.explain(x, method="ablationcam", target=[1, 4])
    for place, c in enumerate((1, 4)):
        scores = abs(result.logits[:, c].astype(np.float64))
        want = np.einsum("k,nk,nkhw->nhw", head[:, c], acts.mean((2, 3)), acts) / scores[:, None, None]
        np.testing.assert_allclose(result.raw[:, place], want, atol=1e-5 * abs(want).max())


@pytest.mark.parametrize("model", [tiny.gap, tiny.mlp])
def test_five_targets_are_five_single_runs_and_a_batch_is_its_images(model):
    explainer, x = camrt.load(model(), preprocess="half"), tiny.images(3)
    for method in ("ablationcam", "reciprocam"):
        whole = explainer.explain(x, method=method, target=[0, 1, 2, 3, 4])
        for c in range(5):
            single = explainer.explain(x, method=method, target=c)
            np.testing.assert_allclose(whole.raw[:, c], single.raw[:, 0], atol=1e-6 * abs(single.raw).max())
        for n in range(3):
            alone = explainer.explain(x[[n]], method=method, target=[0, 1, 2, 3, 4])
            np.testing.assert_allclose(whole.heatmaps[[n]], alone.heatmaps, atol=1e-4)


def test_a_probability_is_what_is_lost_where_that_is_the_target():
    explainer, x = camrt.load(tiny.mlp(), preprocess="half"), tiny.images(2)
    result = explainer.explain(x, method="ablationcam", target="prob:2", variant="paper")
    acts = explainer.activations(x)["a2"]
    tail = explainer._sessions.run

    def odds(a):
        logits = tail("tail", ("a2",), {"activations.0": a})["logits"].astype(np.float64)
        return (np.exp(logits) / np.exp(logits).sum(1, keepdims=True))[:, 2]

    want = np.zeros(result.raw[:, 0].shape)
    for k in range(acts.shape[1]):
        edited = acts.copy()
        edited[:, k] = 0
        want += ((odds(acts) - odds(edited)) / odds(acts))[:, None, None] * acts[:, k]
    np.testing.assert_allclose(result.raw[:, 0], want, atol=1e-5 * abs(want).max())
