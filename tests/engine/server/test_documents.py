"""Bounded JSON: the depth against a recursive count, numbers against the standard library, bombs against a limit."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from camrt.errors import InputError
from camrt.server.documents import read_base64, read_json, said, write_json
from camrt.server.faults import TooLargeError

TRICKY = st.text(st.sampled_from('[]{}",:\\a\n'), max_size=8)  # what a scan for brackets may stumble over
SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, width=64) | TRICKY
DOCUMENTS = st.recursive(
    SCALARS.filter(lambda value: not (isinstance(value, float) and math.isinf(value))),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TRICKY, inner, max_size=4),
    max_leaves=20,
)


def depth_of(value: Any) -> int:
    """Return how deep lists and objects nest."""
    if isinstance(value, list | dict):
        return 1 + max(map(depth_of, value.values() if isinstance(value, dict) else value), default=0)
    return 0


@given(DOCUMENTS, st.booleans())
def test_a_document_is_read_as_the_standard_library_reads_it(document: Any, spaced: bool) -> None:
    body = json.dumps(document, indent=2 if spaced else None, ensure_ascii=False).encode()
    assert read_json(body, depth=100) == json.loads(body)


@given(DOCUMENTS.filter(depth_of))
def test_the_depth_allowed_is_exact_whatever_stands_in_texts(document: Any) -> None:
    body, depth = json.dumps(document).encode(), depth_of(document)
    assert read_json(body, depth=depth) == document
    with pytest.raises(InputError, match=f"nests deeper than {depth - 1} levels"):
        read_json(body, depth=depth - 1)


def test_thirty_two_levels_are_read_and_thirty_three_are_not() -> None:
    assert depth_of(read_json(b"[" * 32 + b"]" * 32)) == 32
    with pytest.raises(InputError, match="deeper"):
        read_json(b"[" * 33 + b"]" * 33)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b'{"a":}',
        b"[1,]",
        b"NaN",
        b"Infinity",
        b"1e999",
        b"\xff\xfe",
        b'"\\ud800"',
        b"\xef\xbb\xbf{}",
        b"'a'",
    ],
)
def test_what_is_no_json_is_refused_in_one_line(body: bytes) -> None:
    with pytest.raises(InputError, match=r"^(not a JSON document|a JSON document was wanted)") as caught:
        read_json(body)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "unit",
    [b"[", b"{", b"[],", b"{},", b"0.1,", b'"",', b'{"a":1},', b'"\\"', b'"\\\\'],
    ids=["lists", "objects", "empty lists", "empty objects", "floats", "texts", "entries", "quotes", "backslashes"],
)
def test_text_that_would_swell_as_objects_is_refused_before_it_is_parsed(unit: bytes) -> None:
    with pytest.raises(InputError) as caught:
        read_json(b"[" + unit * (32 * 2**20 // len(unit)) + b"]")
    assert isinstance(caught.value, TooLargeError)


def test_ten_thousand_levels_are_refused() -> None:
    with pytest.raises(InputError, match="deeper"):
        read_json(b'{"a":' * 10_000 + b"1" + b"}" * 10_000)


def test_a_long_text_is_no_bomb() -> None:
    text = "A" * 2**22
    assert read_json(json.dumps({"b64": text}).encode())["b64"] == text


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_floats_come_back_to_the_last_bit(values: list[float]) -> None:
    array = np.array(values, np.float32)
    assert np.array_equal(np.array(json.loads(write_json({"data": array}))["data"], np.float32), array)


def test_arrays_are_written_nested() -> None:
    assert json.loads(write_json(np.arange(6).reshape(2, 3))) == [[0, 1, 2], [3, 4, 5]]


@given(st.binary(min_size=1))
def test_base64_comes_back(content: bytes) -> None:
    assert read_base64(base64.b64encode(content).decode(), "it") == content


@pytest.mark.parametrize(
    "text", ["", "a", "QUJD\n", "QU JD", "QUJ", "QUJD=", "_-_-", "€€€€", None, 7, ["QUJD"], b"QUJD"]
)
def test_what_is_no_base64_is_refused(text: object) -> None:
    with pytest.raises(InputError, match=r"^it "):
        read_base64(text, "it")


@pytest.mark.parametrize(
    "value",
    [
        {"a": dict.fromkeys(map(str, range(10**6)))},
        "x" * 10**6,
        ["x" * 10**6] * 10**3,
        {"k" * 10**6: "v" * 10**6},
        list(range(10**6)),
        10**18,
    ],
)
def test_what_a_client_sent_is_quoted_briefly(value: object) -> None:
    assert len(said(value)) < 300


def test_quoted_text_stays_on_one_line() -> None:
    assert said("a\nb\x1b[31m") == r"'a\nb\x1b[31m'"
