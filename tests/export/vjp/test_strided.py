"""Strided convolutions, pools and masks as they meet in networks: float32 on ONNX Runtime, against torch's autograd."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from camrt.export.load import load
from camrt.export.programs import build
from tests.export.onnx_text import classifier
from tests.export.vjp.run import in_program

Array = np.ndarray[Any, Any]

STEM = "c = Conv<pads=[1, 1, 1, 1], strides=[2, 2]>(x, w1)  a = Relu(c)"
POOL = "p = MaxPool<kernel_shape=[{0}, {0}], strides=[2, 2], pads=[{1}, {1}, {1}, {1}]>(a)"
BLOCK = (
    "d = Conv<strides=[2, 2]>(p, w3)  m = Conv<pads=[1, 1, 1, 1], strides=[2, 2]>(p, w4)  s = Add(d, m)  r = Relu(s)"
)
HEAD = "q = GlobalAveragePool(r)  f = Flatten(q)  y = Gemm<transB=1>(f, w2)"
SHAPES = {"w1": (16, 3, 3, 3), "w3": (32, 16, 1, 1), "w4": (32, 16, 3, 3), "w2": (5, 32)}


def in_torch(weights: dict[str, Array], kernel: int, pad: int, x: Array, seed: Array) -> Array:
    """Return the same by torch, in float64."""
    w = {name: torch.from_numpy(array).double() for name, array in weights.items()}
    image = torch.from_numpy(x).double().requires_grad_()
    p = functional.max_pool2d(functional.conv2d(image, w["w1"], None, 2, 1).relu(), kernel, 2, pad)
    r = (functional.conv2d(p, w["w3"], None, 2) + functional.conv2d(p, w["w4"], None, 2, 1)).relu()
    (r.mean((2, 3)) @ w["w2"].T * torch.from_numpy(seed)).sum().backward()  # type: ignore[no-untyped-call]
    assert image.grad is not None
    return np.asarray(image.grad)


@pytest.mark.parametrize(("kernel", "pad"), [(2, 0), (3, 1), (3, 0)])
@pytest.mark.parametrize("side", [32, 30])
def test_a_residual_network_has_autograds_gradient_ties_included(
    kernel: int, pad: int, side: int, rng: np.random.Generator
) -> None:
    """Small whole numbers make windows with several equal maxima, of zero and above, at the border too."""
    weights = {name: rng.integers(-1, 2, shape).astype(np.float32) for name, shape in SHAPES.items()}
    body = f"{STEM} {POOL.format(kernel, pad)} {BLOCK} {HEAD}"
    model = classifier(body, weights, x=f"float[N,3,{side},{side}] x")
    x = rng.integers(-1, 2, (2, 3, side, side)).astype(np.float32)
    seed = rng.integers(1, 4, (2, 5)).astype(np.float32)
    got, ops = in_program(model, x, seed)
    expected = in_torch(weights, kernel, pad, x, seed)
    np.testing.assert_allclose(got, expected, atol=1e-5 * np.abs(expected).max())
    assert "ConvTranspose" not in ops
    assert "SpaceToDepth" not in ops  # windows are taken apart by convolutions, in their own layout


def test_the_batch_size_is_asked_of_the_seed_not_of_a_tensor_between_convolutions(rng: np.random.Generator) -> None:
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    body = f"{STEM} {POOL.format(2, 0)} {BLOCK} {HEAD}"
    program, _ = build(load(classifier(body, weights, x="float[N,3,32,32] x").SerializeToString()), "input_gradient")
    asked = {node.inputs[0].name for node in program.graph if node.op_type == "Shape" and node.inputs[0] is not None}
    assert asked == {"seed"}


def test_a_pool_that_relu_shares_with_another_reader_stays_where_it_is(rng: np.random.Generator) -> None:
    """The Relu cannot move behind the pool where something else reads it; the gradient adds up both."""
    body = "c = Conv(x, w1)  a = Relu(c)  p = MaxPool<kernel_shape=[2, 2], strides=[2, 2]>(a)  " + (
        "q = GlobalAveragePool(p)  r = GlobalAveragePool(a)  s = Add(q, r)  f = Flatten(s)  y = Gemm<transB=1>(f, w2)"
    )
    weights = {"w1": rng.normal(size=(16, 3, 1, 1)).astype(np.float32), "w2": np.eye(5, 16, dtype=np.float32)}
    x = rng.normal(size=(2, 3, 6, 6)).astype(np.float32)
    seed = rng.normal(size=(2, 5)).astype(np.float32)
    got, _ = in_program(classifier(body, weights, x="float[N,3,6,6] x"), x, seed)
    image = torch.from_numpy(x).double().requires_grad_()
    a = functional.conv2d(image, torch.from_numpy(weights["w1"]).double()).relu()
    pooled = functional.max_pool2d(a, 2).mean((2, 3)) + a.mean((2, 3))
    (pooled[:, :5] * torch.from_numpy(seed)).sum().backward()  # type: ignore[no-untyped-call]
    assert image.grad is not None
    np.testing.assert_allclose(got, image.grad.numpy(), atol=1e-6)


def test_a_bottleneck_of_clipped_depthwise_convolutions_has_autograds_gradient_at_its_bounds_too(
    rng: np.random.Generator,
) -> None:
    """Small whole numbers reach 0 and 6 exactly, and numbers between."""
    body = (
        "a = Conv<pads=[1, 1, 1, 1], strides=[2, 2]>(x, w1)  b = Clip(a, low, high)  "
        "c = Conv<group=16, pads=[1, 1, 1, 1], strides=[2, 2]>(b, w3)  d = Clip(c, low, high)  r = Conv(d, w4)  "
        "q = GlobalAveragePool(r)  f = Flatten(q)  y = Gemm<transB=1>(f, w2)"
    )
    shapes = {"w1": (16, 3, 3, 3), "w3": (16, 1, 3, 3), "w4": (16, 16, 1, 1), "w2": (5, 16)}
    weights = {name: rng.integers(-1, 2, shape).astype(np.float32) for name, shape in shapes.items()}
    bounds = {"low": np.float32(0), "high": np.float32(6)}
    x = rng.integers(-1, 3, (2, 3, 18, 14)).astype(np.float32)
    seed = rng.integers(1, 4, (2, 5)).astype(np.float32)
    got, ops = in_program(classifier(body, {**weights, **bounds}, x="float[N,3,18,14] x"), x, seed)
    w = {name: torch.from_numpy(array).double() for name, array in weights.items()}
    image = torch.from_numpy(x).double().requires_grad_()
    clipped = functional.relu6(functional.conv2d(image, w["w1"], None, 2, 1))
    clipped_again = functional.relu6(functional.conv2d(clipped, w["w3"], None, 2, 1, groups=16))
    assert all(((part == 0).any() and (part == 6).any()) for part in (clipped, clipped_again))
    scores = functional.conv2d(clipped_again, w["w4"]).mean((2, 3)) @ w["w2"].T
    (scores * torch.from_numpy(seed)).sum().backward()  # type: ignore[no-untyped-call]
    assert image.grad is not None
    np.testing.assert_allclose(got, image.grad.numpy(), atol=1e-5 * float(image.grad.abs().max()))
    assert ops["HardSigmoid"] == 4  # two a mask


def test_what_a_global_pool_and_a_stride_spread_enters_the_residual_stream_where_it_is_masked(
    rng: np.random.Generator,
) -> None:
    """GAP's Expand gives way to a Resize; the weaving of a strided Conv passes a MaxPool of one element."""
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    body = f"{STEM} m = Conv<pads=[1, 1, 1, 1], strides=[2, 2]>(a, w4)  d = Conv<strides=[2, 2]>(a, w3)  s = Add(d, m)"
    model = classifier(f"{body} r = Relu(s) {HEAD}", weights, x="float[N,3,32,32] x")
    x, seed = rng.normal(size=(2, 3, 32, 32)).astype(np.float32), rng.normal(size=(2, 5)).astype(np.float32)
    got, ops = in_program(model, x, seed)
    w = {name: torch.from_numpy(array).double() for name, array in weights.items()}
    image = torch.from_numpy(x).double().requires_grad_()
    a = functional.conv2d(image, w["w1"], None, 2, 1).relu()
    r = (functional.conv2d(a, w["w3"], None, 2) + functional.conv2d(a, w["w4"], None, 2, 1)).relu()
    (r.mean((2, 3)) @ w["w2"].T * torch.from_numpy(seed)).sum().backward()  # type: ignore[no-untyped-call]
    assert image.grad is not None
    np.testing.assert_allclose(got, image.grad.numpy(), atol=1e-5 * float(image.grad.abs().max()))
    assert (ops["MaxPool"], ops["Resize"], ops["Expand"]) == (2, 2, 1)
