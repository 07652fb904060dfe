"""Pictures and arrays become what the engine makes of them, one picture a call."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

import camrt
from camrt.errors import ImageError
from camrt.image import Prepared, prepare
from camrt.preprocess import Preprocess
from camrt.server.asks import Ask
from camrt.server.decoding import INLINE, bytes_of, is_quick, prepare_next
from camrt.server.faults import TooLargeError
from tests import tiny
from tests.engine.server.watched import ask, settings

FLOATS = Preprocess("floats", (8, 6))
WHOLE = Preprocess("whole", (8, 6), layout="nhwc", scale=1.0, dtype="uint8")


def png(seed: int, size: tuple[int, int] = (30, 20)) -> bytes:
    """Return a picture of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def prepared(request: Ask, **limits: Any) -> tuple[Prepared, int]:
    """Return all of a request's images, and how many calls it took."""
    parts: list[Prepared] = []
    for calls in range(1, 100):
        whole = prepare_next(request, parts, FLOATS, settings(**limits))
        if whole is not None:
            return whole, calls
    raise AssertionError("it has no end")


def assert_same(got: Prepared, want: Prepared) -> None:
    """Compare two batches to the last bit."""
    assert_array_equal(got.x, want.x)
    assert list(got.names) == list(want.names)
    for one, other in zip(got.pictures, want.pictures, strict=True):
        assert_array_equal(one, other)


@pytest.mark.parametrize("count", [1, 3])
def test_pictures_are_made_one_a_call_into_what_the_engine_makes_of_all(count: int) -> None:
    contents = tuple(png(seed) for seed in range(count))
    whole, calls = prepared(ask(contents))
    assert calls == count
    assert_same(whole, prepare(list(contents), FLOATS))


def test_an_array_is_done_at_once_pictures_or_prepared() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 30, 20, 3), np.uint8)
    inputs = np.random.default_rng(1).normal(size=(3, 3, 8, 6)).astype("f4")
    for images in (pixels, inputs):
        whole, calls = prepared(ask(images))
        assert calls == 1
        assert_same(whole, prepare(images, FLOATS))


def test_the_model_s_answer_is_the_engine_s() -> None:
    explainer = camrt.load(tiny.mlp(), preprocess="half")
    contents = tuple(png(seed) for seed in range(2))
    parts: list[Prepared] = []
    request = ask(contents)
    assert prepare_next(request, parts, explainer.preprocess, settings()) is None
    whole = prepare_next(request, parts, explainer.preprocess, settings())
    assert whole is not None
    assert_array_equal(explainer.logits(whole), explainer.logits(list(contents)))


def test_a_picture_that_cannot_be_decoded_is_named_among_several() -> None:
    with pytest.raises(ImageError, match=r"^image 1 of 3: the bytes: not a picture") as caught:
        prepared(ask((png(0), b"no picture", png(1))))
    assert isinstance(caught.value.__cause__, ImageError)
    with pytest.raises(ImageError, match=r"^the bytes: not a picture"):
        prepared(ask((b"no picture",)))


def test_pictures_may_be_so_large() -> None:
    assert prepared(ask((png(0),)), max_pixels=600)[0].x.shape == (1, 3, 8, 6)
    with pytest.raises(TooLargeError):
        prepared(ask((png(0),)), max_pixels=599)
    with pytest.raises(TooLargeError, match="image 0 of 2"):
        prepared(ask((png(0), png(1))), max_pixels=599)


@pytest.mark.parametrize(
    ("images", "preprocess", "is_so"),
    [
        (np.zeros((2, 3, 8, 6), "f4"), FLOATS, True),
        (np.zeros((2, 3, 5, 5), "f4"), FLOATS, True),  # wrong, which is said at once
        (np.zeros((1, INLINE // 4), "f4"), FLOATS, True),
        (np.zeros((1, INLINE // 4 + 1), "f4"), FLOATS, False),
        (np.zeros((2, 8, 6, 3), np.uint8), FLOATS, False),  # pictures
        (np.zeros((2, 8, 6, 3), np.uint8), WHOLE, True),  # the model takes them as they are
        (np.zeros((2, 9, 6, 3), np.uint8), WHOLE, False),
        ((b"",), FLOATS, False),
    ],
)
def test_prepared_inputs_are_quick_as_long_as_they_are_few(images: Any, preprocess: Preprocess, is_so: bool) -> None:
    assert is_quick(ask(images), preprocess) == is_so


def test_bytes_are_those_that_came_and_those_that_will_be() -> None:
    of_one = 3 * 8 * 6
    assert bytes_of(ask((b"123", b"4567")), FLOATS) == 7 + 2 * of_one * 4
    assert bytes_of(ask(np.zeros((5, 30, 20, 3), np.uint8)), FLOATS) == 5 * 30 * 20 * 3 + 5 * of_one * 4
    assert bytes_of(ask(np.zeros((2, 8, 6, 3), np.uint8)), WHOLE) == 2 * of_one + 2 * of_one
