"""
Rows as Parquet: columns become the bytes of a file, files become a table.

Equal values become equal bytes: nothing of the time, the host or the order in which they were given is in them. Damage is
seen, never read: pages carry checksums, which are verified, and `seal` covers the rest.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import InputError, MissingExtraError, NumericError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["arrow", "encoded", "is_whole", "read", "schema_of", "seal"]


def arrow() -> Any:
    """
    Import pyarrow.

    Returns
    -------
    module
        ``pyarrow``, with what this package uses of it.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow is needed to store evaluations: pip install 'camrt[eval]'") from error
    return pyarrow


def encoded(name: str, columns: Mapping[str, Any]) -> tuple[list[int], bytes]:
    """
    Turn columns into a file.

    Parameters
    ----------
    name : str
        Whose rows they are, for messages.
    columns : mapping of str to array
        A column ``index`` of whole numbers, and arrays (N,) of numbers or text, curves (N, P), or lists. A value that is
        missing is masked (`numpy.ma`) or None.

    Returns
    -------
    indices : list of int
        The column ``index``, ascending, as the rows stand in the file.
    data : bytes
        The file. Floats are float64, of curves float32; whole numbers and text stay what they are.

    Raises
    ------
    InputError
        If there is no index, a name is taken by the folders (``method``, ``shard``), or lengths differ.
    NumericError
        If a number is NaN or infinite.
    """
    pa = arrow()
    if "index" not in columns or {"method", "shard"} & {*columns}:
        raise InputError(
            f"{name}: rows need a column 'index', and none called 'method' or 'shard'; got {', '.join(columns)}"
        )
    arrays = {column: _stored(name, column, values) for column, values in columns.items()}
    lengths = {column: len(array) for column, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(f"{name}: every column has a value for each picture, so one length; got {lengths}")
    table = pa.table(arrays).sort_by("index")
    sink = pa.BufferOutputStream()
    words = [field.name for field in table.schema if pa.types.is_string(field.type)]
    pa.parquet.write_table(table, sink, compression="zstd", use_dictionary=words, write_page_checksum=True)
    return table["index"].to_pylist(), sink.getvalue().to_pybytes()


def seal(data: bytes) -> dict[str, int]:
    """
    Describe a file so that damage to it is seen.

    Parameters
    ----------
    data : bytes
        The file.

    Returns
    -------
    dict of str to int
        Its ``bytes``, the length of its ``footer`` with the eight bytes after it, and the ``crc`` of that footer, which
        names the columns and finds the pages.
    """
    footer = int.from_bytes(data[-8:-4], "little") + 8
    return {"bytes": len(data), "footer": footer, "crc": zlib.crc32(data[-footer:])}


def is_whole(path: Path, facts: Mapping[str, int]) -> bool:
    """
    Tell whether a file has the seal it was written with.

    Parameters
    ----------
    path : Path
        The file.
    facts : mapping of str to int
        What `seal` returned.

    Returns
    -------
    bool
        False where it is shorter, longer, or has another footer.

    Raises
    ------
    OSError
        If it cannot be opened.

    Notes
    -----
    Cost: one read of the footer, a few kB. Pages are verified by `read`.
    """
    with open(path, "rb") as file:
        if file.seek(0, 2) != facts["bytes"]:
            return False
        file.seek(-facts["footer"], 2)
        return zlib.crc32(file.read()) == facts["crc"]


def schema_of(path: Path) -> pa.Schema:
    """
    Return the columns of a file.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    pyarrow.Schema
        Names and types.

    Raises
    ------
    OSError or ValueError
        If it is damaged.
    """
    return arrow().parquet.read_schema(path).remove_metadata()


def read(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """
    Read a file, verifying the checksum of every page that is read.

    Parameters
    ----------
    path : Path
        The file.
    columns : sequence of str, optional
        Those wanted, as far as it has them; all where None.

    Returns
    -------
    pyarrow.Table
        Its rows.

    Raises
    ------
    OSError or ValueError
        If it is damaged.

    Notes
    -----
    A file at a time: a data set of pyarrow keeps the metadata of every file it has seen, 0.2 MB each, and is slower.
    """
    with arrow().parquet.ParquetFile(path, page_checksum_verification=True) as file:
        names = file.schema_arrow.names
        wanted = names if columns is None else [name for name in columns if name in names]
        return file.read(columns=wanted, use_threads=False).select(wanted)


def _stored(name: str, column: str, values: Any) -> Any:
    """Return a column as it is stored."""
    pa = arrow()
    if isinstance(values, np.ndarray) and values.ndim == 2:
        flat = pa.array(np.ascontiguousarray(np.ma.getdata(values)).reshape(-1))
        ends = pa.array(np.arange(len(values) + 1, dtype=np.int32) * values.shape[1])
        gaps = pa.array(np.ma.getmaskarray(values).any(axis=1)) if np.ma.isMaskedArray(values) else None
        array = pa.ListArray.from_arrays(ends, flat, mask=gaps)
    elif isinstance(values, np.ma.MaskedArray):
        array = pa.array(np.ma.getdata(values), mask=np.ma.getmaskarray(values))
    elif isinstance(values, (pa.Array, pa.ChunkedArray)):
        array = values
    else:
        array = pa.array(values)
    if pa.types.is_list(array.type):
        numbers = pa.compute.list_flatten(array)
        kind = pa.list_(pa.float32()) if pa.types.is_floating(numbers.type) else array.type
    else:
        numbers = array
        kind = pa.float64() if pa.types.is_floating(array.type) or pa.types.is_null(array.type) else array.type
    if pa.types.is_floating(numbers.type) and pa.compute.all(pa.compute.is_finite(numbers)).as_py() is False:
        raise NumericError(
            f"{name}: the column {column!r} holds NaN or infinity; mark what has no value as missing (None or masked)"
        )
    return array.cast(kind)
