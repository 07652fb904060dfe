"""Gradients of pools, against torch's float64 autograd (the reference evaluator's pools are wrong in ceil mode)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.export.vjp.check import check_rule, spaced

CONVS = [functional.conv1d, functional.conv2d, functional.conv3d]
MAX_POOLS = [functional.max_pool1d, functional.max_pool2d, functional.max_pool3d]


@dataclass(frozen=True)
class Spec:
    """One pool: input shape and attributes; `pads` and `out` where auto_pad or ceil_mode decide them."""

    name: str
    x: tuple[int, ...]
    kernel: tuple[int, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    pads: tuple[int, ...] | None = None
    out: tuple[int, ...] | None = None

    @property
    def node(self) -> dict[str, Any]:
        """Return all attributes of the node."""
        return {"kernel_shape": list(self.kernel), **self.attributes}

    def windows(self) -> tuple[list[int], list[int], list[int], list[int], list[int]]:
        """Return strides, dilations, begin pads, explicit end pads, and end pads up to the last window's end."""
        rank, a = len(self.kernel), self.attributes
        strides, dilations = a.get("strides", [1] * rank), a.get("dilations", [1] * rank)
        pads = list(self.pads or a.get("pads", [0] * 2 * rank))
        begins, ends = pads[:rank], pads[rank:]
        extents = [d * (k - 1) + 1 for k, d in zip(self.kernel, dilations, strict=True)]
        rows = zip(self.x[2:], begins, ends, extents, strides, strict=True)
        out = self.out or [(n + b + e - w) // s + 1 for n, b, e, w, s in rows]
        rows = zip(out, strides, extents, self.x[2:], begins, strict=True)
        return strides, dilations, begins, ends, [(o - 1) * s + w - n - b for o, s, w, n, b in rows]


def pad(x: torch.Tensor, begins: list[int], ends: list[int], value: float = 0.0) -> torch.Tensor:
    """Pad or crop the spatial axes."""
    return functional.pad(
        x, [int(p) for pair in reversed(list(zip(begins, ends, strict=True))) for p in pair], value=value
    )


def max_oracle(spec: Spec) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return `spec` as torch's max pool of an input padded up to the last window's end."""
    strides, dilations, begins, _, reach = spec.windows()

    def forward(x: torch.Tensor) -> torch.Tensor:
        padded = pad(x, begins, reach, -torch.inf)
        return MAX_POOLS[len(spec.kernel) - 1](padded, spec.kernel, strides, 0, dilations)

    return forward


def window_sum(spec: Spec, x: torch.Tensor) -> torch.Tensor:
    """Return the sums of the windows of `x`, already padded to the last window's end."""
    strides, dilations, *_ = spec.windows()
    ones = torch.ones((x.shape[1], 1, *spec.kernel), dtype=x.dtype)
    return CONVS[len(spec.kernel) - 1](x, ones, None, strides, 0, dilations, x.shape[1])


def average_oracle(spec: Spec) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return `spec` as sums of windows over counts of the elements inside, by grouped convolutions with ones."""
    _, _, begins, ends, reach = spec.windows()

    def forward(x: torch.Tensor) -> torch.Tensor:
        inside = torch.ones_like(x)
        if spec.attributes.get("count_include_pad"):
            inside = pad(inside, begins, ends, 1.0)
            inside = pad(inside, [0] * len(ends), [r - e for r, e in zip(reach, ends, strict=True)])
        else:
            inside = pad(inside, begins, reach)
        return window_sum(spec, pad(x, begins, reach)) / window_sum(spec, inside)

    return forward


def norm_oracle(spec: Spec) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return `spec` as the p-norm of windows."""
    _, _, begins, _, reach = spec.windows()
    p = spec.attributes.get("p", 2)
    return lambda x: window_sum(spec, pad(x.abs() ** p, begins, reach)) ** (1 / p)


SHARED = [
    Spec("2x2", (2, 3, 6, 8), (2, 2), {"strides": [2, 2]}),
    Spec("2x2_one_image", (1, 3, 4, 4), (2, 2), {"strides": [2, 2]}),
    Spec("2x2_remainder", (3, 2, 7, 5), (2, 2), {"strides": [2, 2]}),
    Spec("2x2_ceil", (2, 2, 7, 5), (2, 2), {"strides": [2, 2], "ceil_mode": 1}, out=(4, 3)),
    Spec("3x3_stride_2", (2, 2, 8, 7), (3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    Spec("3x3_stride_2_ceil", (2, 2, 8, 7), (3, 3), {"strides": [2, 2], "ceil_mode": 1}, out=(4, 3)),
    Spec("3x3_stride_1", (2, 2, 5, 6), (3, 3), {"pads": [1, 1, 1, 1]}),
    Spec("2x2_stride_1_asymmetric", (2, 2, 5, 6), (2, 2), {"pads": [0, 1, 1, 0]}),
    Spec("no_pads_stride_1", (2, 2, 5, 6), (3, 2)),
    Spec("rectangle", (2, 2, 9, 7), (3, 2), {"strides": [2, 3], "pads": [1, 0, 0, 1]}),
    Spec("kernel_below_stride", (2, 2, 10, 9), (2, 1), {"strides": [3, 4]}),
    Spec("5x5", (2, 2, 6, 7), (5, 5), {"pads": [2, 2, 2, 2]}),
    Spec("5x4_stride_3_ceil", (2, 2, 11, 10), (5, 4), {"strides": [3, 2], "pads": [1, 2, 2, 1], "ceil_mode": 1}, out=(4, 6)),
    Spec("same_upper", (2, 2, 8, 7), (3, 3), {"strides": [2, 2], "auto_pad": "SAME_UPPER"}, pads=(0, 1, 1, 1)),
    Spec("same_lower", (2, 2, 8, 7), (3, 3), {"strides": [2, 2], "auto_pad": "SAME_LOWER"}, pads=(1, 1, 0, 1)),
    Spec("same_upper_stride_1", (2, 2, 5, 4), (2, 3), {"auto_pad": "SAME_UPPER"}, pads=(0, 1, 1, 1)),
    Spec("valid", (2, 2, 8, 7), (3, 3), {"strides": [2, 2], "auto_pad": "VALID"}),
    Spec("valid_ceil", (2, 2, 8, 7), (3, 3), {"strides": [2, 2], "auto_pad": "VALID", "ceil_mode": 1}, out=(4, 3)),
    Spec("same_ceil", (2, 2, 8, 7), (5, 2), {"strides": [2, 2], "auto_pad": "SAME_UPPER", "ceil_mode": 1}, pads=(1, 0, 2, 1)),
    Spec("line", (2, 3, 9), (3,), {"strides": [2], "pads": [1, 1]}),
    Spec("volume", (2, 2, 4, 5, 6), (2, 3, 2), {"strides": [2, 2, 1], "pads": [0, 1, 0, 0, 1, 1]}),
    Spec("volume_2x2x2", (1, 2, 4, 4, 6), (2, 2, 2), {"strides": [2, 2, 2]}),
]  # fmt: skip
DILATED = [
    Spec("dilated", (2, 2, 8, 9), (3, 2), {"dilations": [2, 3], "pads": [1, 1, 1, 1]}),
    Spec("dilated_strided", (2, 2, 11, 10), (3, 2), {"dilations": [2, 3], "strides": [2, 2]}),
    Spec("dilated_onto_one_phase", (2, 2, 9, 10), (3, 3), {"dilations": [2, 2], "strides": [2, 2], "pads": [1, 0, 1, 0]}),
    Spec("dilated_5x3", (2, 2, 12, 9), (5, 3), {"dilations": [2, 1], "strides": [1, 2], "pads": [2, 1, 2, 1]}),
    Spec("dilated_ceil", (2, 2, 8, 9), (2, 2), {"dilations": [3, 2], "strides": [3, 2], "ceil_mode": 1}, out=(3, 4)),
]  # fmt: skip


@pytest.mark.parametrize("spec", [*SHARED, *DILATED], ids=lambda spec: spec.name)
def test_max_pool_gradient_equals_autograd(spec: Spec, rng: np.random.Generator) -> None:
    check_rule("MaxPool", [spaced(rng, *spec.x)], attributes=spec.node, torch_forward=max_oracle(spec), tol=1e-12)


@pytest.mark.parametrize("spec", [*SHARED, *DILATED], ids=lambda spec: spec.name)
def test_max_pool_gives_all_to_the_first_of_equal_maxima_as_torch_does(spec: Spec, rng: np.random.Generator) -> None:
    x = rng.integers(-1, 2, spec.x).astype(float)
    check_rule("MaxPool", [x], attributes=spec.node, torch_forward=max_oracle(spec), tol=1e-12)


def test_max_pool_of_minus_infinity_finds_no_maximum_in_the_padding() -> None:
    """One 3x3 window row of -inf: the first element inside the input takes the cotangent of each window."""
    x = np.full((1, 1, 2, 2), -np.inf)
    attributes = {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [1, 1, 1, 1]}
    got = check_rule("MaxPool", [x], attributes=attributes, torch_forward=_corner_maxima, float32=False).gradients[0]
    assert np.count_nonzero(got) == 4


def _corner_maxima(x: torch.Tensor) -> torch.Tensor:
    """Return a 2x2 image as the maxima of its four padded corner windows."""
    return x * torch.ones((1, 1, 2, 2), dtype=torch.float64)


def test_max_pool_equals_finite_differences_too(rng: np.random.Generator) -> None:
    attributes = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
    check_rule("MaxPool", [spaced(rng, 2, 2, 7, 6)], attributes=attributes)


@pytest.mark.parametrize("include", [0, 1])
@pytest.mark.parametrize("spec", SHARED, ids=lambda spec: spec.name)
def test_average_pool_gradient_equals_autograd(spec: Spec, include: int, rng: np.random.Generator) -> None:
    spec = Spec(spec.name, spec.x, spec.kernel, {**spec.attributes, "count_include_pad": include}, spec.pads, spec.out)
    x = rng.standard_normal(spec.x)
    check_rule("AveragePool", [x], attributes=spec.node, torch_forward=average_oracle(spec), tol=1e-12)


@pytest.mark.parametrize("include", [0, 1])
@pytest.mark.parametrize("spec", DILATED, ids=lambda spec: spec.name)
def test_dilated_average_pool_gradient_equals_autograd(spec: Spec, include: int, rng: np.random.Generator) -> None:
    spec = Spec(spec.name, spec.x, spec.kernel, {**spec.attributes, "count_include_pad": include}, spec.pads, spec.out)
    x = rng.standard_normal(spec.x)
    check_rule("AveragePool", [x], attributes=spec.node, opset=19, torch_forward=average_oracle(spec), tol=1e-12)


def test_non_overlapping_averages_are_handed_back_by_one_resize(rng: np.random.Generator) -> None:
    attributes = {"kernel_shape": [2, 2], "strides": [2, 2]}
    assert check_rule("AveragePool", [rng.standard_normal((2, 3, 4, 6))], attributes=attributes).ops == [
        "Mul",
        "Resize",
    ]


def test_stride_1_averages_are_averaged_back(rng: np.random.Generator) -> None:
    attributes = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}
    assert check_rule("AveragePool", [rng.standard_normal((2, 3, 4, 6))], attributes=attributes).ops == ["AveragePool"]


@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize("spec", SHARED, ids=lambda spec: spec.name)
def test_lp_pool_gradient_equals_autograd(spec: Spec, p: int, rng: np.random.Generator) -> None:
    spec = Spec(spec.name, spec.x, spec.kernel, {**spec.attributes, "p": p}, spec.pads, spec.out)
    x = spaced(rng, *spec.x)
    check_rule("LpPool", [x], attributes=spec.node, torch_forward=norm_oracle(spec), tol=1e-10)


def test_pools_have_the_defaults_of_onnx(rng: np.random.Generator) -> None:
    """LpPool takes the Euclidean norm, AveragePool leaves the padding out."""
    x = rng.standard_normal((2, 2, 4, 5))
    spec = Spec("defaults", x.shape, (3, 3), {"pads": [1, 1, 1, 1]})
    check_rule("LpPool", [x], attributes=spec.node, torch_forward=norm_oracle(spec), tol=1e-12)
    check_rule("AveragePool", [x], attributes=spec.node, torch_forward=average_oracle(spec), tol=1e-12)
    check_rule("GlobalLpPool", [x], torch_forward=lambda x: (x**2).sum((2, 3), keepdim=True) ** 0.5, tol=1e-12)


def test_lp_pool_of_zeros_has_no_gradient() -> None:
    attributes = {"kernel_shape": [2, 2], "strides": [2, 2]}
    zeros = np.zeros((1, 1, 4, 4))
    checked = check_rule("LpPool", [zeros], attributes=attributes, torch_forward=lambda x: 0 * x[:, :, ::2, ::2], tol=1)
    assert not checked.gradients[0].any()


@pytest.mark.parametrize("shape", [(1, 2, 4, 5), (3, 4, 1, 1), (2, 3, 6), (2, 3, 2, 3, 4)])
@pytest.mark.parametrize("p", [1, 2, 3])
def test_global_lp_pool_gradient_equals_autograd(shape: tuple[int, ...], p: int, rng: np.random.Generator) -> None:
    axes = tuple(range(2, len(shape)))

    def forward(x: torch.Tensor) -> torch.Tensor:
        return (x.abs() ** p).sum(axes, keepdim=True) ** (1 / p)

    check_rule("GlobalLpPool", [spaced(rng, *shape)], attributes={"p": p}, torch_forward=forward, tol=1e-10)


@pytest.mark.parametrize("shape", [(1, 2, 4, 5), (3, 4, 1, 1), (2, 3, 6), (2, 3, 2, 3, 4)])
def test_global_average_pool_gradient_equals_finite_differences(
    shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    check_rule("GlobalAveragePool", [rng.standard_normal(shape)])


@pytest.mark.parametrize("shape", [(1, 2, 4, 5), (3, 4, 1, 1), (2, 3, 6), (2, 3, 2, 3, 4)])
def test_global_max_pool_gradient_equals_autograd(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    axes = tuple(range(2, len(shape)))

    def forward(x: torch.Tensor) -> torch.Tensor:
        return x.amax(axes, keepdim=True)

    check_rule("GlobalMaxPool", [spaced(rng, *shape)], torch_forward=forward)


def test_global_max_pool_gives_all_to_the_first_of_equal_maxima() -> None:
    x = np.array([[[[0.0, 2.0, 1.0], [2.0, 2.0, 0.0]]]])

    def forward(x: torch.Tensor) -> torch.Tensor:
        return functional.max_pool2d(x, (2, 3))

    got = check_rule("GlobalMaxPool", [x], torch_forward=forward).gradients[0]
    assert np.flatnonzero(got).tolist() == [1]
