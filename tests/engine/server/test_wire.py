"""Reading protobuf's wire format: protobuf itself is the oracle."""

from __future__ import annotations

import pytest
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto

from camrt.errors import ModelError
from camrt.server.wire import BYTES, VARINT, fields
from tests import tiny


def read(data: bytes) -> list[tuple[int, int, int | bytes]]:
    """Return all fields of a message."""
    return [(n, wire, v if isinstance(v, int) else bytes(v)) for n, wire, v in fields(memoryview(data))]


def test_a_models_fields_are_those_that_protobuf_sees() -> None:
    model = ModelProto.FromString(tiny.gap())
    expected = []
    for entry, value in model.ListFields():
        for item in value if isinstance(value, (list, tuple)) or entry.is_repeated else [value]:
            kind = entry.type
            if kind == FieldDescriptor.TYPE_MESSAGE:
                expected.append((entry.number, BYTES, item.SerializeToString()))
            elif kind == FieldDescriptor.TYPE_STRING:
                expected.append((entry.number, BYTES, item.encode()))
            else:
                expected.append((entry.number, VARINT, item))
    assert sorted(read(model.SerializeToString()), key=str) == sorted(expected, key=str)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5), st.binary(max_size=300))
def test_numbers_and_bytes_of_any_length(dims: list[int], raw: bytes) -> None:
    data = TensorProto(dims=dims, raw_data=raw).SerializeToString()
    found = read(data)
    assert [value for number, _, value in found if number == 1] == [dim % 2**64 for dim in dims]
    assert [value for number, _, value in found if number == 9] == [raw]


@pytest.mark.parametrize(
    "data",
    [
        b"\x0a",  # a length is wanted
        b"\x0a\x05abc",  # three of five bytes
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f",  # 2**63 bytes
        b"\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",  # a number of eleven bytes
        b"\xff\xff\xff\xff\xff\x01",  # a tag of six
        b"\x00\x00",  # field number 0
        b"\x0b",  # a group
        b"\x0e",  # no wire type
        b"\x0d\x00\x00\x00",  # three bytes of a fixed four
        b"\x09\x00",  # one of eight
    ],
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(ModelError):
        read(data)
