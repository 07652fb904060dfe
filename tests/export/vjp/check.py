"""
Check one gradient rule: a one-node model in, an assertion that its gradient is right out.

The gradient graph that the sweep builds is evaluated in float64 and compared with central finite differences of the
forward node (or with torch's float64 autograd, where the ONNX reference evaluator is wrong or slow); the float32 graph
runs on ONNX Runtime and is compared with that; the float16 graph must pass the ONNX checker. Every emitted graph is
also searched for what execution providers for GPUs do not run.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import torch
from onnx.reference import ReferenceEvaluator
from onnx_ir.passes import common

import camrt.export.vjp
from camrt.export.backward import sweep
from camrt.export.vjp.table import RULES, op_key
from tests.export.gpu_lint import added_offences
from tests.export.vjp.oracle import STAND_INS, tensor

__all__ = ["Checked", "check_rule", "spaced"]

Array = np.ndarray[Any, Any]
assert camrt.export.vjp  # its import fills RULES


@dataclass(frozen=True)
class Checked:
    """What a rule gave: float64 gradients of the `wrt` inputs, and the operators it emitted, in order."""

    gradients: list[Array]
    ops: list[str]


def spaced(rng: np.random.Generator, *shape: int) -> Array:
    """Return values in (-1, 1), none closer to another or to 0 than 1 / (2 * size): far from every kink."""
    size = int(np.prod(shape))
    return np.asarray((2 * rng.permutation(size) + 1 - size + 0.5) / size).reshape(shape)


def check_rule(
    op: str,
    inputs: Sequence[Array | None],
    *,
    attributes: Mapping[str, Any] | None = None,
    wrt: Sequence[int] = (0,),
    runtime: Collection[int] = (),
    opset: int = 18,
    outputs: int = 1,
    cotangents: Sequence[int] | None = None,
    symbolic_batch: bool | Collection[int] = True,
    domain: str = "",
    tol: float = 1e-6,
    tol32: float = 2e-4,
    torch_forward: Callable[..., Any] | None = None,
    float32: bool = True,
    float16: bool = True,
    rng: np.random.Generator | None = None,
) -> Checked:
    """
    Assert that the rule of `op` gives the gradient of `op`.

    Parameters
    ----------
    op : str
        Operator type.
    inputs : sequence of ndarray or None
        The node's inputs; floating arrays of any width, turned into the type under test; None for an absent one.
    attributes : mapping, optional
        The node's attributes.
    wrt : sequence of int, default (0,)
        Inputs that are graph inputs and differentiated; the others become initializers.
    runtime : collection of int, default ()
        Inputs that are graph inputs but not differentiated.
    opset : int, default 18
        Opset of the default domain.
    outputs : int, default 1
        How many outputs the node has.
    cotangents : sequence of int, optional
        Outputs that receive a random cotangent; default the first alone, or all floating ones for rules that take
        every output's.
    symbolic_batch : bool or collection of int, default True
        The graph inputs whose first dimension is the symbol "N": all of `wrt` and `runtime`, none, or those listed.
    domain : str, default ""
        Domain of `op`.
    tol, tol32 : float
        Largest error of the float64 gradient against finite differences or autograd, and of float32 against float64,
        relative to the largest gradient.
    torch_forward : callable, optional
        The same function on float64 torch tensors (one an input, None for an absent one), returning the output or a
        tuple of them; where given, its autograd is the oracle in place of finite differences.
    float32, float16 : bool, default True
        Run the float32 graph on ONNX Runtime; run the checker over the float16 graph.
    rng : Generator, optional
        For cotangents and directions; a fixed seed by default.

    Returns
    -------
    Checked
        The float64 gradients and the emitted operators.
    """
    rng = rng or np.random.default_rng(2026)  # not the seed of the inputs, which would repeat them
    case = _Case(op, inputs, dict(attributes or {}), tuple(wrt), tuple(runtime), opset, outputs, symbolic_batch, domain)
    forward = case.forward(np.dtype(np.float64))
    feeds = case.feeds(np.dtype(np.float64))
    primal = (
        _reference(forward, feeds) if torch_forward is None else _torch_outputs(torch_forward, case.cast(np.float64))
    )
    if cotangents is None:
        rule = RULES[op if domain in ("", "ai.onnx") else f"{domain}::{op}"]
        floating = [i for i, y in enumerate(primal) if np.issubdtype(y.dtype, np.floating)]
        cotangents = floating if rule.every_output else [0]
    seeds = {i: np.asarray(rng.standard_normal(primal[i].shape)) for i in cotangents}

    model, ops = case.gradient(np.dtype(np.float64), seeds, cut=torch_forward is not None)
    known = {f"output_{i}": y for i, y in enumerate(primal)}
    gradients = _reference(
        model, {**feeds, **{v.name: known[v.name] for v in model.graph.input if v.name in known}}, seeds
    )
    for index, gradient in zip(wrt, gradients, strict=True):
        assert gradient.shape == np.asarray(inputs[index]).shape, (
            f"gradient of input {index} has shape {gradient.shape}"
        )
        assert np.isfinite(gradient).all(), f"gradient of input {index} is not finite"
    if torch_forward is None:
        _compare_differences(forward, feeds, seeds, case.wrt, gradients, tol, rng)
    else:
        _compare_autograd(torch_forward, case, seeds, gradients, tol)
    if float32:
        _compare_float32(case, seeds, primal, gradients, tol32)
    if float16:
        half, _ = case.gradient(np.dtype(np.float16), seeds)
        onnx.checker.check_model(half, full_check=True)
    return Checked(gradients, ops)


@dataclass(frozen=True)
class _Case:
    """One node with its inputs, as a model of any floating type."""

    op: str
    inputs: Sequence[Array | None]
    attributes: dict[str, Any]
    wrt: tuple[int, ...]
    runtime: tuple[int, ...]
    opset: int
    outputs: int
    symbolic_batch: bool | Collection[int]
    domain: str

    def cast(self, dtype: Any) -> list[Array | None]:
        """Return the inputs, floating ones as `dtype`."""
        arrays = [None if a is None else np.asarray(a) for a in self.inputs]
        return [a.astype(dtype) if a is not None and np.issubdtype(a.dtype, np.floating) else a for a in arrays]

    def feeds(self, dtype: np.dtype[Any]) -> dict[str, Array]:
        """Return the arrays of the graph inputs."""
        arrays = self.cast(dtype)
        return {f"input_{i}": a for i in (*self.wrt, *self.runtime) if (a := arrays[i]) is not None}

    def forward(self, dtype: np.dtype[Any]) -> onnx.ModelProto:
        """Return the one-node model, shapes inferred."""
        arrays = self.cast(dtype)
        names = ["" if a is None else f"input_{i}" for i, a in enumerate(arrays)]
        fed = sorted({*self.wrt, *self.runtime})
        symbolic = fed if self.symbolic_batch is True else self.symbolic_batch or ()
        results = [f"output_{i}" for i in range(self.outputs)]
        node = onnx.helper.make_node(self.op, names, results, name="the_node", domain=self.domain, **self.attributes)
        values, constants = [], []
        for i, (name, array) in enumerate(zip(names, arrays, strict=True)):
            if array is not None and i in fed:
                shape = ["N" if axis == 0 and i in symbolic else d for axis, d in enumerate(array.shape)]
                values.append(
                    onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), shape)
                )
            elif array is not None:
                constants.append(onnx.numpy_helper.from_array(array, name))
        empty = [onnx.helper.make_empty_tensor_value_info(name) for name in results]
        graph = onnx.helper.make_graph([node], "one_node", values, empty, constants)
        domains = [onnx.helper.make_opsetid("", self.opset)]
        domains += [onnx.helper.make_opsetid(self.domain, 1)] if self.domain else []
        model = onnx.helper.make_model(graph, opset_imports=domains, ir_version=10)
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        for value in inferred.graph.output:  # GroupNormalization has no inference: the output is like the first input
            if not value.type.WhichOneof("value"):
                value.type.CopyFrom(inferred.graph.input[0].type)
        return inferred

    def gradient(
        self, dtype: np.dtype[Any], seeds: Mapping[int, Array], cut: bool = False
    ) -> tuple[onnx.ModelProto, list[str]]:
        """
        Return the model from inputs and cotangents to gradients of the `wrt` inputs, and the emitted operators.

        With `cut`, the node's outputs are graph inputs too, so that the node itself is not run.
        """
        model = ir.from_proto(self.forward(dtype))
        graph = model.graph
        ends = {}
        for i in seeds:
            output = graph.outputs[i]
            ends[output] = ir.Value(name=f"cotangent_{i}", shape=output.shape, type=output.type)
            graph.inputs.append(ends[output])
        values = {value.name: value for value in graph.inputs}
        wanted = [values[f"input_{i}"] for i in self.wrt]
        found = sweep(graph, ends, wanted, RULES)
        emitted = [node for node in graph if (node.name or "").startswith("grad/")]
        refused = added_offences(emitted, [graph.node("the_node")])
        assert not refused, "; ".join(refused)
        graph.outputs.clear()
        for i, value, gradient in zip(self.wrt, wanted, found, strict=True):
            if gradient is None:  # nothing flows back: a tensor of zeros
                zero = ir.tensor(np.zeros((), dtype), name=f"zero_{i}")
                constant = ir.Value(name=f"zero_{i}", shape=ir.Shape(()), type=value.type, const_value=zero)
                graph.register_initializer(constant)
                last = ir.node("Mul", [value, constant], name=f"nothing_{i}")
            else:
                last = ir.node("Identity", [gradient], name=f"result_{i}")
            last.outputs[0].name, last.outputs[0].type = f"gradient_{i}", value.type
            last.outputs[0].shape = value.shape
            graph.append(last)
            graph.outputs.append(last.outputs[0])
        ops = [op_key(node) for node in emitted]
        if cut:
            for i, output in enumerate(graph.node("the_node").outputs):
                given = ir.Value(name=f"output_{i}", shape=output.shape, type=output.type)
                output.name = f"not_run_{i}"
                ir.convenience.replace_all_uses_with(output, given)
                graph.inputs.append(given)
        common.RemoveUnusedNodesPass()(model)  # the forward node, where the gradient does not read its output
        return ir.to_proto(model), ops


def _reference(
    model: onnx.ModelProto, feeds: Mapping[str, Array], seeds: Mapping[int, Array] | None = None
) -> list[Array]:
    """Check `model` and run it in the reference evaluator."""
    onnx.checker.check_model(model, full_check=True)
    evaluator = ReferenceEvaluator(model, new_ops=STAND_INS)
    with np.errstate(all="ignore"):
        results = evaluator.run(None, {**feeds, **{f"cotangent_{i}": g for i, g in (seeds or {}).items()}})
    return [np.asarray(y) for y in results]


def _tensors(arrays: Sequence[Array | None], wrt: Collection[int]) -> list[torch.Tensor | None]:
    """Return torch tensors, those of `wrt` with gradients."""
    tensors = [None if a is None else tensor(a) for a in arrays]
    return [t.requires_grad_() if t is not None and i in wrt else t for i, t in enumerate(tensors)]


def _as_tuple(result: Any) -> tuple[torch.Tensor, ...]:
    """Return `result` as a tuple of tensors."""
    return tuple(result) if isinstance(result, (tuple, list)) else (result,)


def _torch_outputs(function: Callable[..., Any], arrays: Sequence[Array | None]) -> list[Array]:
    """Run the torch oracle without gradients."""
    return [y.detach().numpy() for y in _as_tuple(function(*_tensors(arrays, ())))]


def _compare_autograd(
    function: Callable[..., Any], case: _Case, seeds: Mapping[int, Array], gradients: Sequence[Array], tol: float
) -> None:
    """Compare with torch's autograd in float64."""
    tensors = _tensors(case.cast(np.float64), case.wrt)
    results = _as_tuple(function(*tensors))
    total = sum((results[i] * tensor(g)).sum() for i, g in seeds.items())
    wanted = torch.autograd.grad(total, [t for i in case.wrt if (t := tensors[i]) is not None])  # type: ignore[arg-type]
    for index, got, want in zip(case.wrt, gradients, wanted, strict=True):
        error = np.abs(got - want.numpy()).max() / max(np.abs(want.numpy()).max(), 1e-300)
        assert error <= tol, f"gradient of input {index} is off by {error:.2g} from torch's autograd"


def _compare_differences(
    forward: onnx.ModelProto,
    feeds: Mapping[str, Array],
    seeds: Mapping[int, Array],
    wrt: Sequence[int],
    gradients: Sequence[Array],
    tol: float,
    rng: np.random.Generator,
) -> None:
    """Compare with central differences: along every element of small inputs, along random directions otherwise."""
    for index, gradient in zip(wrt, gradients, strict=True):
        name = f"input_{index}"
        x = feeds[name]
        if x.size <= 32:
            directions = list(np.eye(x.size).reshape(x.size, *x.shape))
        else:
            directions = list(rng.choice([-1.0, 1.0], (4, *x.shape)))
        scale = max(float(np.sqrt(np.sum(gradient**2))), 1e-6)
        for direction in directions:
            step = 1e-5
            ahead = _reference(forward, {**feeds, name: x + step * direction})
            behind = _reference(forward, {**feeds, name: x - step * direction})
            want = sum(float(np.sum((ahead[i] - behind[i]) * g)) for i, g in seeds.items()) / (2 * step)
            got = float(np.sum(gradient * direction))
            error = abs(got - want) / max(abs(want), scale)
            assert error <= tol, f"gradient of input {index} is off by {error:.2g} from finite differences"


def _compare_float32(
    case: _Case, seeds: Mapping[int, Array], primal: Sequence[Array], gradients: Sequence[Array], tol: float
) -> None:
    """Run forward and gradient in float32 on ONNX Runtime and compare both with float64."""
    dtype = np.dtype(np.float32)
    feeds = case.feeds(dtype)
    for got, want in zip(_onnxruntime(case.forward(dtype), feeds), primal, strict=True):
        assert got.shape == want.shape, f"the oracle's forward has shape {want.shape}, ONNX Runtime's {got.shape}"
        close = np.allclose(got, want, rtol=0, atol=tol * max(1e-30, float(np.abs(want).max(initial=0))))
        assert close, "ONNX Runtime's forward differs from the oracle's: the test compares different functions"
    model, _ = case.gradient(dtype, seeds)
    results = _onnxruntime(model, {**feeds, **{f"cotangent_{i}": g.astype(dtype) for i, g in seeds.items()}})
    for index, got, want in zip(case.wrt, results, gradients, strict=True):
        error = np.abs(got - want).max(initial=0) / max(np.abs(want).max(initial=0), 1e-30)
        assert got.shape == want.shape, f"float32 gradient of input {index} has shape {got.shape}, wanted {want.shape}"
        assert error <= tol, f"float32 gradient of input {index} is off by {error:.2g} from float64"


def _onnxruntime(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    """Run `model` on ONNX Runtime's CPU provider, one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [np.asarray(y) for y in session.run(None, dict(feeds))]
