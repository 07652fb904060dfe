"""Sanity checks: by hand, by what must not move, and through a batch of an evaluation."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import camrt
from camrt.agreement import rank_correlation
from camrt.choices import Choice, choose
from camrt.errors import BundleError, LayerError, MethodError, TargetError
from camrt.evaluation import evaluate
from camrt.explainer import Explainer
from camrt.export import export
from camrt.judging import Judge
from camrt.methods import resolve as resolve_method
from camrt.methods import validate as validate_method
from camrt.metrics import randomisation, randomisation_table, resolve, validate
from camrt.metrics.case import Again, Case
from camrt.metrics.changes import Randomised
from camrt.metrics.plan import Plan, plan_of
from camrt.metrics.randomisation import randomiser, redrawn
from camrt.metrics.similarity import hog_similarity, structural
from tests import tiny

Array = np.ndarray[Any, Any]

METRIC = resolve("sanity check")
PREPROCESS = {"size": tiny.SIZE, "mean": [0, 0, 0], "std": [1, 1, 1]}
LAYERS = ("/fc2/Gemm", "/fc1/Gemm", "/stage2/conv/Conv", "/stage1/conv/Conv")
INVARIANT = ("eigencam", "lafam", "fem", "fakecam")
X = tiny.images(3)


def opened(data: bytes | Path, **options: Any) -> Explainer:
    """Open a model."""
    return camrt.load(data, providers="cpu", preprocess=PREPROCESS, **options)


@pytest.fixture(scope="module")
def explainer() -> Explainer:
    """Open a model with a head of two layers behind two convolutions."""
    return opened(tiny.mlp())


def plan(variant: str = "cascading", **options: object) -> Plan:
    """Plan this metric alone."""
    chosen, full = validate(METRIC, variant, options)
    return plan_of([Choice(METRIC.id, METRIC, chosen, full)], tiny.SIZE)


def values(heat: Array, raw: Array, others: list[tuple[Array, Array]]) -> dict[str, Array]:
    """Return what the row makes of maps and those of randomised models."""
    flat = [one.max((1, 2)) == one.min((1, 2)) for one in (heat, *(other for other, _ in others))]
    again = {
        Randomised("independent", step, len(others), 7): Again(other, flat[step], other_raw)
        for step, (other, other_raw) in enumerate(others, 1)
    }
    n = len(heat)
    case = Case(
        heat, flat[0], np.zeros(n, np.int64), np.zeros(n, np.uint64), heat[:, None], again=again, raw=raw
    )  # fmt: skip
    found: dict[str, Array] = METRIC.values(case, variant="independent", steps=len(others), seed=7)
    return found


def test_layers_are_evenly_spaced_from_the_logits() -> None:
    names = [str(place) for place in range(10)]
    single = [redrawn(names, Randomised("independent", step, 4)) for step in range(1, 5)]
    assert single == [("0",), ("3",), ("6",), ("9",)]
    assert redrawn(names, Randomised("cascading", 2, 4)) == ("0", "1", "2", "3")
    assert redrawn(names, Randomised("cascading", 1, 1)) == tuple(names)
    every = [redrawn(names, Randomised("independent", step, 10)) for step in range(1, 11)]
    assert every == [(name,) for name in names]
    assert [redrawn("ab", Randomised("independent", s, 3))[0] for s in (1, 2, 3)] == ["a", "b", "b"]
    with pytest.raises(MethodError, match=r"1\.\.3; got 4"):
        redrawn(names, Randomised("cascading", 4, 3))


def test_steps_are_asked_for_from_the_logits_down() -> None:
    assert plan(steps=3, seed=4).again == tuple(Randomised("cascading", step, 3, 4) for step in (1, 2, 3))
    assert plan("independent").again == tuple(Randomised("independent", step, 5, 0) for step in range(1, 6))


def test_values_by_hand() -> None:
    heat = np.array([[[0.0, 0.2], [0.6, 1.0]]] * 2)
    raw = np.array([[[-1.0, 2.0, 3.0]]] * 2)
    turned = np.array([[[1.0, 0.6], [0.2, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    found = values(heat, raw, [(heat, 2 * raw), (turned, -raw)])
    np.testing.assert_allclose(found["randomisation.curve"], [[1, -1], [1, 0]], atol=1e-12)
    np.testing.assert_allclose(found["randomisation"], [0, 0.5], atol=1e-12)
    np.testing.assert_allclose(found["randomisation.spearman"], [0, 0], atol=1e-12)
    np.testing.assert_allclose(found["randomisation.curve_ssim"][:, 0], [1, 1])
    assert found["randomisation.curve_ssim"][1, 1] == found["randomisation.curve_hog"][1, 1] == 0
    assert found["randomisation.constant"].tolist() == [0, 0.5]


def test_the_original_compared_with_itself_is_1(explainer: Explainer) -> None:
    drawn = explainer.draw(X)
    found = values(drawn.heat, drawn.raw, [(drawn.heat, drawn.raw)] * 2)
    for name in ("", ".spearman", ".ssim", ".hog", ".curve", ".curve_hog"):
        np.testing.assert_allclose(found[f"randomisation{name}"], 1, atol=1e-12)
    assert not found["randomisation.constant"].any()


def test_every_step_compares_with_the_model_that_was_redrawn_so_far(explainer: Explainer) -> None:
    classes = np.array([4, 0, 2])
    table = randomisation_table(explainer, X, classes, seed=3)
    assert tuple(table["layer"]) == LAYERS
    before = explainer.draw(X, classes)
    for step in range(1, 5):
        after = explainer.randomised(LAYERS[:step], 3).draw(X, classes)
        pairs = list(zip(before.heat, after.heat, strict=True))
        np.testing.assert_array_equal(table["spearman_abs"][:, step - 1], [rank_correlation(*pair) for pair in pairs])
        np.testing.assert_array_equal(table["ssim"][:, step - 1], [structural(*pair) for pair in pairs])
        np.testing.assert_array_equal(table["hog"][:, step - 1], [hog_similarity(*pair) for pair in pairs])
        signed = [rank_correlation(*pair) for pair in zip(before.raw, after.raw, strict=True)]
        np.testing.assert_array_equal(table["spearman"][:, step - 1], signed)
    mean = randomisation(explainer, X, classes, steps=None, seed=3)
    np.testing.assert_array_equal(mean, table["spearman_abs"].mean(1))
    single = randomisation_table(explainer, X, classes, variant="independent", seed=3)
    np.testing.assert_array_equal(single["ssim"][:, 0], table["ssim"][:, 0])  # the first step is the same model
    assert not np.array_equal(single["ssim"][:, 1:], table["ssim"][:, 1:])


@pytest.mark.parametrize("method", INVARIANT)
def test_a_map_of_activations_alone_does_not_know_the_head(explainer: Explainer, method: str) -> None:
    classes = explainer.logits(X).argmax(1)
    before = explainer.draw(X, classes, method=method)
    after = explainer.randomised(LAYERS[:2], 1).draw(X, classes, method=method)
    assert np.array_equal(before.heat, after.heat)
    table = randomisation_table(explainer, X, method=method, steps=2, variant="independent", seed=1)
    np.testing.assert_allclose(table["spearman_abs"][:, 0], 1)
    if method != "fakecam":
        assert (table["spearman_abs"][:, 1] < 0.99).all()


def test_a_map_of_gradients_knows_the_head(explainer: Explainer) -> None:
    classes = explainer.logits(X).argmax(1)
    before, after = explainer.draw(X, classes), explainer.randomised(["/fc2/Gemm"]).draw(X, classes)
    assert not np.allclose(before.heat, after.heat, atol=0.05)


def test_a_randomised_model_keeps_its_layers_and_the_original_stays(explainer: Explainer) -> None:
    before = explainer.logits(X)
    other = explainer.randomised(LAYERS, 2)
    assert [layer.name for layer in other.layers] == [layer.name for layer in explainer.layers]
    assert other.preprocess == explainer.preprocess
    assert not np.allclose(other.logits(X), before, atol=0.05)
    assert np.array_equal(explainer.logits(X), before)
    first = opened(tiny.mlp(), layer="a1", precision="float16")
    moved = first.randomised(["/fc1/Gemm"])
    assert (moved.running, moved.layers) == (first.running, first.layers)
    np.testing.assert_allclose(moved.logits(X), explainer.randomised(["/fc1/Gemm"]).logits(X), atol=0.03)
    with pytest.raises(LayerError, match="no layer of weights 'fc9'"):
        explainer.randomised(["fc9"])


@pytest.mark.parametrize("method", ["gradcam", "scorecam", "eigencam"])
def test_a_randomised_model_is_freed_with_the_last_who_holds_it(explainer: Explainer, method: str) -> None:
    gc.disable()  # no ring of references may hold its sessions until a collection happens to come
    try:
        other = explainer.randomised(["/fc2/Gemm"])
        other.draw(X, method=method)
        known = [weakref.ref(other), weakref.ref(other.sessions), weakref.ref(other.source)]
        del other
        assert [one() for one in known] == [None] * 3
    finally:
        gc.enable()


def test_no_more_models_stay_open_than_are_kept(explainer: Explainer) -> None:
    known: list[weakref.ref[Explainer]] = []

    class Counted:
        weight_layers = explainer.weight_layers

        def randomised(self, layers: tuple[str, ...], seed: int) -> Explainer:
            made = explainer.randomised(layers, seed)
            known.append(weakref.ref(made))
            return made

    opener = randomiser(Counted(), 2)  # type: ignore[arg-type]
    for step in (1, 2, 2, 3, 4, 3):
        opener(Randomised("cascading", step, 4)).logits(X[:1])
    assert [one() is not None for one in known] == [False, False, True, True]


def test_a_batch_is_judged_with_the_classes_of_the_model_itself(explainer: Explainer) -> None:
    methods = choose(["gradcam", "layercam", "fakecam"], resolve_method, validate_method)
    steps: list[Randomised] = []
    open_ = randomiser(explainer)

    def counted(change: Randomised) -> Explainer:
        steps.append(change)
        return open_(change)

    judge = Judge(explainer, methods, plan(steps=2), randomised=counted)
    rows = judge.batch(X)
    assert steps == [Randomised("cascading", step, 2) for step in (1, 2)]  # once a step, for all methods
    assert judge.tally.explanations == 3 * 3 * len(X)
    classes = explainer.logits(X).argmax(1)
    for method in methods:
        assert np.array_equal(rows[method.name]["class"], classes)
        alone = randomisation(explainer, X, classes, method=method.name, steps=2)
        np.testing.assert_allclose(rows[method.name]["randomisation"], alone, atol=1e-6)
        assert rows[method.name]["randomisation.curve"].shape == (3, 2)
    with pytest.raises(MethodError, match="nothing here opens any"):
        Judge(explainer, methods, plan(steps=2)).batch(X)


def test_maps_of_a_randomised_model_do_not_hold_its_sessions_memory(explainer: Explainer) -> None:
    seen: list[Case] = []

    def values(case: Case, **_: object) -> dict[str, Array]:
        seen.append(case)
        return {"randomisation": np.zeros(len(case.heat))}

    chosen, full = validate(METRIC, None, {"steps": 1})
    row = replace(METRIC, values=values)
    methods = choose(["gradcam", "eigencam", "scorecam"], resolve_method, validate_method)
    asked = plan_of([Choice(row.id, row, chosen, full)], tiny.SIZE)
    Judge(explainer, methods, asked, randomised=randomiser(explainer)).batch(X)
    for case in seen:
        (again,) = case.again.values()
        assert all(array is not None and array.flags.owndata for array in (again.heat, again.degenerate, again.raw))


def test_what_does_not_fit_is_refused(explainer: Explainer) -> None:
    with pytest.raises(MethodError, match="steps"):
        randomisation(explainer, X, steps=0)
    with pytest.raises(MethodError, match="no variant"):
        randomisation(explainer, X, variant="labels")
    with pytest.raises(TargetError):
        randomisation(explainer, X, [9, 0, 0], steps=1)
    with pytest.raises(MethodError, match=r"camrt\.metrics\.randomisation"):
        METRIC.values(
            Case(X[:, 0], np.zeros(3, bool), np.zeros(3, np.int64), np.zeros(3, np.uint64), X),
            variant="cascading", steps=1, seed=0,
        )  # fmt: skip


def test_an_evaluation_judges_it_and_refuses_a_bundle(explainer: Explainer, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (3, *tiny.SIZE, 3), np.uint8)):
        Image.fromarray(pixels).save(folder / f"{i}.png")
    found = evaluate(explainer, folder, ["gradcam", "eigencam"], ["randomisation:independent,steps=2"], batch=2)
    rows = found.table.to_pydict()
    values = [
        value for value, method in zip(rows["randomisation-independent-steps2"], rows["method"], strict=True)
        if method == "gradcam"
    ]  # fmt: skip
    pictures = sorted(folder.iterdir())
    alone = randomisation(explainer, pictures, variant="independent", steps=2)
    np.testing.assert_allclose(values, alone, atol=1e-6)
    export(tiny.gap(), tmp_path / "bundle")
    bundle = opened(tmp_path / "bundle")
    for refused in (lambda: randomisation(bundle, X), lambda: evaluate(bundle, folder, metrics=["randomisation"])):
        with pytest.raises(BundleError, match=r"open the \.onnx file"):
            refused()
