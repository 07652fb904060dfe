"""Small classifiers for the tests of other propagations, and how their programs are run from the layer."""

from __future__ import annotations

from typing import Any

import numpy as np

from camrt.export.live import Live
from tests.export.judge import run_program
from tests.export.onnx_text import CONV, tiny

__all__ = ["CHAIN", "MODELS", "SEED", "behind", "picture", "tail"]

Array = np.ndarray[Any, Any]

GAP = "p = GlobalAveragePool({0}) f = Flatten(p) y = Gemm(f, w2, b2)"
CHAIN = (
    f"{CONV} d = Conv<pads=[1, 1, 1, 1], strides=[2, 2]>(a, w3, b3) e = Relu(d) "
    "h = MaxPool<kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]>(e) " + GAP.format("h")
)
_BODIES = {
    "gap": f"{CONV} {GAP.format('a')}",
    "chain": CHAIN,
    "average": f"{CONV} d = Conv(a, w3, b3) e = Clip(d, low, high) h = AveragePool<kernel_shape=[2, 2]>(e) {GAP.format('h')}",
    "branches": f"{CONV} d = Conv<pads=[1, 1, 1, 1]>(a, w3, b3) e = Relu(d) h = Add(a, e) {GAP.format('h')}",
    "normal": f"{CONV} n = BatchNormalization(a, scale, shift, mean, variance) d = Conv(n, w3) e = LeakyRelu<alpha=0.1>(d) {GAP.format('e')}",
    "scaled": (
        f"{CONV} k = Mul(a, half) d = Conv(k, w3) e = Relu(d) axes = Constant<value_ints=[2, 3]>() "
        "p = ReduceMean<keepdims=0>(e, axes) o = MatMul(p, w2) y = Add(o, b2)"
    ),
    "joined": (
        f"{CONV} l, r = Split<axis=1, num_outputs=2>(a) q = Concat<axis=1>(r, l) d = Conv(q, w3) e = Relu(d) "
        "h = MaxPool<kernel_shape=[2, 2], strides=[2, 2]>(e) z = Transpose<perm=[0, 2, 3, 1]>(h) f = Flatten(z) "
        "y = MatMul(f, w9)"
    ),
}
WEIGHTS = {
    "w3": (4, 4, 3, 3), "b3": (4,), "w9": (36, 5), "half": np.float32(0.5), "low": np.float32(0), "high": np.float32(6),
    "scale": (4,), "shift": (4,), "mean": (4,), "variance": np.float32([0.5, 1, 2, 0.1]),
}  # fmt: skip
MODELS = {name: tiny(body, weights=WEIGHTS) for name, body in _BODIES.items()}
SEED = np.random.default_rng(5).normal(size=(3, 5)).astype(np.float32)


def picture(live: Live, n: int = 3) -> Array:
    """Return a seeded batch of images."""
    return np.random.default_rng(1).normal(size=[n, *live.manifest.input["shape"][1:]]).astype(np.float32)


def behind(live: Live, layer: str) -> dict[str, Array]:
    """Return what a program that starts at a layer is fed, by the names `run_program` takes."""
    features = run_program(live.program("features", [layer]), x=picture(live))
    return {name.replace(".", "__"): array for name, array in features.items() if name != "logits"}


def tail(live: Live, layer: str, feeds: dict[str, Array]) -> Array:
    """Return the logits that activations lead to."""
    return run_program(live.program("tail", [layer]), **feeds)["logits"]
