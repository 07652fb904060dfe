"""
The reverse sweep: cotangents at some tensors become gradients at others, as nodes of the same graph.

Nothing here knows an operator: what each passes back is the rule table's. The sweep walks the nodes between the
tensors asked for and the starting ones from last to first, adds up cotangents that meet at one tensor, undoes
broadcasting, and leaves branches alone that no cotangent reaches.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import onnx_ir as ir

from camrt.errors import CamrtError, MissingRuleError, ModelError

from .vjp.emit import Emit, described, dims
from .vjp.fixed import OF_SHAPES
from .vjp.table import Rule, missing, op_key

__all__ = ["between", "downstream", "reads", "sweep", "upstream"]


def reads(node: ir.Node) -> Iterator[ir.Value]:
    """
    Yield the values a node reads: its inputs, and what graphs inside it (If, Loop, Scan) read.

    Parameters
    ----------
    node : onnx_ir.Node
        Any node.

    Yields
    ------
    onnx_ir.Value
        Each value read, as often as it is read.
    """
    yield from (value for value in node.inputs if value is not None)
    for attribute in node.attributes.values():
        inside = [attribute.as_graph()] if attribute.type == ir.AttributeType.GRAPH else []
        for graph in inside:
            yield from graph.outputs
            for inner in graph:
                yield from reads(inner)


def downstream(graph: ir.Graph, values: Collection[ir.Value]) -> set[ir.Value]:
    """
    Return some values and everything computed from them.

    Parameters
    ----------
    graph : onnx_ir.Graph
        Topologically sorted.
    values : collection of Value
        Where to start.

    Returns
    -------
    set of Value
        The values reached, the given ones included.
    """
    reached = set(values)
    for node in graph:
        if any(value in reached for value in reads(node)):
            reached.update(node.outputs)
    return reached


def upstream(graph: ir.Graph, values: Collection[ir.Value]) -> set[ir.Value]:
    """
    Return some values and everything they are computed from.

    Parameters
    ----------
    graph : onnx_ir.Graph
        Topologically sorted.
    values : collection of Value
        Where to end.

    Returns
    -------
    set of Value
        The values needed, the given ones included.
    """
    needed = set(values)
    for node in reversed(graph):
        if any(value in needed for value in node.outputs):
            needed.update(reads(node))
    return needed


def between(graph: ir.Graph, first: Collection[ir.Value], last: Collection[ir.Value]) -> list[ir.Node]:
    """
    Return the nodes on a path from some values to others.

    A node that makes a value of `first` is left out, unless another value of `first` lies before it.

    Parameters
    ----------
    graph : onnx_ir.Graph
        Topologically sorted.
    first : collection of Value
        Where paths start.
    last : collection of Value
        Where they end.

    Returns
    -------
    list of Node
        In graph order.
    """
    down, up = downstream(graph, first), upstream(graph, last)
    return [
        node
        for node in graph
        if any(value in down for value in reads(node)) and any(value in up for value in node.outputs)
    ]


def sweep(
    graph: ir.Graph,
    seeds: Mapping[ir.Value, ir.Value],
    wanted: Sequence[ir.Value],
    rules: Mapping[str, Rule],
    *,
    prefix: str = "grad",
    purpose: str = "gradient",
) -> list[ir.Value | None]:
    """
    Append to `graph` the nodes that carry the cotangents `seeds` back to `wanted`.

    Parameters
    ----------
    graph : onnx_ir.Graph
        Topologically sorted; every value on the way has a shape and an element type.
    seeds : mapping of Value to Value
        The cotangent at each starting value.
    wanted : sequence of Value
        Where gradients are asked for.
    rules : mapping of str to Rule
        The rule of each operator, by `op_key`.
    prefix : str, default "grad"
        Starts the names of the nodes that are added.
    purpose : str, default "gradient"
        What `rules` carry back, for messages.

    Returns
    -------
    list of Value or None
        The gradient at each of `wanted`; None where no path leads back to it.

    Raises
    ------
    MissingRuleError
        If an operator on the way has no rule; named with its node and the path to the logits.
    """
    alive = _moved(graph, wanted)
    path = [node for node in between(graph, wanted, list(seeds)) if any(value in alive for value in reads(node))]
    lacking = missing(path, rules)
    if lacking:
        raise MissingRuleError(_explain(lacking[0], path, {op_key(node) for node in lacking}, purpose))
    e = Emit(graph, prefix, tuple(seeds.values()))
    cotangents: dict[ir.Value, ir.Value] = dict(seeds)
    for node in reversed(path):
        incoming = [cotangents.get(value) for value in node.outputs]
        if all(g is None for g in incoming):
            continue
        rule = rules[op_key(node)]
        outgoing = _apply(rule, e, node, incoming)
        if len(outgoing) != len(node.inputs):
            raise AssertionError(
                f"the rule of {op_key(node)} gives {len(outgoing)} cotangents for {len(node.inputs)} inputs"
            )
        for value, g in zip(node.inputs, outgoing, strict=True):
            if value is None or g is None or value not in alive:
                continue
            if rule.broadcasts:
                g = e.sum_to(g, dims(node.outputs[0]), value)
            if value in cotangents:
                g = e.Add(cotangents[value], g)
            cotangents[value] = described(g, value)
    return [cotangents.get(value) for value in wanted]


def _moved(graph: ir.Graph, values: Collection[ir.Value]) -> set[ir.Value]:
    """Return some values and everything whose numbers depend on theirs: what reads their shapes alone does not."""
    reached = set(values)
    for node in graph:
        if node.op_type not in OF_SHAPES and any(value in reached for value in reads(node)):
            reached.update(node.outputs)
    return reached


def _apply(rule: Rule, e: Emit, node: ir.Node, incoming: Sequence[ir.Value | None]) -> Sequence[ir.Value | None]:
    """Call a rule; attributes and shapes that contradict each other make it fail in NumPy, which the user cannot read."""
    try:
        return rule(e, node, incoming)
    except CamrtError:
        raise
    except (ValueError, IndexError, TypeError, ArithmeticError) as error:
        detail = " ".join(str(error).split())[:160]
        raise ModelError(
            f"no gradient can be made of operator {op_key(node)} at node {node.name!r} ({detail}): its attributes do not "
            "fit its inputs; export the model again"
        ) from error


def _explain(node: ir.Node, path: Sequence[ir.Node], lacking: Collection[str], purpose: str) -> str:
    """Say which operator lacks a rule, where it stands, and what follows it on the way to the logits."""
    after, value = [], node.outputs[0]
    for later in path[list(path).index(node) + 1 :]:
        if value in later.inputs:
            after.append(later.op_type)
            value = later.outputs[0]
    shown = after if len(after) <= 8 else [*after[:4], "...", *after[-3:]]
    also = "" if len(lacking) == 1 else f" (also without a rule: {', '.join(sorted(set(lacking) - {op_key(node)}))})"
    other = "needs no gradient (eigencam, lafam)" if purpose == "gradient" else "needs a gradient alone (gradcam)"
    return (
        f"operator {op_key(node)} at node {node.name!r} has no {purpose} rule{also}; it lies on the path to the logits: "
        f"{' -> '.join([node.op_type, *shown, 'logits'])}; choose a later layer, or a method that {other}"
    )
