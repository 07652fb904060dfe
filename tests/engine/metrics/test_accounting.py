"""What methods account for: closed forms of tiny networks, and refusals where nothing is promised."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import camrt
from camrt.errors import BundleError, LayerError, MethodError, TargetError
from camrt.export.write import export
from camrt.metrics.accounting import COMPLETE, accounted
from tests import tiny
from tests.export import onnx_text, token_models
from tests.export.propagation.runs import MODELS

CLASSES = np.array([0, 1, 4])
KINDS = {"gap": tiny.gap, "flatten": tiny.flatten, "mlp": tiny.mlp}


@cache
def opened(kind: str) -> Any:
    return camrt.load(KINDS[kind](), preprocess="half")


def own(logits: Any) -> Any:
    """Return each image's logit of its class."""
    return logits[np.arange(3), CLASSES]


def of_mlp() -> dict[str, Any]:
    """Return the weights of `tiny.mlp` behind its last convolution."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load_from_string(tiny.mlp()).graph
    return {init.name: numpy_helper.to_array(init).astype(np.float64) for init in graph.initializer}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layer", ["a1", "a2"])
@pytest.mark.parametrize("method", COMPLETE)
def test_in_a_piecewise_linear_network_everything_is_accounted_for(kind: str, layer: str, method: str) -> None:
    found = accounted(opened(kind), tiny.images(3), CLASSES, method, layer=layer)
    np.testing.assert_allclose(found["sum"], found["output"], rtol=1e-4, atol=2e-5)
    assert found["sum"].dtype == found["output"].dtype == np.float64
    assert abs(found["output"]).min() > 1e-2


@pytest.mark.parametrize("method", ["fullgrad", "hirescam", "xgradcam"])
def test_the_output_is_the_logit(method: str) -> None:
    explainer, x = opened("mlp"), tiny.images(3)
    found = accounted(explainer, x, CLASSES, method)
    np.testing.assert_allclose(found["output"], own(explainer.logits(x)), rtol=1e-5)


@pytest.mark.parametrize("method", ["hirescam", "xgradcam"])
def test_before_a_linear_head_the_raw_map_lacks_the_heads_bias_alone(method: str) -> None:
    explainer, x = opened("gap"), tiny.images(3)
    raw = explainer.explain(x, method=method, target=CLASSES[:, None]).raw.sum((1, 2, 3))
    found = accounted(explainer, x, CLASSES, method)
    np.testing.assert_allclose(found["sum"] - raw, tiny.weights()["bias"][CLASSES], atol=1e-5)


def test_behind_a_kink_the_biases_that_count_are_those_of_active_units() -> None:
    """b_c + sum over active j of W_jc d_j, with d the hidden layer's bias."""
    explainer, x, w = opened("mlp"), tiny.images(3), of_mlp()
    raw = explainer.explain(x, method="hirescam", target=CLASSES[:, None]).raw.sum((1, 2, 3))
    acts = explainer.activations(x)["a2"].reshape(3, -1)
    active = acts @ w["hidden"] + w["hidden_bias"] > 0
    want = w["bias"][CLASSES] + own((active * w["hidden_bias"]) @ w["head"])
    np.testing.assert_allclose(accounted(explainer, x, CLASSES, "hirescam")["sum"] - raw, want, atol=2e-5)


def test_liftcam_accounts_for_the_change_from_activations_of_zero() -> None:
    explainer, x, w = opened("mlp"), tiny.images(3), of_mlp()
    at_zero = (np.maximum(w["hidden_bias"], 0) @ w["head"] + w["bias"])[CLASSES]
    found = accounted(explainer, x, CLASSES, "liftcam")
    np.testing.assert_allclose(found["output"], own(explainer.logits(x)) - at_zero, atol=1e-5)


def test_the_variant_is_the_one_named() -> None:
    """Beside activations of some 1e-6 the official code's 1e-6 counts, and the raw map is less than complete."""
    rng = np.random.default_rng(0)
    weights = {"w1": rng.normal(size=(4, 3, 3, 3)).astype("f4") * np.float32(1e-8), "b1": np.zeros(4, "f4")}
    explainer = camrt.load(onnx_text.tiny(weights=weights), preprocess="half")
    x = rng.normal(size=(3, 3, 8, 8)).astype("f4")
    paper, official = (accounted(explainer, x, CLASSES, "xgradcam", variant=v) for v in ("paper", "official"))
    np.testing.assert_array_equal(paper["output"], official["output"])
    assert (paper["sum"] != official["sum"]).all()


def test_a_curved_network_is_not_accounted_for() -> None:
    curved = onnx_text.tiny(f"{onnx_text.CONV} k = Tanh(a) {onnx_text.HEAD.replace('(a)', '(k)')}")
    explainer, x = (
        camrt.load(curved, preprocess="half"),
        np.random.default_rng(0).normal(size=(3, 3, 8, 8)).astype("f4"),
    )
    for method in ("fullgrad", "hirescam"):
        found = accounted(explainer, x, CLASSES, method, layer="a")
        assert abs(found["sum"] - found["output"]).min() > 1e-3
    found = accounted(explainer, x, CLASSES, "liftcam", layer="a")  # the rescale rule knows Tanh
    np.testing.assert_allclose(found["sum"], found["output"], atol=1e-5)


def test_a_fixed_batch_is_filled() -> None:
    fixed, free = (camrt.load(tiny.mlp(batch), preprocess="half") for batch in (2, "batch"))
    for method in COMPLETE:
        got, want = (accounted(one, tiny.images(5), np.arange(5), method) for one in (fixed, free))
        np.testing.assert_allclose(got["sum"], want["sum"], atol=2e-5)


def test_a_model_in_half_precision_is_asked_in_half_precision() -> None:
    """Sums of float16 terms; three digits are left of them."""
    rng = np.random.default_rng(0)
    shapes = {"w1": (4, 3, 3, 3), "b1": (4,), "w2": (4, 5), "b2": (5,)}
    weights = {name: rng.normal(size=shape).astype(np.float16) for name, shape in shapes.items()}
    explainer = camrt.load(
        onnx_text.tiny(x="float16[N,3,8,8] x", y="float16[N,5] y", weights=weights), preprocess="half"
    )
    x = rng.normal(size=(3, 3, 8, 8)).astype(np.float16)
    for method in COMPLETE:
        found = accounted(explainer, x, CLASSES, method)
        np.testing.assert_allclose(found["sum"], found["output"], atol=2e-2)


# refusals -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "variant", "says"),
    [
        ("gradcam", None, "gradcam does not promise to add up.*fullgrad, hirescam, xgradcam, liftcam"),
        ("fullgrad", "simple", "variant simple of fullgrad"),
        ("liftcam", "lime", "variant lime of liftcam"),
        ("liftcam", "lrp", "variant lrp of liftcam"),
    ],
)
def test_methods_that_promise_nothing_are_refused(method: str, variant: str | None, says: str) -> None:
    with pytest.raises(MethodError, match=says):
        accounted(opened("gap"), tiny.images(3), CLASSES, method, variant=variant)


def test_a_layer_that_something_goes_around_has_no_bias_term() -> None:
    explainer = camrt.load(MODELS["branches"], preprocess="half")
    x = np.random.default_rng(0).normal(size=(3, 3, 8, 8)).astype("f4")
    for method in ("hirescam", "xgradcam"):
        with pytest.raises(LayerError, match="not all of the model passes through layer 'e'"):
            accounted(explainer, x, CLASSES, method, layer="e")
    for method in ("fullgrad", "liftcam"):
        found = accounted(explainer, x, CLASSES, method, layer="e")
        np.testing.assert_allclose(found["sum"], found["output"], rtol=1e-4, atol=2e-5)


def test_tensors_that_do_not_begin_with_the_images_are_refused() -> None:
    explainer = camrt.load(token_models.MODELS["windows on a grid"].build(), preprocess="half")
    x = np.random.default_rng(0).normal(size=(2, *explainer.manifest.input["shape"][1:])).astype("f4")
    with pytest.raises(MethodError, match="first axis is that of the images"):
        accounted(explainer, x, [0, 1], "fullgrad")


def test_one_layer_is_wanted() -> None:
    explainer, x = opened("gap"), tiny.images(3)
    one, other = (accounted(explainer, x, CLASSES, "hirescam", layer=layer)["sum"] for layer in ("a1", ["a1"]))
    np.testing.assert_array_equal(one, other)
    with pytest.raises(LayerError, match="for one, got 2"):
        accounted(explainer, x, CLASSES, "hirescam", layer=["a1", "a2"])


@pytest.mark.parametrize("classes", [[0, 1], [0, 1, 5], [-1, 0, 1]])
def test_classes_are_the_models(classes: list[int]) -> None:
    with pytest.raises(TargetError, match=r"one class of 0\.\.4 was wanted for each of 3 images"):
        accounted(opened("gap"), tiny.images(3), classes, "fullgrad")


def test_inputs_are_floats() -> None:
    with pytest.raises(MethodError, match="takes floats; got uint8"):
        accounted(opened("gap"), tiny.images(3).astype(np.uint8), CLASSES, "fullgrad")


def test_a_bundle_without_the_program_says_which_to_export(tmp_path: Path) -> None:
    export(tiny.mlp(), tmp_path / "bundle", layers=["a2"])
    prepared = camrt.load(tmp_path / "bundle", preprocess="half")
    with pytest.raises(BundleError, match=r"no tail_bias_terms program.*also=.'tail_bias_terms'"):
        accounted(prepared, tiny.images(3), CLASSES, "hirescam")
