"""MaxPool among convolutions: whole programs in float32 on ONNX Runtime, against torch's autograd."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch.nn import functional

from camrt.export.vjp.emit import Emit
from camrt.export.vjp.maxima import to_first_maxima
from camrt.export.vjp.window import Window
from tests.export.onnx_text import classifier
from tests.export.vjp.run import in_program

SIDE = 11
WINDOWS = [  # kernel, strides, pads at both ends, dilations, ceil_mode
    ((3, 3), (2, 2), (1, 1), (1, 1), 0),
    ((3, 3), (2, 2), (0, 0), (1, 1), 0),
    ((3, 3), (2, 2), (0, 0), (1, 1), 1),
    ((2, 2), (2, 2), (0, 0), (1, 1), 1),
    ((3, 2), (1, 2), (1, 0), (1, 1), 0),
    ((4, 3), (2, 3), (2, 1), (1, 1), 0),
    ((3, 3), (2, 2), (1, 1), (3, 1), 0),
]


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_the_first_of_equal_maxima_takes_all_as_in_torch(window: tuple[Any, ...], rng: np.random.Generator) -> None:
    """Small whole numbers make windows with several equal maxima, of zero and above, at the border too."""
    kernel, strides, pads, dilations, ceil = window
    weights = {"w1": rng.integers(-1, 2, (16, 3, 1, 1)).astype(np.float32), "w2": np.eye(5, 16, dtype=np.float32)}
    pool = (
        f"MaxPool<kernel_shape={list(kernel)}, strides={list(strides)}, pads={[*pads, *pads]}, "
        f"dilations={list(dilations)}, ceil_mode={ceil}>"
    )
    rest = "s = Mul(r, k)  q = GlobalAveragePool(s)  f = Flatten(q)  y = Gemm<transB=1>(f, w2)"
    image = torch.from_numpy(rng.integers(-1, 2, (2, 3, SIDE, SIDE)).astype(np.float64)).requires_grad_()
    c = functional.conv2d(image, torch.from_numpy(weights["w1"]).double()).relu()
    p = functional.max_pool2d(c, kernel, strides, pads, dilations, bool(ceil))
    k = rng.integers(1, 9, (1, 1, *p.shape[2:]))  # each window's cotangent is another
    model = classifier(
        f"c = Conv(x, w1)  a = Relu(c)  r = {pool}(a)  {rest}",
        {**weights, "k": k.astype(np.float32)},
        x=f"float[N,3,{SIDE},{SIDE}] x",
    )
    seed = rng.integers(1, 4, (2, 5)).astype(np.float32)
    got, ops = in_program(model, image.detach().numpy().astype(np.float32), seed)
    scores = (p * torch.from_numpy(k).double()).mean((2, 3))[:, :5]
    (scores * torch.from_numpy(seed)).sum().backward()  # type: ignore[no-untyped-call]
    assert image.grad is not None
    np.testing.assert_allclose(got, image.grad.numpy(), atol=1e-6 * float(image.grad.abs().max()))
    assert "SpaceToDepth" not in ops
    assert ("Equal" in ops) == (kernel == strides)


def test_other_pools_are_left_to_the_general_rule() -> None:
    """Windows apart; padding that could be the maximum; a phase no tap meets; unfilled blocks; another type."""
    apart = Window((8, 8), (2, 2), (2, 2), (1, 1), (0, 0), (0, 0), (4, 4))
    plain = Window((9, 8), (3, 2), (2, 2), (1, 1), (0, 0), (0, 0), (4, 4))
    padded = Window((8, 8), (3, 3), (2, 2), (1, 1), (1, 1), (1, 1), (4, 4))
    sparse = Window((8, 8), (1, 3), (2, 2), (1, 1), (0, 0), (0, 0), (4, 3))

    def fits(window: Window, channels: int = 16, kind: ir.DataType = ir.DataType.FLOAT) -> bool:
        image = ir.Value(name="image", shape=ir.Shape(["N", channels, *window.sizes]), type=ir.TensorType(kind))
        g = ir.Value(name="g", shape=ir.Shape(["N", channels, *window.counts]), type=ir.TensorType(kind))
        e = Emit(ir.Graph([image, g], [], nodes=[], opset_imports={"": 18}))
        x = e.Conv(image, e.const(np.ones((channels, channels, 1, 1), kind.numpy())))
        x.shape = image.shape
        y = e.MaxPool(x, kernel_shape=window.kernel, strides=window.strides, pads=[*window.begins, *window.ends])
        y.shape = g.shape
        return to_first_maxima(e, x, y, g, window) is not None

    assert fits(plain)
    assert not fits(apart)
    assert not fits(padded)
    assert not fits(sparse)
    assert not fits(plain, channels=12)
    assert not fits(plain, kind=ir.DataType.DOUBLE)
