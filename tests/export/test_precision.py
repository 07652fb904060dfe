"""Half precision: the twin computes in float32 what the same weights give there, and takes pictures as the model does."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from camrt.export.live import open_model
from camrt.export.load import load
from camrt.export.precision import widen
from camrt.export.verify import check_parity, run
from tests.export.onnx_text import CONV, HEAD, TINY, classifier, tiny

KINDS = {"float16": (TensorProto.FLOAT16, np.float16), "bfloat16": (TensorProto.BFLOAT16, ml_dtypes.bfloat16)}
EXACT = {name: np.random.default_rng(i).integers(-8, 9, shape) / 8 for i, (name, shape) in enumerate(TINY.items())}
X = np.random.default_rng(9).normal(size=(3, 3, 8, 8)).astype(np.float32)


def half(kind: str, *, io: bool, **options: Any) -> bytes:
    """Return the tiny classifier in half precision, its weights exact in every type; `io` also at its ends."""
    code, dtype = KINDS[kind]
    body = f"{CONV} {HEAD}" if io else f"h = Cast<to={code}>(x) {CONV.replace('(x,', '(h,')} {HEAD} z = Cast<to=1>(y)"
    ends = {"x": f"{kind}[N,3,8,8] x", "y": f"{kind}[N,5] y"} if io else {"y": "float[N,5] z"}
    model = onnx.load_from_string(tiny(body, **ends, **options))
    for tensor in model.graph.initializer:
        array = EXACT[tensor.name].astype(dtype)
        tensor.CopyFrom(helper.make_tensor(tensor.name, code, array.shape, array.tobytes(), raw=True))
    return bytes(model.SerializeToString())


def single() -> bytes:
    """Return the same classifier in float32."""
    return tiny(weights={name: array.astype(np.float32) for name, array in EXACT.items()})


def programs(data: bytes, kind: str, feeds: dict[str, Any], layer: bool = False) -> dict[str, Any]:
    """Run a program and return its outputs by name."""
    live = open_model(data)
    program = live.program(kind, [live.manifest.default_layer.name] if layer else [])
    assert isinstance(program.model, bytes)
    return dict(zip(program.outputs, run(program.model, feeds), strict=True))


@pytest.mark.parametrize("io", [True, False], ids=["ends_too", "inside"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_twin_gives_what_the_same_weights_give_in_float32(kind: str, io: bool) -> None:
    """The picture is rounded as the model rounds it; from there on both are the same float32 network."""
    data, rounded = half(kind, io=io), X.astype(KINDS[kind][1]).astype(np.float32)
    fed = X.astype(np.float16) if io and kind == "float16" else X
    seen = X if not io else rounded
    seed = np.eye(5, dtype=np.float32)[:3]
    for program, layer, more in (
        ("gradient", True, {"target": np.array([0, 1, -1])}),
        ("input_gradient", False, {"seed": seed}),
    ):
        got = programs(data, program, {"x": fed, **more}, layer)
        want = programs(single(), program, {"x": seen, **more}, layer)
        assert list(got) == list(want)
        for name, array in want.items():
            assert got[name].dtype == array.dtype
            np.testing.assert_allclose(got[name], array, rtol=0, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_says_what_it_was(kind: str) -> None:
    live = open_model(half(kind, io=True))
    assert live.manifest.model["precision"] == live.classifier.precision == kind
    assert live.manifest.input["dtype"] == ("float16" if kind == "float16" else "float32")
    assert load(single()).precision == "float32"


def test_the_twin_of_a_float16_model_agrees_with_it() -> None:
    live = open_model(half("float16", io=True))
    assert 0 < check_parity(live.classifier, live, X.astype(np.float16))["max_rel"] <= 5e-3  # 11 bits a rounding


def test_gradients_too_small_for_float16_survive() -> None:
    """A mean over many cells and a small last weight: 1e-8 is below the smallest float16, 6e-8."""
    data = half("float16", io=True)
    model = onnx.load_from_string(data)
    scale = helper.make_tensor("tiny", TensorProto.FLOAT16, [], np.float16(1e-7).tobytes(), raw=True)
    model.graph.initializer.append(scale)
    model.graph.node.append(helper.make_node("Mul", ["y", "tiny"], ["z"]))
    model.graph.output[0].name = "z"
    g = programs(
        model.SerializeToString(), "gradient", {"x": X.astype(np.float16), "target": np.array([0, 1, 2])}, True
    )
    want = programs(
        single(), "gradient", {"x": X.astype(np.float16).astype(np.float32), "target": np.array([0, 1, 2])}, True
    )
    factor = np.float32(np.float16(1e-7))
    assert np.abs(g["gradients.0"]).max() < 6e-8
    np.testing.assert_allclose(g["gradients.0"], want["gradients.0"] * factor, rtol=1e-5)


def test_weights_stored_in_half_alone_are_the_same_numbers() -> None:
    """float16 weights, each cast before it is used: a smaller file of a float32 model."""
    casts = " ".join(f"{name} = Cast<to=1>({name}_16)" for name in TINY)
    stored = {f"{name}_16": array.astype(np.float16) for name, array in EXACT.items()}
    model = classifier(f"{casts} {CONV} {HEAD}", stored)
    got = programs(model.SerializeToString(), "forward", {"x": X})
    np.testing.assert_array_equal(got["logits"], programs(single(), "forward", {"x": X})["logits"])


def test_a_float32_model_is_left_alone() -> None:
    model = onnx.load_from_string(single())
    before = model.SerializeToString()
    assert widen(model) == ""
    assert model.SerializeToString() == before
