"""The program of relevance: what it is fed, and that it is linear in the seed."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from camrt.export.live import open_model
from tests.export.judge import run_program
from tests.export.programs.models import MODELS, SEED, TARGET, behind


def test_at_the_layer_before_the_head_it_is_the_positive_weights_share_of_the_class() -> None:
    """R_k(i, j) = A_k(i, j) / sum A_k * mean(A_k) w+_kc / sum over k of the same, with 1 at class c."""
    live = open_model(MODELS["plain"])
    feeds = behind(live, "a")
    found = run_program(live.program("relevance", ["a"]), **feeds, seed=SEED)["relevance.0"]
    acts = feeds["activations__0"].astype(np.float64)
    graph = onnx.load_from_string(MODELS["plain"]).graph
    head = next(onnx.numpy_helper.to_array(t) for t in graph.initializer if t.name == "w2")
    parts = acts * np.maximum(head, 0).T[TARGET][:, :, None, None]
    np.testing.assert_allclose(found, parts / parts.sum((1, 2, 3), keepdims=True), atol=1e-6)


@pytest.mark.parametrize("kind", ["relevance", "relevance_bias"])
def test_it_is_linear_in_the_seed_and_gives_the_logits_of_what_it_is_fed(kind: str) -> None:
    live = open_model(MODELS["plain"])
    feeds, program = behind(live, "c"), live.program(kind, ["c"])
    rng = np.random.default_rng(0)
    one, two = (rng.normal(size=(3, 5)).astype(np.float32) for _ in range(2))
    a, b, both = (run_program(program, **feeds, seed=s) for s in (one, two, 2 * one - two))
    np.testing.assert_allclose(both["relevance.0"], 2 * a["relevance.0"] - b["relevance.0"], atol=1e-5)
    np.testing.assert_array_equal(both["logits"], run_program(live.program("tail", ["c"]), **feeds)["logits"])
