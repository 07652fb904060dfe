"""How integers stand for numbers: ranges and decoding, against onnx's own reference."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from onnx.reference.ops.op_dequantize_linear import DequantizeLinear_21

from camrt.errors import ModelError
from camrt.export.codes import Code, Rewriter, refused


def decoded(code: Code, q: Any) -> Any:
    """Run onnx's reference of DequantizeLinear."""
    node = ir.node("DequantizeLinear", [], {"axis": code.axis})
    run_params = {"log": lambda *_: None, "opsets": {"": 21}, "verbose": 0, "new_ops": None, "existing_functions": {}}
    return DequantizeLinear_21(ir.serde.serialize_node(node), run_params).run(q, code.scale, code.zero_point)[0]


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint4", "int4"])
def test_the_range_ends_at_the_first_and_last_integer(dtype: str) -> None:
    kind = np.dtype(getattr(ml_dtypes, dtype) if dtype.endswith("nt4") else dtype)
    limits = ml_dtypes.iinfo(kind)
    code = Code(np.float32(0.37)[()].reshape(()), np.array(3, kind), ir.DataType.from_numpy(kind))
    ends = decoded(code, np.array([limits.min, limits.max]).astype(kind))
    np.testing.assert_array_equal(np.stack(code.range), ends)


def test_decoding_is_the_references(rng: np.random.Generator) -> None:
    code = Code(np.array([0.5, 0.25, 2], "f4"), np.array([3, -4, 0], "i1"), ir.DataType.INT8, axis=1)
    q = rng.integers(-128, 128, (2, 3, 4, 5)).astype("i1")
    np.testing.assert_array_equal(code.decode(q), decoded(code, q))


def test_codes_are_alike_by_what_their_integers_stand_for() -> None:
    def code(scale: Any, zero: Any, axis: int = 0) -> Code:
        return Code(np.asarray(scale, "f4"), np.asarray(zero, "u1"), ir.DataType.UINT8, axis)

    assert code(0.5, 3, axis=0) == code(0.5, 3, axis=1)
    assert code([0.5, 1], [3, 3], axis=0) != code([0.5, 1], [3, 3], axis=1)
    assert code(0.5, 3) != code(0.5, 4)
    assert code(0.5, 3) != code(0.25, 3)


@pytest.mark.parametrize(("held", "wanted"), [((0.5, 3), (0.25, 7)), ((0.1, 0), (1.0, 0)), ((1.0, 0), (0.03, 128))])
def test_numbers_of_one_code_become_those_of_another(held: Any, wanted: Any) -> None:
    """The integers stay: what they stand for is an affine function of what they stood for."""
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 21})
    rewriter = Rewriter(graph, (), ())
    q = np.arange(0, 256, 5).astype("u1")
    before, after = (Code(np.asarray(s, "f4"), np.asarray(z, "u1"), ir.DataType.UINT8) for s, z in (held, wanted))
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([len(q)]))
    graph.inputs.append(x)
    rewriter.codes[x] = before
    made = rewriter.moved(ir.node("Identity", [x], name="n"), x, after)
    made.type = ir.TensorType(ir.DataType.FLOAT)
    made.shape = x.shape
    graph.outputs.append(made)
    import onnxruntime

    model = ir.to_proto(ir.Model(graph, ir_version=10)).SerializeToString()
    (got,) = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(
        None, {"x": before.decode(q).astype("f4")}
    )
    np.testing.assert_allclose(got, after.decode(q), rtol=1e-5, atol=1e-5)


def test_a_refusal_names_operator_node_reason_and_a_way_out() -> None:
    error = refused(ir.node("QAttention", [], domain="com.microsoft", name="block0/attention"), "it is new")
    assert isinstance(error, ModelError)
    assert str(error).startswith("quantised operator com.microsoft::QAttention at node 'block0/attention'")
    assert "it is new" in str(error)
    assert "QuantizeLinear and DequantizeLinear pairs" in str(error)
