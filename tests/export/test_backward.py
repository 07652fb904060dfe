"""The sweep: cotangents that meet add up, dead branches cost nothing, and each rule's arity is checked."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from camrt.errors import MissingRuleError, ModelError
from camrt.export.backward import between, downstream, reads, sweep, upstream
from camrt.export.vjp import RULES
from camrt.export.vjp.emit import Emit
from camrt.export.vjp.table import Rule


def start(*shape: int | str) -> tuple[ir.Graph, Emit, ir.Value, ir.Value]:
    """Return a graph with an input x and a cotangent g of the same shape."""
    x, g = (ir.Value(name=n, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.DOUBLE)) for n in ("x", "g"))
    graph = ir.Graph([x, g], [], nodes=[], opset_imports={"": 18}, name="g")
    return graph, Emit(graph, "net"), x, g


def shaped(value: ir.Value, like: ir.Value) -> ir.Value:
    """Give a value the shape of another."""
    value.shape, value.dtype = like.shape, like.dtype  # type: ignore[assignment]
    return value


def run(graph: ir.Graph, outputs: list[ir.Value], feeds: dict[str, Any]) -> list[np.ndarray]:
    """Evaluate a graph in float64."""
    graph.outputs.extend(outputs)
    return [np.asarray(a) for a in ReferenceEvaluator(ir.to_proto(ir.Model(graph, ir_version=9))).run(None, feeds)]


def test_cotangents_that_meet_at_one_tensor_add_up(rng: np.random.Generator) -> None:
    graph, e, x, g = start("N", 3)
    y = shaped(e.Mul(x, x), x)  # both inputs are the same tensor
    z = shaped(e.Add(y, shaped(e.Sin(x), x)), x)  # and a second way round
    (dx,) = sweep(graph, {z: g}, [x], RULES)
    assert dx is not None
    at, cot = rng.normal(size=(2, 3)), rng.normal(size=(2, 3))
    (got,) = run(graph, [dx], {"x": at, "g": cot})
    np.testing.assert_allclose(got, cot * (2 * at + np.cos(at)), rtol=1e-12)


def test_only_nodes_between_are_visited_and_dead_branches_emit_nothing() -> None:
    graph, e, x, g = start("N", 3)
    a = shaped(e.Exp(x), x)
    dead = shaped(e.Tan(a), x)  # leads nowhere
    b = shaped(e.Tanh(a), x)
    assert [node.op_type for node in between(graph, [a], [b])] == ["Tanh"]
    before = graph.num_nodes()
    sweep(graph, {b: g}, [a], RULES)
    emitted = [node.op_type for node in list(graph)[before:]]
    assert "Exp" not in emitted
    assert dead.uses() == ()


def test_what_reads_a_shape_alone_needs_no_rule(rng: np.random.Generator) -> None:
    graph, e, x, g = start("N", 3)
    count = e.Concat(e.Shape(x, start=0, end=1), e.const([1]), axis=0)
    rows = shaped(
        e.Tile(e.const(np.array([[1.0, 2.0, 4.0]])), count), x
    )  # as many as the batch says: not for Tile's rule
    z = shaped(e.Mul(shaped(e.Add(x, rows), x), x), x)
    (dx,) = sweep(graph, {z: g}, [x], RULES)
    assert dx is not None
    at, cot = rng.normal(size=(2, 3)), rng.normal(size=(2, 3))
    (got,) = run(graph, [dx], {"x": at, "g": cot})
    np.testing.assert_allclose(got, cot * (2 * at + [[1.0, 2.0, 4.0]]), rtol=1e-12)


def test_a_value_that_no_path_reaches_has_no_gradient() -> None:
    graph, e, x, g = start("N", 3)
    y, z = shaped(e.Sin(x), x), shaped(e.Cos(x), x)
    assert sweep(graph, {z: g}, [y], RULES) == [None]


def test_several_starting_points_are_carried_back_together(rng: np.random.Generator) -> None:
    graph, e, x, g = start("N", 3)
    y, z = shaped(e.Sin(x), x), shaped(e.Mul(x, x), x)
    (dx,) = sweep(graph, {y: g, z: g}, [x], RULES)
    assert dx is not None
    at, cot = rng.normal(size=(2, 3)), rng.normal(size=(2, 3))
    (got,) = run(graph, [dx], {"x": at, "g": cot})
    np.testing.assert_allclose(got, cot * (np.cos(at) + 2 * at), rtol=1e-12)


def test_a_missing_rule_names_operator_node_path_and_a_way_out() -> None:
    graph, e, x, g = start("N", 3)
    odd = shaped(e.Det(x), x)
    y = shaped(e.Sin(odd), x)
    with pytest.raises(MissingRuleError, match=r"Det.*net/Det_1.*Det -> Sin -> logits.*eigencam"):
        sweep(graph, {y: g}, [x], RULES)


def test_the_rule_table_is_an_argument() -> None:
    graph, e, x, g = start("N", 3)
    y = shaped(e.Sin(x), x)
    (dx,) = sweep(graph, {y: g}, [x], {"Sin": Rule(lambda e, n, g: (e.Neg(g),))})
    assert dx is not None
    (got,) = run(graph, [dx], {"x": np.zeros((1, 3)), "g": np.ones((1, 3))})
    np.testing.assert_array_equal(got, -np.ones((1, 3)))


def test_a_rule_that_gives_the_wrong_number_of_cotangents_is_caught() -> None:
    graph, e, x, g = start("N", 3)
    y = shaped(e.Sin(x), x)
    with pytest.raises(AssertionError, match="2 cotangents for 1 inputs"):
        sweep(graph, {y: g}, [x], {"Sin": Rule(lambda e, n, g: (g, g))})


def test_a_rule_that_fails_is_told_as_an_operator_that_contradicts_itself() -> None:
    """Attributes of a hostile file need not fit its shapes; what NumPy says of that helps nobody."""
    graph, e, x, g = start("N", 3)
    y = shaped(e.Sin(x), x)

    for error in (ValueError, IndexError, ZeroDivisionError):

        def fail(*_: object, error: type[Exception] = error) -> tuple[None]:
            raise error("cannot reshape\nthis")

        with pytest.raises(ModelError, match=r"operator Sin at node 'net/Sin_1' \(cannot reshape this\)"):
            sweep(graph, {y: g}, [x], {"Sin": Rule(fail)})


def test_graphs_inside_a_node_are_read_too() -> None:
    graph, e, x, _ = start("N", 3)
    y = shaped(e.Sin(x), x)
    inner = ir.node("Cos", [y], name="inner")
    branch = ir.Graph([], [inner.outputs[0]], nodes=[inner], name="branch")
    cond = e.const(np.array(True))
    choice = ir.node("If", [cond], {"then_branch": branch, "else_branch": branch.clone(allow_outer_scope_values=True)})
    graph.append(choice)
    assert y in set(reads(choice))
    assert choice.outputs[0] in downstream(graph, [x])
    assert x in upstream(graph, choice.outputs)
    assert choice in between(graph, [y], choice.outputs)
