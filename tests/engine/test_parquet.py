"""Columns as files; the oracle is pyarrow's plain reader, and the bytes themselves."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from camrt.errors import InputError, MissingExtraError, NumericError
from camrt.parquet import arrow, encoded, is_whole, read, schema_of, seal


def back(columns: dict[str, Any]) -> pa.Table:
    """Return columns as another reader finds them."""
    return pq.read_table(pa.BufferReader(encoded("gradcam", columns)[1]))


def test_floats_are_float64_and_curves_float32() -> None:
    half = np.array([0.5, 1 / 3], np.float32)
    table = back(
        {"index": [0, 1], "x": half, "c": np.array([[1.0, 2.0], [1 / 3, 4.0]]), "n": np.array([1, 2], np.uint64)}
    )
    assert [str(kind) for kind in table.schema.types] == ["int64", "double", "list<element: float>", "uint64"]
    assert table["x"].to_pylist() == [0.5, float(half[1])]
    assert table["c"].to_pylist() == [[1.0, 2.0], [float(half[1]), 4.0]]


def test_rows_stand_by_index_whatever_order_they_came_in() -> None:
    indices, data = encoded("gradcam", {"index": [2, 0, 1], "x": [2.5, 0.5, 1.5], "t": ["c", "a", "b"]})
    assert indices == [0, 1, 2]
    assert data == encoded("gradcam", {"index": [0, 1, 2], "x": [0.5, 1.5, 2.5], "t": ["a", "b", "c"]})[1]


def test_what_is_missing_is_null() -> None:
    curves = np.ma.masked_array(np.ones((3, 2)), [[False] * 2, [True] * 2, [False] * 2])
    table = back(
        {
            "index": [0, 1, 2],
            "x": np.ma.masked_array([1.0, np.nan, 3.0], [False, True, False]),
            "none": [None, None, None],
            "c": curves,
            "ragged": [[1.0], None, [2.0, 3.0]],
        }
    )
    assert table["x"].to_pylist() == [1.0, None, 3.0]
    assert table["none"].to_pylist() == [None] * 3 and str(table["none"].type) == "double"
    assert table["c"].to_pylist() == [[1.0, 1.0], None, [1.0, 1.0]]
    assert table["ragged"].to_pylist() == [[1.0], None, [2.0, 3.0]]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused_by_name(bad: float) -> None:
    for values in (np.array([1.0, bad]), [1.0, bad], np.array([[1.0, 2.0], [3.0, bad]]), [[1.0], [bad]]):
        with pytest.raises(NumericError, match="gradcam: the column 'x'"):
            encoded("gradcam", {"index": [0, 1], "x": values})


def test_columns_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="column 'index'"):
        encoded("gradcam", {"x": [1.0]})
    with pytest.raises(InputError, match="none called 'method'"):
        encoded("gradcam", {"index": [0], "method": ["a"]})
    with pytest.raises(InputError, match="one length"):
        encoded("gradcam", {"index": [0, 1], "x": [1.0]})


def test_a_changed_byte_is_seen(tmp_path: Path, rng: np.random.Generator) -> None:
    data = encoded("gradcam", {"index": np.arange(4), "x": rng.random(4), "c": rng.random((4, 2)), "t": [*"abcd"]})[1]
    path, facts = tmp_path / "rows.parquet", seal(data)
    path.write_bytes(data)
    whole = read(path)
    assert is_whole(path, facts)
    for place in range(0, len(data), 5):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        if is_whole(path, facts):
            try:
                assert read(path).equals(whole), place  # what no reader looks at
            except (OSError, ValueError):
                continue
    for changed in (data[:-1], data + b"\0", data[1:], b""):
        path.write_bytes(changed)
        assert not is_whole(path, facts)


def test_only_what_a_file_has_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    path.write_bytes(encoded("gradcam", {"index": [0, 1], "x": [1.0, 2.0], "y": [3.0, 4.0]})[1])
    assert read(path, ["y", "z", "index"]).to_pydict() == {"y": [3.0, 4.0], "index": [0, 1]}
    assert schema_of(path).names == ["index", "x", "y"]


def test_without_pyarrow_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"camrt\[eval\]"):
        arrow()
