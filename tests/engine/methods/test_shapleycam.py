"""Shapley-CAM: the cotangents against finite differences, the curvature against autograd, and Grad-CAM as a limit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from camrt.errors import TargetError
from camrt.methods.shapleycam import curvature_seed, shapleycam, target_seed
from tests.engine.methods.heads import CLASSES, evidence, make_acts, make_head, raw


def tail(head, *, smooth=False):
    """Return the logits of a two-layer head as a function of torch activations, its kinks kept or rounded off."""
    first, bias, second, last = (torch.tensor(w) for w in (head.first, head.first_bias, head.second, head.second_bias))
    bend = torch.tanh if smooth else torch.relu
    return lambda acts: bend(acts.flatten(1) @ first.T + bias) @ second.T + last


def score(logits, target, variant):
    """Return the target scalar of a batch, summed."""
    picked = logits[torch.arange(len(logits)), torch.tensor(target)]
    return (
        picked
        + (torch.log_softmax(logits, 1)[torch.arange(len(logits)), torch.tensor(target)] if variant == "rest" else 0)
    ).sum()


def autograd_weights(function, acts, target, variant):
    """Return mean(G - H A / 2) by two sweeps of autograd."""
    at = torch.tensor(acts, requires_grad=True)
    (grads,) = torch.autograd.grad(score(function(at), target, variant), at, create_graph=True)
    curved = torch.zeros_like(at)
    if grads.requires_grad:
        (curved,) = torch.autograd.grad((grads * at.detach()).sum(), at)
    return (grads - curved / 2).mean((2, 3)).detach().numpy()


def asked(function, acts, target, *, piecewise):
    """Lay out what Shapley-CAM asks of a tail that torch differentiates."""

    def gradients_from(at, seed):
        at = torch.tensor(at, requires_grad=True)
        return torch.autograd.grad((function(at) * torch.tensor(seed)).sum(), at)[0].numpy()

    def logits_from(at):
        return function(torch.tensor(at)).numpy()

    return {
        "acts": acts,
        "logits": logits_from(acts),
        "target": target,
        "piecewise": piecewise,
        "gradients_of": lambda seed: gradients_from(acts, seed),
        "logits_from": logits_from,
        "gradients_from": gradients_from,
    }


@pytest.mark.parametrize("variant", ["rest", "logit"])
@pytest.mark.parametrize(("smooth", "piecewise"), [(False, True), (False, False), (True, False)])
def test_weights_are_those_of_two_sweeps_of_autograd(rng, variant, smooth, piecewise):
    acts, target = make_acts(rng), np.array([2, 0, 5])
    function = tail(make_head("two-layer", rng), smooth=smooth)
    want = autograd_weights(function, acts, target, variant)
    got = shapleycam(*asked(function, acts, target, piecewise=piecewise).values(), variant=variant)
    np.testing.assert_allclose(got, want, atol=2e-5 * abs(want).max())


def test_the_short_form_would_miss_the_curvature_of_a_smooth_tail(rng):
    acts, target = make_acts(rng), np.array([2, 0, 5])
    function = tail(make_head("two-layer", rng), smooth=True)
    want = autograd_weights(function, acts, target, "logit")
    got = shapleycam(*asked(function, acts, target, piecewise=True).values(), variant="logit")
    assert abs(got - want).max() > 1e-2 * abs(want).max()


@pytest.mark.parametrize("kind", ["gap", "flatten", "two-layer"])
def test_for_the_logit_of_a_piecewise_linear_tail_it_is_gradcam(rng, kind):
    given = evidence(make_head(kind, rng), make_acts(rng))
    want = raw("gradcam", given)
    np.testing.assert_allclose(raw("shapleycam", given, "logit"), want, atol=1e-12)
    slow = raw("shapleycam", {**given, "piecewise": False}, "logit", step=1e-5)
    np.testing.assert_allclose(slow, want, atol=1e-9)
    assert abs(raw("shapleycam", given) - want).max() > 1e-3


@pytest.mark.parametrize("variant", ["rest", "logit"])
def test_the_cotangent_of_the_target_agrees_with_finite_differences(rng, variant):
    logits, target = rng.normal(size=(3, CLASSES)), np.array([4, 1, 0])
    seed = target_seed(logits, target, variant)
    for d in range(CLASSES):
        step = 1e-5 * np.eye(CLASSES)[d]
        for n in range(3):
            up, down = (float(score(torch.tensor(logits[[n]] + s * step), target[[n]], variant)) for s in (1, -1))
            assert seed[n, d] == pytest.approx((up - down) / 2e-5, abs=1e-8)


def test_the_cotangent_of_the_curvature_is_the_hessian_of_the_log_probability(rng):
    logits, change = rng.normal(size=(3, CLASSES)), rng.normal(size=(3, CLASSES))
    ends = [target_seed(logits + s * 1e-5 * change, np.zeros(3, int), "rest") for s in (1, -1)]
    np.testing.assert_allclose(curvature_seed(logits, change), (ends[0] - ends[1]) / 2e-5, atol=1e-8)


def test_a_target_that_is_no_class_is_refused(rng):
    given = {**evidence(make_head("gap", rng), make_acts(rng)), "target": np.array([0, -1, 2])}
    with pytest.raises(TargetError, match="shapleycam explains one class"):
        raw("shapleycam", given)
