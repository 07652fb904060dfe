"""Decoding: pictures made in code, the pixel each must give worked out by hand; hostile files end in one ImageError."""

from __future__ import annotations

import io
import os
import struct
import threading
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from camrt.errors import ImageError, InputError
from camrt.image import FORMATS, decode, decode_mask, join, prepare
from camrt.preprocess import Preprocess
from camrt.presets import preset


def encode(image: Image.Image, form: str, **options: Any) -> bytes:
    """Return a picture file."""
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def noise(height: int = 9, width: int = 13, channels: int = 3) -> np.ndarray:
    """Return a random picture."""
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def one_line(error: pytest.ExceptionInfo[ImageError]) -> str:
    """Return the message, which has one line."""
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "PPM", "WEBP"])
def test_every_lossless_format_returns_the_pixels(form: str) -> None:
    options = {"lossless": True} if form == "WEBP" else {}
    np.testing.assert_array_equal(decode(encode(Image.fromarray(noise()), form, **options)), noise())


def test_jpeg_and_gif_return_the_colour_of_a_flat_picture() -> None:
    flat = Image.new("RGB", (16, 16), (200, 40, 90))
    for form in ("JPEG", "GIF"):
        np.testing.assert_allclose(decode(encode(flat, form)), np.broadcast_to([200, 40, 90], (16, 16, 3)), atol=3)


def test_path_bytes_pil_and_array_give_the_same(tmp_path: Path) -> None:
    image, data = Image.fromarray(noise()), encode(Image.fromarray(noise()), "PNG")
    path = tmp_path / "a.png"
    path.write_bytes(data)
    for source in (path, str(path), data, bytearray(data), memoryview(data), image, noise()):
        got = decode(source)
        np.testing.assert_array_equal(got, noise())
        assert got.dtype == np.uint8 and got.flags.c_contiguous and got.flags.writeable


@pytest.mark.parametrize("as_path", [False, True])
def test_files_may_be_held_to_fewer_formats(as_path: bool, tmp_path: Path) -> None:
    for form in ("PNG", "GIF"):
        content = encode(Image.fromarray(noise()), form)
        (tmp_path / form).write_bytes(content)
        source = tmp_path / form if as_path else content
        if form == "PNG":
            assert decode(source, formats=("JPEG", "PNG")).shape == (9, 13, 3)
            continue
        with pytest.raises(ImageError, match="not a picture; give a JPEG or PNG file"):
            decode(source, formats=("JPEG", "PNG"))


@pytest.mark.parametrize("as_path", [False, True])
def test_a_check_sees_the_header_before_pixels_are_decoded_and_its_error_is_raised(
    as_path: bool, tmp_path: Path
) -> None:
    class RefusedError(InputError):
        """Raised by the check."""

    seen: list[tuple[int, int]] = []

    def check(image: Image.Image) -> None:
        seen.append(image.size)
        raise RefusedError("not this one")

    content = encode(Image.fromarray(noise()), "PNG")[:60]  # cut off within the pixels
    (tmp_path / "cut.png").write_bytes(content)
    with pytest.raises(RefusedError, match="not this one"):
        decode(tmp_path / "cut.png" if as_path else content, check=check)
    assert seen == [(13, 9)]


def test_the_result_is_a_copy_of_an_array() -> None:
    picture = noise()
    decode(picture)[:] = 0
    np.testing.assert_array_equal(picture, noise())


UPRIGHT = np.array([[1, 2, 3], [4, 5, 6]], np.uint8) * 40  # what every orientation below must show
STORED = {
    1: UPRIGHT,
    2: UPRIGHT[:, ::-1],  # mirrored left to right
    3: UPRIGHT[::-1, ::-1],  # upside down
    4: UPRIGHT[::-1],  # mirrored top to bottom
    5: UPRIGHT.T,  # first row of the file is the left side, first column the top
    6: np.rot90(UPRIGHT, 1),  # the file's first row is the right side
    7: UPRIGHT[::-1, ::-1].T,
    8: np.rot90(UPRIGHT, -1),  # the file's first row is the left side, bottom up
    0: UPRIGHT,  # not an orientation: ignored
    9: UPRIGHT,
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied(orientation: int, form: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if form == "WEBP" else {}
    stored = Image.fromarray(np.repeat(STORED[orientation][..., None], 3, 2))
    data = encode(stored, form, exif=exif, **options)
    np.testing.assert_array_equal(decode(data)[..., 0], UPRIGHT)
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(decode(image)[..., 0], UPRIGHT)


def test_a_photograph_taken_sideways_is_turned() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[:, :16] = 255  # the file's left half becomes the top
    got = decode(encode(Image.fromarray(stored), "JPEG", exif=exif))
    assert got.shape == (32, 16, 3) and got[:14].min() > 240 and got[18:].max() < 15


def test_damaged_exif_counts_as_none() -> None:
    data = encode(Image.fromarray(noise()), "PNG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff junk")
    np.testing.assert_array_equal(decode(data), noise())


def test_alpha_is_shown_over_white() -> None:
    rgba = noise(16, 16, 4)
    alpha = rgba[..., 3:] / 255
    want = rgba[..., :3] * alpha + 255 * (1 - alpha)
    for source in (rgba, Image.fromarray(rgba), encode(Image.fromarray(rgba), "PNG")):
        np.testing.assert_allclose(decode(source), want, atol=1)  # Pillow composites in integers
    assert (decode(np.zeros((2, 2, 4), np.uint8)) == 255).all()


def test_grey_with_alpha_is_shown_over_white() -> None:
    image = Image.merge("LA", [Image.new("L", (2, 2), 100), Image.new("L", (2, 2), 51)])
    np.testing.assert_allclose(decode(encode(image, "PNG")), 100 * 0.2 + 255 * 0.8, atol=1)


def test_a_palettes_transparent_entry_becomes_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    for form in ("PNG", "GIF"):
        got = decode(encode(image, form, transparency=1))
        assert got.tolist() == [[[10, 20, 30], [255, 255, 255]]]
    assert decode(encode(image, "PNG")).tolist() == [[[10, 20, 30], [40, 50, 60]]]


def test_a_transparent_colour_key_becomes_white() -> None:
    image = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))
    assert decode(encode(image, "PNG", transparency=(4, 5, 6))).tolist() == [[[1, 2, 3], [255, 255, 255]]]


def test_cmyk_is_brought_to_rgb() -> None:
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # magenta and yellow make red
    for form in ("JPEG", "TIFF"):
        np.testing.assert_allclose(decode(encode(image, form)), np.broadcast_to([255, 0, 0], (16, 16, 3)), atol=3)
    assert decode(Image.new("CMYK", (1, 1), (0, 0, 0, 255))).tolist() == [[[0, 0, 0]]]


@pytest.mark.parametrize("mode", ["YCbCr", "HSV"])
def test_other_colour_spaces_are_brought_to_rgb(mode: str) -> None:
    np.testing.assert_allclose(
        decode(Image.new("RGB", (4, 4), (200, 40, 90)).convert(mode))[0, 0], [200, 40, 90], atol=4
    )


def test_16_bit_grey_is_scaled_not_cut() -> None:
    values = np.array([[0, 128, 129, 257, 32896, 65535]], np.uint16)
    want = [0, 0, 1, 1, 128, 255]  # rounded v / 257
    for form in ("PNG", "TIFF"):
        assert decode(encode(Image.fromarray(values), form))[0, :, 0].tolist() == want
    ppm = b"P5 6 1 65535\n" + values.astype(">u2").tobytes()
    assert decode(ppm)[0, :, 0].tolist() == want


def test_a_16_bit_greys_transparent_value_becomes_white() -> None:
    values = np.array([[0, 1000, 30000]], np.uint16)
    assert decode(encode(Image.fromarray(values), "PNG", transparency=1000))[0, :, 0].tolist() == [0, 255, 117]


def test_16_bit_colour_keeps_the_high_byte_within_one() -> None:
    values = np.random.default_rng(0).integers(0, 65536, (4, 5, 3), np.uint16)
    rows = b"".join(b"\x00" + row.astype(">u2").tobytes() for row in values)
    np.testing.assert_allclose(decode(png(5, 4, rows, depth=16)).astype(float), values / 257, atol=1)


@pytest.mark.parametrize(
    ("top", "values"), [(255, [0, 100, 255]), (65535, [0, 256, 65535]), (2**31 - 1, [0, 2**30, 2**31 - 1])]
)
def test_32_bit_integers_are_scaled_by_the_smallest_depth_that_holds_them(top: int, values: list[int]) -> None:
    image = Image.fromarray(np.array([values], np.int32))
    want = [round(value * 255 / top) for value in values]
    assert decode(encode(image, "TIFF"))[0, :, 0].tolist() == want
    assert decode(image)[0, :, 2].tolist() == want


@pytest.mark.parametrize(
    ("top", "values"), [(1, [0.0, 0.5, 1.0]), (255, [0.0, 1.4, 255.0]), (65535, [0.0, 300.0, 65535.0])]
)
def test_float_tiffs_are_scaled_by_the_smallest_range_that_holds_them(top: int, values: list[float]) -> None:
    image = Image.fromarray(np.array([values], np.float32))
    want = [round(value * 255 / top) for value in values]
    assert decode(encode(image, "TIFF"))[0, :, 0].tolist() == want


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf, 70000.0])
def test_float_pixels_without_a_meaning_are_refused(value: float) -> None:
    with pytest.raises(ImageError, match="convert it to 8 bits") as caught:
        decode(Image.fromarray(np.array([[0.0, value]], np.float32)))
    one_line(caught)


def test_one_bit_pictures_are_black_and_white() -> None:
    image = Image.fromarray(np.array([[True, False]]))
    for form in ("PNG", "TIFF", "BMP", "PPM"):
        assert decode(encode(image, form))[0, :, 0].tolist() == [255, 0]


def test_grey_is_repeated_in_three_channels() -> None:
    grey = noise(channels=1)
    for source in (grey, grey[..., None], encode(Image.fromarray(grey), "PNG"), Image.fromarray(grey)):
        np.testing.assert_array_equal(decode(source), np.repeat(grey[..., None], 3, 2))


@pytest.mark.parametrize("form", ["GIF", "WEBP", "TIFF", "PNG"])
def test_of_an_animation_the_first_frame_is_taken(form: str) -> None:
    first, second = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    data = encode(first, form, save_all=True, append_images=[second])
    np.testing.assert_allclose(decode(data)[0, 0], [255, 0, 0], atol=2)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), "must be uint8.*float32"),
        (np.zeros((4, 4, 3), np.int64), "must be uint8.*int64"),
        (np.zeros((4, 4, 3), bool), "must be uint8.*bool"),
        (np.zeros((3, 5, 5), np.uint8), r"must be \(H, W\)"),
        (np.zeros((4, 4, 2), np.uint8), r"must be \(H, W\)"),
        (np.zeros(4, np.uint8), r"must be \(H, W\)"),
        (np.zeros((1, 4, 4, 3), np.uint8), r"must be \(H, W\)"),
        (np.zeros((0, 4, 3), np.uint8), "is empty"),
        (np.zeros((4, 0), np.uint8), "is empty"),
    ],
)
def test_an_array_of_another_type_or_shape_is_refused(array: np.ndarray, message: str) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        decode(array)
    one_line(caught)


@pytest.mark.parametrize("source", [None, 3, 1.5, object(), ["a.png"], {"a": 1}])
def test_what_is_no_image_is_refused(source: Any) -> None:
    with pytest.raises(ImageError, match="must be a path, bytes, a PIL image or a uint8 array") as caught:
        decode(source)
    one_line(caught)


def test_missing_empty_and_non_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    os.mkfifo(tmp_path / "pipe")
    for source, message in [
        (tmp_path / "nothing.png", "there is no file"),
        ("null\x00byte", "there is no file"),
        (tmp_path, "not a file"),
        (tmp_path / "pipe", "not a file"),
        (tmp_path / "empty.png", "0 bytes"),
        (b"", "0 bytes"),
        ("n" * 5000, "there is no file"),
    ]:
        with pytest.raises(ImageError, match=message) as caught:
            decode(source)  # type: ignore[arg-type]
        one_line(caught)


@pytest.mark.parametrize(
    "data", [b"\x00", b"GIF89a", b"hello world, no picture", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.4"]
)
def test_bytes_that_are_no_picture_are_refused(data: bytes) -> None:
    with pytest.raises(ImageError) as caught:
        decode(data)
    one_line(caught)


@pytest.mark.parametrize("form", ["ICO", "PCX", "TGA", "SGI", "EPS", "JPEG2000", "DDS"])
def test_formats_off_the_list_are_not_opened(form: str) -> None:
    data = encode(Image.fromarray(noise(16, 16)), form)
    with pytest.raises(ImageError, match="not a picture; give a JPEG, PNG"):
        decode(data)


FILES = {
    "JPEG": encode(Image.fromarray(noise(40, 40)), "JPEG"),
    "PNG": encode(Image.fromarray(noise(40, 40)), "PNG"),
    "GIF": encode(Image.fromarray(noise(40, 40)), "GIF"),
    "BMP": encode(Image.fromarray(noise(40, 40)), "BMP"),
    "TIFF": encode(Image.fromarray(noise(40, 40)), "TIFF"),
    "TIFF lzw": encode(Image.fromarray(noise(40, 40)), "TIFF", compression="tiff_lzw"),
    "WEBP": encode(Image.fromarray(noise(40, 40)), "WEBP"),
    "PPM": encode(Image.fromarray(noise(40, 40)), "PPM"),
}


def test_the_files_below_cover_the_formats() -> None:
    assert {name.split()[0] for name in FILES} == set(FORMATS)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7])
def test_a_truncated_file_is_refused(name: str, share: float) -> None:
    with pytest.raises(ImageError) as caught:
        decode(FILES[name][: int(len(FILES[name]) * share)])
    one_line(caught)


@pytest.mark.filterwarnings("ignore")  # decoders may warn about odd metadata of a file that still decodes
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_gives_a_picture_or_an_image_error_and_nothing_else(name: str) -> None:
    random = np.random.default_rng(zlib.crc32(name.encode()))
    for _ in range(150):
        data = bytearray(FILES[name])
        for position in random.integers(0, min(len(data), 400), random.integers(1, 6)):
            data[position] = random.integers(0, 256)
        try:
            assert decode(bytes(data), max_pixels=10_000).dtype == np.uint8
        except ImageError as error:
            assert "\n" not in str(error)


def png(width: int, height: int, rows: bytes, depth: int = 8) -> bytes:
    """Return an RGB PNG made by hand."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_a_picture_above_the_limit_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(ImageError, match="8001 x 8000 pixels are more than the limit of 64000000"):
        decode(png(8001, 8000, b""))
    with pytest.raises(ImageError, match="more than the limit of 99"):
        decode(noise(10, 10), max_pixels=99)
    assert decode(noise(10, 10), max_pixels=100).shape == (10, 10, 3)


@pytest.mark.parametrize("side", [10_000, 30_000, 2**31 - 1])  # Pillow warns at the first, refuses the second
@pytest.mark.parametrize("action", ["error", "ignore"])
def test_a_decompression_bomb_is_refused(side: int, action: str, recwarn: pytest.WarningsRecorder) -> None:
    import warnings

    warnings.simplefilter(action, Image.DecompressionBombWarning)  # type: ignore[arg-type]
    with pytest.raises(ImageError) as caught:
        decode(png(side, side, b""))
    one_line(caught)


def test_pillows_own_lower_limit_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(ImageError, match="cannot be decoded"):
        decode(encode(Image.fromarray(noise()), "PNG"))


def test_a_lazily_opened_truncated_pil_image_is_refused() -> None:
    with Image.open(io.BytesIO(FILES["JPEG"][:-200])) as image, pytest.raises(ImageError, match="damaged or truncated"):
        decode(image)


def test_threads_decode_alike() -> None:
    want, wrong = decode(FILES["JPEG"]), []

    def work() -> None:
        wrong.extend(1 for _ in range(20) if not np.array_equal(decode(FILES["JPEG"]), want))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


SMALL = preset("imagenet", size=8)


def test_prepare_is_decode_fit_apply_for_every_image(tmp_path: Path) -> None:
    data = encode(Image.fromarray(noise()), "PNG")
    (tmp_path / "dog.b.png").write_bytes(data)
    with Image.open(tmp_path / "dog.b.png") as opened:
        ready = prepare([tmp_path / "dog.b.png", data, noise(), opened, Image.fromarray(noise())], SMALL)
    fitted = SMALL.fit(noise())
    assert ready.names == ["dog.b", "image_001", "image_002", "dog.b", "image_004"]
    assert ready.x.shape == (5, 3, 8, 8) and ready.x.dtype == np.float32
    for picture, x in zip(ready.pictures, ready.x, strict=True):
        np.testing.assert_array_equal(picture, fitted)
        np.testing.assert_array_equal(x, SMALL.apply(fitted[None])[0])


@pytest.mark.parametrize("images", [noise(), Image.fromarray(noise()), encode(Image.fromarray(noise()), "PNG")])
def test_one_image_alone_is_a_batch_of_one(images: Any) -> None:
    ready = prepare(images, SMALL)
    assert ready.x.shape == (1, 3, 8, 8) and ready.names == ["image_000"] and len(ready.pictures) == 1


def test_a_uint8_array_of_rank_four_is_many_pictures() -> None:
    pictures = np.stack([noise(), 255 - noise()])
    ready = prepare(pictures, SMALL)
    np.testing.assert_array_equal(ready.x, prepare(list(pictures), SMALL).x)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_prepared_array_passes_unchanged_and_shows_its_picture(layout: str, dtype: type) -> None:
    process = preset("imagenet", size=8, layout=layout)
    pictures = np.random.default_rng(1).integers(0, 256, (2, 8, 8, 3), np.uint8)
    x = process.apply(pictures).astype(dtype)
    ready = prepare(x, process)
    np.testing.assert_array_equal(ready.x, x.astype(np.float32))
    assert ready.x.dtype == np.float32 and ready.names == ["image_000", "image_001"]
    np.testing.assert_array_equal(ready.pictures, pictures)
    np.testing.assert_array_equal(prepare(x[0], process).x, ready.x[:1])
    np.testing.assert_array_equal(prepare([x[1], pictures[0]], process).x.shape, (2, *process.shape))


def test_a_uint8_model_takes_its_own_batch_as_prepared() -> None:
    process = preset("raw", size=8, layout="nhwc", dtype="uint8")
    x = np.random.default_rng(1).integers(0, 256, (2, 8, 8, 3), np.uint8)
    np.testing.assert_array_equal(prepare(x, process).x, x)
    assert prepare(noise(), process).x.dtype == np.uint8
    first = preset("raw", size=8, dtype="uint8")
    np.testing.assert_array_equal(prepare(np.moveaxis(x, 3, 1), first).x, np.moveaxis(x, 3, 1))


def test_a_model_of_other_bands_takes_prepared_arrays_only() -> None:
    process = Preprocess("bands", (4, 4), color="bands", mean=(0.0,) * 5, std=(1.0,) * 5)
    assert prepare(np.ones((2, 5, 4, 4), np.float32), process).pictures[0].shape == (4, 4, 3)
    with pytest.raises(ImageError, match="give prepared arrays"):
        prepare(noise(), process)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "list is empty"),
        (np.zeros((0, 8, 8, 3), np.uint8), "list is empty"),
        (np.zeros((1, 3, 9, 8), np.float32), r"must have shape \(3, 8, 8\).*got \(3, 9, 8\)"),
        (np.zeros((8, 8, 3), np.float32), r"must have shape \(3, 8, 8\).*give a picture as uint8"),
        (np.full((3, 8, 8), np.nan), "NaN"),
        (np.full((3, 8, 8), np.inf, np.float32), "NaN"),
        (np.full((3, 8, 8), -np.inf, np.float32), "NaN"),
        (np.where(np.arange(192).reshape(3, 8, 8) == 100, np.nan, np.float32(1)), "NaN"),
        (np.where(np.arange(192).reshape(3, 8, 8) == 191, -np.inf, np.float32(1)), "NaN"),
        (np.full((3, 8, 8), 1e300), "beyond float32"),
        ([noise(), "no such file"], "image 1 of 2: there is no file"),
        (["no such file"], "^there is no file"),
        ([noise(), [noise()]], "image 1 of 2: an image must be"),
        (None, "an image must be"),
        (np.zeros((2, 2, 2, 2, 2), np.uint8), r"must be \(H, W\)"),
    ],
)
def test_prepare_says_which_image_is_wrong_and_why(images: Any, message: str) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        prepare(images, SMALL)
    one_line(caught)


@pytest.mark.realdata
def test_real_photographs_decode_to_the_size_their_index_says(realdata: Path) -> None:
    import csv

    with open(realdata / "images.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if (realdata / row["file"]).is_file()]
    assert len(rows) > 50
    for row in rows:
        assert decode(realdata / row["file"]).shape == (int(row["height"]), int(row["width"]), 3)


NUMBERS = np.arange(6 * 7, dtype=np.uint8).reshape(6, 7) * 6


def test_masks_are_numbers_whatever_the_palette_shows(tmp_path: Path) -> None:
    palette = Image.fromarray(NUMBERS).convert("P")
    palette.putpalette([value for index in range(256) for value in (255 - index, 3, 3)])
    palette.putdata(NUMBERS.reshape(-1).tolist())
    for image in (palette, Image.fromarray(NUMBERS)):
        data = encode(image, "PNG")
        (tmp_path / "m.png").write_bytes(data)
        for source in (data, tmp_path / "m.png"):
            got = decode_mask(source)
            np.testing.assert_array_equal(got, NUMBERS)
            assert got.dtype == np.uint8


def test_masks_of_one_bit_16_bits_and_colours() -> None:
    bits = NUMBERS > 100
    np.testing.assert_array_equal(decode_mask(encode(Image.fromarray(bits), "PNG")), bits)
    grey = NUMBERS.astype(np.uint16) * 257
    np.testing.assert_array_equal(decode_mask(encode(Image.fromarray(grey), "PNG")), NUMBERS)
    clear = np.dstack([NUMBERS // 2, NUMBERS, NUMBERS // 3, np.zeros_like(NUMBERS)])
    np.testing.assert_array_equal(decode_mask(encode(Image.fromarray(clear), "PNG")), NUMBERS)


def test_a_mask_that_is_none_is_one_image_error(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="not a picture"):
        decode_mask(b"text")
    with pytest.raises(ImageError, match="no file"):
        decode_mask(tmp_path / "none.png")
    with pytest.raises(ImageError, match="more than the limit"):
        decode_mask(encode(Image.fromarray(NUMBERS), "PNG"), max_pixels=41)


# batches of batches ------------------------------------------------------------------------------------------------


def test_what_was_prepared_is_taken_as_it_is_and_only_by_a_model_like_that() -> None:
    half, x = preset("half", size=(12, 10)), np.zeros((2, 3, 12, 10), np.float32)
    made = prepare(x, half)
    made.x[:] = np.nan  # nobody looks again
    assert prepare(made, half) is made
    for other in (preset("half", size=(10, 12)), preset("half", size=(12, 10), dtype="float16")):
        with pytest.raises(ImageError, match="prepared for another model: want float"):
            prepare(made, other)


def test_batches_that_are_joined_are_the_batch_of_all() -> None:
    half = preset("half", size=(12, 10))
    pictures = [noise(20, 30), noise(9, 13), noise(12, 10)]
    inputs = np.random.default_rng(0).normal(size=(2, 3, 12, 10)).astype(np.float32)
    parts = [prepare(pictures, half), prepare(inputs, half)]
    joined, want = join(parts), prepare([*pictures, *inputs], half)
    np.testing.assert_array_equal(joined.x, want.x)
    np.testing.assert_array_equal(joined.pictures, want.pictures)
    assert joined.names == [*parts[0].names, *parts[1].names]
    assert join(parts[:1]) is parts[0]
