"""Encoded pictures: what is taken is decoded as the engine does it, what is too large or moves is refused by its header."""

from __future__ import annotations

import io
import struct
import zlib
from functools import partial
from typing import Any

import numpy as np
import pytest
from PIL import Image

from camrt.errors import ImageError
from camrt.image import decode
from camrt.server.faults import MediaTypeError, TooLargeError
from camrt.server.pictures import decode_picture
from camrt.server.settings import Settings
from tests.engine.server.mutants import outcome, picture, pictures

SETTINGS = Settings()
PIXELS = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)


def encoded(kind: str, pixels: np.ndarray[Any, Any] = PIXELS, **options: Any) -> bytes:
    """Return a file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def png_header(width: int, height: int) -> bytes:
    """Return a PNG that says how large it is, and ends where its pixels should begin."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
def test_three_formats_are_decoded_as_the_engine_decodes_them(kind: str) -> None:
    content = encoded(kind)
    assert np.array_equal(decode_picture(content, SETTINGS), decode(content))


def test_a_lossless_picture_comes_back() -> None:
    assert np.array_equal(decode_picture(encoded("PNG"), SETTINGS), PIXELS)
    assert np.array_equal(decode_picture(encoded("WEBP", lossless=True), SETTINGS), PIXELS)


def test_a_picture_is_brought_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a camera held upright: turned a quarter to the right
    assert np.array_equal(decode_picture(encoded("PNG", exif=exif), SETTINGS), np.rot90(PIXELS, -1))


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "PPM", "ICO", "JPEG2000", "DDS"])
def test_other_formats_are_told_from_rubbish(kind: str) -> None:
    with pytest.raises(MediaTypeError, match="send a JPEG, PNG or WebP"):
        decode_picture(encoded(kind, np.repeat(np.repeat(PIXELS, 4, 0), 4, 1)), SETTINGS)


@pytest.mark.parametrize(
    "start",
    [b"SIMPLE  =                    T", b"8BPS\0\1", b"\0\0\0\x1cftypavif", b"\0\0\0\x18ftypheic", b"<svg xmlns="],
)
def test_formats_that_are_never_opened_are_known_by_their_first_bytes(start: bytes) -> None:
    with pytest.raises(MediaTypeError, match="files are not taken"):
        decode_picture(start + bytes(100), SETTINGS)


@pytest.mark.parametrize(
    "content", [b"", b"x", bytes(1000), b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP", b"{}"]
)
def test_rubbish_is_no_picture(content: bytes) -> None:
    with pytest.raises(ImageError):
        decode_picture(content, SETTINGS)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_picture_that_is_cut_off_is_refused(kind: str, share: float) -> None:
    content = encoded(kind)
    with pytest.raises(ImageError):
        decode_picture(content[: int(len(content) * share)], SETTINGS)


@pytest.mark.parametrize(
    ("width", "height"),
    [(9000, 9000), (4001, 4000), (8193, 1), (1, 8193), (12_000, 12_000), (20_000, 20_000), (2**31 - 1, 2**31 - 1)],
    ids=["81 Mpx", "one column", "wide", "high", "warned of", "refused by Pillow", "giant"],
)
def test_a_bomb_is_refused_by_its_header(width: int, height: int) -> None:
    with pytest.raises(TooLargeError, match="allowed"):
        decode_picture(png_header(width, height), SETTINGS)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
def test_limits_are_held_at_their_edge(kind: str) -> None:
    content = encoded(kind)
    assert decode_picture(content, Settings(max_pixels=63, max_side=9)).shape == (9, 7, 3)
    for limits in ({"max_pixels": 62}, {"max_side": 8}):
        with pytest.raises(TooLargeError, match="7 x 9 pixels"):
            decode_picture(content, Settings(**limits))


def test_a_limit_above_the_engines_own_holds() -> None:
    with pytest.raises(ImageError, match="cannot be decoded"):  # the header passes, the pixels are missing
        decode_picture(png_header(8100, 8000), Settings(max_pixels=65_000_000))


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_an_animation_is_refused(kind: str) -> None:
    content = encoded(kind, save_all=True, append_images=[Image.fromarray(255 - PIXELS)])
    with pytest.raises(ImageError, match="animation of 2 frames"):
        decode_picture(content, SETTINGS)


def test_of_the_several_pictures_of_a_telephone_the_first_is_taken() -> None:
    content = encoded("MPO", save_all=True, append_images=[Image.fromarray(255 - PIXELS)])
    assert np.array_equal(decode_picture(content, SETTINGS), decode(content))


def test_mutants_are_decoded_or_refused() -> None:
    ends = {outcome(partial(picture, content)) for content in pictures(600)}
    assert {"read", "ImageError", "TooLargeError"} <= ends <= {"read", "ImageError", "TooLargeError", "MediaTypeError"}
