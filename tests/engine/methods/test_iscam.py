"""IS-CAM: scores integrated along scaled masks."""

from __future__ import annotations

import numpy as np
import pytest

from camrt.methods.iscam import iscam
from tests.engine.methods.heads import GapLinear, raw
from tests.engine.methods.test_scorecam import World, prob, softmax, stretch, up


@pytest.fixture
def world(rng):
    return World(rng)


@pytest.mark.parametrize(
    ("variant", "plain"), [("riemann", "official"), ("torchcam", "torchcam"), ("torchcam-0.2", "torchcam-0.2")]
)
def test_with_one_step_it_is_scorecam(world, variant, plain):
    np.testing.assert_allclose(
        raw("iscam", world.given(), variant, n=1), raw("scorecam", world.given(), plain), atol=1e-12
    )


LOOPS = {
    "riemann": (lambda a: stretch(up(a)), [0.25, 0.5, 0.75, 1.0], prob, lambda a: a),
    "torchcam": (lambda a: up(stretch(a, 1e-8)), [0.25, 0.75, 1.5, 2.5], None, lambda a: a),
    "torchcam-0.2": (lambda a: up(stretch(a)), [0.25, 0.75, 1.5, 2.5], prob, stretch),
}


def by_hand(world, mask, scales, weigh, combined):
    """Return raw maps by loops."""
    want = []
    for x, acts, c in zip(world.x, world.stem.acts(world.x), world.target, strict=True):
        logits = [np.concatenate([world.forward((s * x * mask(a))[None]) for a in acts]) for s in scales]
        weights = softmax(np.mean(logits, 0), c) if weigh is None else np.mean([weigh(found, c) for found in logits], 0)
        want.append(sum(w * combined(a) for w, a in zip(weights, acts, strict=True)))
    return np.stack(want)


@pytest.mark.parametrize("variant", LOOPS)
def test_each_variant_is_its_loop(world, variant):
    np.testing.assert_allclose(raw("iscam", world.given(), variant, n=4), by_hand(world, *LOOPS[variant]), atol=1e-12)


def test_accumulating_is_a_choice(world):
    mask, _, weigh, combined = LOOPS["riemann"]
    np.testing.assert_allclose(
        raw("iscam", world.given(), n=4, accumulate="yes"),
        by_hand(world, mask, LOOPS["torchcam"][1], weigh, combined),
        atol=1e-12,
    )


def test_under_a_linear_model_the_mean_logit_is_that_of_the_mean_scale(rng):
    """Without a kink, a softmax of mean logits over n steps is that of one step at the mean of the scales."""
    world = World(rng, signed=True)
    world.stem.bias[:] = 0
    world.head = GapLinear(rng.normal(size=(7, 6)), rng.normal(size=7))
    given = world.given()
    got = iscam(given["acts"], given["masked_of"], given["score_of"], variant="torchcam", n=3, accumulate=False).array
    for n, acts in enumerate(given["acts"]):
        logits = np.concatenate([world.forward((2 / 3 * world.x[n] * up(stretch(a, 1e-8)))[None]) for a in acts])
        np.testing.assert_allclose(got[n], softmax(logits, world.target[n]), atol=1e-9)


def test_a_channel_with_some_of_its_steps_run_weighs_their_mean_and_may_move_by_the_rest(world):
    given, short = world.given(), world.given(budget=6 + 2)
    whole = iscam(given["acts"], given["masked_of"], given["score_of"], n=2).array
    first = np.stack([
        prob(np.concatenate([world.forward((0.5 * x * stretch(up(a)))[None]) for a in acts]), c)
        for x, acts, c in zip(world.x, given["acts"], world.target, strict=True)
    ])  # fmt: skip
    found = iscam(given["acts"], short["masked_of"], short["score_of"], n=2)
    np.testing.assert_allclose(found.array, np.concatenate([whole[:, :2], first[:, 2:]], axis=1), atol=1e-12)
    left = abs(given["acts"][:, 2:]).sum(1).max((1, 2)) / 2
    present = np.einsum("nk,nkhw->nhw", found.array, given["acts"])
    np.testing.assert_allclose(found.flags["bound"], left / present.max((1, 2)))
