"""Reading a query, a body and an Accept header; writing JSON, PNG and npy."""

from __future__ import annotations

import io
import struct
from contextlib import suppress

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from camrt.errors import InputError
from camrt.methods import METHODS
from camrt.server.asking import NOT_OPTIONS, WISHES
from camrt.server.faults import NotAcceptableError, TooLargeError
from camrt.server.plain import (
    ADDRESS,
    JSON,
    NPY,
    PNG,
    SEVERAL,
    Look,
    accepted,
    read_plain,
    write_json_answer,
    write_npy,
    write_png,
)
from camrt.server.settings import Settings
from camrt.server.tickets import Answer
from camrt.targets import Logit, Probability
from tests.engine.server.small import served

SETTINGS = Settings()
PICTURE = b"\xff\xd8\xff any picture"


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        (None, JSON),
        ("", JSON),
        ("*/*", JSON),
        ("image/*", PNG),
        ("image/png", PNG),
        ("IMAGE/PNG", PNG),
        ("application/x-npy, image/png;q=0.9", NPY),
        ("image/png;q=0.2, */*;q=0.1", PNG),
        ("text/html, */*;q=0.1", JSON),
        ("image/png;level=1;q=0.5, application/json;q=0.4", PNG),
        ("application/json;q=0, */*", PNG),
        ("application/*;q=0.5, application/json;q=0.1", NPY),
        ("image/png; q=1.000", PNG),
    ],
)
def test_accept_is_read_as_rfc_9110_says(header: str | None, wanted: str) -> None:
    assert accepted(header) == wanted


@pytest.mark.parametrize("header", ["text/html", "*/*;q=0", "image/png;q=0.000", "nonsense", ",,,"])
def test_what_is_not_made_is_not_acceptable(header: str) -> None:
    with pytest.raises(NotAcceptableError, match="application/json, image/png"):
        accepted(header)


@given(st.text(max_size=200))
def test_any_accept_header_is_read_or_refused(header: str) -> None:
    with suppress(NotAcceptableError):
        assert accepted(header) in (JSON, PNG, NPY)


def test_a_query_becomes_an_ask() -> None:
    query = [
        ("model", "tiny"), ("version", "3"), ("method", "Smooth-Grad-CAM++"), ("n", "3"), ("target", "cat"), ("target", "prob:1"),
        ("layer", "a1"), ("timeout", "2.5"), ("tta", "true"), ("opacity", "0.25"), ("picture", "1"),
    ]  # fmt: skip
    ask, look = read_plain(query, PICTURE, PNG, served(), SETTINGS)
    assert ask.images == (PICTURE,) and ask.targets == [[Logit(0), Probability(1)]] and ask.timeout == 2.5
    assert ask.wish is not None and ask.wish.method == "smoothgradcampp" and dict(ask.wish.options)["n"] == 3
    assert ask.wish.tta
    assert look == Look(PNG, opacity=0.25, picture=True)


def test_what_the_protocols_call_their_own_is_no_option_of_a_method() -> None:
    options = {name for method in METHODS.values() for name in method.options}
    own = {
        *ADDRESS,
        *SEVERAL,
        *WISHES,
        *NOT_OPTIONS,
        "timeout",
        "colormap",
        "opacity",
        "colorbar",
        "encoding",
        "picture",
    }
    assert not options & own


def test_without_a_query_the_predicted_class_is_explained_by_gradcam() -> None:
    ask, look = read_plain([], PICTURE, JSON, served(), SETTINGS)
    assert ask.targets is None and ask.wish is not None and ask.wish.method == "gradcam"
    assert ask.timeout == SETTINGS.timeout and look == Look()


@pytest.mark.parametrize("name", ["opacity", "timeout", "method", "n"])
def test_what_is_said_twice_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="twice"):
        read_plain([(name, "1"), (name, "1")], PICTURE, JSON, served(), SETTINGS)


def test_too_many_targets_are_refused() -> None:
    with pytest.raises(TooLargeError):
        read_plain([("target", "1")] * 33, PICTURE, JSON, served(), SETTINGS)


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f4"])
def test_an_npy_of_floats_is_a_prepared_input(dtype: str, rng: np.random.Generator) -> None:
    array = rng.normal(size=(1, 3, 12, 10)).astype(dtype)
    for given_array in (array, array[0]):
        ask, _ = read_plain([], npy(given_array), JSON, served(), SETTINGS)
        np.testing.assert_array_equal(ask.images, array)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 3, 12, 10), "f4"),
        np.zeros((3, 10, 12), "f4"),
        np.zeros((12, 10), "f4"),
        np.zeros((), "f4"),
        np.zeros((1, 3, 12, 10), "i8"),
        np.zeros((1, 3, 12, 10), "c8"),
        np.zeros((1, 3, 12, 10), "S4"),
        np.zeros((3, 12, 10), [("a", "f4")]),
        np.asfortranarray(np.zeros((3, 12, 10), "f4")),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_another_npy_is_refused(array: np.ndarray) -> None:
    with pytest.raises(InputError):
        read_plain([], npy(array), JSON, served(), SETTINGS)


def header_of(text: str, version: bytes = b"\x01\x00") -> bytes:
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text.encode()


@pytest.mark.parametrize(
    "body",
    [
        header_of("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000, 1000000)}"),
        header_of("{'descr': '<f4', 'fortran_order': False, 'shape': (-3, -12, 10)}") + bytes(1440),
        header_of("{'descr': '<f4', 'fortran_order': False, 'shape': (True, 3, 12, 10)}") + bytes(1440),
        header_of("{'descr': '|O', 'fortran_order': False, 'shape': (3,)}") + bytes(24),
        header_of("{'descr': '<f4', 'fortran_order': False, 'shape': 3}"),
        header_of("[" * 900),
        header_of("(" * 400 + ")" * 400),
        header_of("__import__('os')"),
        header_of("{}", b"\x09\x00"),
        b"\x93NUMPY",
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff",
    ],
)
def test_a_hostile_npy_is_refused(body: bytes) -> None:
    with pytest.raises(InputError):
        read_plain([], body, JSON, served(), SETTINGS)


@given(st.data())
def test_a_mutated_npy_is_read_or_refused(data: st.DataObject) -> None:
    body = bytearray(npy(np.zeros((3, 12, 10), "f4")))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(6, 130))] = data.draw(st.integers(0, 255))
    try:
        ask, _ = read_plain([], bytes(body), JSON, served(), SETTINGS)
        assert np.shape(ask.images) == (1, 3, 12, 10)
    except InputError:
        pass


@given(st.lists(st.tuples(st.text(max_size=20), st.text(max_size=40)), max_size=5))
def test_any_query_is_read_or_refused(query: list[tuple[str, str]]) -> None:
    with suppress(InputError):
        read_plain(query, PICTURE, JSON, served(), SETTINGS)


# ---- writing ---------------------------------------------------------------------------------------------------------


def answer_of(rng: np.random.Generator, target: object = None) -> Answer:
    explanation = served().explainer.explain(rng.integers(0, 256, (12, 10, 3), np.uint8), target=target)
    return Answer(explanation, explanation.logits, served(), 0.001, 0.002, 0.003, 4)


def test_json_has_every_number(rng: np.random.Generator) -> None:
    answer = answer_of(rng, [2, 0])
    told = orjson.loads(write_json_answer(answer, Look(), "an id", 0.0125))
    made = answer.explanation
    assert made is not None
    for t, target in enumerate(told["targets"]):
        np.testing.assert_array_equal(np.array(target["heatmap"], np.float32), made.heatmaps[0, t])
    assert [target["label"] for target in told["targets"]] == ["great-tit", "cat"]
    assert told["timing"] == {"queue_ms": 1.0, "decode_ms": 2.0, "run_ms": 3.0, "total_ms": 12.5, "batch": 4}
    assert sum(row["probability"] for row in told["top"]) == pytest.approx(1, abs=1e-6)  # there are five classes


def test_a_target_that_is_no_class_has_none(rng: np.random.Generator) -> None:
    from camrt.targets import Vector

    answer = answer_of(rng, Vector(np.arange(5, dtype=np.float32)))
    (target,) = orjson.loads(write_json_answer(answer, Look(), "", 0))["targets"]
    assert target["class"] is None and target["probability"] is None and target["label"] == "vector"


def test_npy_and_png(rng: np.random.Generator) -> None:
    answer = answer_of(rng, [2, 0])
    assert answer.explanation is not None
    np.testing.assert_array_equal(np.load(io.BytesIO(write_npy(answer))), answer.explanation.heatmaps[0])
    assert write_png(answer, Look()).startswith(b"\x89PNG") and write_png(answer, Look()) != write_png(
        answer, Look(opacity=0)
    )
