"""Each quantised operator's float stand-in, against ONNX Runtime's own integers and against finite differences."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pytest

from camrt.errors import ModelError
from camrt.export.live import Live, manifest_of
from camrt.export.load import load
from camrt.export.rewrites import REWRITES
from camrt.export.verify import check_gradient, run
from tests.export.integers import HEAD, STEM, quantised, twin_alone

RNG = np.random.default_rng(1)


def integers(*shape: int, dtype: str = "i1", low: int = -100, high: int = 100) -> Any:
    """Return seeded integers."""
    return RNG.integers(low, high, shape).astype(dtype)


@dataclass(frozen=True)
class Row:
    """
    A model around one operator.

    Attributes
    ----------
    name : str
        Of the row.
    body : str
        From ``q``, the stem's integers, to ``r``, integers, which `HEAD` reads; or to ``y`` itself.
    weights : dict
        Initializers of its own.
    ends : bool
        Whether `body` gives ``y`` and there is no `HEAD`.
    opset : int
        Of the default domain.
    error : float
        Largest error of a logit, relative to the largest one: ONNX Runtime's softmax divides integers.
    """

    name: str
    body: str
    weights: dict[str, Any] = field(default_factory=dict)
    ends: bool = False
    opset: int = 18
    error: float = 2e-5

    def model(self) -> bytes:
        """Return the whole model."""
        return quantised(f"{STEM} {self.body} {'' if self.ends else HEAD}", self.weights, opset=self.opset)


MS = "com.microsoft."
W = integers(4, 4, 3, 3)
SCALES = np.array([0.011, 0.004, 0.02, 0.007], "f4")
CONV = {"w": W, "ws": np.float32(0.006), "wz": np.int8(0), "b": integers(4, dtype="i4", low=-900, high=900)}
LINEAR = "fq = QuantizeLinear(f, s, z)"
POOLED = f"d0 = DequantizeLinear(q, s, z) p = GlobalAveragePool(d0) f = Flatten(p) {LINEAR}"
NHWC = "n = Transpose<perm=[0, 2, 3, 1]>(q)"
BACK = "r = Transpose<perm=[0, 3, 1, 2]>(m)"
B = integers(4, 5)
ROWS = [
    Row("conv", "r = QLinearConv<pads=[1, 1, 1, 1]>(q, s, z, w, ws, wz, t, u, b)", CONV),
    Row("conv by channel", "r = QLinearConv(q, s, z, w, ws, wz, t, u, b)", {**CONV, "ws": SCALES, "wz": np.zeros(4, "i1")}),
    Row(
        "conv of unsigned weights, strided, in groups",
        "r = QLinearConv<group=2, strides=[2, 2], pads=[1, 0, 0, 1]>(q, s, z, w, ws, wz, t, u)",
        {"w": integers(4, 2, 3, 3, dtype="u1", low=0, high=255), "ws": np.float32(0.01), "wz": np.uint8(131)},
    ),
    Row("conv, channels last", f"{NHWC} m = {MS}QLinearConv<channels_last=1>(n, s, z, w, ws, wz, t, u, b) {BACK}", CONV),
    Row(
        "conv of integers",
        "i = ConvInteger<pads=[1, 1, 1, 1]>(q, w, z, wz) v = Cast<to=1>(i) o = Mul(v, k) r = QuantizeLinear(o, t, u)",
        {"w": integers(4, 4, 3, 3, dtype="u1", low=0, high=255), "wz": np.uint8(120), "k": np.float32(0.0003)},
    ),
    Row(
        "conv of integers, dynamic",
        "v0 = DequantizeLinear(q, s, z) dq, ds, dz = DynamicQuantizeLinear(v0) i = ConvInteger(dq, w, dz) "
        "v = Cast<to=1>(i) k = Mul(ds, ws) o = Mul(v, k) r = QuantizeLinear(o, t, u)",
        {"w": W, "ws": np.float32(0.006)},
    ),
    Row("sum", f"r = {MS}QLinearAdd(q, s, z, q, ws, wz, t, u)", {"ws": np.float32(0.05), "wz": np.uint8(100)}),
    Row(
        "sum with a constant",
        f"r = {MS}QLinearAdd(q, s, z, w, ws, wz, t, u)",
        {"w": integers(4, 1, 1, dtype="u1", low=0, high=255), "ws": np.float32(0.01), "wz": np.uint8(100)},
    ),
    Row("product", f"r = {MS}QLinearMul(q, s, z, q, ws, wz, t, u)", {"ws": np.float32(0.02), "wz": np.uint8(90)}),
    Row("sigmoid", f"r = {MS}QLinearSigmoid(q, s, z, t1, u1)", {"t1": np.float32(0.03), "u1": np.uint8(70)}),
    Row("leaky relu", f"r = {MS}QLinearLeakyRelu<alpha=0.2>(q, s, z, t, u)"),
    Row("average pool", f"r = {MS}QLinearAveragePool<kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=0>(q, s, z, t, u)"),
    Row("global average", f"r = {MS}QLinearGlobalAveragePool<channels_last=0>(q, s, z, t, u)"),
    Row("global average, channels last", f"{NHWC} m = {MS}QLinearGlobalAveragePool<channels_last=1>(n, s, z, t, u) {BACK}"),
    Row(
        "concat",
        f"g = MaxPool<kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1]>(q) j = {MS}QLinearConcat<axis=2>(t, u, q, s, z, g, s, z) "
        "r = Slice(j, lo, hi, ax)",
        {"lo": np.array([4]), "hi": np.array([12]), "ax": np.array([2])},
    ),
    Row("where", f"m = Greater(c, null) r = {MS}QLinearWhere(m, q, s, z, q, ws, wz, t, u)", {"null": np.float32(0.1), "ws": np.float32(0.05), "wz": np.uint8(110)}),
    Row("softmax", f"r = {MS}QLinearSoftmax<axis=1, opset=13>(q, s, z, t1, u1)", {"t1": np.float32(0.004), "u1": np.uint8(0)}, error=1e-2),
    Row("softmax of old", f"r = {MS}QLinearSoftmax<axis=1, opset=11>(q, s, z, t1, u1)", {"t1": np.float32(0.0002), "u1": np.uint8(0)}, error=1e-2),
    Row("max pool", "r0 = MaxPool<kernel_shape=[2, 2], strides=[2, 2]>(q) d0 = DequantizeLinear(r0, s, z) r = QuantizeLinear(d0, t, u)"),
    Row("max pool, channels last", f"{NHWC} m0 = {MS}NhwcMaxPool<kernel_shape=[2, 2], strides=[2, 2]>(n) m1 = DequantizeLinear(m0, s, z) m = QuantizeLinear(m1, t, u) {BACK}"),
    Row("pad", "r0 = Pad(q, pads, fill) d0 = DequantizeLinear(r0, s, z) r = QuantizeLinear(d0, t, u)", {"pads": np.array([0, 0, 1, 0, 0, 0, 0, 2]), "fill": np.uint8(150)}),
    Row("concat of plain integers", "r0 = Concat<axis=3>(q, q) d0 = DequantizeLinear(r0, s, z) r = QuantizeLinear(d0, t, u)"),
    Row("read in another code", "d0 = DequantizeLinear(q, t, u) e = Sigmoid(d0) r = QuantizeLinear(e, t, u)"),
    Row("integers as numbers", "v = Cast<to=1>(q) v1 = Mul(v, k) r = QuantizeLinear(v1, t, u)", {"k": np.float32(0.01)}),
    Row(
        "along an axis",
        "v = DequantizeLinear(q, s, z) a = QuantizeLinear<axis=1>(v, ws, wz) e = DequantizeLinear<axis=1>(a, ws, wz) r = QuantizeLinear(e, t, u)",
        {"ws": SCALES, "wz": np.array([100, 120, 90, 128], "u1")},
    ),
    Row("16 bits", "v = DequantizeLinear(q, s, z) a = QuantizeLinear(v, k, kz) e = DequantizeLinear(a, k, kz) r = QuantizeLinear(e, t, u)", {"k": np.float32(3e-5), "kz": np.int16(-300)}, opset=21),
    Row("16 bits before opset 21", f"v = DequantizeLinear(q, s, z) a = {MS}QuantizeLinear(v, k, kz) e = {MS}DequantizeLinear(a, k, kz) r = QuantizeLinear(e, t, u)", {"k": np.float32(3e-5), "kz": np.uint16(30000)}),
    Row("weights of 4 bits", "wd = DequantizeLinear<axis=0>(w, ws) v = DequantizeLinear(q, s, z) g = Conv(v, wd) r = QuantizeLinear(g, t, u)", {"w": onnx.helper.make_tensor("w", onnx.TensorProto.INT4, (4, 4, 1, 1), integers(16, low=-8, high=8)), "ws": SCALES * 10}, opset=21),
    Row("matmul by column", f"{POOLED} o = QLinearMatMul(fq, s, z, w, ws, wz, t, u) y = DequantizeLinear(o, t, u)", {"w": B, "ws": SCALES[[0, 1, 2, 3, 0]], "wz": np.zeros(5, "i1")}, ends=True),
    Row("matmul of integers", f"{POOLED} i = MatMulInteger(fq, w, z, wz) v = Cast<to=1>(i) y = Mul(v, k)", {"w": B, "wz": np.int8(3), "k": np.float32(0.0002)}, ends=True),
    Row("matmul of integers to float", f"{POOLED} y = {MS}MatMulIntegerToFloat(fq, w, s, ws, z, wz, bh)", {"w": B, "ws": np.float32(0.01), "wz": np.int8(3)}, ends=True),
    Row("dynamic matmul", f"{POOLED} f1 = DequantizeLinear(fq, s, z) y = {MS}DynamicQuantizeMatMul(f1, w, ws, wz, bh)", {"w": B, "ws": np.float32(0.01), "wz": np.int8(3)}, ends=True),
    Row("gemm", f"{POOLED} o = {MS}QGemm<transB=1, alpha=0.5>(fq, s, z, w, ws, wz, b, t, u) y = DequantizeLinear(o, t, u)", {"w": B.T.copy(), "ws": SCALES[[0, 1, 2, 3, 0]], "wz": np.zeros(5, "i1"), "b": integers(5, dtype="i4", low=-900, high=900)}, ends=True),
    Row("gemm to float", f"{POOLED} y = {MS}QGemm(fq, s, z, w, ws, wz, b)", {"w": B, "ws": np.float32(0.01), "wz": np.int8(4), "b": integers(5, dtype="i4", low=-900, high=900)}, ends=True),
    Row("blocks of 4 bits", f"{POOLED} f1 = DequantizeLinear(fq, s, z) f2 = Concat<axis=1>(f1, f1, f1, f1, f1) y = {MS}MatMulNBits<K=20, N=5, bits=4, block_size=16>(f2, w, ws, wz)",
        {"w": integers(5, 2, 8, dtype="u1", low=0, high=256), "ws": np.abs(RNG.normal(size=10)).astype("f4") * 0.1, "wz": integers(5, 1, dtype="u1", low=0, high=256)}, ends=True),
]  # fmt: skip


@pytest.fixture(scope="module", params=ROWS, ids=lambda row: row.name)
def row(request: pytest.FixtureRequest) -> Any:
    """Return one model around one operator."""
    return request.param


def picture(n: int = 3) -> Any:
    """Return seeded images."""
    return np.random.default_rng(3).normal(size=(n, 3, 8, 8)).astype(np.float32)


def test_the_twin_gives_what_the_integers_give(row: Row) -> None:
    """ONNX Runtime's kernels are the oracle: the twin computes in float and rounds by itself."""
    x, model = picture(1), row.model()
    (want,) = run(model, {"x": x})
    (got,) = run(twin_alone(load(model)), {"x": x})
    assert np.ptp(want) > 0.05
    np.testing.assert_allclose(got, want, rtol=0, atol=row.error * np.abs(want).max())


def test_its_gradient_is_the_slope_of_the_twin_without_rounding(row: Row) -> None:
    from dataclasses import replace

    classifier = load(row.model())
    assert classifier.quantised is not None
    smooth = replace(classifier, quantised=replace(classifier.quantised, rounded={}))
    figures = check_gradient(Live(smooth, manifest_of(smooth, name="row")), "c", picture(1))
    assert "note" not in figures
    assert figures["rel_error"] <= 1e-2


def test_the_logits_are_the_given_files_to_the_bit(row: Row) -> None:
    x, model = picture(1), row.model()
    live = Live(classifier := load(model), manifest_of(classifier, name="row"))
    (want,) = run(model, {"x": x})
    for kind in ("forward", "features", "gradient"):
        program = live.program(kind, () if kind == "forward" else ("c",))
        feeds = {"x": x} | ({"target": np.array([-1])} if kind == "gradient" else {})
        got = dict(zip(program.outputs, run(program.model, feeds), strict=True))
        np.testing.assert_array_equal(got["logits"], want)


def test_every_operator_of_the_table_has_a_row() -> None:
    ops = {n.op_type for row in ROWS for n in onnx.load_from_string(row.model()).graph.node}
    assert {key.rpartition("::")[2] for key in REWRITES} <= ops


@pytest.mark.parametrize(
    ("body", "weights", "reason"),
    [
        ("k = ReduceMax(c) v = Cast<to=1>(q) r0 = QuantizeLinear(v, k, u) r = Identity(r0)", {}, "'k' is computed at run time"),
        ("r = Clip(q, lo, hi)", {"lo": np.uint8(3), "hi": np.uint8(200)}, "Clip at node 'odd'"),
        ("r = Pad(q, pads, q)", {"pads": np.zeros(8, "i8")}, "its operand 2 is quantised"),
    ],
)  # fmt: skip
def test_what_is_not_known_is_refused_by_node_and_reason(body: str, weights: dict[str, Any], reason: str) -> None:
    named = body.replace("r = Clip", "[odd] r = Clip")
    with pytest.raises(ModelError, match=r"quantised operator .* at node .* has no float twin") as error:
        load(quantised(f"{STEM} {named} {HEAD}", weights))
    assert reason in str(error.value)
