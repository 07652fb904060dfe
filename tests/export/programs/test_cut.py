"""What leads around a layer, and that a tail needs exactly that beside it."""

from __future__ import annotations

import numpy as np
import pytest

from camrt.export.live import open_model
from camrt.export.load import load
from camrt.export.programs import context_of
from tests.export.judge import run_program
from tests.export.programs.models import MODELS, behind


@pytest.mark.parametrize(
    ("name", "layer", "around"),
    [
        ("plain", "c", []),
        ("plain", "a", []),
        ("residual", "a", ["c"]),
        ("residual", "b", ["c", "a"]),
        ("residual", "e", ["c"]),
        ("residual", "k", []),
        ("tokens", "e", []),
        ("tokens", "n1", ["t1"]),
        ("tokens", "o1", ["t1"]),
        ("tokens", "t1", []),
    ],
)
def test_what_leads_around_a_layer_is_its_context(name: str, layer: str, around: list[str]) -> None:
    classifier = load(MODELS[name])
    value = next(v for node in classifier.model.graph for v in node.outputs if v.name == layer)
    found = context_of(classifier.model.graph, classifier.x, classifier.logits, value)
    assert sorted(str(v.name) for v in found) == sorted(around)


@pytest.mark.parametrize(("name", "layer"), [("residual", "b"), ("heads", "n0"), ("heads", "n1")])
def test_every_tensor_of_the_context_changes_the_logits(name: str, layer: str) -> None:
    live = open_model(MODELS[name])
    feeds = behind(live, layer)
    around = [key for key in feeds if key.startswith("context")]
    assert around
    tail = live.program("tail", [layer])
    before = run_program(tail, **feeds)["logits"]
    for key in around:
        after = run_program(tail, **{**feeds, key: 2 * feeds[key]})["logits"]
        assert np.abs(after - before).max() > 1e-3, key
