"""Models for tests, written in ONNX's own text syntax; weights are given as arrays or drawn from a fixed seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx.parser

__all__ = ["CONV", "HEAD", "TINY", "classifier", "tiny", "tokens"]

CONV = "[stem] c = Conv<pads=[1, 1, 1, 1]>(x, w1, b1)  [act] a = Relu(c)"
HEAD = "[pool] p = GlobalAveragePool(a)  [flat] f = Flatten(p)  [head] y = Gemm(f, w2, b2)"
TINY = {"w1": (4, 3, 3, 3), "b1": (4,), "w2": (4, 5), "b2": (5,)}


def classifier(
    body: str,
    weights: Mapping[str, Any],
    *,
    x: str = "float[N,3,8,8] x",
    y: str = "float[N,5] y",
    opset: int = 18,
    seed: int = 0,
) -> onnx.ModelProto:
    """
    Return a checked model.

    Parameters
    ----------
    body : str
        Its nodes.
    weights : mapping of str to array or tuple
        Initializers; a tuple is a shape that gets normal random float32 numbers.
    x, y : str
        Its inputs and outputs.
    opset : int, default 18
        Of the default domain.
    seed : int, default 0
        Of the random weights.
    """
    rng = np.random.default_rng(seed)
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": {opset}], producer_name: "hand"> tiny ({x}) => ({y}) {{ {body} }}'
    )
    for name, value in weights.items():
        array = rng.normal(size=value).astype(np.float32) if isinstance(value, tuple) else np.asarray(value)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.checker.check_model(model)
    return model


def tiny(body: str = f"{CONV} {HEAD}", **options: Any) -> bytes:
    """Return the serialised classifier conv -> ReLU -> average -> linear, or another body over the same weights."""
    return classifier(body, {**TINY, **options.pop("weights", {})}, **options).SerializeToString()


def tokens(blocks: int = 2, *, heads: int = 1, width: int = 6, cls: bool = True) -> bytes:
    """
    Return a small vision transformer: 16 patches of 2x2, a class token, pre-norm attention without a second layer.

    Parameters
    ----------
    blocks : int, default 2
        How many; block i reads ``n{i}``, the normalised residual stream ``t{i}``.
    heads : int, default 1
        With one, scores are (N, T, T); with more, (N, heads, T, T).
    width : int, default 6
        Of a token.
    cls : bool, default True
        Whether a class token is read by the head; without it, the mean of all patches.
    """
    length, part = 16 + cls, width // heads
    weights: dict[str, Any] = {
        "wp": (width, 3, 2, 2), "cls": (1, 1, width), "one": np.float32(1), "scale": np.float32(part**-0.5),
        "flat": np.array([0, width, 16]), "split": np.array([0, length, heads, part]),
        "join": np.array([0, length, width]), "first": np.array(0), "g": (width,), "z": (width,), "wh": (width, 5),
        "bh": (5,), "row": np.array([1, 1]), "patches": np.array([1]),
    }  # fmt: skip
    lines = ["e = Conv<strides=[2, 2]>(x, wp) r = Reshape(e, flat) u = Transpose<perm=[0, 2, 1]>(r)"]
    lines += [
        "s = Shape<end=1>(u) to = Concat<axis=0>(s, row) c = Expand(cls, to) t0 = Concat<axis=1>(c, u)"
        if cls
        else "t0 = Mul(u, one)"
    ]
    for i in range(blocks):
        for letter in "qkvo":
            weights[f"w{letter}{i}"] = (width, width)
        lines.append(f"[norm{i}] n{i} = LayerNormalization<axis=-1>(t{i}, g, z)")
        for letter in "qkv":
            lines.append(f"{letter}{i} = MatMul(n{i}, w{letter}{i})")
            if heads > 1:
                lines.append(f"{letter}{i}s = Reshape({letter}{i}, split)")
                turn = "0, 2, 3, 1" if letter == "k" else "0, 2, 1, 3"
                lines.append(f"{letter}{i}h = Transpose<perm=[{turn}]>({letter}{i}s)")
        if heads == 1:
            lines.append(f"k{i}h = Transpose<perm=[0, 2, 1]>(k{i}) q{i}h = Identity(q{i}) v{i}h = Identity(v{i})")
        lines.append(f"a{i} = MatMul(q{i}h, k{i}h) b{i} = Mul(a{i}, scale) p{i} = Softmax<axis=-1>(b{i})")
        lines.append(f"h{i} = MatMul(p{i}, v{i}h)")
        if heads > 1:
            lines.append(f"j{i} = Transpose<perm=[0, 2, 1, 3]>(h{i}) m{i} = Reshape(j{i}, join)")
        else:
            lines.append(f"m{i} = Identity(h{i})")
        lines.append(f"o{i} = MatMul(m{i}, wo{i}) t{i + 1} = Add(t{i}, o{i})")
    lines.append(f"f = LayerNormalization<axis=-1>(t{blocks}, g, z)")
    lines.append("l = Gather<axis=1>(f, first)" if cls else "l = ReduceMean<keepdims=0>(f, patches)")
    lines.append("y = Gemm(l, wh, bh)")
    return classifier(" ".join(lines), weights).SerializeToString()
