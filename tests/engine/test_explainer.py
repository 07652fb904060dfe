"""The whole way from a prepared batch to a heatmap, on classifiers whose answers are known in closed form."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import camrt
from camrt.errors import BundleError, CancelledError, DeadlineError, LayerError, MethodError, NumericError, TargetError
from camrt.export.programs import KINDS, ON_REQUEST
from camrt.export.write import export
from camrt.image import prepare
from camrt.limits import Cancellation
from camrt.methods import METHODS
from camrt.targets import Contrast, LogProbability, Probability, Vector
from tests import tiny

LABELS = ("ant", "bee", "cow", "doe, deer", "elk")
PREPARED: dict[str, Any] = {"preprocess": "half", "labels": LABELS}
QUICK: dict[str, dict[str, object]] = {"rise": {"n": 60}}  # options that spare runs where a test is not about them


def explainer(model: bytes | None = None, **settings: Any) -> camrt.Explainer:
    """Open a tiny model."""
    return camrt.load(model or tiny.mlp(), **{**PREPARED, **settings})


def ids() -> list[str]:
    """Return every method id except those that need a linear head or attention."""
    return sorted(name for name, method in METHODS.items() if not {"head", "attention_of"} & set(method.needs))


# closed forms ----------------------------------------------------------------------------------------------------


def test_with_a_linear_head_behind_gap_four_methods_give_cam_over_z() -> None:
    opened, x = explainer(tiny.gap()), tiny.images(3)
    acts = opened.activations(x)["a2"]
    head = tiny.weights()["head"][:, 2]
    want = np.einsum("nkhw,k->nhw", acts.astype("f8"), head) / acts[0, 0].size
    for method in ("gradcam", "hirescam", "xgradcam"):
        np.testing.assert_allclose(opened.explain(x, method=method, target=2).raw[:, 0], want, atol=2e-6)
    np.testing.assert_allclose(opened.explain(x, method="cam", target=2).raw[:, 0] / acts[0, 0].size, want, atol=2e-6)


def test_hirescam_on_one_linear_layer_sums_to_the_logit_less_its_bias() -> None:
    opened, x = explainer(tiny.flatten()), tiny.images(4)
    result = opened.explain(x, method="hirescam", target=[0, 3])
    want = result.logits[:, [0, 3]] - tiny.weights()["bias"][[0, 3]]
    np.testing.assert_allclose(result.raw.sum(axis=(2, 3)), want, rtol=1e-4, atol=1e-4)


def test_logits_come_before_a_final_softmax() -> None:
    x = tiny.images(3)
    plain, soft = explainer(tiny.gap()), explainer(tiny.gap(softmax=True))
    np.testing.assert_allclose(plain.logits(x), soft.logits(x), atol=1e-6)
    assert soft.manifest.head == "softmax"


def test_prepared_images_are_run_as_they_are() -> None:
    opened, x = explainer(), tiny.images(5)
    made = prepare(x, opened.preprocess)
    np.testing.assert_array_equal(opened.explain(made).heatmaps, opened.explain(x).heatmaps)
    np.testing.assert_array_equal(opened.logits(made), opened.logits(x))
    assert opened.explain(made).pictures is made.pictures


def test_scores_can_be_cancelled_and_have_a_deadline() -> None:
    opened, x, switch = explainer(), tiny.images(2), Cancellation()
    np.testing.assert_array_equal(opened.logits(x, timeout=60, cancel=switch), opened.logits(x))
    switch.cancel()
    with pytest.raises(CancelledError):
        opened.logits(x, cancel=switch)
    with pytest.raises(DeadlineError):
        opened.logits(np.repeat(x, 50_000, 0), timeout=1e-3)


def test_gradients_and_activations_are_public_and_agree_with_finite_differences() -> None:
    opened, x = explainer(), tiny.images(2)
    rng = np.random.default_rng(3)
    direction = rng.normal(size=x.shape).astype("f4")
    g = opened.input_gradient(x, 4).astype("f8")
    step = 3e-4  # small enough to meet few kinks, large enough for float32
    up, down = (opened.logits(x + s * step * direction)[:, 4].astype("f8") for s in (1, -1))
    np.testing.assert_allclose((g * direction).sum(axis=(1, 2, 3)), (up - down) / (2 * step), rtol=2e-2, atol=2e-2)
    assert opened.gradients(x, 4)["a2"].shape == opened.activations(x)["a2"].shape


def test_gradients_of_many_images_belong_to_their_own_targets() -> None:
    opened, x = explainer(), tiny.images(11)
    targets = np.arange(11)[:, None] % tiny.CLASSES
    layer, image = opened.gradients(x, targets)["a2"], opened.input_gradient(x, targets)
    for i, (target,) in enumerate(targets):
        np.testing.assert_allclose(layer[i : i + 1], opened.gradients(x[i : i + 1], int(target))["a2"], atol=1e-5)
        np.testing.assert_allclose(image[i : i + 1], opened.input_gradient(x[i : i + 1], int(target)), atol=1e-5)


# targets ---------------------------------------------------------------------------------------------------------


def test_none_means_the_predicted_class() -> None:
    opened, x = explainer(), tiny.images(6)
    result = opened.explain(x)
    np.testing.assert_array_equal(result.targets[:, 0], result.logits.argmax(axis=1))
    for row, expected in zip(result.labels, result.targets[:, 0], strict=True):
        assert row[0] == LABELS[expected]


def test_an_array_gives_each_image_its_own_targets() -> None:
    opened, x = explainer(), tiny.images(2)
    result = opened.explain(x, target=np.array([[0, 1], [2, 3]]))
    np.testing.assert_array_equal(result.targets, [[0, 1], [2, 3]])
    np.testing.assert_allclose(result.raw[1, 0], opened.explain(x[1:], target=2).raw[0, 0], atol=1e-6)


def test_a_contrast_is_the_difference_of_two_logit_gradients() -> None:
    opened, x = explainer(), tiny.images(3)
    g = {c: opened.gradients(x, c)["a2"] for c in (0, 2)}
    got = opened.gradients(x, Contrast(0, against=2))["a2"]
    np.testing.assert_allclose(got, g[0] - g[2], atol=1e-5)


def test_probability_gradients_are_those_of_the_log_times_the_probability() -> None:
    opened, x = explainer(), tiny.images(3)
    p = opened.explain(x, target=Probability(1)).values[:, 0]
    log_g, g = (opened.gradients(x, kind(1))["a2"] for kind in (LogProbability, Probability))
    np.testing.assert_allclose(g, log_g * p[:, None, None, None], atol=1e-6)


def test_a_vector_weighs_the_logits() -> None:
    opened, x = explainer(), tiny.images(3)
    vector = np.array([1, 0, -2, 0, 0.5], "f4")
    result = opened.explain(x, target=Vector(vector))
    np.testing.assert_allclose(result.values[:, 0], result.logits @ vector, rtol=1e-4, atol=1e-5)
    want = sum(v * opened.gradients(x, c)["a2"] for c, v in enumerate(vector))
    np.testing.assert_allclose(opened.gradients(x, Vector(vector))["a2"], want, atol=1e-5)


# invariances -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ids())
def test_a_batch_equals_its_images_one_by_one_in_any_order(method: str) -> None:
    opened, x = explainer(), tiny.images(5)

    def heat(part: Any) -> Any:
        return opened.explain(part, method=method, target=2, options=QUICK.get(method)).heatmaps

    whole, order = heat(x), np.array([3, 0, 4, 1, 2])
    singles = np.concatenate([heat(x[i : i + 1]) for i in range(5)])
    np.testing.assert_allclose(whole, singles, atol=1e-5)
    np.testing.assert_allclose(whole[order], heat(x[order]), atol=1e-5)


@pytest.mark.parametrize("n", [1, 31, 32, 33, 257])
def test_any_number_of_images_runs_in_bounded_batches(n: int) -> None:
    opened, x, seen = explainer(), tiny.images(n), []
    result = opened.explain(x, progress=lambda done, total: seen.append((done, total)))
    assert result.heatmaps.shape == (n, 1, *tiny.SIZE)
    assert seen[-1] == (n, n)
    np.testing.assert_allclose(result.heatmaps[-1], opened.explain(x[-1:]).heatmaps[0], atol=1e-5)


def test_a_fixed_batch_model_gives_the_same_maps() -> None:
    x = tiny.images(5)
    free, fixed = explainer(tiny.mlp()), explainer(tiny.mlp(batch=2))
    np.testing.assert_allclose(free.explain(x).heatmaps, fixed.explain(x).heatmaps, atol=1e-5)


def test_what_was_asked_before_leaves_no_trace_in_later_answers() -> None:
    opened, x = explainer(), tiny.images(2)
    requests: list[dict[str, Any]] = [
        {},
        {"method": "gradcampp"},
        {"method": "gradcampp", "variant": "official"},
        {"layer": "a1"},
        {"pipeline": "torchcam"},
        {"eigen_smooth": True},
        {"layer": ["a1", "a2"], "fuse": "max"},
        {"method": "smoothgradcampp", "options": {"n": 2, "seed": 1}},
        {"method": "smoothgradcampp", "options": {"n": 2, "seed": 2}},
    ]
    alone = [explainer().explain(x, **request).heatmaps for request in requests]
    for _ in range(2):
        for request, want in zip(requests, alone, strict=True):
            np.testing.assert_array_equal(opened.explain(x, **request).heatmaps, want)
    for _ in range(2):
        with pytest.raises(MethodError):
            opened.explain(x, method="gradcampp", variant="none such")


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not() -> None:
    opened, x = explainer(), tiny.images(2)
    for method in ("smoothgradcampp", "randomcam"):
        first, again, other = (opened.explain(x, method=method, target=0, options={"seed": s}).raw for s in (1, 1, 2))
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)


def test_thirty_two_threads_give_the_serial_bits() -> None:
    opened = explainer()
    batches = [tiny.images(2, seed) for seed in range(8)]
    methods = ["gradcam", "layercam", "eigencam", "finercam"]
    asked = [(batches[i % 8], methods[i % 4]) for i in range(32)]
    serial = [opened.explain(x, method=m, target=[None, 1]).heatmaps for x, m in asked]

    def call(place: int) -> bool:
        x, method = asked[place % 32]
        return np.array_equal(opened.explain(x, method=method, target=[None, 1]).heatmaps, serial[place % 32])

    with ThreadPoolExecutor(32) as pool:
        assert all(pool.map(call, range(32 * 50)))


# layers ----------------------------------------------------------------------------------------------------------


def test_layers_lists_every_candidate_and_marks_one_default() -> None:
    opened = explainer()
    assert [layer.name for layer in opened.layers if layer.default] == ["a2"]
    moved = explainer(layer="stage1")
    assert [layer.name for layer in moved.layers if layer.default] == ["a1"]
    assert moved.explain(tiny.images(1)).layers == ("a1",)


# bundles ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Write a bundle of a tiny model for two layers."""
    preprocess = camrt.load(tiny.mlp(), preprocess="half").preprocess.to_dict()
    kinds = (*KINDS, *(kind for kind in ON_REQUEST if kind not in ("attention", "attention_all", "map_legrad")))
    export(tiny.mlp(), tmp_path / "bundle", layers=["a2", "a1"], kinds=kinds, labels=LABELS, preprocess=preprocess)
    return tmp_path / "bundle"


@pytest.mark.parametrize("method", ["gradcam", "layercam", "polycam"])
def test_a_bundle_fuses_layers_in_whatever_order_they_are_named(bundle: Path, method: str) -> None:
    x, prepared, raw = tiny.images(2), camrt.load(bundle), explainer()
    for layers in (["a2", "a1"], ["a1", "a2"]):
        got, want = (one.explain(x, method=method, layer=layers, target=1) for one in (prepared, raw))
        np.testing.assert_allclose(got.heatmaps, want.heatmaps, atol=1e-5)


@pytest.mark.parametrize("method", ids())
def test_a_bundle_gives_the_maps_of_the_raw_model(bundle: Path, method: str) -> None:
    x = tiny.images(3)
    prepared, raw = camrt.load(bundle), explainer()
    assert prepared.labels == LABELS
    for target in (None, [1, "elk"]):
        got, want = (
            e.explain(x, method=method, target=target, options=QUICK.get(method)).heatmaps for e in (prepared, raw)
        )
        np.testing.assert_allclose(got, want, atol=1e-5)


def test_a_bundle_without_a_layer_says_how_to_get_it(tmp_path: Path) -> None:
    export(tiny.mlp(), tmp_path / "bundle", layers=["a2"])
    with pytest.raises(BundleError, match="export it again"):
        camrt.load(tmp_path / "bundle", preprocess="half").explain(tiny.images(1), layer="a1")


def test_explaining_from_a_bundle_imports_neither_onnx_nor_torch(bundle: Path) -> None:
    code = (
        "import sys, numpy, camrt\n"
        f"result = camrt.load({str(bundle)!r}).explain(numpy.ones((1, 3, {tiny.SIZE[0]}, {tiny.SIZE[1]}), 'f4'))\n"
        "print(sorted({'onnx', 'onnx_ir', 'torch', 'matplotlib', 'typer'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


# refusals --------------------------------------------------------------------------------------------------------


def test_mistakes_are_one_line_that_says_what_to_do() -> None:
    opened, x = explainer(), tiny.images(1)
    cases: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (MethodError, "gradcam", {"method": "gradcan"}),
        (MethodError, "a budget is for methods of many masked forwards", {"budget": camrt.Budget(forwards=1)}),
        (LayerError, "stage2", {"layer": "stage3"}),
        (TargetError, "5", {"target": 5}),
        (TargetError, "bee", {"target": "bea"}),
    ]
    for kind, part, arguments in cases:
        with pytest.raises(kind, match=part) as caught:
            opened.explain(x, **arguments)
        assert "\n" not in str(caught.value)
    for ask in (opened.gradients, opened.input_gradient):
        with pytest.raises(TargetError, match="one target an image was wanted here; 2 were given"):
            ask(x, [0, 1])


def test_an_image_that_overflows_the_model_is_named() -> None:
    x = tiny.images(2)
    x[1] = 3e38
    with pytest.raises(NumericError, match="image 1"):
        explainer().explain(x)
