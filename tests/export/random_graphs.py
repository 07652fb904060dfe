"""
Small random graphs of the operators that have gradient rules, well-formed by construction.

In: a source of random choices. Out: a model from `x` to some results in float64, and the numbers it was built at. Each
operator is run as it is added, so that the next one knows its shape; one whose numbers explode is left out again. At
about as many places as not, a value is read twice, broadcast, or merged with an earlier one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from tests.export.vjp.oracle import STAND_INS

__all__ = ["OPSET", "Drawn", "draw"]

Array = np.ndarray[Any, Any]
Maker = Callable[["_Draft", str], "list[str] | None"]

OPSET = 20
LARGEST = 30.0  # of a value: beyond, differences lose digits
ELEMENTS = 600
SMOOTH = "Tanh Sigmoid Softplus Softsign Erf Sin Cos Exp Gelu Mish Atan HardSwish Elu Selu"
KINKED = "Relu LeakyRelu Abs HardSigmoid Clip ThresholdedRelu Shrink"


@dataclass
class Drawn:
    """A model, the input it was built at, its results, and its operators in order."""

    model: onnx.ModelProto
    x: Array
    results: list[str]
    ops: list[str]


@dataclass
class _Draft:
    """A graph that grows, with the numbers of every value."""

    random: Random
    values: dict[str, Array] = field(default_factory=dict)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    read: set[str] = field(default_factory=set)

    def array(self, *shape: int, low: float = -1.0, high: float = 1.0) -> Array:
        """Return uniform random numbers."""
        size = int(np.prod(shape))
        return np.array([self.random.uniform(low, high) for _ in range(size)]).reshape(shape)

    def const(self, array: Any) -> str:
        """Add a constant; whole numbers become int64."""
        array = np.asarray(array)
        name = f"c{len(self.constants)}"
        self.constants[name] = array.astype(np.int64) if array.dtype.kind == "i" else array
        return name

    def add(self, op: str, inputs: Sequence[str], outputs: int = 1, **attributes: Any) -> list[str] | None:
        """Run one node and keep it, unless its numbers are too large, too many, or none."""
        names = [f"v{len(self.values) + i}" for i in range(outputs)]
        node = onnx.helper.make_node(op, list(inputs), names, name=f"n{len(self.nodes)}", **attributes)
        known = {n: self.values.get(n, self.constants.get(n)) for n in inputs if n}
        made = _run(node, known)
        if any(y.size == 0 or y.size > ELEMENTS or not np.all(np.abs(y) < LARGEST) for y in made):
            return None
        self.nodes.append(node)
        self.read |= set(inputs)
        self.values |= dict(zip(names, made, strict=True))
        return names

    def other(self, shape: tuple[int, ...]) -> str:
        """Return an earlier value of a shape, or a constant that is broadcast to it."""
        same = [name for name, array in self.values.items() if array.shape == shape]
        if same and self.random.random() < 0.5:
            return self.random.choice(same)
        kept = [d if self.random.random() < 0.6 else 1 for d in shape]
        return self.const(self.array(*kept[self.random.randrange(len(shape) + 1) :], low=0.5, high=1.5))


def _run(node: onnx.NodeProto, known: dict[str, Any]) -> list[Array]:
    """Run one node in the reference evaluator, in float64."""
    kinds = {n: onnx.helper.np_dtype_to_tensor_dtype(a.dtype) for n, a in known.items()}
    inputs = [onnx.helper.make_tensor_value_info(n, kinds[n], a.shape) for n, a in known.items()]
    outputs = [onnx.helper.make_empty_tensor_value_info(n) for n in node.output]
    graph = onnx.helper.make_graph([node], "one", inputs, outputs)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=10)
    with np.errstate(all="ignore"):
        return [np.asarray(y) for y in ReferenceEvaluator(model, new_ops=STAND_INS).run(None, known)]


# makers: each adds operators after one value, or gives None where it does not fit --------------------------------


def _unary(d: _Draft, v: str) -> list[str] | None:
    op = d.random.choice(f"{SMOOTH} {KINKED} Neg Identity Sinh Asinh".split())
    attributes: dict[str, Any] = {}
    inputs = [v]
    if op == "Clip":
        inputs += [d.const(np.array(-d.random.uniform(0.2, 1))), d.const(np.array(d.random.uniform(0.2, 1)))]
    elif op in ("LeakyRelu", "Elu", "ThresholdedRelu"):
        attributes["alpha"] = d.random.uniform(0.2, 1.5)
    elif op == "Gelu":
        attributes["approximate"] = d.random.choice(["none", "tanh"])
    elif op == "Shrink":
        attributes |= {"lambd": 0.3, "bias": d.random.choice([0.0, 0.2])}
    return d.add(op, inputs, **attributes)


def _positive(d: _Draft, v: str) -> list[str] | None:
    """Sqrt, Log, Reciprocal and Pow of something above zero."""
    squared = d.add("Mul", [v, v])
    moved = squared and d.add("Add", [squared[0], d.const(np.array(0.5))])
    if not moved:
        return None
    if d.random.random() < 0.3:
        return d.add("Pow", [moved[0], d.const(np.array(d.random.choice([0.5, 1.5, -1.0, 2.0])))])
    return d.add(d.random.choice(["Sqrt", "Log", "Reciprocal"]), moved)


def _binary(d: _Draft, v: str) -> list[str] | None:
    pair = [v, d.other(d.values[v].shape)]
    op = d.random.choice(["Add", "Sub", "Mul", "Max", "Min", "Sum", "Mean"])
    if op not in ("Sum", "Mean") and d.random.random() < 0.5:  # the reference evaluator adds up in place
        pair.reverse()
    return d.add(op, pair)


def _divide(d: _Draft, v: str) -> list[str] | None:
    shape = d.values[v].shape
    return d.add("Div", [v, d.const(d.array(*shape[d.random.randrange(len(shape) + 1) :], low=0.5, high=2.0))])


def _where(d: _Draft, v: str) -> list[str] | None:
    shape = d.values[v].shape
    pair = [v, d.other(shape)]
    d.random.shuffle(pair)
    return d.add("Where", [d.const(d.array(*shape) > 0), *pair])


def _prelu(d: _Draft, v: str) -> list[str] | None:
    shape = d.values[v].shape
    return d.add("PRelu", [v, d.const(d.array(*(n if i == 1 else 1 for i, n in enumerate(shape))))])


def _reduce(d: _Draft, v: str) -> list[str] | None:
    rank = d.values[v].ndim
    if rank < 2:
        return None
    axes = d.random.sample(range(1, rank), d.random.randint(1, rank - 1))
    axes = [a - rank if d.random.random() < 0.3 else a for a in axes]
    names = ["Sum", "Mean", "Max", "Min", "L1", "L2", "LogSum", "LogSumExp", "SumSquare", "Prod"]
    op = d.random.choice(names)
    if op == "LogSum":
        v = (d.add("Exp", [v]) or [v])[0]
        if np.min(d.values[v]) <= 0:
            return None
    return d.add(f"Reduce{op}", [v, d.const(axes)], keepdims=d.random.randint(0, 1))


def _softmax(d: _Draft, v: str) -> list[str] | None:
    return d.add(d.random.choice(["Softmax", "LogSoftmax"]), [v], axis=d.random.randrange(-1, d.values[v].ndim))


def _reshape(d: _Draft, v: str) -> list[str] | None:
    shape = list(d.values[v].shape)
    if len(shape) > 2 and d.random.random() < 0.6:
        i = d.random.randrange(1, len(shape) - 1)
        wanted = [0] * i + [shape[i] * shape[i + 1]] + shape[i + 2 :]
    else:
        wanted = [*shape[:-1], 1, -1] if len(shape) < 5 else [0, -1]
    return d.add("Reshape", [v, d.const(wanted)])


def _transpose(d: _Draft, v: str) -> list[str] | None:
    perm = list(range(d.values[v].ndim))
    rest = perm[1:]
    d.random.shuffle(rest)
    return d.add("Transpose", [v], perm=[0, *rest])


def _axes(d: _Draft, v: str) -> list[str] | None:
    shape = d.values[v].shape
    ones = [i for i, n in enumerate(shape) if n == 1]
    if ones and d.random.random() < 0.7:
        return d.add("Squeeze", [v, d.const([d.random.choice(ones)])])
    return None if len(shape) > 4 else d.add("Unsqueeze", [v, d.const([d.random.randrange(1, len(shape) + 1)])])


def _grow(d: _Draft, v: str) -> list[str] | None:
    shape = d.values[v].shape
    if 1 in shape and d.random.random() < 0.5:
        return d.add("Expand", [v, d.const([2 if n == 1 else n for n in shape])])
    return d.add("Tile", [v, d.const([1, *(d.random.randint(1, 2) for _ in shape[1:])])])


def _concat(d: _Draft, v: str) -> list[str] | None:
    shape = d.values[v].shape
    axis = d.random.randrange(len(shape))
    fits = [n for n, a in d.values.items() if a.ndim == len(shape) and _fits(a.shape, shape, axis)]
    return d.add("Concat", [v, *d.random.choices(fits, k=d.random.randint(1, 2))], axis=axis)


def _fits(a: Sequence[int], b: Sequence[int], axis: int) -> bool:
    return all(m == n for i, (m, n) in enumerate(zip(a, b, strict=True)) if i != axis)


def _split(d: _Draft, v: str) -> list[str] | None:
    shape = d.values[v].shape
    wide = [i for i, n in enumerate(shape) if i and n > 1]
    if not wide:
        return None
    axis = d.random.choice(wide)
    first = d.random.randint(1, shape[axis] - 1)
    return d.add("Split", [v, d.const([first, shape[axis] - first])], 2, axis=axis)


def _slice(d: _Draft, v: str) -> list[str] | None:
    shape = d.values[v].shape
    axis = d.random.randrange(1, len(shape)) if len(shape) > 1 else 0
    n, step = shape[axis], d.random.choice([1, 1, 2, -1, -2, 3])
    start, end = (d.random.randrange(n), n + 5) if step > 0 else (d.random.randrange(-n, 0), -n - 9)
    return d.add("Slice", [v, *(d.const([k]) for k in (start, end, axis, step))])


def _gather(d: _Draft, v: str) -> list[str] | None:
    shape = d.values[v].shape
    axis = d.random.randrange(len(shape))
    if d.random.random() < 0.5:
        index = [d.random.randrange(-shape[axis], shape[axis]) for _ in range(d.random.randint(1, 3))]
        return d.add("Gather", [v, d.const(index)], axis=axis)
    size = int(np.prod(shape))
    index = [d.random.randrange(shape[axis]) for _ in range(size)]
    return d.add("GatherElements", [v, d.const(np.array(index).reshape(shape))], axis=axis)


def _pad(d: _Draft, v: str) -> list[str] | None:
    shape = d.values[v].shape
    mode = d.random.choice(["constant", "reflect", "edge", "wrap"])
    most = [0 if i == 0 else 2 if mode == "constant" else min(2, n - 1) for i, n in enumerate(shape)]
    lows, highs = ([d.random.randint(0, m) for m in most] for _ in range(2))
    return d.add("Pad", [v, d.const([*lows, *highs])], mode=mode)


def _blocks(d: _Draft, v: str) -> list[str] | None:
    shape = d.values[v].shape
    if len(shape) == 4 and shape[1] % 4 == 0:
        return d.add("DepthToSpace", [v], blocksize=2, mode=d.random.choice(["DCR", "CRD"]))
    fits = len(shape) == 4 and shape[2] % 2 == shape[3] % 2 == 0
    return d.add("SpaceToDepth", [v], blocksize=2) if fits else None


def _windows(d: _Draft, v: str, *, dilated: bool = True) -> tuple[list[int], dict[str, Any]] | None:
    """Return a kernel and attributes that fit the value's spatial axes."""
    size = d.values[v].shape[2:]
    if not size or len(size) > 2:
        return None
    kernel = [d.random.randint(1, min(3, n)) for n in size]
    dilations = [
        d.random.choice([1, 1, 2]) if dilated and 2 * (k - 1) < n else 1 for k, n in zip(kernel, size, strict=True)
    ]
    pads = [d.random.randint(0, k - 1) for k in kernel * 2]
    strides = [d.random.randint(1, 3) for _ in size]
    return kernel, {"kernel_shape": kernel, "dilations": dilations, "pads": pads, "strides": strides}


def _conv(d: _Draft, v: str) -> list[str] | None:
    found = _windows(d, v)
    if found is None:
        return None
    kernel, attributes = found
    c = d.values[v].shape[1]
    groups = d.random.choice([g for g in (1, 2, c) if c % g == 0])
    m = groups * d.random.choice([1, 2, 16 // groups or 1])
    if d.random.random() < 0.7:
        w = d.const(d.array(m, c // groups, *kernel) / np.sqrt(np.prod(kernel)))
        bias = [d.const(d.array(m))] if d.random.random() < 0.5 else []
        return d.add("Conv", [v, w, *bias], group=groups, **attributes)
    w = d.const(d.array(c, max(1, m // groups), *kernel) / np.sqrt(np.prod(kernel)))
    return d.add("ConvTranspose", [v, w], group=groups, **attributes)


def _pool(d: _Draft, v: str) -> list[str] | None:
    op = d.random.choice(["MaxPool", "AveragePool", "LpPool"])
    found = _windows(d, v, dilated=op != "LpPool")
    if found is None:
        return None
    _, attributes = found
    if op == "LpPool":
        attributes["p"] = d.random.choice([1, 2, 3])
    else:
        attributes["ceil_mode"] = d.random.randint(0, 1)
    if op == "AveragePool":
        attributes["count_include_pad"] = d.random.randint(0, 1)
    return d.add(op, [v], **attributes)


def _global(d: _Draft, v: str) -> list[str] | None:
    fits = d.values[v].ndim == 4  # the reference evaluator loses an axis of others
    return d.add(d.random.choice(["GlobalAveragePool", "GlobalMaxPool"]), [v]) if fits else None


def _norm(d: _Draft, v: str) -> list[str] | None:
    shape = d.values[v].shape
    if len(shape) < 3:
        return None
    c = shape[1]
    scale, bias = d.const(d.array(c, low=0.5, high=1.5)), d.const(d.array(c))
    op = d.random.choice(["BatchNormalization", "InstanceNormalization", "LayerNormalization", "LRN"])
    if op == "BatchNormalization":
        return d.add(op, [v, scale, bias, d.const(d.array(c)), d.const(d.array(c, low=0.5, high=2.0))])
    if op == "InstanceNormalization":
        return d.add(op, [v, scale, bias], epsilon=0.1) if np.prod(shape[2:]) > 1 else None
    if op == "LRN":
        return d.add(op, [v], size=d.random.choice([1, 3]), alpha=0.3, beta=0.6, bias=1.2) if len(shape) == 4 else None
    axis = d.random.randrange(1, len(shape))
    rest = shape[axis:]
    if np.prod(rest) < 2:
        return None
    return d.add(op, [v, d.const(d.array(*rest, low=0.5, high=1.5)), d.const(d.array(*rest))], axis=axis, epsilon=0.1)


def _resize(d: _Draft, v: str) -> list[str] | None:
    shape = d.values[v].shape
    if len(shape) != 4:
        return None
    scales = d.const(np.array([1, 1, *(d.random.choice([0.5, 1.0, 2.0]) for _ in range(2))], np.float32))
    mode = d.random.choice(["nearest", "linear"])
    how = d.random.choice(["asymmetric", "half_pixel"])
    return d.add("Resize", [v, "", scales], mode=mode, coordinate_transformation_mode=how)


def _matmul(d: _Draft, v: str) -> list[str] | None:
    shape = d.values[v].shape
    if len(shape) < 2:
        return None
    kind = d.random.random()
    if kind < 0.3 and len(shape) > 2:
        turned = d.add("Transpose", [v], perm=[*range(len(shape) - 2), len(shape) - 1, len(shape) - 2])
        return turned and d.add("MatMul", [v, *turned] if d.random.random() < 0.5 else [*turned, v])
    if kind < 0.5 and len(shape) == 2:
        flag = d.random.randint(0, 1)
        w = d.const(d.array(*((4, shape[1]) if flag else (shape[1], 4))))
        return d.add("Gemm", [v, w, d.const(d.array(4))], transB=flag, alpha=0.7, beta=1.3)
    if kind < 0.6 and len(shape) == 3:
        return d.add("Einsum", [v, d.const(d.array(shape[2], 3))], equation="nij,jk->nki")
    return d.add("MatMul", [v, d.const(d.array(shape[-1], d.random.randint(1, 4)))])


def _triangle(d: _Draft, v: str) -> list[str] | None:
    shift = d.const(np.array(d.random.randint(-1, 1)))
    return d.add("Trilu", [v, shift], upper=d.random.randint(0, 1)) if d.values[v].ndim > 1 else None


def _scatter(d: _Draft, v: str) -> list[str] | None:
    """Overwrite some elements by those of another value, at places that differ."""
    shape = d.values[v].shape
    axis = d.random.randrange(len(shape))
    place = d.random.randrange(shape[axis])
    row = [1 if i == axis else n for i, n in enumerate(shape)]
    update = d.add("Slice", [v, *(d.const([k]) for k in (0, 1, axis, 1))])
    return update and d.add("ScatterElements", [v, d.const(np.full(row, place)), *update], axis=axis)


def _cumsum(d: _Draft, v: str) -> list[str] | None:
    axis = d.const(np.array(d.random.randrange(d.values[v].ndim)))
    return d.add("CumSum", [v, axis], exclusive=d.random.randint(0, 1), reverse=d.random.randint(0, 1))


MAKERS: list[tuple[Maker, int]] = [
    (_unary, 6), (_positive, 1), (_binary, 5), (_divide, 1), (_where, 1), (_prelu, 1), (_reduce, 2), (_softmax, 1),
    (_reshape, 1), (_transpose, 1), (_axes, 1), (_grow, 1), (_concat, 2), (_split, 1), (_slice, 1), (_gather, 2),
    (_pad, 1), (_blocks, 1), (_conv, 5), (_pool, 4), (_global, 1), (_norm, 2), (_resize, 1), (_matmul, 2), (_cumsum, 1), (_triangle, 1), (_scatter, 1),
]  # fmt: skip


def draw(random: Random) -> Drawn:
    """
    Return a random graph.

    Parameters
    ----------
    random : Random
        Makes every choice; the same state gives the same graph.

    Returns
    -------
    Drawn
        With two to eight operators or so.
    """
    d = _Draft(random)
    spatial = [random.randint(3, 7) for _ in range(random.choice([0, 1, 1, 2, 2, 2, 2]))]
    x = d.array(random.randint(1, 2), random.choice([1, 2, 3, 4]), *spatial, low=-1.5, high=1.5)
    d.values["x"] = x
    makers, weights = [m for m, _ in MAKERS], [w for _, w in MAKERS]
    for _ in range(random.randint(2, 7)):
        recent = list(d.values)
        v = recent[-1] if random.random() < 0.7 else random.choice(recent)
        random.choices(makers, weights)[0](d, v)
    if not d.nodes:
        d.add("Tanh", ["x"])
    results = [name for name in d.values if name not in d.read and name != "x"]
    return Drawn(_model(d, x, results), x, results, [node.op_type for node in d.nodes])


def _model(d: _Draft, x: Array, results: Sequence[str]) -> onnx.ModelProto:
    """Join the nodes; every value has its shape."""

    def info(name: str, array: Array) -> onnx.ValueInfoProto:
        return onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)

    inner = [info(n, a) for n, a in d.values.items() if n != "x" and n not in results]
    outputs = [info(name, d.values[name]) for name in results]
    constants = [onnx.numpy_helper.from_array(array, name) for name, array in d.constants.items()]
    graph = onnx.helper.make_graph(d.nodes, "random", [info("x", x)], outputs, constants, value_info=inner)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=10)
