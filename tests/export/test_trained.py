"""
Gradients of trained networks from several frameworks on real pictures, against float64 autograd.

Trained weights are not random ones: dead channels, saturated activations and scores far apart are the rule. The oracle
evaluates the file as its exporter wrote it (`onnx_in_torch`), up to the scores before its softmax.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from camrt.export.live import Live, open_model
from camrt.export.verify import check_gradient, check_parity
from tests.export.judge import errors, judge, run_program

pytestmark = pytest.mark.realdata
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Trained:
    """
    One real model.

    Attributes
    ----------
    file : str
        In the folder of models.
    scores : str
        The tensor before the softmax.
    layer : str
        The default layer.
    folder : str
        Of pictures.
    scale, mean, std : float or tuple
        ``x = (pixel * scale - mean) / std``.
    bgr : bool
        Whether blue comes first.
    """

    file: str
    scores: str
    layer: str
    folder: str
    scale: float = 1 / 255
    mean: Any = 0.5
    std: Any = 0.5
    bgr: bool = False


IMAGENET: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
CIFAR: dict[str, Any] = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2023, 0.1994, 0.2010)}
TRAINED = [
    Trained(
        "mobilenetv2_tv_fp32_derived_op17", "output", "/features/features.18/features.18.2/Clip_output_0", "photos",
        **IMAGENET,
    ),
    Trained(
        "squeezenet_fp32_derived_op7", "pool10_1", "conv10_2", "photos",
        scale=1, mean=(103.939, 116.779, 123.68), std=1, bgr=True,
    ),
    Trained(
        "keras_mobilenet_v1_025_224_imagenet_op15", "mobilenet_0.25_224/reshape_2/Reshape:0",
        "mobilenet_0.25_224/conv_pw_13_relu/Relu6:0", "photos",
    ),
    Trained(
        "keras_fer_mini_xception_op13", "model_1/global_average_pooling2d_1/Mean_Squeeze__2202:0",
        "model_1/conv2d_7/BiasAdd:0", "photos",
    ),
    Trained("keras_vww_96_noopt_op13", "model/dense/BiasAdd:0", "model/activation_26/Relu:0", "photos", mean=0, std=1),
    Trained("resnet20_cifar10_dynamo_op18", "logits", "relu_18", "cifar10", **IMAGENET),
    Trained("vit_cifar10_ts_op17", "logits", "/transformer/layers.4/norm2/LayerNormalization_output_0", "cifar10", **CIFAR),
    Trained("winml_cifar10_classifier_op10", "modelOutput", "43", "cifar10"),
    Trained("mnist_cntk_op8", "Plus214_Output_0", "ReLU114_Output_0", "photos", scale=1, mean=0, std=1),
]  # fmt: skip


def prepare(row: Trained, shape: tuple[int | str, ...], path: Path) -> Array:
    """Return a picture, squashed to the model's size, as its input of one image."""
    is_last = shape[-1] in (1, 3)
    channels, height, width = (shape[3], shape[1], shape[2]) if is_last else shape[1:]
    with Image.open(path) as picture:
        small = picture.convert("L" if channels == 1 else "RGB").resize((width, height), Image.Resampling.BILINEAR)
    x = np.asarray(small, np.float32).reshape(height, width, channels)[..., :: -1 if row.bgr else 1]
    x = ((x * row.scale - np.array(row.mean)) / np.array(row.std)).astype(np.float32)
    return x[None] if is_last else x.transpose(2, 0, 1)[None]


@dataclass(frozen=True)
class Case:
    """A real model and 12 real pictures."""

    row: Trained
    given: onnx.ModelProto
    live: Live
    x: Array


@pytest.fixture(scope="module", params=TRAINED, ids=lambda row: row.file)
def case(request: pytest.FixtureRequest, realdata: Path) -> Case:
    """Return one real model."""
    row = request.param
    path = realdata / "models" / f"{row.file}.onnx"
    live = open_model(path)
    pictures = sorted((realdata / "images" / row.folder).glob("*.[jJ][pP]*"))
    chosen = pictures[:: len(pictures) // 12][:12]
    x = np.concatenate([prepare(row, tuple(live.manifest.input["shape"]), p) for p in chosen])
    return Case(row, onnx.load(path), live, x)


def test_gradients_of_real_pictures_are_those_of_float64_autograd(case: Case) -> None:
    rest = [i % case.live.manifest.classes for i in range(6)]
    figures = judge(case.live, case.given, case.x, [-1] * 6 + rest, case.row.scores)
    assert figures.logits <= 1e-5
    assert figures.layer.max() <= 1e-4
    assert figures.image.min() <= max(1e-5, 3 * figures.floor.min())
    assert figures.cosine.min() >= 0.999


def test_the_scores_are_those_of_the_model_as_given(case: Case) -> None:
    size = case.live.manifest.batch or 4
    assert check_parity(case.live.classifier, case.live, case.x[:size])["max_rel"] <= 1e-5


def test_the_default_layer_is_the_last_with_a_grid_before_the_head(case: Case) -> None:
    assert case.live.manifest.default_layer.name == case.row.layer


def test_a_batch_of_real_pictures_gives_what_they_give_alone(case: Case) -> None:
    if case.live.manifest.batch is not None:
        pytest.skip("the file runs at one batch size only")
    program = case.live.program("gradient", [case.row.layer])
    together = run_program(program, x=case.x[:3], target=np.array([-1, 0, 1]))
    for i, target in enumerate((-1, 0, 1)):
        alone = run_program(program, x=case.x[i : i + 1], target=np.array([target]))
        assert errors(together["gradients.0"][i : i + 1], alone["gradients.0"]).max() <= 1e-5


def test_the_tail_continues_what_the_features_began(case: Case) -> None:
    layer, size = case.row.layer, case.live.manifest.batch or 3
    features = run_program(case.live.program("features", [layer]), x=case.x[:size])
    feeds = {name.replace(".", "__"): value for name, value in features.items() if name != "logits"}
    tail = run_program(case.live.program("tail", [layer]), **feeds)
    np.testing.assert_allclose(tail["logits"], features["logits"], rtol=0, atol=1e-5 * np.abs(features["logits"]).max())
    seed = np.eye(case.live.manifest.classes, dtype=np.float32)[:size]
    found = run_program(case.live.program("tail_gradient", [layer]), seed=seed, **feeds)
    whole = run_program(case.live.program("seeded_gradient", [layer]), x=case.x[:size], seed=seed)
    assert errors(found["gradients.0"], whole["gradients.0"]).max() <= 1e-4


def test_the_gradient_is_the_slope_of_the_tail(case: Case) -> None:
    size = case.live.manifest.batch or 2
    assert check_gradient(case.live, case.row.layer, case.x[:size])["rel_error"] <= 1e-2
