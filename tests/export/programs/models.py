"""Small classifiers for the tests of programs: every layout, ways around a layer, a softmax at the end."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from camrt.export.live import Live, open_model
from camrt.export.manifest import Program
from camrt.export.programs.draft import Draft
from tests.export.judge import run_program
from tests.export.onnx_text import CONV, HEAD, tiny, tokens

__all__ = ["EVERY_LAYER", "MODELS", "SCORES", "SEED", "TARGET", "behind", "finished", "picture"]

Array = np.ndarray[Any, Any]

LAST = (
    "t = Transpose<perm=[0, 3, 1, 2]>(x) c = Conv<pads=[1, 1, 1, 1]>(t, w1, b1) u = Transpose<perm=[0, 2, 3, 1]>(c) "
    "a = Sigmoid(u) axes = Constant<value_ints=[1, 2]>() f = ReduceMean<keepdims=0>(a, axes) y = Gemm(f, w2, b2)"
)
RESIDUAL = (
    f"{CONV} b = Conv<pads=[1, 1, 1, 1]>(a, w3) d = Sigmoid(b) e = Add(d, a) k = Mul(e, c) {HEAD.replace('(a)', '(k)')}"
)
CELL = f"{CONV} p = GlobalAveragePool(a) q = Conv(p, w4) y = Softmax<axis=1>(q)"
MODELS = {
    "plain": tiny(),
    "channels_last": tiny(LAST, x="float[N,8,8,3] x"),
    "residual": tiny(RESIDUAL, weights={"w3": (4, 4, 3, 3)}),
    "softmax": tiny(CELL, y="float[N,5,1,1] y", weights={"w4": (5, 4, 1, 1)}),
    "tokens": tokens(),
    "heads": tokens(heads=2),
    "no_class_token": tokens(cls=False),
}
SCORES = dict.fromkeys(MODELS, "y") | {"softmax": "q"}
TARGET = np.array([3, 0, 4])
SEED = np.eye(5, dtype=np.float32)[TARGET]


def picture(live: Live, n: int = 3) -> Array:
    """Return a seeded batch of images."""
    shape = [n, *live.manifest.input["shape"][1:]]
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def behind(live: Live, layer: str, x: Array | None = None) -> dict[str, Array]:
    """Return what a program that starts at a layer is fed, by the names `run_program` takes."""
    features = run_program(live.program("features", [layer]), x=picture(live) if x is None else x)
    return {name.replace(".", "__"): array for name, array in features.items() if name != "logits"}


def finished(draft: Draft) -> Program:
    """Return a draft as a program that can be run, checked by onnx."""
    model = ir.to_proto(draft.finish("drafted"))
    onnx.checker.check_model(model, full_check=True)
    return Program("drafted", (), tuple(draft.inputs), tuple(draft.outputs), model.SerializeToString())


def cases() -> list[Any]:
    """Return every layer of every model."""
    return [
        pytest.param(name, layer.name, id=f"{name}-{layer.name}")
        for name, data in MODELS.items()
        for layer in open_model(data).manifest.layers
    ]


EVERY_LAYER = pytest.mark.parametrize(("name", "layer"), cases())
