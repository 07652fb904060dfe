"""
Every trained classifier in floating point explains a picture that it gets right, and what is no classifier says so.

The oracles are Grad-CAM's definition and the model itself: with the fifth of a photograph hidden that the map marks,
the class loses more of its score than with the fifth that it marks least.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import camrt
from camrt.errors import ModelError

pytestmark = pytest.mark.realdata

PRESETS = {
    "squeezenet_fp16_caffe2_op7": "caffe",
    "squeezenet_fp32_derived_op7": "caffe",
    "mobilenetv2_tv_fp32_derived_op17": "imagenet",
    "keras_mobilenet_v1_025_224_imagenet_op15": "tf",
    "resnet20_cifar10_dynamo_op18": "imagenet",
    "vit_cifar10_ts_op17": "cifar10",
    "winml_cifar10_classifier_op10": "half",
    "keras_fer_mini_xception_op13": "tf",
    "keras_vww_96_noopt_op13": "unit",
    "mnist_cntk_op8": "raw",
}

PHOTOGRAPHS = list(PRESETS)[:4]  # models of ImageNet


def described(realdata: Path, name: str) -> dict[str, Any]:
    """Return what the folder says of a model."""
    rows = json.loads((realdata / "models.json").read_text("utf-8"))
    return next(row for row in rows if row["file"] == f"models/{name}.onnx")


def hidden(x: np.ndarray[Any, Any], mask: np.ndarray[Any, Any], layout: str) -> np.ndarray[Any, Any]:
    """Return an input with part of it at its mean."""
    part = mask[None, None] if layout == "nchw" else mask[None, :, :, None]
    return np.where(part, x.astype(np.float32).mean(), x).astype(x.dtype)


def opened(realdata: Path, name: str) -> tuple[camrt.Explainer, Path, int]:
    """Return a model with the preprocessing it was trained with, a picture, and the class that is right."""
    row = described(realdata, name)
    explainer = camrt.load(realdata / row["file"], preprocess={"preset": PRESETS[name], "resize": "squash"})
    return explainer, realdata / row["verified_image"], int(row["verified_top1"].split()[0])


@pytest.mark.parametrize("name", PRESETS)
def test_a_picture_it_gets_right_is_explained(realdata: Path, name: str) -> None:
    """The raw map is Grad-CAM's definition of the layer's activations and gradients, which other programs give."""
    explainer, picture, target = opened(realdata, name)
    result = explainer.explain(picture)
    assert int(result.targets[0, 0]) == target
    assert not result.degenerate[0, 0]
    assert (result.heatmaps.min(), result.heatmaps.max()) == (0, 1)
    (acts,), (grads,) = (f(picture).values() for f in (explainer.activations, explainer.gradients))
    want = (acts * grads.mean(axis=(2, 3), keepdims=True)).sum(axis=1)
    np.testing.assert_allclose(result.raw[:, 0], want, rtol=0, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_what_the_map_marks_is_what_the_class_needs(realdata: Path, name: str) -> None:
    """Of photographs: pictures of 32 pixels, faces and digits leave no background to hide."""
    explainer, picture, target = opened(realdata, name)
    result = explainer.explain(picture)
    x = camrt.image.prepare([str(picture)], explainer.preprocess).x
    order = np.argsort(np.argsort(result.heatmaps[0, 0].ravel())).reshape(result.heatmaps.shape[2:])
    fifth = order.size // 5
    without_most, without_least = (
        explainer.logits(hidden(x, mask, explainer.preprocess.layout))[0, target]
        for mask in (order >= order.size - fifth, order < fifth)
    )
    assert without_most < without_least


def test_half_precision_changes_the_map_by_its_rounding_only(realdata: Path) -> None:
    """The float32 file was made of the float16 one: the weights are the same numbers."""
    half, single = (
        camrt.load(realdata / "models" / f"squeezenet_{k}.onnx") for k in ("fp16_caffe2_op7", "fp32_derived_op7")
    )
    assert (half.manifest.model["precision"], single.manifest.model["precision"]) == ("float16", "float32")
    picture = realdata / described(realdata, "squeezenet_fp16_caffe2_op7")["verified_image"]
    one, other = half.explain(picture), single.explain(picture)
    np.testing.assert_allclose(one.heatmaps, other.heatmaps, rtol=0, atol=2e-2)
    g, want = half.input_gradient(picture), single.input_gradient(picture)
    assert (g * want).sum() / np.linalg.norm(g) / np.linalg.norm(want) > 0.99


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tflite_deeplabv3_mnv2_dm05_pascal_op13", "as segmentation models"),
        ("yolox_nano_coco_op11", "as detection models"),
    ],
)
def test_what_is_no_classifier_is_told_what_it_is(realdata: Path, name: str, said: str) -> None:
    with pytest.raises(ModelError, match=f"{said}.*output="):
        camrt.load(realdata / "models" / f"{name}.onnx")
