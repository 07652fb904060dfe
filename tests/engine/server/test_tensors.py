"""Tensors of the protocol: bytes laid out by hand, round trips, and every lie a client may tell about a size."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from camrt.errors import InputError
from camrt.server.documents import write_json
from camrt.server.faults import TooLargeError
from camrt.server.tensors import DATATYPES, datatype_of, read_tensors, write_tensors

SHAPES = arrays.array_shapes(min_dims=1, max_dims=5, min_side=1, max_side=4)


def entry(name: str = "image", shape: Any = (2,), datatype: str = "FP32", **more: Any) -> dict[str, Any]:
    """Return an input as JSON has it."""
    return {"name": name, "shape": list(shape) if isinstance(shape, tuple) else shape, "datatype": datatype, **more}


def sized(size: Any, shape: Any = (2,), datatype: str = "FP32", name: str = "image") -> dict[str, Any]:
    """Return an input whose values follow the JSON."""
    return entry(name, shape, datatype, parameters={"binary_data_size": size})


def one(given: dict[str, Any], tail: bytes = b"") -> Any:
    """Read a single input behind a JSON of three bytes; return its values."""
    return read_tensors([given], b"{ }" + tail, 3)[given["name"]].values


# bytes -----------------------------------------------------------------------------------------------------------


def test_tensors_follow_one_another_as_in_the_protocols_own_example() -> None:
    """Four integers of four bytes, then three truth values of one: 19 bytes."""
    tail = bytes([1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 255, 255, 255, 255, 1, 0, 1])
    entries = [sized(16, (2, 2), "INT32", "input0"), sized(3, (3,), "BOOL", "input1")]
    found = read_tensors(entries, b"{...}" + tail, 5)
    assert found["input0"].values.tolist() == [[1, 2], [3, -1]]  # type: ignore[union-attr]
    assert found["input1"].values.tolist() == [True, False, True]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("datatype", "letter", "values"),
    [
        ("UINT8", "B", [0, 255]), ("INT32", "i", [-(2**31), 2**31 - 1]), ("INT64", "q", [-(2**63), 2**63 - 1]),
        ("FP16", "e", [1.5, -65504.0]), ("FP32", "f", [0.5, -3.4028234663852886e38]), ("FP64", "d", [1e-300, 0.1]),
        ("BOOL", "?", [True, False]),
    ],
)  # fmt: skip
def test_every_type_is_little_endian(datatype: str, letter: str, values: list[Any]) -> None:
    tail = struct.pack(f"<2{letter}", *values)
    assert one(sized(len(tail), datatype=datatype), tail).tolist() == values


def test_an_array_looks_into_the_body_and_copies_nothing() -> None:
    body = b"{ }" + bytes(8)
    values = read_tensors([sized(8)], body, 3)["image"].values
    assert isinstance(values, np.ndarray) and not values.flags.owndata and not values.flags.writeable
    assert np.shares_memory(values, np.frombuffer(body, np.uint8))


@given(st.sampled_from(sorted(DATATYPES)).flatmap(lambda name: arrays.arrays(DATATYPES[name], SHAPES)))
def test_what_is_written_as_bytes_is_read_again_bit_by_bit(array: np.ndarray[Any, Any]) -> None:
    (written,), buffers = write_tensors([("x", array, array.shape, True)])
    read = one(written, b"".join(buffers))
    assert read.dtype == array.dtype and read.shape == array.shape and read.tobytes() == array.tobytes()


@given(
    st.sampled_from(["BOOL", "UINT8", "INT32", "INT64", "FP32", "FP64"]).flatmap(
        lambda name: arrays.arrays(
            DATATYPES[name],
            SHAPES,
            elements={"allow_nan": False, "allow_infinity": False} if name.startswith("F") else None,
        )
    ),
    st.booleans(),
)
def test_what_is_written_as_json_is_read_again_bit_by_bit(array: np.ndarray[Any, Any], nested: bool) -> None:
    (written,), buffers = write_tensors([("x", array, array.shape, False)])
    again = json.loads(write_json(written))
    assert not buffers and np.ndim(again["data"]) == 1
    read = one(again | ({"data": np.reshape(again["data"], array.shape).tolist()} if nested else {}))
    assert read.dtype == array.dtype and read.shape == array.shape and read.tobytes() == array.tobytes()


@pytest.mark.parametrize("array", [np.arange(12.0).reshape(3, 4).T, np.arange(12)[::3], np.arange(4, dtype=">i4")])
def test_arrays_of_any_layout_are_written_row_by_row(array: np.ndarray[Any, Any]) -> None:
    (written,), buffers = write_tensors([("x", array, array.shape, True)])
    assert one(written, b"".join(buffers)).tolist() == array.tolist()


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=8))
def test_words_of_any_bytes_come_back(words: list[bytes]) -> None:
    tail = b"".join(struct.pack("<I", len(word)) + word for word in words)
    assert one(sized(len(tail), (len(words),), "BYTES"), tail) == tuple(words)
    entries, buffers = write_tensors([("x", tuple(words), (len(words),), True)])
    assert b"".join(buffers) == tail and entries[0]["parameters"] == {"binary_data_size": len(tail)}


def test_words_in_json_go_out_as_base64_and_come_in_as_text() -> None:
    entries, _ = write_tensors([("x", (b"\x89PNG",), (1,), False)])
    assert base64.b64decode(entries[0]["data"][0]) == b"\x89PNG" and entries[0]["datatype"] == "BYTES"
    assert one(entry(shape=(2, 1), datatype="BYTES", data=[["owl"], ["Käuzchen"]])) == (b"owl", "Käuzchen".encode())


def test_types_have_the_protocols_names() -> None:
    assert [datatype_of(dtype) for dtype in DATATYPES.values()] == list(DATATYPES)


# lies ------------------------------------------------------------------------------------------------------------

ELEVEN = struct.pack("<I", 7) + bytes(7)  # one element
WRONG: dict[str, tuple[dict[str, Any], bytes, str]] = {
    "size beyond the body": (sized(8), bytes(7), "binary_data_size is 8, but 7 bytes are left"),
    "size of 2^63": (sized(2**63), bytes(8), "binary_data_size is 9223372036854775808"),
    "size below zero": (sized(-8), bytes(8), "must be a number of bytes"),
    "size with a fraction": (sized(8.0), bytes(8), "must be a number of bytes"),
    "size that is true": (sized(True), bytes(1), "must be a number of bytes"),
    "size in words": (sized("8"), bytes(8), "must be a number of bytes"),
    "size unlike the shape": (sized(8, (3,)), bytes(8), r"FP32 of shape \[3\] takes 12 bytes"),
    "size unlike the type": (sized(8, (2,), "FP64"), bytes(8), "takes 16 bytes"),
    "bytes left over": (sized(8), bytes(9), "1 bytes follow the last tensor"),
    "bytes and data": (sized(8) | {"data": [1, 2]}, bytes(8), "both data and binary_data_size"),
    "bytes of nothing": (entry(data=[1.0, 2.0]), bytes(8), "8 bytes follow"),
    "neither": (entry(), b"", "neither data nor binary_data_size"),
    "shape of floats": (sized(8, [2.0]), bytes(8), "whole numbers"),
    "shape of NaN": (sized(8, ["NaN"]), bytes(8), "whole numbers"),
    "shape that is true": (sized(4, [True]), bytes(4), "whole numbers"),
    "shape below zero": (sized(8, [-1, -2]), bytes(8), "whole numbers"),
    "shape that overflows 64 bits": (sized(0, [2**32, 2**32]), b"", "takes 73786976294838206464 bytes"),
    "shape that wraps to the size": (sized(8, [2**62 + 1, 2]), bytes(8), "takes 36893488147419103240 bytes"),
    "shape of zeros and a giant": (sized(4, [0, 2**62]), bytes(4), "takes 0 bytes"),
    "no shape": (sized(4, []), bytes(4), "list of sizes"),
    "shape that is a number": (sized(8, 2), bytes(8), "list of sizes"),
    "shape that is an object": (sized(8, {"0": 2}), bytes(8), "list of sizes"),
    "type unknown": (sized(8, datatype="FP8"), bytes(8), "datatype must be one of"),
    "type BF16": (sized(4, datatype="BF16"), bytes(4), "datatype must be one of"),
    "type that is a list": (entry(datatype=["FP32"]), b"", "datatype must be one of"),  # type: ignore[arg-type]
    "name that is a number": (entry(name=7), b"", "name is a text"),  # type: ignore[arg-type]
    "name of nothing": (entry(name=""), b"", "name is a text"),
    "parameters of a list": (entry(parameters=[1], data=[1, 2]), b"", "parameters must be an object"),
    "shared memory": (entry(parameters={"shared_memory_region": "r"}), b"", "shared memory is not offered"),
    "half precision in JSON": (entry(datatype="FP16", data=[1.0, 2.0]), b"", "no form in JSON"),
    "text among numbers": (entry(data=[1.0, "2"]), b"", "FP32 holds '2'"),
    "nothing among numbers": (entry(data=[1.0, None]), b"", "FP32 holds None"),
    "truth among numbers": (entry(data=[1.0, True]), b"", "FP32 holds True"),
    "object among numbers": (entry(data=[1.0, {}]), b"", "FP32 holds {}"),
    "fraction among integers": (entry(datatype="INT64", data=[1, 2.5]), b"", "INT64 holds 2.5"),
    "too large for its type": (entry(datatype="UINT8", data=[1, 256]), b"", "beyond UINT8"),
    "below its type": (entry(datatype="UINT8", data=[1, -1]), b"", "beyond UINT8"),
    "number among words": (entry(datatype="BYTES", data=["a", 1]), b"", "BYTES holds 1"),
    "too few values": (entry(data=[1.0]), b"", "takes 2 values; got 1"),
    "too many values": (entry(data=[1.0, 2.0, 3.0]), b"", "takes 2 values; got 3"),
    "values of a giant": (entry(shape=[2**40], data=[1.0]), b"", "takes 1099511627776 values"),
    "ragged": (entry(shape=(2, 2), data=[[1.0, 2.0], [3.0]]), b"", "not nested as shape"),
    "nested too deep": (entry(shape=(2, 1), data=[[[1.0]], [[2.0]]]), b"", "FP32 holds"),
    "nested too little": (entry(shape=(2, 1, 1), data=[[1.0], [2.0]]), b"", "not nested as shape"),
    "half nested": (entry(shape=(2,), data=[1.0, [2.0]]), b"", "FP32 holds"),
    "data of an object": (entry(data={"0": 1.0}), b"", "no list"),
    "a word beyond the end": (sized(11, (1,), "BYTES"), struct.pack("<I", 8) + bytes(7), "should have 8 bytes; 7 are left"),
    "a word of 4 GB": (sized(4, (1,), "BYTES"), b"\xff\xff\xff\xff", "should have 4294967295 bytes; 0 are left"),
    "more words than bytes": (sized(11, (2,), "BYTES"), ELEVEN, "end before element 1 of 2"),
    "fewer words than bytes": (sized(22, (1,), "BYTES"), ELEVEN * 2, "11 bytes follow the last of 1"),
    "half a length": (sized(3, (1,), "BYTES"), bytes(3), "end before element 0"),
}  # fmt: skip


@pytest.mark.parametrize("lie", sorted(WRONG))
def test_a_lie_is_refused_with_what_is_wrong(lie: str) -> None:
    given, tail, message = WRONG[lie]
    with pytest.raises(InputError, match=message) as caught:
        read_tensors([given], b"{ }" + tail, 3)
    assert len(str(caught.value)) < 400 and not isinstance(caught.value, TooLargeError)


@pytest.mark.parametrize("entries", [None, [], {}, "image", 7, [None], ["image"], [[]], [7]])
def test_inputs_are_a_list_of_objects(entries: object) -> None:
    with pytest.raises(InputError):
        read_tensors(entries, b"", 0)


def test_two_inputs_have_two_names_and_no_byte_twice() -> None:
    with pytest.raises(InputError, match="'image' comes twice"):
        read_tensors([sized(8), sized(8)], bytes(16), 0)
    with pytest.raises(InputError, match="binary_data_size is 8, but 4 bytes are left"):
        read_tensors([sized(8), sized(8, name="target")], bytes(12), 0)


TOO_MUCH = {
    "inputs": ([entry(f"x{i}", data=[1.0, 2.0]) for i in range(17)], "17 inputs"),
    "rank": ([sized(4, [1] * 6)], "rank 6"),
    "rank of a million": ([sized(4, [1] * 10**6)], "rank 1000000"),
    "words": ([sized(0, [10**18], "BYTES")], "1000000000000000000 elements"),
}


@pytest.mark.parametrize("case", sorted(TOO_MUCH))
def test_too_many_of_anything_are_refused_as_too_large(case: str) -> None:
    entries, message = TOO_MUCH[case]
    with pytest.raises(TooLargeError, match=message):
        read_tensors(entries, bytes(8), 0)


def test_a_number_beyond_float32_becomes_infinite_for_its_taker_to_refuse() -> None:
    assert one(entry(data=[1e300, -1e300])).tolist() == [np.inf, -np.inf]
