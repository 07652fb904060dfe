"""
JSON from strangers, and JSON for them.

Bytes go in, plain Python data comes out, or the reverse. Before anything is parsed one pass over the bytes counts what
the values would take as Python objects, which is up to thirty times the text (``[],[],[],...``), and how deep they
nest; the parser then has nothing left to be surprised by.
"""

from __future__ import annotations

import binascii
import reprlib
from itertools import islice
from typing import Any

import numpy as np
import orjson

from ..errors import InputError
from .faults import TooLargeError

__all__ = ["MAX_MEMORY", "read_base64", "read_json", "said", "write_json"]

MAX_MEMORY = 256 * 2**20  # bytes of Python objects: 53 inputs of 3 x 224 x 224 as JSON numbers
_TAKES = {  # bytes that each mark in the text stands for, of CPython objects, rounded up
    b"[": 64,
    b"{": 64,
    b",": 32,  # a float and its place in a list
    b":": 128,  # an entry of an object
    b'"': 24,  # half a text, beside its letters
    b"\\": 16,  # nothing to keep, but dear to read
}
_OTHERS = bytes(sorted(set(range(256)) - set(b'[]{},:"\\')))
_NO_MARKS = bytes(sorted(set(range(256)) - set(b'[]{}"')))


class _Short(reprlib.Repr):
    """Cuts an object before its keys are sorted, which it otherwise does with all of them."""

    def repr_dict(self, x: dict[Any, Any], level: int) -> str:
        """Write the first entries."""
        return super().repr_dict(dict(islice(x.items(), self.maxdict + 1)), level)


_short = _Short()
_short.maxstring = _short.maxother = 60
_short.maxlist = _short.maxtuple = _short.maxdict = 4
_short.maxlevel = 2


def said(value: object) -> str:
    """
    Write what a client sent so that it can stand in a message: quoted, on one line, and short whatever it was.

    Parameters
    ----------
    value : object
        Plain data.

    Returns
    -------
    str
        Some sixty letters at most for a text.

    Examples
    --------
    >>> said("a" * 1000)[:8], len(said("a" * 1000)), said([1] * 9)
    ("'aaaaaaa", 60, '[1, 1, 1, 1, ...]')
    """
    return _short.repr(value)


def read_json(body: bytes, *, depth: int = 32) -> Any:
    """
    Read a JSON document.

    Parameters
    ----------
    body : bytes
        The document, UTF-8.
    depth : int, default 32
        How deep lists and objects may nest.

    Returns
    -------
    object
        Dicts, lists, str, int, float, bool and None. Integers beyond 64 bits come as float.

    Raises
    ------
    InputError
        If it is not JSON (NaN and infinity are not), or nests deeper.
    TooLargeError
        If its values would take more than `MAX_MEMORY` bytes.

    Notes
    -----
    Cost: a tenth of the parser's own for the checks; 0.4 s for 64 MB of the worst.

    Examples
    --------
    >>> read_json(b'{"n": [1, 2.5]}')
    {'n': [1, 2.5]}
    """
    if not body:
        raise InputError("a JSON document was wanted; the body is empty")
    marks = body.translate(None, _OTHERS)
    if sum(marks.count(mark) * takes for mark, takes in _TAKES.items()) > MAX_MEMORY:
        raise TooLargeError(
            "the JSON document holds more values than are read at once; send fewer images, or binary tensors"
        )
    if marks.count(b"[") + marks.count(b"{") > depth and _nesting(body) > depth:
        raise InputError(f"the JSON document nests deeper than {depth} levels")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InputError(f"not a JSON document: {error.msg}, at byte {error.pos}") from None


def write_json(value: Any) -> bytes:
    """
    Write a JSON document.

    Parameters
    ----------
    value : object
        Plain data and contiguous arrays.

    Returns
    -------
    bytes
        Floats in as many digits as bring them back exactly; float32 in those of float32.
    """
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def read_base64(text: object, what: str) -> bytes:
    """
    Read bytes that travel as text.

    Parameters
    ----------
    text : object
        Base64 in the standard alphabet, padded.
    what : str
        What it should be, for the message.

    Returns
    -------
    bytes
        At least one.

    Raises
    ------
    InputError
        If it is anything else.
    """
    if not isinstance(text, str):
        raise InputError(f"{what} must be base64 text; got {type(text).__name__}")
    try:
        content = binascii.a2b_base64(text, strict_mode=True) if len(text) % 4 == 0 else None
    except ValueError:
        content = None
    if content is None:
        raise InputError(f"{what} must be base64 (standard alphabet, padded, no line breaks); got {said(text)}")
    if not content:
        raise InputError(f"{what} is empty")
    return content


def _nesting(body: bytes) -> int:
    """Return how deep lists and objects nest; of a text that is no JSON, some number."""
    if b"\\" in body:  # of a row of backslashes only pairs go; what is left of it escapes what follows
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    marks = np.frombuffer(body.translate(None, _NO_MARKS), np.uint8)
    inside = np.bitwise_xor.accumulate(marks == ord('"'))
    kinds = marks[~inside] | 0x20  # "[" and "{" differ in one bit, as do "]" and "}"
    steps = (kinds == ord("{")).astype(np.int8) - (kinds == ord("}"))
    return int(np.cumsum(steps, dtype=np.int32).max(initial=0))
