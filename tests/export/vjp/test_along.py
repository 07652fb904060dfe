"""What picks and places along one axis, against NumPy's own take, put and add.at."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camrt.errors import MissingRuleError
from camrt.export.vjp.along import Spot, contract, place, reshape, untake
from camrt.export.vjp.emit import Emit
from tests.export.vjp.run import emitted

NODE = ir.node("Gather", [], name="the_node")


def _adjoint_of_take(g: np.ndarray, axis: int, index: np.ndarray, size: int) -> np.ndarray:
    """Add each slice of `g` to the place it was taken from."""
    found = np.zeros((*g.shape[:axis], size, *g.shape[axis + 1 :]), g.dtype)
    np.add.at(np.moveaxis(found, axis, 0), index, np.moveaxis(g, axis, 0))
    return found


@settings(max_examples=80, deadline=None)
@given(size=st.integers(1, 6), axis=st.integers(0, 2), data=st.data())
def test_untake_adds_up_what_was_taken(size: int, axis: int, data: st.DataObject) -> None:
    index = np.array(data.draw(st.lists(st.integers(-size, size - 1), min_size=1, max_size=9)))
    shape = [2, 3, 2]
    shape[axis] = len(index)
    g = np.arange(np.prod(shape), dtype=np.float32).reshape(shape) + 1
    got = emitted(g, lambda e, value: untake(e, value, shape, axis, index, size, NODE))
    np.testing.assert_array_equal(got, _adjoint_of_take(g, axis, index, size))


@pytest.mark.parametrize(
    ("index", "size", "ops"),
    [
        ([0], 5, ["Pad"]),
        ([1, 2, 3], 5, ["Pad"]),
        ([0, 1, 2], 3, []),
        ([2, 1, 0], 3, ["Slice"]),
        ([1, 3, 5], 6, ["Unsqueeze", "Pad", "Reshape"]),
        ([2, 0, 1], 3, ["Gather"]),
        ([2, 0, 1], 5, ["Pad", "Gather"]),
        ([0, 0, 1, 2, 2], 3, ["Slice", "ReduceSum", "Pad", "Slice", "Pad", "Slice", "Pad", "Sum"]),
        ([0, 0, 1, 1, 2, 2, 3, 3, 4, 4], 5, ["MatMul"]),
    ],
)
def test_untake_takes_the_cheapest_way(index: list[int], size: int, ops: list[str]) -> None:
    value = ir.Value(name="g", shape=ir.Shape(["N", len(index), 4]), type=ir.TensorType(ir.DataType.FLOAT))
    graph = ir.Graph([value], [], nodes=[], opset_imports={"": 18})
    untake(Emit(graph), value, ["N", len(index), 4], 1, np.array(index), size, NODE)
    assert [node.op_type for node in graph] == ops


@settings(max_examples=80, deadline=None)
@given(
    sizes=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    starts=st.tuples(st.integers(0, 6), st.integers(0, 6)),
    steps=st.tuples(*[st.sampled_from([-4, -3, -2, -1, 1, 2, 3, 4])] * 2),
)
def test_place_undoes_a_strided_cut(sizes: tuple[int, int], starts: tuple[int, int], steps: tuple[int, int]) -> None:
    picked, spots = [], {}
    for axis, (size, start, step) in enumerate(zip(sizes, starts, steps, strict=True)):
        positions = np.arange(min(start, size - 1), size if step > 0 else -1, step)
        picked.append(positions)
        spots[axis + 1] = Spot(int(positions[0]), step, size)
    g = np.arange(2 * len(picked[0]) * len(picked[1]), dtype=np.float32).reshape(2, len(picked[0]), len(picked[1])) + 1
    want = np.zeros((2, *sizes), np.float32)
    want[:, picked[0][:, None], picked[1]] = g
    np.testing.assert_array_equal(emitted(g, lambda e, value: place(e, value, g.shape, spots, NODE)), want)


@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_contract_multiplies_one_axis(axis: int, rng: np.random.Generator) -> None:
    g = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
    matrix = rng.normal(size=(g.shape[axis], 6)).astype(np.float32)
    want = np.moveaxis(np.tensordot(g, matrix, (axis, 0)), -1, axis)
    got = emitted(g, lambda e, value: contract(e, value, 4, axis, matrix))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    by_value = emitted(g, lambda e, value: contract(e, value, 4, axis, e.const(matrix)))
    np.testing.assert_array_equal(by_value, got)


def test_reshape_copies_leading_symbols_and_infers_one_more() -> None:
    value = ir.Value(name="g", shape=ir.Shape(["N", "T", 6]), type=ir.TensorType(ir.DataType.FLOAT))
    graph = ir.Graph([value], [], nodes=[], opset_imports={"": 18})
    e = Emit(graph)
    reshape(e, value, ["N", "T", 6], ["N", "T", 2, 3], NODE)
    reshape(e, value, ["N", "T", 6], ["N", 2, "T", 3], NODE)
    assert [graph[i].inputs[1].const_value.numpy().tolist() for i in (0, 1)] == [[0, 0, 2, 3], [0, 2, -1, 3]]  # type: ignore[union-attr]
    assert reshape(e, value, ["N", "T", 6], ["N", "T", 6], NODE) is value
    with pytest.raises(MissingRuleError, match=r"Gather at node 'the_node' .* more than one dimension"):
        reshape(e, value, ["N", "T", 6], [2, "N", "T", 3], NODE)
