"""The rule table itself: one rule an operator, each with a test, and an error that says where one is missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

from camrt.errors import MissingRuleError
from camrt.export.backward import sweep
from camrt.export.vjp import RULES
from camrt.export.vjp.emit import Emit
from camrt.export.vjp.known import nothing
from camrt.export.vjp.table import Rule, op_key, vjp

WITH_GRADIENT = sorted(op for op, rule in RULES.items() if rule.function is not nothing)


def test_a_second_rule_for_an_operator_is_an_error() -> None:
    table: dict[str, Rule] = {}

    @vjp("Relu", "Elu", table=table)
    def first(e: Emit, node: ir.Node, g: ir.Value) -> Sequence[ir.Value | None]:
        return (g,)

    with pytest.raises(ValueError, match="Elu already has a rule: first"):
        vjp("Elu", table=table)(nothing)
    assert set(table) == {"Relu", "Elu"}
    assert table["Elu"].function is first


def test_a_table_of_its_own_leaves_the_gradient_rules_alone() -> None:
    table: dict[str, Rule] = {}
    vjp("MyOperator", table=table)(nothing)
    assert "MyOperator" not in RULES


def test_operators_of_other_domains_are_looked_up_by_domain() -> None:
    assert op_key(ir.node("Relu", [])) == "Relu"
    assert op_key(ir.node("Relu", [], domain="ai.onnx")) == "Relu"
    assert op_key(ir.node("Relu", [], domain="com.example")) == "com.example::Relu"


@pytest.mark.parametrize("op", WITH_GRADIENT)
def test_every_rule_is_named_in_its_own_test_file(op: str) -> None:
    family = RULES[op].function.__module__.rsplit(".", 1)[-1]
    tests = Path(__file__).with_name(f"test_{family}.py")
    assert f'"{op.rsplit("::", 1)[-1]}"' in tests.read_text(encoding="utf-8"), f"no row for {op} in {tests.name}"


@pytest.mark.parametrize("op", sorted(op for op in RULES if "::" not in op))
def test_every_rule_is_for_an_operator_of_onnx(op: str) -> None:
    assert onnx.defs.has(op)


def _chain(*ops: str) -> tuple[ir.Graph, ir.Value, ir.Value]:
    """Return a graph that applies `ops` one after the other, with its first and last value."""
    x = value = ir.Value(name="x", shape=ir.Shape(["N", 3]), type=ir.TensorType(ir.DataType.FLOAT))
    nodes = []
    for i, op in enumerate(ops):
        domain = "com.example" if op.startswith("My") else ""
        node = ir.node(op, [value], domain=domain, name=f"node_{i}")
        value = node.outputs[0]
        value.name, value.shape, value.type = f"y_{i}", x.shape, x.type
        nodes.append(node)
    return ir.Graph([x], [value], nodes=nodes, opset_imports={"": 18, "com.example": 1}), x, value


def test_a_missing_rule_is_told_with_operator_node_and_path() -> None:
    graph, x, y = _chain("Relu", "MyOperator", "Tanh", "Exp")
    before = len(graph)
    with pytest.raises(MissingRuleError) as caught:
        sweep(graph, {y: y}, [x], RULES)
    message = str(caught.value)
    assert "com.example::MyOperator at node 'node_1'" in message
    assert "MyOperator -> Tanh -> Exp -> logits" in message
    assert "\n" not in message
    assert len(graph) == before


def test_all_operators_without_a_rule_are_told_at_once() -> None:
    graph, x, y = _chain("MyFirst", "Relu", "MySecond")
    with pytest.raises(MissingRuleError, match=r"MyFirst .*also without a rule: com\.example::MySecond"):
        sweep(graph, {y: y}, [x], RULES)


def test_an_operator_beside_the_path_needs_no_rule() -> None:
    graph, _, y = _chain("MyOperator", "Relu", "Exp")
    found = sweep(graph, {y: y}, [graph[0].outputs[0]], RULES)
    assert found[0] is not None
