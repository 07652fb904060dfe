"""Preprocessing against Pillow's resize, torchvision's published crop arithmetic, and the formula of each constant."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from camrt.errors import ImageError, ShapeError
from camrt.preprocess import Preprocess
from camrt.presets import preset


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Return a random RGB picture."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def torchvision_crop(picture: np.ndarray, shorter: int, size: int) -> np.ndarray:
    """Resize(shorter), CenterCrop(size) as torchvision 0.2x documents them for PIL pictures."""
    height, width = picture.shape[:2]
    longer = int(shorter * max(height, width) / min(height, width))
    resized = (shorter, longer) if width <= height else (longer, shorter)
    image = Image.fromarray(picture).resize(resized, Image.Resampling.BILINEAR)
    top, left = round((resized[1] - size) / 2.0), round((resized[0] - size) / 2.0)
    return np.asarray(image.crop((left, top, left + size, top + size)))


@pytest.mark.parametrize("shape", [(300, 400), (401, 300), (224, 224), (50, 61), (375, 500), (1, 1)])
@pytest.mark.parametrize(("size", "shorter"), [(224, 256), (299, 342), (32, 37)])
def test_crop_equals_torchvision_resize_and_centre_crop(shape: tuple[int, int], size: int, shorter: int) -> None:
    picture = noise(*shape)
    np.testing.assert_array_equal(preset("imagenet", size=size).fit(picture), torchvision_crop(picture, shorter, size))


def test_a_crop_ratio_of_one_resizes_the_shorter_side_to_the_size() -> None:
    picture = noise(300, 400)
    fitted = Preprocess("custom", (224, 224), crop_ratio=1.0).fit(picture)
    np.testing.assert_array_equal(fitted, torchvision_crop(picture, 224, 224))


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 64), st.integers(1, 64))
def test_the_cropped_window_lies_inside_the_resized_picture(height: int, width: int, rows: int, columns: int) -> None:
    if max(height, width) > 100 * min(height, width):
        return
    frame = Preprocess("custom", (rows, columns)).frame(height, width)
    assert 0 <= frame.top <= frame.resized[0] - rows
    assert 0 <= frame.left <= frame.resized[1] - columns


@settings(deadline=None)
@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 64), st.integers(1, 64))
def test_the_padded_picture_lies_inside_the_window_and_touches_two_borders(
    height: int, width: int, rows: int, columns: int
) -> None:
    frame = Preprocess("custom", (rows, columns), resize="pad").frame(height, width)
    assert 0 <= -frame.top <= rows - frame.resized[0]
    assert 0 <= -frame.left <= columns - frame.resized[1]
    assert frame.resized[0] == rows or frame.resized[1] == columns


def test_squash_equals_one_resize() -> None:
    picture = noise(100, 57)
    want = np.asarray(Image.fromarray(picture).resize((48, 64), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(Preprocess("custom", (64, 48), resize="squash").fit(picture), want)


def test_pad_surrounds_the_picture_with_the_colour_that_becomes_zero() -> None:
    process = Preprocess.from_dict({**preset("imagenet", size=64).to_dict(), "resize": "pad"})
    fitted = process.fit(noise(20, 40))
    assert (fitted[:16] == (124, 116, 104)).all() and (fitted[48:] == (124, 116, 104)).all()
    np.testing.assert_array_equal(
        fitted[16:48], np.asarray(Image.fromarray(noise(20, 40)).resize((64, 32), Image.Resampling.BILINEAR))
    )
    assert np.abs(process.apply(fitted[None])[:, :, :16]).max() <= 0.5 / 255 / 0.224  # half a pixel value


def test_bgr_padding_is_the_mean_in_rgb() -> None:
    process = Preprocess.from_dict({**preset("caffe", size=8).to_dict(), "resize": "pad"})
    assert tuple(process.fit(noise(4, 8))[0, 0]) == (124, 117, 104)


def test_a_strip_is_refused_by_crop_and_taken_by_pad() -> None:
    with pytest.raises(ImageError, match="too long to be cropped"):
        preset("imagenet").fit(noise(2, 201))
    assert preset("imagenet").fit(noise(2, 200)).shape == (224, 224, 3)
    assert Preprocess("custom", (224, 224), resize="pad").fit(noise(1, 5000)).shape == (224, 224, 3)


FORMULAS = {
    "imagenet": lambda p: (p / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
    "caffe": lambda p: p[..., ::-1] - [103.939, 116.779, 123.68],
    "tf": lambda p: p / 127.5 - 1,
    "half": lambda p: (p / 255 - 0.5) / 0.5,
    "unit": lambda p: p / 255,
    "raw": lambda p: p,
    "cifar10": lambda p: (p / 255 - [0.4914, 0.4822, 0.4465]) / [0.2023, 0.1994, 0.2010],
}


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_a_preset_equals_its_formula(name: str, layout: str) -> None:
    picture = noise(12, 16)
    got = preset(name, size=(12, 16), layout=layout).apply(picture[None])
    want = FORMULAS[name](picture.astype(np.float64))[None]
    want = np.moveaxis(want, 3, 1) if layout == "nchw" else want
    assert got.dtype == np.float32 and got.flags.c_contiguous
    np.testing.assert_allclose(got, want, rtol=1e-7, atol=1e-6 if name == "caffe" else 1e-7)


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_undo_returns_the_picture(name: str, layout: str, dtype: str) -> None:
    process = preset(name, size=(12, 16), layout=layout, dtype=dtype)
    pictures = np.stack([noise(12, 16, 1), noise(12, 16, 2)])
    np.testing.assert_array_equal(process.undo(process.apply(pictures)), pictures)


def test_undo_clips_what_no_pixel_can_show() -> None:
    x = np.array([-9.0, 9.0, 0.5], np.float32).reshape(1, 3, 1, 1)
    assert preset("unit", size=1).undo(x).reshape(-1).tolist() == [0, 255, 128]


def test_grey_equals_pillows_mode_l() -> None:
    picture = np.stack(np.meshgrid(*[np.arange(0, 256, 5, dtype=np.uint8)] * 3), -1).reshape(52, -1, 3)
    process = preset("raw", size=picture.shape[:2], channels=1)
    want = np.asarray(Image.fromarray(picture).convert("L"))
    np.testing.assert_array_equal(process.apply(picture[None])[0, 0], want)
    np.testing.assert_array_equal(
        process.undo(want[None, None].astype(np.float32))[0], np.repeat(want[..., None], 3, 2)
    )


def test_a_uint8_model_gets_the_pixels_themselves() -> None:
    picture = noise(8, 8)
    x = preset("raw", size=8, layout="nhwc", dtype="uint8").apply(picture[None])
    assert x.dtype == np.uint8
    np.testing.assert_array_equal(x[0], picture)


def test_black_is_what_a_black_pixel_becomes() -> None:
    for name in FORMULAS:
        process = preset(name, size=1)
        x = process.apply(np.zeros((1, 1, 1, 3), np.uint8))
        np.testing.assert_allclose(x.reshape(3), process.black, rtol=1e-6)


def test_bands_take_no_picture_but_show_prepared_ones() -> None:
    process = Preprocess("bands", (2, 2), color="bands", mean=(0.0,) * 4, std=(1.0,) * 4)
    with pytest.raises(ImageError, match=r"takes 4 channels.*\(4, 2, 2\)"):
        process.apply(np.zeros((1, 2, 2, 3), np.uint8))
    x = np.zeros((1, 4, 2, 2), np.float32)
    x[0, 0, 0, 0], x[0, 3] = 4.0, 99.0
    shown = process.undo(x)[0]
    assert shown.shape == (2, 2, 3) and shown[0, 0].tolist() == [255, 0, 0] and shown.sum() == 255


def test_boxes_follow_resize_and_crop() -> None:
    picture = np.zeros((300, 400, 3), np.uint8)
    picture[100:200, 150:250] = 255
    process = preset("imagenet")
    x0, y0, x1, y1 = process.frame(300, 400).boxes([150, 100, 250, 200])[0]
    fitted = process.fit(picture)[..., 0] > 127
    rows, columns = np.flatnonzero(fitted.any(1)), np.flatnonzero(fitted.any(0))
    np.testing.assert_allclose([x0, y0, x1, y1], [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], atol=0.6)


@settings(deadline=None)
@given(
    st.integers(1, 70),
    st.integers(1, 70),
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from(["crop", "squash", "pad"]),
    st.integers(0, 9),
)
def test_masks_follow_as_pillows_nearest_neighbour(
    height: int, width: int, rows: int, columns: int, resize: str, seed: int
) -> None:
    """
    Oracle: the mask as a picture, resized with NEAREST and pasted where `fit` pastes.

    Where a centre falls on the border of two pixels, Pillow's sum of rounded steps takes either; those are left out.
    """
    frame = Preprocess("custom", (rows, columns), resize=resize).frame(height, width)
    mask = np.random.default_rng(seed).random((height, width)) < 0.5
    image = Image.fromarray(mask.astype(np.uint8) * 255).resize(frame.resized[::-1], Image.Resampling.NEAREST)
    window = Image.new("L", (columns, rows), 0)
    window.paste(image, (-frame.left, -frame.top))
    row_ties = (2 * (np.arange(rows) + frame.top) + 1) * height % (2 * frame.resized[0]) == 0
    column_ties = (2 * (np.arange(columns) + frame.left) + 1) * width % (2 * frame.resized[1]) == 0
    sure = np.ix_(~row_ties, ~column_ties)
    np.testing.assert_array_equal(frame.mask(mask)[sure], (np.asarray(window) > 0)[sure])


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"\(30, 40\); got \(40, 30\)"):
        preset("imagenet").frame(30, 40).mask(np.ones((40, 30), bool))


def test_boxes_outside_the_window_have_no_area() -> None:
    x0, y0, x1, y1 = preset("imagenet").frame(300, 600).boxes([0, 0, 10, 10])[0]
    assert (x1 - x0) * (y1 - y0) == 0


@pytest.mark.parametrize("name", FORMULAS)
def test_to_dict_and_back_through_json_is_the_same(name: str) -> None:
    process = preset(name, size=(7, 9), layout="nhwc")
    assert Preprocess.from_dict(json.loads(json.dumps(process.to_dict()))) == process


BAD: list[tuple[dict[str, Any], str]] = [
    ({}, 'needs "size"'),
    ({"size": 0}, "1 to 8192"),
    ({"size": 10**9}, "1 to 8192"),
    ({"size": [224]}, "1 to 8192"),
    ({"size": [224, 224.0]}, "1 to 8192"),
    ({"size": True}, "1 to 8192"),
    ({"size": "224"}, "1 to 8192"),
    ({"size": 8, "name": 3}, "name must be a string"),
    ({"size": 8, "rezise": "pad"}, "did you mean 'resize'"),
    ({"size": 8, "zzz": "pad"}, "fields are name, size"),
    ({"size": 8, "resize": "stretch"}, "crop, squash, pad"),
    ({"size": 8, "color": ["rgb"]}, "rgb, bgr, grey, bands"),
    ({"size": 8, "layout": "hwc"}, "nchw, nhwc"),
    ({"size": 8, "dtype": "int8"}, "float32, float16"),
    ({"size": 8, "interpolation": "cubic"}, "bilinear"),
    ({"size": 8, "scale": 0}, "must not be 0"),
    ({"size": 8, "scale": "1"}, "finite number"),
    ({"size": 8, "scale": float("nan")}, "finite number"),
    ({"size": 8, "scale": 10**400}, "finite number"),
    ({"size": 8, "crop_ratio": 0}, "above 0"),
    ({"size": 8, "crop_ratio": 1.5}, "above 0"),
    ({"size": 8, "mean": [0, 0]}, "needs 3 values"),
    ({"size": 8, "mean": "abc"}, "list of numbers"),
    ({"size": 8, "mean": []}, "list of numbers"),
    ({"size": 8, "mean": [0, 0, None]}, "finite number"),
    ({"size": 8, "std": [1, 1, 0]}, "must not be 0"),
    ({"size": 8, "std": 1e-300, "scale": 1e30}, "beyond the range"),
    ({"size": 8, "mean": 1e9, "dtype": "float16"}, "beyond the range of float16"),
    ({"size": 8, "color": "grey", "mean": [0, 0, 0]}, "needs 1 values"),
    ({"size": 8, "dtype": "uint8"}, "pixels as they are"),
]


@pytest.mark.parametrize(("data", "message"), BAD)
def test_a_wrong_field_is_refused_in_one_line(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ImageError, match=message.replace("[", r"\[")) as caught:
        Preprocess.from_dict(data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [None, [1], "imagenet", 3])
def test_what_is_no_object_is_refused(data: Any) -> None:
    with pytest.raises(ImageError, match="object with named fields"):
        Preprocess.from_dict(data)


def test_one_number_stands_for_every_channel() -> None:
    assert Preprocess.from_dict({"size": 8, "mean": 0.5, "std": 2}).std == (2.0, 2.0, 2.0)
    assert Preprocess.from_dict({"size": 8, "mean": 0.5, "color": "grey"}).mean == (0.5,)


@pytest.mark.parametrize(
    "pictures", [np.zeros((1, 4, 4, 3), np.uint8), np.zeros((8, 8, 3), np.uint8), np.zeros((1, 8, 8, 3))]
)
def test_apply_wants_pictures_of_its_size(pictures: np.ndarray) -> None:
    with pytest.raises(ImageError, match=r"want uint8 pictures of shape \(N, 8, 8, 3\)"):
        preset("unit", size=8).apply(pictures)
