"""Estimates: letters against METHODS' column of cost, runs against what an explainer really runs, sums by hand."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import camrt
from camrt.estimate import Cost, cost_of, estimates
from camrt.export.manifest import Layer
from camrt.export.work import Work
from camrt.methods import METHODS
from tests import tiny
from tests.export.onnx_text import tokens

WORK = Work(1000, 100, 150, 900, 7, 50, 8, 20, 30, ())
PUBLISHED = {
    "gradcam": "1F+1b", "gradcampp": "1F+1b", "xgradcam": "1F+1b", "layercam": "1F+1b", "hirescam": "1F+1b",
    "elementwisecam": "1F+1b", "eigengradcam": "1F+1b", "refinecam": "1F+1b", "smoothgradcampp": "26F+25b",
    "eigencam": "1F", "kpcacam": "1F", "fem": "1F", "lafam": "1F", "randomcam": "1F",
}  # fmt: skip


@pytest.mark.parametrize("method", PUBLISHED)
def test_the_letters_are_those_of_the_methods_own_cost(method: str) -> None:
    assert str(cost_of(METHODS[method])) == PUBLISHED[method]


def test_options_change_how_often_the_model_runs() -> None:
    assert cost_of(METHODS["smoothgradcampp"], {"n": 3}) == Cost(4, 0, 3)
    assert cost_of(METHODS["integratedgradcam"], {"steps": 7}) == Cost(8, 0, 7)


PARTS = {  # what each program runs; a program of a layer's tail begins with the tail itself
    "forward": Cost(1),
    "features": Cost(1),
    "gradient": Cost(1, 0, 1),
    "seeded_gradient": Cost(1, 0, 1),
    "tail": Cost(0, 1),
    "tail_gradient": Cost(0, 1, 1),
    "relevance": Cost(0, 1, 2),
    "lift": Cost(0, 2, 1),
    "guided_gradient": Cost(1, 0, 0, 1),
    "bias_terms": Cost(1, 0, 0, 1),
    "input_gradient": Cost(1, 0, 0, 1),
    "map_legrad": Cost(1, 0, 2),  # of two blocks
}


@pytest.mark.parametrize("method", sorted(METHODS))
def test_an_explainer_runs_as_many_programs_as_was_said(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    needs_attention = "attention_of" in METHODS[method].needs
    explainer = camrt.load(tokens() if needs_attention else tiny.gap(), preprocess="half")
    ran: Counter[str] = Counter()
    run = explainer._sessions.run_unchecked

    def counting(kind: str, layers: Any, feeds: dict[str, Any], limits: Any) -> Any:
        ran[kind] += len(feeds["x" if "x" in feeds else "activations.0"])
        return run(kind, layers, feeds, limits)

    monkeypatch.setattr(explainer._sessions, "run_unchecked", counting)
    x = np.zeros((1, 3, 8, 8), np.float32) if needs_attention else tiny.images(1)
    chosen = "a2" if METHODS[method].stages else None
    options = {"n": 64} if method == "rise" else {"iters": 5} if method == "opticam" else {}
    explainer.explain(x, method=method, target=1, layer=chosen, options=options)
    parts = {kind: Cost(1, 0, 1) if kind.startswith("map_") and kind not in PARTS else PARTS[kind] for kind in ran}
    total = Cost(*(sum(ran[kind] * parts[kind][i] for kind in ran) for i in range(4)))
    layer = next(item for item in explainer.layers if item.default)
    said = cost_of(METHODS[method], options, channels=layer.channels, cells=layer.grid[0] * layer.grid[1])
    if METHODS[method].runs is None:
        assert total == said
    elif said.tails:  # behind this layer is a linear head: its weights are read once, and no cell is run
        assert total.forwards == 1
    else:  # constant and repeated masks are left out, and no more
        assert said.layer_gradients == total.layer_gradients
        least = 0.2 if method in ("occlusion", "groupcam") else 0.5  # patches coincide; groups without a positive part
        assert least * said.forwards < total.forwards <= said.forwards


def test_sums_by_hand() -> None:
    layer = Layer("a", "a", "Relu", "", ("N", 6, 4, 5), "nchw", 6, (4, 5), default=True)
    found = estimates(WORK, [layer])
    assert found["scorecam"]["forwards"] == 1 + 6
    assert found["reciprocam"]["multiply_adds"] == 1000 + 20 * 100
    assert found["opticam"]["multiply_adds"] == 102 * 1000 + 100 * 900
    stages = estimates(WORK, [layer], [replace(layer, channels=3), layer])
    assert stages["polycam"]["forwards"] == 1 + 2 * 3 + 2 * 6
    assert stages["scorecam"] == found["scorecam"]
    assert set(found) == set(METHODS)
    assert found["gradcam"] == {
        "cost": "1F+1b", "forwards": 1, "tails": 0, "layer_gradients": 1, "image_gradients": 0,
        "multiply_adds": 1150, "relative": 1.15, "bytes": 50 + 2 * 20,
    }  # fmt: skip
    assert found["eigencam"]["multiply_adds"] == 1000
    assert found["eigencam"]["bytes"] == 50 + 8
    assert found["fullgrad"]["multiply_adds"] == 2 * 1000 + 900
    assert found["fullgrad"]["bytes"] == 50 + 2 * 30
    assert found["smoothgradcampp"]["multiply_adds"] == 26 * 1000 + 25 * 150


def test_a_model_without_products_has_no_ratio() -> None:
    empty = estimates(Work(0, 0, 0, 0, 0, 1, 1, 1, 1, ()), [])
    assert empty["gradcam"]["relative"] is None
