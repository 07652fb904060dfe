"""Estimates: letters against METHODS' column of cost, runs against what an explainer really runs, sums by hand."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

import camrt
from camrt.estimate import Cost, cost_of, estimates
from camrt.export.work import Work
from camrt.methods import METHODS
from tests import tiny

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
}


@pytest.mark.parametrize("method", sorted(METHODS))
def test_an_explainer_runs_as_many_programs_as_was_said(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    explainer = camrt.load(tiny.gap(), preprocess="half")
    ran: Counter[str] = Counter()
    run = explainer._sessions.run

    def counting(kind: str, *arguments: Any) -> Any:
        ran[kind] += 1
        return run(kind, *arguments)

    monkeypatch.setattr(explainer._sessions, "run", counting)
    explainer.explain(tiny.images(1), method=method, target=1)
    parts = {kind: Cost(1, 0, 1) if kind.startswith("map_") else PARTS[kind] for kind in ran}
    total = Cost(*(sum(ran[kind] * parts[kind][i] for kind in ran) for i in range(4)))
    assert total == cost_of(METHODS[method])


def test_sums_by_hand() -> None:
    found = estimates(WORK)
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
    empty = estimates(Work(0, 0, 0, 0, 0, 1, 1, 1, 1, ()))
    assert empty["gradcam"]["relative"] is None
