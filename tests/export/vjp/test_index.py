"""Gradients of what reads or writes at indices, against central finite differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from camrt.errors import MissingRuleError
from tests.export.vjp.check import check_rule
from tests.export.vjp.run import gradients
from tests.export.vjp.spec import Spec, between, rows

TOKENS = between(-2, 2, 2, 5, 4)
X = between(-2, 2, 2, 3, 4)


def _at(*values: Any) -> np.ndarray:
    """Return indices."""
    return np.array(values, np.int64)


def _gather(name: str, index: Any, axis: int, ops: Sequence[str] | None = None, **more: Any) -> Spec:
    """Return a row for Gather of `TOKENS`."""
    inputs = (TOKENS, np.array(index, np.int64))
    return Spec("Gather", inputs, name, {"axis": axis}, ops=None if ops is None else tuple(ops), **more)


FIXED: dict[str, Any] = {"symbolic_batch": False}

SPECS = [
    _gather("class_token", 0, 1, ["Unsqueeze", "Pad"]),
    _gather("class_token_kept", [0], 1, ["Pad"]),
    _gather("last_token", -1, 1, ["Unsqueeze", "Pad"]),
    _gather("patches", [1, 2, 3, 4], 1, ["Pad"]),
    _gather("every_second", [0, 2, 4], 1),
    _gather("shuffled", [2, 0, 3, 1], 2, ["Gather"]),
    _gather("some", [3, 0], 1),
    _gather("repeated", [0, 0, 1, 3, 1, 0, 2, 4, 1], 1, ["MatMul"]),
    _gather("repeated_last", [0, 0, 1, 3, 1, 0, 2, 2, 1], 2, ["MatMul"]),
    _gather("negative", [-1, 0, -2], 1),
    _gather("table", [[0, 1], [1, 3], [4, 4]], 1),
    _gather("table_last", [[0, 1], [1, 3], [2, 2]], -1),
    _gather("first_axis", [1, 0, 1], 0, **FIXED),
    Spec("Gather", (TOKENS, _at(3, 3, 0)), "runtime", {"axis": 1}, runtime=(1,), symbolic_batch=[0]),
    Spec("Gather", (TOKENS, _at(3, 3, 0)), "runtime_last", {"axis": 2}, runtime=(1,), symbolic_batch=[0]),
    Spec("Gather", (TOKENS, _at([3, 1], [0, 1])), "runtime_table", {"axis": 1}, runtime=(1,), symbolic_batch=[0]),
    Spec("Gather", (TOKENS, np.array(4, np.int64)), "runtime_scalar", {"axis": 1}, runtime=(1,), symbolic_batch=[0]),
    Spec("GatherElements", (X, _at(*[[[0, 2, 1, 1]] * 2] * 2)), "middle", {"axis": 1}, **FIXED),
    Spec("GatherElements", (X, _at(*[[[3, 3], [0, -1], [2, 1]]] * 2)), "last", {"axis": -1}, **FIXED),
    Spec("GatherElements", (X, _at([[0, 1]])), "corner", {"axis": 0}, **FIXED),
    Spec("GatherElements", (X, _at(*[[[3, 3], [0, 1], [2, 1]]] * 2)), "runtime", {"axis": 2}, runtime=(1,)),
    Spec("GatherND", (X, _at([0, 1], [1, 2], [0, 1])), "pairs", **FIXED),
    Spec("GatherND", (X, _at([[0, 1, 2]], [[1, -1, 0]])), "triples", **FIXED),
    Spec("GatherND", (X, _at([1], [0])), "rows", **FIXED),
    Spec("ScatterND", (X, _at([0, 1], [1, 2]), between(-1, 1, 2, 4)), "set", wrt=(0, 2), **FIXED),
    Spec("ScatterND", (X, _at([0, 1], [0, 1]), between(-1, 1, 2, 4)), "add", {"reduction": "add"}, (0, 2), **FIXED),
    Spec("ScatterND", (X, _at([0, 1], [1, -1]), between(-1, 1, 2, 4)), "constant_updates", **FIXED, ops=("Mul",)),
    Spec(
        "ScatterND", (X, _at([0], [1]), between(-1, 1, 2, 3, 4)), "constant_data", wrt=(2,), **FIXED, ops=("GatherND",)
    ),
    Spec("ScatterElements", (X, _at([[0, 1]]), between(-1, 1, 1, 1, 2)), "set", {"axis": 2}, (0, 2), **FIXED),
    Spec("ScatterElements", (X, _at([[0], [-1]]), between(-1, 1, 1, 2, 1)), "column", {"axis": 1}, (0, 2), **FIXED),
    Spec(
        "ScatterElements",
        (X, _at([[0, 0]]), between(-1, 1, 1, 1, 2)),
        "add",
        {"axis": 2, "reduction": "add"},
        (0, 2),
        **FIXED,
    ),
    Spec("OneHot", (_at([0, 2], [1, 0]), np.array(3), np.array([0.25, 2.0])), "last", wrt=(2,), **FIXED),
    Spec("OneHot", (_at(0, 2), np.array(3), np.array([0.25, 2.0])), "first", {"axis": 0}, wrt=(2,), **FIXED),
    Spec("Compress", (X, np.array([True, False, True])), "middle", {"axis": 1}),
    Spec("Compress", (X, np.array([False, True, True, False])), "last", {"axis": -1}),
    Spec("Compress", (X, np.arange(24) % 5 == 1), "flat", **FIXED),
    Spec("TopK", (X, _at(2)), "largest", {"axis": 2}, outputs=2),
    Spec("TopK", (X, _at(2)), "smallest", {"axis": 1, "largest": 0}, outputs=2),
    Spec("TopK", (X, _at(3)), "default_axis", outputs=2),
    Spec("CumSum", (X, np.array(1)), "", ops=("CumSum",)),
    Spec("CumSum", (X, np.array(-1)), "reverse", {"reverse": 1}),
    Spec("CumSum", (X, np.array(2)), "exclusive", {"exclusive": 1}),
    Spec("CumSum", (X, np.array(1)), "both", {"exclusive": 1, "reverse": 1}),
]


@pytest.mark.parametrize(("spec", "opset"), rows(SPECS))
def test_the_gradient_equals_finite_differences(spec: Spec, opset: int) -> None:
    spec.check(opset)


def test_an_embedding_read_at_runtime_indices_gets_no_gradient() -> None:
    index = np.array([[0, 2]], np.int64)
    table = np.ones((3, 4), np.float32)
    assert gradients("Gather", [table, index], wrt=(1,)) == [None]


def test_the_position_of_the_maximum_passes_nothing_back() -> None:
    assert gradients("ArgMax", [X.astype(np.float32)], {"axis": 1}) == [None]


@pytest.mark.parametrize(
    ("op", "inputs", "runtime", "attributes", "reason"),
    [
        ("Gather", [TOKENS, _at(0, 1)], (), {"axis": 0}, "axis 0 is 'N'"),
        ("GatherND", [X, _at([0, 1])], (1,), {}, "indices are computed at run time"),
        ("GatherND", [X, _at([0], [1])], (), {"batch_dims": 1}, "batch_dims"),
        ("Compress", [X, np.array([True, False, True])], (1,), {"axis": 1}, "condition is computed at run time"),
        ("ScatterND", [X, _at([0, 1]), between(-1, 1, 1, 4)], (), {"reduction": "mul"}, "reduction 'mul'"),
        ("ScatterElements", [X, _at([[0]]), between(-1, 1, 1, 1, 1)], (1,), {}, "indices are computed at run time"),
    ],
)
def test_what_has_no_rule_is_refused_by_name(
    op: str, inputs: list[Any], runtime: tuple[int, ...], attributes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(MissingRuleError, match=rf"{op} at node 'the_node' .*{reason}"):
        check_rule(op, inputs, runtime=runtime, attributes=attributes, symbolic_batch=[0])
