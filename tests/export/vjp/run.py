"""Run gradients in float32 on ONNX Runtime, where a test wants numbers at a kink rather than finite differences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime

from camrt.export.backward import sweep
from camrt.export.load import load
from camrt.export.programs import build
from camrt.export.vjp import RULES
from camrt.export.vjp.emit import Emit, dims

__all__ = ["emitted", "gradients", "in_program"]

Array = np.ndarray[Any, Any]


def gradients(
    op: str,
    inputs: Sequence[Any],
    attributes: Mapping[str, Any] | None = None,
    *,
    wrt: Sequence[int] = (0,),
    opset: int = 18,
) -> list[Any]:
    """Return the gradients of the sum of the first result of one node with respect to some inputs; None for none."""
    names = [f"input_{i}" for i in range(len(inputs))]
    node = onnx.helper.make_node(op, names, ["y"], name="the_node", **(attributes or {}))
    values, constants = [], []
    for i, (name, array) in enumerate(zip(names, map(np.asarray, inputs), strict=True)):
        if i in wrt:
            kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
            values.append(onnx.helper.make_tensor_value_info(name, kind, array.shape))
        else:
            constants.append(onnx.numpy_helper.from_array(array, name))
    y = onnx.helper.make_empty_tensor_value_info("y")
    graph = onnx.helper.make_graph([node], "one_node", values, [y], constants)
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=10)
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto, strict_mode=True))
    result = model.graph.outputs[0]
    sizes = [] if result.shape is None else [d for d in dims(result) if isinstance(d, int)]
    ones = np.ones(sizes, (result.dtype or ir.DataType.FLOAT).numpy())
    seed = Emit(model.graph, "seed").const(ones)
    found = sweep(model.graph, {result: seed}, list(model.graph.inputs), RULES)
    model.graph.outputs[:] = [value for value in found if value is not None]
    arrays = iter(_run(model, {f"input_{i}": np.asarray(inputs[i]) for i in wrt}))
    return [None if value is None else next(arrays) for value in found]


def emitted(x: Array, write: Callable[[Emit, ir.Value], ir.Value]) -> Array:
    """Return what the nodes that `write` emits for an input make of `x`."""
    value = ir.Value(name="x", shape=ir.Shape(x.shape), type=ir.TensorType(ir.DataType.from_numpy(x.dtype)))
    graph = ir.Graph([value], [], nodes=[], opset_imports={"": 18}, name="emitted")
    graph.outputs.append(write(Emit(graph), value))
    return _run(ir.Model(graph, ir_version=10), {"x": x})[0]


def in_program(model: onnx.ModelProto, x: Array, seed: Array) -> tuple[Array, Counter[str]]:
    """Return the gradient at the image of a whole model, and the operators of the program."""
    program, _ = build(load(model.SerializeToString()), "input_gradient")
    names = [value.name for value in program.graph.outputs]
    found = dict(zip(names, _run(program, {"x": x, "seed": seed}), strict=True))
    return found["input_gradient"], Counter(node.op_type for node in program.graph)


def _run(model: ir.Model, feeds: Mapping[str, Array]) -> list[Array]:
    """Run `model` on one thread of the CPU."""
    if not model.graph.outputs:
        return []
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    data = ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return [np.asarray(y) for y in session.run(None, dict(feeds))]
