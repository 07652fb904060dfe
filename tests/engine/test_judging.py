"""One batch, all methods and metrics: the same numbers as one by one, and no more forwards than planned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import camrt
from camrt import metrics
from camrt.choices import choose
from camrt.judging import Judge
from camrt.methods import resolve as resolve_method
from camrt.methods import validate as validate_method
from camrt.metrics import Ground, judge
from camrt.metrics.plan import plan_of
from tests import tiny

METHODS = ("gradcam", "layercam", "scorecam", "fakecam", "randomcam")
SET = (
    "average_drop", "average_increase", "average_gain", "adcc", "insertion,steps=5", "deletion,steps=5", "road",
    "max_sensitivity,samples=2", "infidelity,samples=3", "saliency_metric", "sparseness", "energy_pointing_game", "pixel_flipping,steps=4",
)  # fmt: skip


@pytest.fixture(scope="module")
def explainer():
    return camrt.load(tiny.mlp(), preprocess={"mean": (0.5,) * 3, "std": (0.25,) * 3, "size": tiny.SIZE})


def judging(explainer, methods=METHODS, words=SET, **settings):
    chosen = choose(methods, resolve_method, validate_method)
    plan = plan_of(
        choose(words, metrics.resolve, metrics.validate), tiny.SIZE, settings.get("mask_space", "normalised")
    )
    return Judge(explainer, chosen, plan, **settings)


def ground(n):
    return Ground(boxes=[np.array([[1.0, 2, 8, 9]])] * n, labels=np.arange(n) % tiny.CLASSES)


@pytest.mark.parametrize("mask_space", ["normalised", "raw"])
def test_every_value_is_that_of_the_metric_alone(explainer, mask_space: str) -> None:
    x = tiny.images(3)
    columns = judging(explainer, mask_space=mask_space).batch(x, ground=ground(3))
    assert set(columns) == set(METHODS)
    for method in METHODS:
        drawn = explainer.draw(x, method=method, mask_space=mask_space)

        def explain(changed, classes, method=method):
            return explainer.draw(changed, classes, method=method, mask_space=mask_space).heat

        for word in SET:
            alone = judge(
                [word],
                explainer,
                x,
                drawn.heat,
                drawn.classes,
                ground=ground(3),
                explain=explain,
                mask_space=mask_space,
            )
            for name, values in alone.items():
                np.testing.assert_allclose(columns[method][name], values, atol=2e-5, err_msg=f"{method} {name}")


def test_forwards_run_are_the_forwards_planned(explainer) -> None:
    judged = judging(explainer)
    judged.batch(tiny.images(3), ground=ground(3))
    assert judged.tally.forwards == judged.plan.forwards(3, len(METHODS), 1)
    assert judged.tally.explanations == judged.plan.explanations(3, len(METHODS))


def test_what_is_known_of_each_picture(explainer) -> None:
    x = tiny.images(4)
    columns = judging(explainer, ("gradcam",), ("complexity",)).batch(x, ground=ground(4))["gradcam"]
    logits = explainer.logits(x).astype(float)
    np.testing.assert_array_equal(columns["class"], logits.argmax(1))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(columns["p"], p.max(1), rtol=1e-5)
    np.testing.assert_array_equal(columns["correct"], logits.argmax(1) == np.arange(4))


def test_labels_may_be_what_is_explained(explainer) -> None:
    x, labels = tiny.images(4), np.array([4, 3, 2, 1])
    columns = judging(explainer, ("gradcam",), ("average_drop",)).batch(x, labels)["gradcam"]
    np.testing.assert_array_equal(columns["class"], labels)
    expected = metrics.average_drop(explainer, x, explainer.draw(x, labels).heat, labels)
    np.testing.assert_allclose(columns["average_drop"], expected, atol=1e-6)


def test_a_batch_is_its_pictures_one_by_one(explainer) -> None:
    x = tiny.images(5)
    judged = judging(explainer, ("gradcam", "layercam"))
    whole = judged.batch(x, ground=ground(5))
    for i in range(5):
        boxes = Ground(boxes=[np.array([[1.0, 2, 8, 9]])], labels=np.array([i % tiny.CLASSES]))
        alone = judged.batch(x[i : i + 1], ground=boxes)
        for method in whole:
            for name, values in alone[method].items():
                np.testing.assert_allclose(values[0], whole[method][name][i], atol=1e-5, err_msg=name)


def test_completeness_is_asked_of_methods_that_account(explainer) -> None:
    columns = judging(explainer, ("fullgrad",), ("completeness",)).batch(tiny.images(3))["fullgrad"]
    assert (columns["completeness"] < 1e-4).all()
    with pytest.raises(camrt.errors.MethodError, match="gradcam"):
        judging(explainer, ("gradcam",), ("completeness",)).batch(tiny.images(1))


@pytest.mark.parametrize("words", [("average_increase", "average_gain", "average_drop"), ("average_increase", "adcc")])
def test_a_map_of_ones_changes_nothing(explainer, words, monkeypatch) -> None:
    """METHODS 9.4: AD = AI = AG = 0, strictly, whatever program gave the clean logits."""
    judged, draw = judging(explainer, ("gradcam",), words), type(explainer).draw

    def ones(self, *asked, **settings):
        drawn = draw(self, *asked, **settings)
        return replace(drawn, heat=np.ones_like(drawn.heat), logits=drawn.logits * 1.001)  # another program's rounding

    monkeypatch.setattr(type(explainer), "draw", ones)
    columns = judged.batch(tiny.images(16))["gradcam"]
    for word in words:
        if word != "adcc":
            assert (columns[word] == 0).all()
