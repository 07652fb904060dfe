"""
The node tests that the onnx package carries, as gradient checks: each model, its data, and what finite differences say.

A model is taken through what loading does to one (lifted, functions without a rule opened, constants folded), in
float64: every floating input becomes a graph input that is differentiated, everything else a constant. Data are moved
a little, off the kinks that hand-written numbers like to sit on.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx.backend.test.case.node import collect_testcases
from onnx.reference import ReferenceEvaluator
from onnx_ir.passes import common

from camrt.export.backward import between, sweep
from camrt.export.expand import expand
from camrt.export.load import MIN_OPSET
from camrt.export.shapes import annotate
from camrt.export.vjp import RULES
from tests.export.vjp.oracle import STAND_INS

__all__ = ["SUMMARY", "Case", "Inapplicable", "cases", "check"]

Array = np.ndarray[Any, Any]
FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE}
STEP = 1e-6
SUMMARY: list[dict[str, str]] = []  # what became of the cases of a run, for its last lines

# operators whose other floating inputs are weights or settings, held fixed
FIRST_ALONE = {
    "BatchNormalization", "Conv", "ConvTranspose", "Dropout", "GroupNormalization", "InstanceNormalization",
    "CausalConvWithState", "LayerNormalization", "Pad", "RMSNormalization", "Resize", "Upsample",
}  # fmt: skip
FIRST_OUTPUT = {"LayerNormalization"}  # operators whose other outputs are by-products that no model reads


class Inapplicable(Exception):
    """Why no gradient can be asked of a case."""


@dataclass(frozen=True)
class Case:
    """
    One node test: its name, the operator it tests, and one set of data.

    A model that spells an operator out by others, and is named after its case, tests that operator.
    """

    name: str
    op: str
    model: onnx.ModelProto
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]


@functools.cache
def cases() -> tuple[Case, ...]:
    """Return every node test of the installed onnx that is written in the default domain."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = collect_testcases(None)
    found = [c for c in found if c.model is not None and not any(n.domain for n in c.model.graph.node)]
    ops = {c.name: "+".join(sorted({n.op_type for n in c.model.graph.node})) for c in found if c.model is not None}
    ops.update({name: ops.get(name.split("_expanded")[0], op) for name, op in ops.items()})
    return tuple(
        Case(c.name, ops[c.name], c.model, *(tuple(map(_array, held)) for held in c.data_sets[0][:2]))
        for c in found
        if c.model and c.data_sets
    )


def _array(held: Any) -> Any:
    """Return a tensor that a case holds in ONNX's own form as an array; types NumPy lacks come as ml_dtypes'."""
    return onnx.numpy_helper.to_array(held) if isinstance(held, onnx.TensorProto) else held


def check(case: Case) -> int:
    """
    Assert that the gradient of a case is that of central differences along a random direction, in float64.

    Returns
    -------
    int
        How many inputs were differentiated.

    Raises
    ------
    Inapplicable
        If no floating output depends on a floating input.
    MissingRuleError
        If a rule refuses the case.
    """
    rng = np.random.default_rng(7)
    feeds = _feeds(case, rng)
    model = _prepared(case, feeds, onnx.TensorProto.DOUBLE)
    evaluator = ReferenceEvaluator(model, new_ops=STAND_INS)
    names = [value.name for value in model.graph.output]
    with np.errstate(all="ignore"):
        _compare_forward(case, evaluator.run(None, _feeds(case, None, feeds)))
        primal = [np.asarray(y) for y in evaluator.run(None, feeds)]
    floating = {n: y for n, y in zip(names, primal, strict=True) if np.issubdtype(y.dtype, np.floating)}
    if case.op in FIRST_OUTPUT:
        floating = dict(list(floating.items())[:1])
    seeds = {n: np.where(np.isfinite(y), rng.standard_normal(y.shape), 0.0) for n, y in floating.items()}
    gradient = _gradient(model, seeds)
    ends = {f"cotangent_{n}": g for n, g in seeds.items()}
    with np.errstate(all="ignore"):
        results = ReferenceEvaluator(ir.to_proto(gradient), new_ops=STAND_INS).run(None, {**feeds, **ends})
    found = dict(zip(feeds, map(np.asarray, results), strict=True))

    def loss(inputs: Mapping[str, Array]) -> float:
        with np.errstate(all="ignore"):
            ran = dict(zip(names, evaluator.run(None, dict(inputs)), strict=True))
        return sum(float(np.sum(np.where(seeds[n] == 0, 0, ran[n]) * seeds[n])) for n in seeds)

    for name, x in feeds.items():
        got = found[name]
        assert got.shape == x.shape, f"the gradient of {name} has shape {got.shape}, its input {x.shape}"
        assert np.isfinite(got).all(), f"the gradient of {name} is not finite"
        direction = rng.choice([-1.0, 1.0], x.shape) * rng.uniform(0.5, 1.5, x.shape)
        ahead, behind = (loss({**feeds, name: _moved(x, sign * STEP * direction)}) for sign in (1, -1))
        want, along = (ahead - behind) / (2 * STEP), float(np.sum(got * direction))
        scale = max(abs(want), float(np.sqrt(np.sum(got**2))))
        rounding = 1e-14 * max(1.0, abs(ahead)) / STEP
        assert abs(along - want) <= 2e-6 * scale + rounding, (
            f"the gradient of {name} along a direction is {along}, not {want}"
        )
    return len(feeds)


def _feeds(case: Case, rng: np.random.Generator | None, like: Mapping[str, Array] | None = None) -> dict[str, Array]:
    """Return the data of the inputs to differentiate in float64, moved by `rng` off what they are given as."""
    feeds: dict[str, Array] = {}
    for value, array in zip(case.model.graph.input, case.inputs, strict=True):
        if not isinstance(array, (np.ndarray, np.generic, float, int, bool)):
            raise Inapplicable("an input is no tensor that NumPy holds")
        if value.type.tensor_type.elem_type not in FLOATS:
            continue
        if like is not None and value.name not in like:
            continue
        if feeds and case.op in FIRST_ALONE:
            continue
        x = np.asarray(array, np.float64)
        feeds[value.name] = x if rng is None else _moved(x, 0.01 * rng.uniform(-1, 1, x.shape))
    if not feeds:
        raise Inapplicable("no floating input")
    return feeds


def _moved(x: Array, by: Array) -> Array:
    """Return ``x + by``; infinities (masks) stay."""
    return np.where(np.isfinite(x), x + np.where(np.isfinite(x), by, 0), x)


def _prepared(case: Case, feeds: Mapping[str, Array], dtype: int) -> onnx.ModelProto:
    """Return the model of a case in one floating type, what is not in `feeds` as constants, lifted and opened."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    kept = []
    for value, array in zip(model.graph.input, case.inputs, strict=True):
        if value.name in feeds:
            kept.append(value)
        elif array is not None:
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), value.name))
    del model.graph.input[:]
    model.graph.input.extend(kept)
    settings = {name for n in model.graph.node if n.op_type in ("Resize", "Upsample") for name in n.input[1:]}
    _retype(model.graph, dtype, settings)
    model = onnx.shape_inference.infer_shapes(model)
    version = next(o for o in model.opset_import if o.domain == "")
    if version.version < MIN_OPSET:
        model = onnx.version_converter.convert_version(model, MIN_OPSET)
    model = expand(model)
    _retype(model.graph, dtype, settings)
    lacking = {node.op_type for node in model.graph.node} - set(RULES)
    if lacking:
        raise Inapplicable(f"no rule for {', '.join(sorted(lacking))}")
    return model


def _retype(graph: onnx.GraphProto, dtype: int, but: Collection[str]) -> None:
    """Turn every floating type of a graph into `dtype`, but that of the tensors named `but`."""
    kind = onnx.helper.tensor_dtype_to_np_dtype(dtype)
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type in FLOATS:
            value.type.tensor_type.elem_type = dtype
    constants = [a.t for node in graph.node for a in node.attribute if a.HasField("t")]
    for tensor in (*graph.initializer, *constants):
        if tensor.data_type in FLOATS and tensor.name not in but:
            tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor).astype(kind), tensor.name))
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name in ("value_float", "value_floats"):
                held = attribute.f if attribute.name == "value_float" else list(attribute.floats)
                tensor = onnx.numpy_helper.from_array(np.asarray(held, kind))
                attribute.CopyFrom(onnx.helper.make_attribute("value", tensor))
            if attribute.name in ("to", "dtype") and attribute.i in FLOATS:
                attribute.i = dtype


def _gradient(model: onnx.ModelProto, seeds: Mapping[str, Array]) -> ir.Model:
    """Return the model from inputs and cotangents to the gradients of the inputs."""
    made = ir.from_proto(model)
    graph = made.graph
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(made)
    common.RemoveInitializersFromInputsPass()(made)
    common.IdentityEliminationPass()(made)
    first = graph.inputs[0]
    annotate(made, first, [int(d) for d in first.shape or ()])
    ends = {value: _like(value, f"cotangent_{value.name}") for value in graph.outputs if value.name in seeds}
    wanted = list(graph.inputs)
    if not between(graph, wanted, list(ends)):
        raise Inapplicable("no floating output depends on a floating input")
    graph.inputs.extend(ends.values())
    found = sweep(graph, ends, wanted, RULES)
    graph.outputs.clear()
    for value, gradient in zip(wanted, found, strict=True):
        last = ir.node("Sub", [value, value]) if gradient is None else ir.node("Identity", [gradient])
        last.outputs[0].name = f"gradient_{value.name}"
        last.outputs[0].shape, last.outputs[0].type = value.shape, value.type
        graph.append(last)
        graph.outputs.append(last.outputs[0])
    common.RemoveUnusedNodesPass()(made)
    return made


def _like(value: ir.Value, name: str) -> ir.Value:
    """Return a new value of the same shape and type."""
    return ir.Value(name=name, shape=value.shape, type=value.type)


def _compare_forward(case: Case, results: list[Any]) -> None:
    """Assert that the float64 model computes what the case says, to the rounding of the case's own type."""
    for got, want in zip(results, case.outputs, strict=False):
        if isinstance(want, np.ndarray) and want.dtype.kind == "f" and got is not None:
            tolerance = 2e-2 if want.dtype.itemsize < 4 else 1e-3
            np.testing.assert_allclose(got, want.astype(np.float64), tolerance, tolerance)
