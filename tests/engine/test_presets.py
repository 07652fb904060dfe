"""Which preprocessing is chosen; the oracle is what the models' authors wrote about them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from camrt.errors import ImageError
from camrt.preprocess import Preprocess
from camrt.presets import PRESETS, choose, guess, preset

GUESSES: list[tuple[list[int | str | None], str, str, str, str, str]] = [
    (["N", 3, 224, 224], "float32", "pytorch", "imagenet", "crop", "Nothing says otherwise"),
    ([1, 3, None, None], "float32", "", "imagenet", "crop", "Nothing says otherwise"),
    ([None] * 4, "float32", "", "imagenet", "crop", "Nothing says otherwise"),
    ([1, 3, 224, 224], "float16", "onnx-caffe2", "caffe", "crop", "producer is 'onnx-caffe2'"),
    (["unk", 224, 224, 3], "float32", "tf2onnx", "tf", "crop", "channels come last"),
    (["unk", None, None, 3], "float32", "tf2onnx", "tf", "crop", "channels come last"),
    (["unk", 32, 32, 3], "float32", "tf2onnx", "tf", "squash", "channels come last"),
    (["unk", 64, 64, 1], "float32", "tf2onnx", "tf", "squash", "channels come last"),
    ([1, 224, 224, 3], "uint8", "tf2onnx", "raw", "crop", "uint8"),
    (["b", 3, 32, 32], "float32", "pytorch", "cifar10", "squash", "CIFAR-10"),
    ([1, 1, 28, 28], "float32", "pytorch", "unit", "squash", "one channel"),
    ([1, 1, 28, 28], "float32", "CNTK", "raw", "squash", "producer is 'CNTK'"),
    ([1, 3, 224, 224], "float32", "CNTK", "custom", "crop", "producer is 'CNTK'"),
    ([1, 4, 64, 64], "float32", "", "bands", "crop", "4 channels"),
    ([1, 64, 64, 13], "float32", "", "bands", "crop", "13 channels"),
]


@pytest.mark.parametrize(("shape", "dtype", "producer", "name", "resize", "why"), GUESSES)
def test_the_guess_follows_the_signs(
    shape: list[int | str | None], dtype: str, producer: str, name: str, resize: str, why: str
) -> None:
    found, reason = guess(shape, dtype, producer, {})
    assert (found.name, found.resize, found.dtype) == (name, resize, dtype)
    assert why in reason and reason.endswith(".") and "\n" not in reason
    assert all(not isinstance(want, int) or want == got for want, got in zip(shape[1:], found.shape, strict=True))


def test_an_unknown_size_is_224_and_one_known_side_makes_a_square() -> None:
    assert guess([1, 3, "h", "w"])[0].size == (224, 224)
    assert guess([1, 3, 160, "w"])[0].size == (160, 160)


def test_metadata_wins_over_every_other_sign() -> None:
    entry = json.dumps({"mean": [0.1, 0.2, 0.3], "std": [1, 2, 3], "resize": "squash"})
    found, reason = guess([1, 224, 224, 3], "float32", "caffe", {"preprocess": entry})
    assert found == Preprocess("custom", (224, 224), "squash", layout="nhwc", mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0))
    assert "metadata" in reason


def test_metadata_may_start_from_a_preset() -> None:
    entry = json.dumps({"preset": "caffe", "resize": "squash"})
    found, _ = guess([1, 3, 64, 64], metadata={"preprocess": entry})
    assert (found.name, found.color, found.resize, found.size) == ("caffe", "bgr", "squash", (64, 64))


@pytest.mark.parametrize("entry", ["{", "[]", "3", '{"mean": [1]}', '{"preset": "no"}', "[" * 100_000])
def test_metadata_that_cannot_be_used_is_an_error_in_one_line(entry: str) -> None:
    with pytest.raises(ImageError, match=r"metadata entry 'preprocess'.*give preprocess=") as caught:
        guess([1, 3, 64, 64], metadata={"preprocess": entry})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("shape", "dtype"), [([1, 3, 224], "float32"), ([1, 10], "float32"), ([1, 3, 8, 8], "int64")])
def test_an_input_that_is_no_picture_is_refused(shape: list[int], dtype: str) -> None:
    with pytest.raises(ImageError, match="four axes"):
        guess(shape, dtype)


def test_a_preset_is_chosen_by_name_in_the_models_form() -> None:
    found, reason = choose("CAFFE", [None, 96, 96, 3])
    assert (found.name, found.layout, found.size) == ("caffe", "nhwc", (96, 96))
    assert "chose" in reason


def test_given_fields_are_completed_from_the_model() -> None:
    found, _ = choose({"mean": 0.5}, ["n", 1, 28, 28], "float16")
    assert (found.color, found.mean, found.size, found.dtype) == ("grey", (0.5,), (28, 28), "float16")
    assert choose({"resize": "pad"}, [1, 8, 8, 3], "uint8")[0].scale == 1.0
    assert choose({"mean": [1.0] * 5}, [1, 5, 8, 8])[0].channels == 5


def test_a_preprocess_object_is_taken_as_it_is() -> None:
    given = preset("tf", size=96)
    assert choose(given, ["n", 3, "h", "w"])[0] is given


def test_nothing_given_means_a_guess() -> None:
    assert choose(None, [1, 3, 32, 32]) == guess([1, 3, 32, 32])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (preset("imagenet", size=256), r"makes inputs of shape \(3, 256, 256\), the model takes \[3, 224, 224\]"),
        (preset("imagenet", layout="nhwc"), "layout"),
        (preset("imagenet", dtype="float16"), "makes float16, the model takes float32"),
        ("imgnet", "did you mean 'imagenet'"),
        ("zzz", "there are imagenet, caffe"),
        ({"mean": "x"}, "list of numbers"),
        (3, "object with named fields"),
    ],
)
def test_a_preprocess_that_does_not_fit_is_refused(given: Any, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        choose(given, [1, 3, 224, 224])


def test_a_coloured_preset_has_no_grey_form() -> None:
    with pytest.raises(ImageError, match="use unit, raw, tf or half"):
        preset("imagenet", channels=1)
    with pytest.raises(ImageError, match="the model takes 4"):
        preset("imagenet", channels=4)
    assert preset("tf", channels=1).mean == (1.0,)


def test_cifar10_is_small_and_squashed_and_the_others_are_224_and_cropped() -> None:
    sizes = {name: (preset(name).size, preset(name).resize) for name in PRESETS}
    assert sizes.pop("cifar10") == ((32, 32), "squash")
    assert set(sizes.values()) == {((224, 224), "crop")}


@pytest.mark.realdata
def test_the_guess_agrees_with_what_is_known_of_real_models(realdata: Path) -> None:
    known = {
        "squeezenet_fp16": "caffe",
        "squeezenet_fp32": "caffe",
        "mobilenetv2": "imagenet",
        "keras_mobilenet": "tf",
        "keras_fer": "tf",
        "mnist_cntk": "raw",
        "tflite": "raw",
        "vit_cifar10": "cifar10",
        "mbv2_cifar10": "cifar10",
    }
    checked = 0
    for model in json.loads((realdata / "models.json").read_text()):
        want = [name for start, name in known.items() if Path(model["file"]).name.startswith(start)]
        if want:
            text = model["inputs"][0]
            shape = [int(d) if d.isdigit() else d for d in text[text.index("[") + 1 : text.index("]")].split(", ")]
            assert guess(shape, text.split()[-1], model["producer"])[0].name == want[0], model["file"]
            checked += 1
    assert checked >= 8
