"""
Gradients of random graphs, in float64, against central differences along random directions.

The seeds below run with the suite. ``CAMRT_FUZZ=2000 pytest tests/export/test_fuzz.py`` lets Hypothesis draw so many
graphs, and shrink one that fails. Where a difference crosses a kink, a shorter one is taken, and then another point: a
wrong rule is wrong at all of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from camrt.errors import MissingRuleError
from camrt.export.backward import sweep
from camrt.export.vjp import RULES
from camrt.export.vjp.emit import Emit
from tests.export.gpu_lint import added_offences
from tests.export.random_graphs import Drawn, draw
from tests.export.vjp.oracle import STAND_INS

Array = np.ndarray[Any, Any]

SEEDS = 120
MANY = int(os.environ.get("CAMRT_FUZZ", "0"))
TOLERANCE = 1e-5  # of central differences of size 1e-5 in float64; wrong rules are off by 1e-2 and more
STEPS = (1e-5, 1e-6, 1e-7)
POINTS = 4


def evaluator(model: onnx.ModelProto) -> Callable[[Array], list[Array]]:
    """Return the model as a function of x."""
    reference = ReferenceEvaluator(model, new_ops=STAND_INS)

    def run(x: Array) -> list[Array]:
        with np.errstate(all="ignore"):
            return [np.asarray(y, np.float64) for y in reference.run(None, {"x": x})]

    return run


def gradient(drawn: Drawn, seeds: list[Array]) -> onnx.ModelProto | None:
    """Return the graph of the gradient at x of the results' inner product with `seeds`; None where nothing flows."""
    model = ir.from_proto(drawn.model)
    graph = model.graph
    e = Emit(graph, "seed")
    ends = {value: e.const(seed) for value, seed in zip(graph.outputs, seeds, strict=True)}
    (g,) = sweep(graph, ends, [graph.inputs[0]], RULES)
    added = [node for node in graph if (node.name or "").startswith("grad/")]
    refused = added_offences(added, set(graph) - set(added))
    assert not refused, "; ".join(refused)
    graph.outputs.clear()
    if g is None:
        return None
    last = ir.node("Identity", [g], name="result")
    last.outputs[0].name, last.outputs[0].type, last.outputs[0].shape = "dx", g.type, graph.inputs[0].shape
    graph.append(last)
    graph.outputs.append(last.outputs[0])
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto)  # not its shapes: it counts windows in the end padding of ceil_mode
    return proto


def check(random: Random) -> None:
    """Draw a graph and compare."""
    drawn = draw(random)
    rng = np.random.default_rng(random.getrandbits(32))
    forward = evaluator(drawn.model)
    seeds = [np.asarray(rng.normal(size=y.shape)) for y in forward(drawn.x)]
    try:
        proto = gradient(drawn, seeds)
    except MissingRuleError as refusal:
        assert "no gradient rule" not in str(refusal), f"{drawn.ops}: {refusal}"
        return  # refused, with its place and reason
    backward = (lambda x: [np.zeros_like(x)]) if proto is None else evaluator(proto)
    found = []
    for point in range(POINTS):
        x = drawn.x if point == 0 else drawn.x + 0.05 * rng.normal(size=drawn.x.shape)
        error = mismatch(forward, backward, seeds, x, rng.normal(size=x.shape))
        if error <= TOLERANCE:
            return
        found.append(error)
    raise AssertionError(f"the gradient of {drawn.ops} is off by {min(found):.2g} at each of {POINTS} points")


def mismatch(forward: Any, backward: Any, seeds: list[Array], x: Array, direction: Array) -> float:
    """Return how far the gradient along a direction is from central differences, at the best of some steps."""
    (dx,) = backward(x)
    assert dx.shape == x.shape
    got, scale = float(np.sum(dx * direction)), float(np.sqrt(np.sum(dx**2)))
    errors = []
    for step in STEPS:
        ahead, behind = forward(x + step * direction), forward(x - step * direction)
        terms = [float(np.sum((a - b) * s)) for a, b, s in zip(ahead, behind, seeds, strict=True)]
        want = sum(terms) / (2 * step)
        errors.append(abs(got - want) / max(abs(want), scale, 1e-3))
    return min(errors)


@pytest.mark.parametrize("first", range(0, SEEDS, 20))
def test_no_random_graph_has_a_wrong_gradient(first: int) -> None:
    for seed in range(first, first + 20):
        check(Random(seed))


@pytest.mark.skipif(not MANY, reason="CAMRT_FUZZ says how many graphs to draw")
@settings(max_examples=MANY or 1, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.randoms(use_true_random=False))
def test_many_random_graphs_have_no_wrong_gradient(random: Random) -> None:
    check(random)
