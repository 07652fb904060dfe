"""ReciproCAM by loops, on linear heads, and on a transformer whose prefix tokens stay."""

from __future__ import annotations

import numpy as np
import pytest

import camrt
from tests import tiny
from tests.engine.methods.edited import BELL, edited_evidence
from tests.engine.methods.heads import HW, evidence, make_acts, make_head, raw
from tests.export.onnx_text import tokens


def by_hand(head, acts, target, *, gaussian, probability):
    """Return the map by loops over images and cells."""
    made = np.zeros((len(acts), *HW))
    for n, c in enumerate(target):
        for y, x in np.ndindex(HW):
            wide = np.zeros((acts.shape[1], HW[0] + 2, HW[1] + 2))
            spread = BELL if gaussian else np.eye(3)[1][:, None] * np.eye(3)[1]
            wide[:, y : y + 3, x : x + 3] = acts[n, :, y, x][:, None, None] * spread
            logits = head.logits(wide[None, :, 1:-1, 1:-1])[0]
            made[n, y, x] = np.exp(logits[c]) / np.exp(logits).sum() if probability else logits[c]
    return made


DEFINITIONS = [
    ("official", False, {"gaussian": False, "probability": True}),
    ("official", True, {"gaussian": True, "probability": False}),
    ("gaussian", False, {"gaussian": True, "probability": True}),
    ("gaussian", True, {"gaussian": True, "probability": True}),
    ("openvino-vit", False, {"gaussian": True, "probability": False}),
]


@pytest.mark.parametrize(("variant", "on_tokens", "what"), DEFINITIONS)
def test_each_variant_is_its_loop(rng, variant, on_tokens, what):
    head, acts, target = make_head("two-layer", rng), make_acts(rng), np.array([0, 3, 6])
    given = {**evidence(head, acts, target), "tokens": on_tokens}
    np.testing.assert_allclose(raw("reciprocam", given, variant), by_hand(head, acts, target, **what), atol=1e-12)
    for score in ("probability", "logit"):
        want = by_hand(head, acts, target, gaussian=what["gaussian"], probability=score == "probability")
        np.testing.assert_allclose(raw("reciprocam", given, variant, score=score), want, atol=1e-12)


def test_with_logits_under_a_gap_head_it_is_cam_but_for_a_factor_and_the_bias(rng):
    head, acts = make_head("gap", rng), make_acts(rng)
    given = evidence(head, acts)
    want = raw("cam", given) / (HW[0] * HW[1]) + head.bias[given["target"]][:, None, None]
    np.testing.assert_allclose(raw("reciprocam", given, score="logit"), want, atol=1e-12)


@pytest.mark.parametrize("budget", [0, 7, 20])
def test_cells_that_are_not_run_show_the_least(rng, budget):
    head, acts, target = make_head("two-layer", rng), make_acts(rng), np.array([0, 1, 2])
    given = evidence(head, acts, target)
    whole = raw("reciprocam", given, score="logit").reshape(3, -1)
    cut = {**given, **edited_evidence(head.logits, acts, target, budget=budget)}
    part = raw("reciprocam", cut, score="logit").reshape(3, -1)
    np.testing.assert_array_equal(part[:, :budget], whole[:, :budget])
    least = whole[:, :budget].min(1, keepdims=True) if budget else 0
    np.testing.assert_array_equal(part[:, budget:], np.broadcast_to(least, part[:, budget:].shape))


# through a whole model -------------------------------------------------------------------------------------------


def test_a_linear_heads_map_is_in_closed_form_what_its_parameters_say():
    explainer, x = camrt.load(tiny.gap(), preprocess="half"), tiny.images(3)
    acts, weights = explainer.activations(x)["a2"].astype(np.float64), tiny.weights()
    result = explainer.explain(x, method="reciprocam", target=[1, 4])
    logits = np.einsum("nkhw,kc->nhwc", acts, weights["head"]) / acts[0, 0].size + weights["bias"]
    odds = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(result.raw, odds[..., [1, 4]].transpose(0, 3, 1, 2), atol=1e-6)


def test_on_tokens_the_default_is_openvinos_and_prefix_tokens_stay():
    explainer = camrt.load(tokens(), preprocess="half")
    x = np.random.default_rng(2).normal(size=(2, 3, 8, 8)).astype(np.float32)
    default = explainer.explain(x, method="reciprocam", target=3)
    np.testing.assert_array_equal(
        default.raw, explainer.explain(x, method="reciprocam", target=3, variant="openvino-vit").raw
    )
    layer = default.layers[0]
    named = explainer._sessions.run("features", (layer,), {"x": x})
    acts, context = named["activations.0"], {n: a for n, a in named.items() if n.startswith("context.")}
    assert "context.0" in context
    for y, column in np.ndindex(4, 4):
        wide = np.zeros((*acts.shape[:2], 6, 6), np.float32)
        wide[:, :, y : y + 3, column : column + 3] = acts[:, :, y, column][:, :, None, None] * BELL
        feeds = {"activations.0": wide[:, :, 1:-1, 1:-1], **context}
        want = explainer._sessions.run("tail", (layer,), feeds)["logits"][:, 3]
        np.testing.assert_allclose(default.raw[:, 0, y, column], want, atol=1e-5 * abs(want).max())
