"""
Products of matrices: the gradient of each factor is the product of the cotangent with the other factor, transposed.

Factors that are the same in every run (weights) get no gradient. Transposes are left to the runtime, which folds those
of constants when it loads the graph and fuses the others into the product.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from .emit import Dim, Emit, dims
from .fixed import is_fixed
from .known import optional_input, refuse
from .table import vjp

__all__: list[str] = []


@vjp("MatMul")
def matmul(e: Emit, node: ir.Node, g: ir.Value) -> tuple[ir.Value | None, ...]:
    """y = a b  =>  da = g b^T, db = a^T g, each summed over the batch dimensions it was broadcast along."""
    a, b = node.inputs
    assert a is not None and b is not None
    da = None if is_fixed(a) else _left(e, a, b, g, dims(node.outputs[0]))
    db = None if is_fixed(b) else _right(e, a, b, g, dims(node.outputs[0]))
    return da, db


def _left(e: Emit, a: ir.Value, b: ir.Value, g: ir.Value, shape: tuple[Dim, ...]) -> ir.Value:
    """Return the cotangent of the left factor; `shape` is that of `g`."""
    left, right = dims(a), dims(b)
    if len(right) == 1:  # a row of a for every number of g
        return e.Mul(g if len(left) == 1 else e.Unsqueeze(g, e.const([-1])), b)
    if len(left) == len(right) == 2:
        return e.Gemm(g, b, transB=1)
    if len(left) == 1:
        g, shape = e.Unsqueeze(g, e.const([-2])), (*shape[:-1], 1, shape[-1])
    return e.sum_to(e.MatMul(g, _transpose(e, b)), (*shape[:-1], right[-2]), a)


def _right(e: Emit, a: ir.Value, b: ir.Value, g: ir.Value, shape: tuple[Dim, ...]) -> ir.Value:
    """Return the cotangent of the right factor; `shape` is that of `g`."""
    left, right = dims(a), dims(b)
    if len(left) == 1:
        return e.Mul(g, a) if len(right) == 1 else e.Mul(e.Unsqueeze(a, e.const([-1])), e.Unsqueeze(g, e.const([-2])))
    if len(left) == len(right) == 2:
        return e.Gemm(a, g, transA=1)
    if len(right) == 1:
        db = e.MatMul(_transpose(e, a), e.Unsqueeze(g, e.const([-1])))
        return e.sum_to(e.Squeeze(db, e.const([-1])), (*shape[:-1], left[-1]), b)
    return e.sum_to(e.MatMul(_transpose(e, a), g), (*shape[:-2], left[-1], shape[-1]), b)


def _transpose(e: Emit, value: ir.Value) -> ir.Value:
    """Return `value` with its last two axes swapped; what was made by that swap is taken from before it."""
    rank = len(dims(value))
    swap = [*range(rank - 2), rank - 1, rank - 2]
    maker = value.producer()
    if maker is not None and maker.op_type == "Transpose" and list(maker.attributes.get_ints("perm", ())) == swap:
        assert maker.inputs[0] is not None
        return maker.inputs[0]
    return e.Transpose(value, perm=swap)


@vjp("Gemm")
def gemm(e: Emit, node: ir.Node, g: ir.Value) -> tuple[ir.Value | None, ...]:
    """y = alpha A B + beta C, A or B stored transposed  =>  dA = alpha g B^T, dB = alpha A^T g, dC = beta g."""
    a, b, c = node.inputs[0], node.inputs[1], optional_input(node, 2)
    assert a is not None and b is not None
    alpha, beta = node.attributes.get_float("alpha", 1.0), node.attributes.get_float("beta", 1.0)
    turn_a, turn_b = node.attributes.get_int("transA", 0), node.attributes.get_int("transB", 0)
    da = db = dc = None
    if not is_fixed(a):
        product = (b, g, turn_b, 1) if turn_a else (g, b, 0, 1 - turn_b)
        da = e.Gemm(*product[:2], alpha=alpha, transA=product[2], transB=product[3])
    if not is_fixed(b):
        product = (g, a, 1, turn_a) if turn_b else (a, g, 1 - turn_a, 0)
        db = e.Gemm(*product[:2], alpha=alpha, transA=product[2], transB=product[3])
    if not is_fixed(c):
        assert c is not None
        dc = e.sum_to(g, dims(node.outputs[0]), c)
        dc = dc if beta == 1 else e.Mul(dc, e.scalar(beta, dc))
    return (da, db, dc)[: len(node.inputs)]


@vjp("Einsum")
def einsum(e: Emit, node: ir.Node, g: ir.Value) -> tuple[ir.Value | None, ...]:
    """y = sum of products over the indices left out  =>  each factor's gradient is such a sum of g and the others."""
    terms, result = _parse(node)
    sizes: dict[str, Dim] = {}
    for term, value in zip(terms, node.inputs, strict=True):
        assert value is not None
        if len(set(term)) < len(term) - 2 * ("..." in term):
            raise refuse(node, f"its term {term!r} takes a diagonal")
        for letter, d in zip(_letters(term, len(dims(value))), dims(value), strict=True):
            if sizes.get(letter, 1) == 1:
                sizes[letter] = d
    return tuple(
        None if is_fixed(value) else _factor(e, node, g, terms, result, i, sizes) for i, value in enumerate(node.inputs)
    )


def _parse(node: ir.Node) -> tuple[list[str], str]:
    """Return the factors' terms and the result's, which may be implicit: the letters seen once, in order."""
    equation = node.attributes["equation"].as_string().replace(" ", "")
    factors, arrow, result = equation.partition("->")
    terms = factors.split(",")
    if not arrow:
        letters = [c for c in factors if c not in ".,"]
        once = sorted(c for c in set(letters) if letters.count(c) == 1)
        result = ("..." if "..." in factors else "") + "".join(once)
    return terms, result


def _letters(term: str, rank: int) -> list[str]:
    """Return one name an axis; the axes of the ellipsis are numbered from its right end."""
    head, dots, tail = term.partition("...")
    hidden = rank - len(head) - len(tail) if dots else 0
    return [*head, *(f".{i}" for i in reversed(range(hidden))), *tail]


def _factor(
    e: Emit, node: ir.Node, g: ir.Value, terms: Sequence[str], result: str, index: int, sizes: dict[str, Dim]
) -> ir.Value:
    """Return the cotangent of factor `index`."""
    value, term = node.inputs[index], terms[index]
    assert value is not None
    others = [(t, v) for i, (t, v) in enumerate(zip(terms, node.inputs, strict=True)) if i != index]
    wanted = term if "..." in term or "..." not in result else "..." + term
    seen = {c for t in (result, *(t for t, _ in others)) for c in t}
    kept = "".join(c for c in wanted if c in seen)
    if others or kept != result:
        g = e.Einsum(g, *(v for _, v in others), equation=",".join([result, *(t for t, _ in others)]) + "->" + kept)
    hidden = max(sum(letter.startswith(".") for letter in sizes), 0)
    rank = len(wanted.replace(".", "")) + (hidden if "..." in wanted else 0)
    names = _letters(wanted, rank)
    if "..." in term and not term.startswith("...") and rank != len(dims(value)):
        raise refuse(node, f"its term {term!r} is broadcast along axes that are not its first")
    lone = [axis for axis, name in enumerate(names) if name[0] != "." and name not in seen]
    shape = tuple(sizes[name] for name in names)
    if lone:  # summed out of this factor alone: the same cotangent everywhere
        lengths = [shape[axis] for axis in lone]
        if not all(isinstance(d, int) for d in lengths):
            raise refuse(node, f"it sums over axes of symbolic length {lengths}")
        g = e.Expand(e.Unsqueeze(g, e.const(lone)), e.const([int(d) if a in lone else 1 for a, d in enumerate(shape)]))
    return e.sum_to(g, shape, value)
