"""
Tensors of the Open Inference Protocol, as JSON and as bytes.

In: the entries of a request's ``inputs``, and the bytes behind its JSON. Out: `Tensor`, whose array looks into those
bytes and copies nothing. And back: entries of a response's ``outputs``, and the buffers that follow them.

Sizes are multiplied as Python integers and compared with what is there before anything is made, so a shape can promise
what it likes. Layout: little-endian, row-major, no padding; an element of BYTES is its length in four bytes, then itself.
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from .documents import said
from .faults import TooLargeError

__all__ = [
    "DATATYPES",
    "MAX_RANK",
    "MAX_TENSORS",
    "Tensor",
    "datatype_of",
    "read_nested",
    "read_tensors",
    "write_tensors",
]

MAX_TENSORS = 16  # inputs or outputs of a request
MAX_RANK = 5
MAX_NAME = 128  # letters
MAX_WORDS = 4096  # elements of a tensor of BYTES

DATATYPES: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
_LEAVES: Mapping[str, set[type]] = {
    "b": {bool},
    "u": {int},
    "i": {int},
    "f": {int, float},
}  # what JSON may hold, by the kind of the array
_ONLY_BINARY = ("FP16", "BF16")
_LENGTH = struct.Struct("<I")

Values = npt.NDArray[Any] | tuple[bytes, ...]


@dataclass(frozen=True, eq=False)
class Tensor:
    """
    One input.

    Attributes
    ----------
    name : str
        As the client calls it.
    datatype : str
        One of `DATATYPES`, or ``BYTES``.
    shape : tuple of int
        Up to five sizes, none negative.
    values : ndarray or tuple of bytes
        An array of that shape, read-only where it came as bytes; or the elements of BYTES, row by row.
    binary : bool
        Whether it came as bytes.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: Values
    binary: bool


def datatype_of(dtype: npt.DTypeLike) -> str:
    """
    Return the protocol's name of an array's type.

    Parameters
    ----------
    dtype : dtype-like
        One of those in `DATATYPES`, in any order of bytes.

    Returns
    -------
    str
        For example ``FP32``.

    Examples
    --------
    >>> datatype_of("float32"), datatype_of(np.int64)
    ('FP32', 'INT64')
    """
    return next(name for name, known in DATATYPES.items() if known == np.dtype(dtype).newbyteorder("<"))


def read_tensors(entries: object, body: bytes, start: int) -> dict[str, Tensor]:
    """
    Read a request's inputs.

    Parameters
    ----------
    entries : object
        The list under ``inputs``, from JSON.
    body : bytes
        The whole body.
    start : int
        Where the JSON ends and the tensors begin.

    Returns
    -------
    dict of str to Tensor
        By name, in order.

    Raises
    ------
    InputError
        If anything about an entry is not as the protocol has it, two have one name, or the sizes of the binary ones are
        not together the bytes behind the JSON.
    TooLargeError
        If there are more than sixteen, or one has a higher rank than five or too many texts.

    Notes
    -----
    Cost: some microseconds for a numeric tensor in bytes, which is not copied; about 60 ns an element in JSON.
    """
    if not isinstance(entries, list) or not entries:
        raise InputError(f"inputs must be a list of tensors, at least one; got {said(entries)}")
    if len(entries) > MAX_TENSORS:
        raise TooLargeError(f"{len(entries)} inputs were sent; {MAX_TENSORS} are allowed")
    found: dict[str, Tensor] = {}
    for entry in entries:
        tensor, start = _read(entry, body, start)
        if tensor.name in found:
            raise InputError(f"input {said(tensor.name)} comes twice")
        found[tensor.name] = tensor
    if start != len(body):
        raise InputError(f"{len(body) - start} bytes follow the last tensor; the binary_data_size of all must add up")
    return found


def read_nested(data: list[Any], datatype: str, shape: tuple[int, ...], what: str) -> npt.NDArray[Any]:
    """
    Read numbers in JSON, nested as the shape says or flat.

    Parameters
    ----------
    data : list
        The numbers.
    datatype : str
        One of `DATATYPES`.
    shape : tuple of int
        Of the array.
    what : str
        What it is, for the message.

    Returns
    -------
    ndarray
        Infinite where a number is beyond a float type.

    Raises
    ------
    InputError
        If there are more or fewer, they are nested otherwise, one is of another kind, or beyond an integer type.
    """
    leaves, dtype = _leaves(data, shape, what), DATATYPES[datatype]
    _check_kinds(leaves, _LEAVES[dtype.kind], datatype, what)
    try:
        with np.errstate(over="ignore"):  # becomes infinity, which whoever takes the values refuses
            return np.array(leaves, dtype).reshape(shape)
    except OverflowError:
        raise InputError(f"{what}: data holds a number beyond {datatype}") from None


def write_tensors(
    outputs: Sequence[tuple[str, Values, tuple[int, ...], bool]],
) -> tuple[list[dict[str, Any]], list[Any]]:
    """
    Write a response's outputs.

    Parameters
    ----------
    outputs : sequence of (str, ndarray or tuple of bytes, tuple of int, bool)
        Name, values, shape, and whether they are sent as bytes.

    Returns
    -------
    entries : list of dict
        For ``outputs``, in order. Values that are not sent as bytes stand in it, flat; BYTES as base64.
    buffers : list of bytes-like
        What follows the JSON, to be joined.

    Notes
    -----
    Cost: no copy of an array that is contiguous and little-endian already.
    """
    entries: list[dict[str, Any]] = []
    buffers: list[Any] = []
    for name, values, shape, binary in outputs:
        entry: dict[str, Any] = {"name": name, "datatype": "BYTES", "shape": list(shape)}
        if isinstance(values, tuple):
            packed: Any = (
                b"".join(part for value in values for part in (_LENGTH.pack(len(value)), value)) if binary else b""
            )
            listed: Any = None if binary else [base64.b64encode(value).decode("ascii") for value in values]
        else:
            entry["datatype"] = datatype_of(values.dtype)
            listed = packed = np.ascontiguousarray(values, DATATYPES[entry["datatype"]]).reshape(-1)
        if binary:
            entry["parameters"] = {"binary_data_size": memoryview(packed).nbytes}
            buffers.append(packed)
        else:
            entry["data"] = listed
        entries.append(entry)
    return entries, buffers


def _read(entry: object, body: bytes, start: int) -> tuple[Tensor, int]:
    """Read one entry; return where the next one's bytes begin."""
    if not isinstance(entry, dict):
        raise InputError(f"an input is an object with name, datatype, shape and data; got {said(entry)}")
    name, datatype = entry.get("name"), entry.get("datatype")
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME:
        raise InputError(f"an input's name is a text of 1 to {MAX_NAME} letters; got {said(name)}")
    if not isinstance(datatype, str) or (datatype not in DATATYPES and datatype != "BYTES"):
        raise InputError(f"input {name!r}: datatype must be one of {', '.join(DATATYPES)}, BYTES; got {said(datatype)}")
    shape = _shape(entry.get("shape"), name)
    count = math.prod(shape)
    if datatype == "BYTES" and count > MAX_WORDS:
        raise TooLargeError(f"input {name!r} has {count} elements; {MAX_WORDS} of BYTES are allowed")
    parameters = entry.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise InputError(f"input {name!r}: parameters must be an object; got {said(parameters)}")
    if any(key.startswith("shared_memory") for key in parameters):
        raise InputError(f"input {name!r}: shared memory is not offered; send the tensor in the body")
    size = parameters.get("binary_data_size")
    if size is None:
        return Tensor(name, datatype, shape, _from_json(entry.get("data"), datatype, shape, name), False), start
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise InputError(f"input {name!r}: binary_data_size must be a number of bytes; got {said(size)}")
    if "data" in entry:
        raise InputError(f"input {name!r} has both data and binary_data_size; give one of them")
    if size > len(body) - start:
        raise InputError(
            f"input {name!r}: binary_data_size is {size}, but {len(body) - start} bytes are left of the body"
        )
    if datatype == "BYTES":
        return Tensor(name, datatype, shape, _words(body[start : start + size], count, name), True), start + size
    dtype = DATATYPES[datatype]
    if size != count * dtype.itemsize:
        raise InputError(
            f"input {name!r}: {datatype} of shape {list(shape)} takes {count * dtype.itemsize} bytes; "
            f"binary_data_size is {size}"
        )
    values: npt.NDArray[Any] = (
        np.frombuffer(body, dtype, count, start).reshape(shape) if size else np.empty(shape, dtype)
    )
    return Tensor(name, datatype, shape, values, True), start + size


def _shape(shape: object, name: str) -> tuple[int, ...]:
    """Check a shape; its sizes may be of any magnitude."""
    if not isinstance(shape, list) or not shape:
        raise InputError(f"input {name!r}: shape must be a list of sizes; got {said(shape)}")
    if len(shape) > MAX_RANK:
        raise TooLargeError(f"input {name!r} has rank {len(shape)}; {MAX_RANK} is the most")
    for size in shape:
        if isinstance(size, bool) or not isinstance(size, int) or size < 0:
            raise InputError(f"input {name!r}: a shape holds whole numbers from 0 up; got {said(size)}")
    return tuple(shape)


def _words(data: bytes, count: int, name: str) -> tuple[bytes, ...]:
    """Cut BYTES into its elements."""
    found, place = [], 0
    for index in range(count):
        if place + 4 > len(data):
            raise InputError(f"input {name!r}: its bytes end before element {index} of {count}")
        (length,) = _LENGTH.unpack_from(data, place)
        place += 4
        if place + length > len(data):
            raise InputError(
                f"input {name!r}: element {index} should have {length} bytes; {len(data) - place} are left"
            )
        found.append(data[place : place + length])
        place += length
    if place != len(data):
        raise InputError(f"input {name!r}: {len(data) - place} bytes follow the last of {count} elements")
    return tuple(found)


def _from_json(data: object, datatype: str, shape: tuple[int, ...], name: str) -> Values:
    """Read an entry's values in JSON."""
    what = f"input {name!r}"
    if not isinstance(data, list):
        came = "neither data nor binary_data_size" if data is None else f"data that is no list: {said(data)}"
        raise InputError(f"{what} has {came}")
    if datatype in _ONLY_BINARY:
        raise InputError(f"{what}: {datatype} has no form in JSON; send it as binary data, or as FP32")
    if datatype in DATATYPES:
        return read_nested(data, datatype, shape, what)
    leaves = _leaves(data, shape, what)
    _check_kinds(leaves, {str}, datatype, what)
    return tuple(leaf.encode() for leaf in leaves)


def _leaves(data: list[Any], shape: tuple[int, ...], what: str) -> list[Any]:
    """Return the values of a list that is flat, or nested exactly as the shape says."""
    if not data or type(data[0]) is not list:
        if len(data) != math.prod(shape):
            raise InputError(f"{what}: shape {list(shape)} takes {math.prod(shape)} values; got {len(data)}")
        return data
    level: list[Any] = [data]
    for axis, size in enumerate(shape):
        for row in level:
            if type(row) is not list or len(row) != size:
                raise InputError(f"{what}: data is not nested as shape {list(shape)} says, at axis {axis}")
        level = list(chain.from_iterable(level))
    return level


def _check_kinds(leaves: list[Any], wanted: set[type], datatype: str, what: str) -> None:
    """Refuse values of another kind, nested lists among them."""
    if set(map(type, leaves)) - wanted:
        bad = next(leaf for leaf in leaves if type(leaf) not in wanted)
        raise InputError(f"{what}: data of {datatype} holds {said(bad)}")
