"""Prices: sums by hand, and never below what the session really runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import camrt
from camrt.anytime import Budget
from camrt.errors import LayerError, MethodError
from camrt.methods import METHODS
from camrt.server import pricing
from camrt.server.asks import Ask, Wish
from camrt.server.faults import TooLargeError
from camrt.server.pricing import BACKWARD, REMEMBERED, SHALLOW, Price, price, work_of
from tests import tiny
from tests.engine.server.watched import ask, rows, wish


@pytest.fixture(scope="module")
def explainer() -> camrt.Explainer:
    """Return a model of four layers to explain at; the default is the last."""
    return camrt.load(tiny.mlp(), preprocess="half")


def test_scores_cost_a_forward_an_image(explainer: camrt.Explainer) -> None:
    assert price(explainer, ask(rows(3), None)) == Price(3.0, False)


def test_a_gradient_costs_by_the_depth_it_goes_through(explainer: camrt.Explainer) -> None:
    assert [layer.name for layer in explainer.layers] == ["c1", "a1", "c2", "a2"]
    assert price(explainer, ask(rows(2))).work == pytest.approx(2 * (1 + BACKWARD * SHALLOW))
    assert work_of(explainer, Wish("gradcam", layer=("a1",))) == pytest.approx(1 + BACKWARD / 2)
    assert work_of(explainer, wish("fullgrad")) == pytest.approx(2 + BACKWARD)
    assert work_of(explainer, wish("smoothgradcampp", n=10)) == pytest.approx(11 + BACKWARD * 10 * SHALLOW)
    assert work_of(explainer, wish("opticam", iters=50)) == pytest.approx(52 + BACKWARD * 50)
    assert work_of(explainer, wish("eigencam")) == 1


def test_targets_share_what_the_engine_shares(explainer: camrt.Explainer) -> None:
    assert work_of(explainer, wish("scorecam"), 1) == 1 + tiny.CHANNELS
    assert work_of(explainer, wish("scorecam"), 5) == 1 + tiny.CHANNELS
    assert work_of(explainer, wish("gradcam"), 5) == pytest.approx(1 + 5 * BACKWARD * SHALLOW)
    assert work_of(explainer, wish("opticam", iters=50), 3) == pytest.approx(1 + 3 * (51 + BACKWARD * 50))
    assert work_of(explainer, wish("eigencam"), 5) == 1


def test_augmentation_takes_six_runs_and_a_budget_bounds_the_rows(explainer: camrt.Explainer) -> None:
    assert work_of(explainer, Wish("eigencam", tta=True)) == 7
    assert work_of(explainer, Wish("rise", options=(("n", 1000),), budget=Budget(forwards=100))) == 101


def test_dear_ones_are_told_from_cheap_ones(explainer: camrt.Explainer) -> None:
    heavy = {
        name: price(explainer, ask(method=name)).heavy for name in sorted(METHODS) if name not in ("cam", "legrad")
    }
    assert {name for name, is_heavy in heavy.items() if not is_heavy} == {
        "eigencam", "eigengradcam", "elementwisecam", "fakecam", "fem", "finercam", "fullgrad", "gradcam", "gradcampp",
        "guidedgradcam", "hirescam", "kpcacam", "lafam", "layercam", "liftcam", "randomcam", "refinecam", "relevancecam",
        "shapleycam", "xgradcam",
    }  # fmt: skip
    assert not price(explainer, ask(rows(60))).heavy
    assert price(explainer, ask(rows(70))).heavy  # others would wait too long behind it
    assert price(explainer, ask(rows(70), None)).heavy


def test_too_much_work_is_refused_with_the_figure(explainer: camrt.Explainer) -> None:
    request = ask(rows(4), "rise", n=1000)
    assert price(explainer, request, most=4004).work == 4004
    with pytest.raises(TooLargeError, match=r"about 4004 forwards of the model \(4 images of 1001\); at most 4003"):
        price(explainer, request, most=4003)


def test_what_does_not_exist_is_said(explainer: camrt.Explainer) -> None:
    with pytest.raises(MethodError):
        price(explainer, Ask(rows(1), None, Wish("nocam"), 1.0))
    with pytest.raises(LayerError):
        price(explainer, Ask(rows(1), None, Wish("gradcam", layer=("nowhere",)), 1.0))


def test_what_is_remembered_is_bounded_and_goes_with_the_model() -> None:
    explainer = camrt.load(tiny.gap(), preprocess="half")
    for n in range(2 * REMEMBERED):
        assert work_of(explainer, Wish("rise", options=(("n", n + 1),))) == n + 2
    assert len(pricing._known[explainer]) <= REMEMBERED
    known = len(pricing._known)
    del explainer
    assert len(pricing._known) < known


@pytest.mark.parametrize("targets", [1, 3])
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("gradcam", {}), ("layercam", {}), ("fullgrad", {}), ("guidedgradcam", {}), ("scorecam", {}), ("ablationcam", {}),
        ("reciprocam", {}), ("rise", {"n": 40}), ("occlusion", {}), ("groupcam", {}), ("polycam", {}), ("sscam", {"n": 2}),
        ("smoothgradcampp", {"n": 5}), ("integratedgradcam", {"steps": 6}), ("opticam", {"iters": 4}), ("finercam", {}),
    ],
)  # fmt: skip
def test_no_price_is_below_what_is_run(
    explainer: camrt.Explainer, method: str, options: dict[str, Any], targets: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row through the whole model counts 1, whatever else the program does; the default layer's tail is next to nothing."""
    ran, run = 0, explainer.sessions.run_unchecked

    def counting(kind: str, layers: Any, feeds: dict[str, Any], limits: Any) -> Any:
        nonlocal ran
        ran += len(feeds["x"]) if "x" in feeds else 0
        return run(kind, layers, feeds, limits)

    monkeypatch.setattr(explainer.sessions, "run_unchecked", counting)
    chosen = wish(method, **options)
    explainer.explain(np.abs(rows(2)), target=list(range(targets)), **chosen.arguments())
    assert work_of(explainer, chosen, targets) >= ran / 2 > 0
