"""Real models on real photographs: maps lie on the right animal, and in the box of the one object."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

import camrt
from camrt.arguments import find_pictures
from camrt.image import prepare
from camrt.scalars import softmax

pytestmark = pytest.mark.realdata
DOG, CAT = (242, 243), (281, 282)  # boxer, bull mastiff; tabby, tiger cat
BOTH = {"dog": (79, 12, 167, 140), "cat": (42, 118, 201, 223)}


def share(heat: npt.NDArray[np.float32], box: Any) -> float:
    """Return the share of a map's energy inside a box (x0, y0, x1, y1) of the network's input."""
    x0, y0, x1, y1 = (round(float(v)) for v in box)
    return float(heat[y0:y1, x0:x1].sum() / heat.sum())


def in_view(explainer: camrt.Explainer, path: Path, boxes: list[Any]) -> Any:
    """Carry boxes of a picture into the network's window."""
    with Image.open(path) as image:
        width, height = image.size
    return explainer.preprocess.frame(height, width).boxes(np.array(boxes, float))


@pytest.fixture(scope="module")
def mobilenet(realdata: Path) -> camrt.Explainer:
    """Open the float MobileNetV2."""
    model = realdata / "models" / "mobilenetv2_tv_fp32_derived_op17.onnx"
    return camrt.load(model, labels=realdata / "imagenet_classes.csv")


@pytest.mark.parametrize("method", ["gradcam", "gradcampp", "hirescam", "layercam"])
def test_dog_and_cat_each_get_most_of_their_own_maps_energy(
    mobilenet: camrt.Explainer, realdata: Path, method: str
) -> None:
    path = realdata / "images" / "photos" / "both.png"
    dog, cat = in_view(mobilenet, path, list(BOTH.values()))
    result = mobilenet.explain(path, method=method, target=[DOG[0], CAT[1]])
    for_dog, for_cat = result.heatmaps[0]
    assert share(for_dog, dog) > share(for_dog, cat)
    assert share(for_cat, cat) > share(for_cat, dog)
    assert share(for_cat, cat) > 0.5


def single_boxes(realdata: Path) -> list[tuple[Path, int, tuple[float, ...]]]:
    """List the photographs with one box and a class."""
    found = []
    with (realdata / "images.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            boxes = [tuple(map(float, box.split())) for box in row["boxes_x0_y0_x1_y1"].split(";") if box.strip()]
            if len(boxes) == 1 and row["imagenet_index"]:
                found.append((realdata / row["file"], int(row["imagenet_index"]), boxes[0]))
    return found


def test_gradcam_puts_much_more_energy_in_the_box_than_chance(realdata: Path) -> None:
    """The energy pointing game as its paper plays it (Score-CAM, section 4.3): the whole picture, resized to the input."""
    whole = {"preset": "imagenet", "resize": "squash"}
    explainer = camrt.load(realdata / "models" / "mobilenetv2_tv_fp32_derived_op17.onnx", preprocess=whole)
    photographs = single_boxes(realdata)
    assert len(photographs) >= 30
    energy, area = [], []
    for path, label, box in photographs:
        (inside,) = in_view(explainer, path, [box])
        heat = explainer.explain(path, target=label).heatmaps[0, 0]
        energy.append(share(heat, inside))
        area.append(share(np.ones_like(heat), inside))
    assert np.mean(energy) >= 1.4 * np.mean(area), (np.mean(energy), np.mean(area))


@pytest.mark.parametrize(
    ("model", "preset", "image", "expected"),
    [
        ("squeezenet_fp32_derived_op7", "caffe", "photos/ILSVRC2012_val_00029089_227.JPEG", 143),
        ("keras_mobilenet_v1_025_224_imagenet_op15", None, "photos/ILSVRC2012_val_00029089_227.JPEG", 143),
        ("resnet20_cifar10_dynamo_op18", "imagenet", "cifar10/cat_0000.jpg", 3),
        ("vit_cifar10_ts_op17", None, "cifar10/cat_0000.jpg", 3),
    ],
)
def test_other_real_models_predict_what_is_known_and_explain_it(
    realdata: Path, model: str, preset: str | None, image: str, expected: int
) -> None:
    explainer = camrt.load(realdata / "models" / f"{model}.onnx", preprocess=preset)
    result = explainer.explain(realdata / "images" / image, method="gradcam", target=[None, 0])
    assert result.targets[0, 0] == expected
    assert not result.degenerate[0, 0]
    assert float(result.heatmaps[0, 0].max()) == 1.0


def seen_through(explainer: camrt.Explainer, x: npt.NDArray[Any], method: str, options: dict[str, object]) -> float:
    """Return the mean probability that predicted classes keep where only their maps show the photographs."""
    classes = explainer.logits(x).argmax(1)
    heat = explainer.explain(x, method=method, target=classes[:, None], options=options).heatmaps
    kept = softmax(explainer.logits(heat * x))  # (N,1,H,W) on (N,3,H,W): the mean colour where the map is 0
    return float(kept[np.arange(len(x)), classes].mean())


@pytest.mark.parametrize(
    ("model", "preset", "folder", "every", "methods"),
    [
        ("resnet20_cifar10_dynamo_op18", "imagenet", "cifar10", 2, {"scorecam": {}, "opticam": {"iters": 20}}),
        ("vit_cifar10_ts_op17", None, "cifar10", 4, {"opticam": {"iters": 20}}),
        ("squeezenet_fp32_derived_op7", None, "photos", 10, {"opticam": {"iters": 10}}),
        ("mobilenetv2_tv_fp32_derived_op17", None, "photos", 12, {"opticam": {"iters": 15}}),
    ],
)
def test_what_masked_forwards_choose_keeps_more_of_the_class_than_gradcam(
    realdata: Path, model: str, preset: str | None, folder: str, every: int, methods: dict[str, dict[str, object]]
) -> None:
    """
    What is measured is what Score-CAM weighs channels by and, but for the softmax, what Opti-CAM climbs.

    A transformer's activations have both signs, so that a channel's weight says nothing of where it is negative: there
    Score-CAM promises nothing.
    """
    explainer = camrt.load(realdata / "models" / f"{model}.onnx", preprocess=preset)
    paths = find_pictures([str(realdata / "images" / folder)])[::every]
    x = prepare([str(path) for path in paths], explainer.preprocess).x
    by_gradcam = seen_through(explainer, x, "gradcam", {})
    kept = {method: seen_through(explainer, x, method, options) for method, options in methods.items()}
    assert min(kept.values()) > by_gradcam + 0.05, (by_gradcam, kept)
