"""
Small token models by layout, each telling what is right for it: the default layer, its grid, and what comes too late.

Images are 8 x 12 pixels, so that rows and columns cannot be mixed up unseen. In every graph the tensor ``wanted`` is
what should be explained, and ``late`` is one behind it of which no cell reaches the logits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.export.onnx_text import classifier

__all__ = ["MODELS", "SIZE", "Expected"]

SIZE = (8, 12)
D = 6  # width of a token
T = 24  # 4 x 6 patches


class Sketch:
    """Nodes in ONNX's text syntax and their weights, as they are written down."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.weights: dict[str, Any] = {}
        self.rng = np.random.default_rng(0)

    def op(self, op: str, *inputs: str, name: str = "") -> str:
        """Write one node, ``op`` with its attributes, and return its output's name."""
        name = name or f"v{len(self.lines)}"
        self.lines.append(f"{name} = {op}({', '.join(inputs)})")
        return name

    def weight(self, *shape: int) -> str:
        """Return a random weight."""
        return self.const(self.rng.normal(0, 0.4, shape).astype(np.float32))

    def const(self, value: Any) -> str:
        """Return a constant."""
        self.weights[f"w{len(self.weights)}"] = np.asarray(value)
        return f"w{len(self.weights) - 1}"

    def linear(self, x: str, before: int = D, after: int = D) -> str:
        """Return a linear layer over the last axis."""
        return self.op("Add", self.op("MatMul", x, self.weight(before, after)), self.weight(after))

    def norm(self, x: str, name: str = "", width: int = D) -> str:
        """Return a layer normalisation over the last axis."""
        return self.op("LayerNormalization<axis=-1>", x, self.weight(width), self.weight(width), name=name)

    def patches(self) -> str:
        """Return the image's 2 x 2 patches, (N, T, D)."""
        grid = self.op("Conv<strides=[2, 2]>", "x", self.weight(D, 3, 2, 2))
        return self.op("Transpose<perm=[0, 2, 1]>", self.op("Reshape", grid, self.const([0, D, T])))

    def behind(self, tokens: str, prefix: int) -> str:
        """Put learned prefix tokens before others, as many times as there are images."""
        row = self.op("Concat<axis=0>", self.op("Shape<end=1>", tokens), self.const([prefix, D]))
        return self.op("Concat<axis=1>", self.op("Expand", self.weight(1, prefix, D), row), tokens)

    def attention(self, queries: str, tokens: str) -> str:
        """Return what `queries` read of `tokens`, both (N, T, D), projected; one head."""
        q, k, v = self.linear(queries), self.linear(tokens), self.linear(tokens)
        scores = self.op("Softmax<axis=-1>", self.op("MatMul", q, self.op("Transpose<perm=[0, 2, 1]>", k)))
        return self.linear(self.op("MatMul", scores, v))

    def block(self, x: str, *, name: str = "", late: str = "") -> str:
        """Return a pre-norm block: attention and a linear layer with ReLU, both residual."""
        n = self.norm(x, name)
        x = self.op("Add", x, self.attention(n, n))
        return self.op("Add", x, self.op("Relu", self.linear(self.norm(x))), name=late)

    def take(self, x: str, position: int) -> str:
        """Return one token of each image."""
        return self.op("Gather<axis=1>", x, self.const(np.array(position)))

    def mean(self, x: str, *axes: int) -> str:
        """Return the mean over some axes."""
        return self.op("ReduceMean<keepdims=0>", x, self.const(axes))

    def model(self, scores: str, **options: Any) -> bytes:
        """Return the finished classifier."""
        self.lines.append(f"y = Identity({scores})")
        x = options.pop("x", f"float[N,3,{SIZE[0]},{SIZE[1]}] x")
        return classifier(" ".join(self.lines), self.weights, x=x, **options).SerializeToString()

    def head(self, x: str, **options: Any) -> bytes:
        """Return the classifier that ends in a linear layer over (N, D)."""
        return self.model(self.linear(x, D, 5), **options)


def class_token() -> bytes:
    """ViT: the head reads the first token."""
    s = Sketch()
    x = s.block(s.block(s.behind(s.patches(), 1)), name="wanted", late="late")
    return s.head(s.take(s.norm(x), 0))


def distilled() -> bytes:
    """DeiT: two prefix tokens with a head each, averaged."""
    s = Sketch()
    x = s.norm(s.block(s.block(s.behind(s.patches(), 2)), name="wanted"), name="late")
    return s.model(s.op("Add", s.linear(s.take(x, 0), D, 5), s.linear(s.take(x, 1), D, 5)))


def registers() -> bytes:
    """ViT with a class token and four registers; the head takes the class token by a slice."""
    s = Sketch()
    x = s.norm(s.block(s.behind(s.patches(), 5), name="wanted"), name="late")
    first = s.op("Slice", x, s.const([0]), s.const([1]), s.const([1]))
    return s.head(s.op("Squeeze", first, s.const([1])))


def mean_of_tokens() -> bytes:
    """ViT without a class token: the mean of all tokens of the last normalisation."""
    s = Sketch()
    return s.head(s.mean(s.norm(s.block(s.patches()), name="wanted"), 1))


def mean_behind_registers() -> bytes:
    """ViT that averages its patches alone: the last residual sum, before the mean leaves the registers out."""
    s = Sketch()
    x = s.block(s.behind(s.patches(), 3), late="wanted")
    return s.head(s.mean(s.op("Slice", x, s.const([3]), s.const([3 + T]), s.const([1])), 1))


def sequence_pooling() -> bytes:
    """CCT: a learned weighting of all tokens takes the place of a class token."""
    s = Sketch()
    x = s.norm(s.block(s.patches()), name="wanted")
    share = s.op("Softmax<axis=1>", s.linear(x, D, 1))
    pooled = s.op("MatMul", s.op("Transpose<perm=[0, 2, 1]>", share), x)
    return s.head(s.op("Squeeze", pooled, s.const([1])))


def learned_query() -> bytes:
    """SigLIP: a learned query attends to all tokens, whose keys and values come from one projection."""
    s = Sketch()
    x = s.norm(s.block(s.patches()), name="wanted")
    keys_values = s.linear(x, D, 2 * D)
    s.lines.append(f"k, v = Split<axis=-1, num_outputs=2>({keys_values})")
    scores = s.op("MatMul", s.weight(1, 1, D), s.op("Transpose<perm=[0, 2, 1]>", "k"))
    return s.head(s.op("Squeeze", s.op("MatMul", s.op("Softmax<axis=-1>", scores), "v"), s.const([1])))


def class_attention() -> bytes:
    """CaiT: the class token joins late, and two blocks in which it alone asks read the same patches."""
    s = Sketch()
    x = s.block(s.patches(), late="wanted")
    token = s.op("Expand", s.weight(1, 1, D), s.op("Concat<axis=0>", s.op("Shape<end=1>", x), s.const([1, D])))
    for _ in range(2):
        both = s.norm(s.op("Concat<axis=1>", token, x))
        asking = s.op("Slice", both, s.const([0]), s.const([1]), s.const([1]))
        token = s.op("Add", token, s.attention(asking, both))
    return s.head(s.take(s.norm(s.op("Concat<axis=1>", token, x), name="late"), 0))


def tokens_first() -> bytes:
    """OpenAI's CLIP: (T, N, D) within the blocks."""
    s = Sketch()
    x = s.op("Transpose<perm=[1, 0, 2]>", s.behind(s.patches(), 1))
    for name, late in (("", ""), ("wanted", "late")):
        n = s.op("Transpose<perm=[1, 0, 2]>", s.norm(x, name))
        x = s.op("Add", x, s.op("Transpose<perm=[1, 0, 2]>", s.attention(n, n)), name=late)
    return s.head(s.op("Gather<axis=0>", s.norm(x), s.const(np.array(0))))


def class_embeddings() -> bytes:
    """CLIP's image tower: the unit image embedding times constant class embeddings, a softmax behind."""
    s = Sketch()
    x = s.block(s.behind(s.patches(), 1), name="wanted", late="late")
    image = s.op("MatMul", s.take(s.norm(x), 0), s.weight(D, 8))
    unit = s.op("Div", image, s.op("ReduceL2<keepdims=1>", image, s.const([-1])))
    scores = s.op("Mul", s.op("MatMul", unit, s.weight(8, 5)), s.const(np.float32(20)))
    return s.model(s.op("Softmax<axis=-1>", scores))


def windows_on_a_grid() -> bytes:
    """Swin as torchvision and timm have it, (N, h, w, D): windows of 2 x 2, shifted; the mean of the last norm."""
    s = Sketch()
    x = s.op("Reshape", s.patches(), s.const([0, 4, 6, D]))
    x = s.op("Add", x, _windows(s, s.norm(x)))
    return s.head(s.mean(s.norm(x, name="wanted"), 1, 2))


def windows_on_a_sequence() -> bytes:
    """Swin as first published, (N, h*w, D) between blocks, and patches merged by strided slices."""
    s = Sketch()
    x = s.patches()
    moved = _windows(s, s.op("Reshape", s.norm(x), s.const([0, 4, 6, D])))
    x = s.op("Add", x, s.op("Reshape", moved, s.const([0, T, D])))
    grid, two = s.op("Reshape", x, s.const([0, 4, 6, D])), s.const([2, 2])
    parts = [
        s.op("Slice", grid, s.const([i, j]), s.const([9, 9]), s.const([1, 2]), two) for i in (0, 1) for j in (0, 1)
    ]
    merged = s.op("Reshape", s.op("Concat<axis=3>", *parts), s.const([0, 6, 4 * D]))
    x = s.block(s.linear(merged, 4 * D))
    return s.head(s.mean(s.norm(x, name="wanted"), 1))


def _windows(s: Sketch, x: str) -> str:
    """Attend within 2 x 2 windows of (N, 4, 6, D), shifted by one cell."""
    for axis, size in ((1, 4), (2, 6)):
        first = s.op("Slice", x, s.const([0]), s.const([1]), s.const([axis]))
        rest = s.op("Slice", x, s.const([1]), s.const([size]), s.const([axis]))
        x = s.op(f"Concat<axis={axis}>", rest, first)
    cut = s.op("Transpose<perm=[0, 1, 3, 2, 4, 5]>", s.op("Reshape", x, s.const([0, 2, 2, 3, 2, D])))
    window = s.op("Reshape", cut, s.const([-1, 4, D]))
    back = s.op("Reshape", s.attention(window, window), s.const([-1, 2, 3, 2, 2, D]))
    return s.op("Reshape", s.op("Transpose<perm=[0, 1, 3, 2, 4, 5]>", back), s.const([-1, 4, 6, D]))


def channels_last_block() -> bytes:
    """ConvNeXt: a normalisation and linear layers on (N, h, w, D) inside a block of (N, D, h, w)."""
    s = Sketch()
    x = s.op("Conv<strides=[2, 2]>", "x", s.weight(D, 3, 2, 2))
    inside = s.op("Conv<group=6, pads=[1, 1, 1, 1]>", x, s.weight(D, 1, 3, 3))
    inside = s.norm(s.op("Transpose<perm=[0, 2, 3, 1]>", inside))
    inside = s.linear(s.op("Gelu", s.linear(inside, D, 4 * D)), 4 * D)
    x = s.op("Add", x, s.op("Transpose<perm=[0, 3, 1, 2]>", inside), name="wanted")
    pooled = s.op("Flatten", s.op("GlobalAveragePool", x))
    return s.head(pooled, opset=20)


def mixer() -> bytes:
    """MLP-Mixer: linear layers over tokens and over channels in turn."""
    s = Sketch()
    x = s.patches()
    across = s.op("Relu", s.linear(s.op("Transpose<perm=[0, 2, 1]>", s.norm(x)), T, T))
    x = s.op("Add", x, s.op("Transpose<perm=[0, 2, 1]>", across))
    x = s.op("Add", x, s.op("Relu", s.linear(s.norm(x))))
    return s.head(s.mean(s.norm(x, name="wanted"), 1))


def linear_patches() -> bytes:
    """ViT whose patches are cut by reshaping, without a convolution: the grid is the image's own."""
    s = Sketch()
    x = s.op("Reshape", "x", s.const([0, 3, 4, 2, 6, 2]))
    x = s.op("Reshape", s.op("Transpose<perm=[0, 2, 4, 3, 5, 1]>", x), s.const([0, T, 12]))
    x = s.block(s.behind(s.linear(x, 12), 1), name="wanted", late="late")
    return s.head(s.take(x, 0))


def two_scales() -> bytes:
    """CrossViT: a coarse and a fine branch, a class token each, whose heads are averaged; nothing late serves both."""
    s = Sketch()
    fine = s.block(s.behind(s.patches(), 1))
    coarse = s.op("Conv<strides=[4, 4]>", "x", s.weight(D, 3, 4, 4))
    coarse = s.op("Transpose<perm=[0, 2, 1]>", s.op("Reshape", coarse, s.const([0, D, 6])))
    coarse = s.block(s.behind(coarse, 1), name="wanted", late="late")
    return s.model(s.op("Add", s.linear(s.take(fine, 0), D, 5), s.linear(s.take(coarse, 0), D, 5)))


@dataclass(frozen=True)
class Expected:
    """What is known of a model: how its default layer lies, and whether a later one has no living cell."""

    build: Callable[[], bytes]
    layout: str
    grid: tuple[int, int]
    prefix: int
    has_late: bool


MODELS = {
    "class token": Expected(class_token, "tokens", (4, 6), 1, True),
    "distilled": Expected(distilled, "tokens", (4, 6), 2, True),
    "registers": Expected(registers, "tokens", (4, 6), 5, True),
    "mean of tokens": Expected(mean_of_tokens, "tokens", (4, 6), 0, False),
    "mean behind registers": Expected(mean_behind_registers, "tokens", (4, 6), 3, False),
    "sequence pooling": Expected(sequence_pooling, "tokens", (4, 6), 0, False),
    "learned query": Expected(learned_query, "tokens", (4, 6), 0, False),
    "class attention": Expected(class_attention, "tokens", (4, 6), 0, True),
    "tokens first": Expected(tokens_first, "tokens_first", (4, 6), 1, True),
    "class embeddings": Expected(class_embeddings, "tokens", (4, 6), 1, True),
    "windows on a grid": Expected(windows_on_a_grid, "nhwc", (4, 6), 0, False),
    "windows on a sequence": Expected(windows_on_a_sequence, "tokens", (2, 3), 0, False),
    "channels-last block": Expected(channels_last_block, "nchw", (4, 6), 0, False),
    "mixer": Expected(mixer, "tokens", (4, 6), 0, False),
    "linear patches": Expected(linear_patches, "tokens", (4, 6), 1, True),
    "two scales": Expected(two_scales, "tokens", (2, 3), 1, True),
}
