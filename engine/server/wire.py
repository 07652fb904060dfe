"""
The bytes of a protobuf message, field by field, without protobuf: for looking at files before any parser does.

In: bytes that a stranger may have written. Out: numbers of fields and what they hold. Nothing is copied or decoded but
what is asked for, every length is compared with what is there, and groups, which ONNX does not have, are refused.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import ModelError

__all__ = ["BYTES", "FIXED32", "FIXED64", "VARINT", "fields"]

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types
_WIDTH = {FIXED64: 8, FIXED32: 4}


def fields(data: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """
    Read the fields of one message.

    Parameters
    ----------
    data : memoryview of bytes
        The message.

    Yields
    ------
    number : int
        The field's number.
    wire : int
        One of `VARINT`, `FIXED64`, `BYTES`, `FIXED32`.
    value : int or memoryview
        The number of a varint, from 0 to 2**64 - 1; the bytes of anything else, not copied.

    Raises
    ------
    ModelError
        If the bytes are not a message, or end too early.

    Examples
    --------
    >>> [(number, bytes(value)) for number, _, value in fields(memoryview(b"\\x0a\\x02hi"))]
    [(1, b'hi')]
    """
    place, size = 0, len(data)
    while place < size:
        tag, place = _varint(data, place, 5)
        number, wire = tag >> 3, tag & 7
        if not 0 < number < 2**29:
            raise ModelError("it is not an ONNX model: a field of no number")
        if wire == VARINT:
            value, place = _varint(data, place, 10)
            yield number, wire, value & (2**64 - 1)
            continue
        if wire == BYTES:
            length, place = _varint(data, place, 10)
        elif wire in _WIDTH:
            length = _WIDTH[wire]
        else:
            raise ModelError("it is not an ONNX model: a field of an unknown kind")
        if length > size - place:
            raise ModelError("the model is cut short, or is not ONNX")
        yield number, wire, data[place : place + length]
        place += length


def _varint(data: memoryview, place: int, most: int) -> tuple[int, int]:
    """Read a number of up to `most` bytes; return it, and where the next byte is."""
    if place < len(data) and data[place] < 0x80:  # nearly all are of one byte
        return data[place], place + 1
    value = 0
    for shift, byte in enumerate(data[place : place + most]):
        value |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            return value, place + shift + 1
    raise ModelError("the model is cut short, or is not ONNX")
