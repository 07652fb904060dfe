"""
Real quantised classifiers on real pictures: they explain what they get right, and their float twins agree with them.

The twin is asked twice: from the default layer on, where its activations are the given model's own, and alone from the
image, where sums in another order round differently and the differences add up through fifty layers.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import camrt
from camrt.image import prepare
from tests.export.integers import twin_alone

pytestmark = pytest.mark.realdata

Array = np.ndarray[Any, Any]

MODELS = {
    "mobilenetv2-12-int8_qoperator": ("imagenet", "photos"),
    "mobilenetv2_tv_dynquant_op17": ("imagenet", "photos"),
    "tflite_mobilenet_v2_1.0_224_quant_op13": ("raw", "photos"),
    "mbv2_cifar10_int8_qoperator_op17": ("cifar10", "cifar10"),
}


def pictures(realdata: Path, folder: str) -> list[Path]:
    """List the pictures of one folder."""
    with (realdata / "images.csv").open(encoding="utf-8") as file:
        return [realdata / row["file"] for row in csv.DictReader(file) if Path(row["file"]).parent.name == folder]


def session(model: bytes) -> Any:
    """Open a graph on the CPU, as it is opened by default."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def described(realdata: Path, name: str) -> dict[str, Any]:
    """Return what the folder says of a model."""
    rows = json.loads((realdata / "models.json").read_text("utf-8"))
    return next(row for row in rows if row["file"] == f"models/{name}.onnx")


@pytest.fixture(scope="module", params=MODELS)
def explainer(request: pytest.FixtureRequest, realdata: Path) -> camrt.Explainer:
    """Open one quantised model with the preprocessing it was trained with."""
    return camrt.load(realdata / "models" / f"{request.param}.onnx", preprocess=MODELS[request.param][0])


def test_a_picture_it_gets_right_is_explained(explainer: camrt.Explainer, realdata: Path) -> None:
    """The raw map is Grad-CAM's definition, of activations and gradients that other programs give."""
    row = described(realdata, explainer.manifest.model["name"])
    result = explainer.explain(realdata / row["verified_image"])
    assert int(result.targets[0, 0]) == int(row["verified_top1"].split()[0])
    assert not result.degenerate[0, 0]
    assert (result.heatmaps.min(), result.heatmaps.max()) == (0, 1)
    picture = realdata / row["verified_image"]
    (acts,), (grads,) = (f(picture).values() for f in (explainer.activations, explainer.gradients))
    want = (acts * grads.mean(axis=(2, 3), keepdims=True)).sum(axis=1)
    np.testing.assert_allclose(result.raw[:, 0], want, rtol=0, atol=1e-5 * np.abs(want).max())


def test_top_1_of_twin_and_original_agree_on_95_percent_of_the_pictures(
    explainer: camrt.Explainer, realdata: Path
) -> None:
    name = explainer.manifest.default_layer.name
    features, tail = (session(explainer.source.program(kind, [name]).model) for kind in ("features", "tail"))
    alone, given = session(twin_alone(explainer.source.classifier)), session(explainer.source.classifier.given())
    outputs = [value.name for value in features.get_outputs()]
    behind = []
    for i, path in enumerate(pictures(realdata, MODELS[explainer.manifest.model["name"]][1])):
        x = prepare(path, explainer.preprocess).x
        named = dict(zip(outputs, features.run(None, {"x": x}), strict=True))
        logits = named.pop("logits")
        behind.append(tail.run(["logits"], named)[0].argmax() == logits.argmax())
        if i % 10 == 0:
            assert logits.argmax() == given.run(None, {given.get_inputs()[0].name: x})[0].argmax()
            assert np.corrcoef(alone.run(None, {"x": x})[0], logits)[0, 1] >= 0.95
    assert len(behind) >= 50
    assert np.mean(behind) >= 0.95


def test_a_quantised_model_has_the_maps_of_its_float_original(realdata: Path) -> None:
    """One file was made of the other: the weights stand for the same numbers."""
    names = ("mobilenetv2_tv_dynquant_op17", "mobilenetv2_tv_fp32_derived_op17")
    quantised, plain = (camrt.load(realdata / "models" / f"{name}.onnx") for name in names)
    for path in pictures(realdata, "photos")[:6]:
        target = int(plain.explain(path).targets[0, 0])
        one, other = (model.explain(path, target=target).heatmaps.ravel() for model in (quantised, plain))
        assert np.corrcoef(one, other)[0, 1] >= 0.97
