"""The transpose of a resize and the gradient of min-max: identities, PyTorch's autograd, and the CUDA kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from camrt.errors import InputError, ShapeError
from camrt.kernels import min_max, min_max_gradient, resize, resize_adjoint

ALIGNS = ["half_pixel", "corners"]
SIZES = [
    ((7, 7), (224, 224)),
    ((7, 5), (31, 64)),
    ((14, 14), (14, 14)),
    ((9, 12), (4, 5)),
    ((100, 64), (7, 30)),
    ((1, 1), (5, 3)),
    ((6, 4), (1, 1)),
    ((1, 9), (1, 20)),
    ((8, 1), (3, 1)),
    ((3, 40), (2, 3)),
]
sides = st.integers(1, 20)


def special() -> tuple[np.ndarray, np.ndarray]:
    """Return maps that try every branch, and gradients."""
    nan, inf = np.nan, np.inf
    rows = [
        [-1, 0, 1, 2, 3, 0.5],
        [0, 0, 0, 0, 0, 0],
        [5, 5, 5, 5, 5, 5],
        [2, 0, 2, 0, 1, 0],  # ties at both ends
        [1e30, 0, 1, 2, 3, 4],
        [nan, 1, 2, 3, 4, 5],
        [1, 2, 3, 4, 5, nan],
        [1, -inf, 3, 4, 5, 6],
        [inf] * 6,
    ]
    maps = np.array(rows, float).reshape(-1, 2, 3)
    return maps, np.random.default_rng(3).normal(size=maps.shape)


# ----- the transpose of a resize -----


@settings(max_examples=80, deadline=None)
@given(sides, sides, sides, sides, st.sampled_from(ALIGNS), st.integers(0, 2**32 - 1))
def test_the_adjoint_is_the_transpose(h: int, w: int, height: int, width: int, align: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    maps, gradients = rng.normal(size=(3, h, w)), rng.normal(size=(3, height, width))
    one = (resize(maps, (height, width), align=align) * gradients).sum((1, 2))
    other = (maps * resize_adjoint(gradients, (h, w), align=align)).sum((1, 2))
    assert_allclose(one, other, rtol=0, atol=1e-12 * height * width)


@pytest.mark.parametrize("align", ALIGNS)
@pytest.mark.parametrize(("before", "after"), SIZES)
def test_the_adjoint_equals_pytorchs_gradient(
    before: tuple[int, int], after: tuple[int, int], align: Any, rng: np.random.Generator
) -> None:
    torch = pytest.importorskip("torch")
    gradients = rng.normal(size=(2, *after))
    maps = torch.zeros((2, 1, *before), dtype=torch.float64, requires_grad=True)
    resized = torch.nn.functional.interpolate(maps, after, mode="bilinear", align_corners=align == "corners")
    resized.backward(torch.from_numpy(gradients)[:, None])
    want = maps.grad[:, 0].numpy()
    assert_allclose(resize_adjoint(gradients, before, align=align), want, rtol=0, atol=1e-10)
    single = resize_adjoint(gradients.astype("f4"), before, align=align)
    assert single.dtype == np.float32
    assert_allclose(single, want, rtol=0, atol=2e-6 * np.abs(want).max() * after[0] ** 0.5)


def test_the_adjoint_worked_by_hand() -> None:
    """Two cells to four weigh the right cell 0, 1/4, 3/4, 1."""
    carried = resize_adjoint(np.array([[[1.0, 10.0, 100.0, 1000.0]]]), (1, 2))
    assert_allclose(carried, [[[1 + 7.5 + 25, 2.5 + 75 + 1000]]], rtol=1e-15)


@pytest.mark.parametrize("align", ALIGNS)
@pytest.mark.parametrize(("before", "after"), SIZES)
def test_the_cuda_adjoint_equals_numpy(
    before: tuple[int, int], after: tuple[int, int], align: Any, cupy: Any, rng: np.random.Generator
) -> None:
    for dtype, slack in (("f4", 1e-5), ("f8", 1e-13)):
        gradients = rng.normal(size=(2, *after)).astype(dtype)
        carried = resize_adjoint(cupy.asarray(gradients), before, align=align)
        assert isinstance(carried, cupy.ndarray)
        want = resize_adjoint(gradients, before, align=align)
        assert carried.dtype == want.dtype
        scale = after[0] * after[1] / min(before[0] * before[1], after[0] * after[1])
        assert_allclose(cupy.asnumpy(carried), want, rtol=0, atol=slack * scale)


def test_a_nan_in_a_gradient_stays_visible(cupy: Any) -> None:
    gradients = np.zeros((2, 8, 8), np.float32)
    gradients[1, 3, 3] = np.nan
    for carried in (resize_adjoint(gradients, (2, 2)), cupy.asnumpy(resize_adjoint(cupy.asarray(gradients), (2, 2)))):
        assert_array_equal(carried[0], 0)
        assert np.isnan(carried[1]).any()


def test_a_size_or_grid_that_is_none_is_refused() -> None:
    with pytest.raises(ShapeError, match="size must be at least"):
        resize_adjoint(np.zeros((1, 2, 2)), (0, 1))
    with pytest.raises(InputError, match="align must be"):
        resize_adjoint(np.zeros((1, 2, 2)), (1, 1), align="center")  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="gradients must have the shape"):
        resize_adjoint(np.zeros((2, 2)), (1, 1))


# ----- the gradient of min-max -----


def test_the_gradient_of_min_max_equals_autograds(rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    maps, gradients = rng.normal(size=(4, 9, 7)) * 3, rng.normal(size=(4, 9, 7))
    leaf = torch.from_numpy(maps).requires_grad_()
    low, high = leaf.amin((1, 2), keepdim=True), leaf.amax((1, 2), keepdim=True)
    ((leaf - low) / (high - low)).backward(torch.from_numpy(gradients))
    assert_allclose(min_max_gradient(maps, gradients), leaf.grad.numpy(), rtol=0, atol=1e-13)
    single = min_max_gradient(maps.astype("f4"), gradients.astype("f4"))
    assert single.dtype == np.float32
    assert_allclose(single, leaf.grad.numpy(), rtol=0, atol=1e-5)


def test_the_gradient_of_min_max_worked_by_hand() -> None:
    """(1, 2, 3) with slope 1 at the middle: M there is (u - a) / (b - a), so -1/4, 1/2, -1/4."""
    carried = min_max_gradient(np.array([[[1.0, 2.0, 3.0]]]), np.array([[[0.0, 1.0, 0.0]]]))
    assert_array_equal(carried, [[[-0.25, 0.5, -0.25]]])


def test_of_equal_extremes_the_first_in_raster_order_is_the_one() -> None:
    """Only pixels 1 (smallest) and 0 (largest) of the ties get the sums; the others keep Q / D."""
    maps, gradients = np.array([[[2.0, 0, 2], [0, 1, 0]]]), np.array([[[1.0, 2, 3], [4, 5, 6]]])
    above, below = 1 + 3 + 2.5, 2 + 4 + 2.5 + 6
    want = gradients / 2
    want[0, 0, 1] -= below / 2
    want[0, 0, 0] -= above / 2
    assert_array_equal(min_max_gradient(maps, gradients), want)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 5), sides, sides, st.integers(0, 2**32 - 1))
def test_shifting_or_scaling_a_map_does_not_move_its_mask(n: int, h: int, w: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    maps, gradients = rng.normal(size=(n, h, w)), rng.normal(size=(n, h, w))
    carried = min_max_gradient(maps, gradients)
    assert_allclose(carried.sum((1, 2)), 0, atol=1e-9 * h * w / max(np.ptp(maps), 1e-3) if n else 1)
    if h * w > 1:
        assert_allclose((carried * maps).sum((1, 2)), 0, atol=1e-7)
    for one, slope, found in zip(maps, gradients, carried, strict=True):
        assert_array_equal(min_max_gradient(one[None], slope[None])[0], found)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_special_maps_follow_min_max(dtype: str) -> None:
    maps, gradients = (array.astype(dtype) for array in special())
    carried, degenerate = min_max_gradient(maps, gradients), min_max(maps)[1]
    assert_array_equal(degenerate, [False, True, True, *[False] * 6])
    assert_array_equal(carried[degenerate], 0)
    assert np.isfinite(carried[:5]).all()
    assert np.isnan(carried[5:]).all()


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_the_cuda_gradient_of_min_max_equals_numpy(dtype: str, cupy: Any, rng: np.random.Generator) -> None:
    slack = {"f4": 3e-6, "f8": 1e-14}[dtype]
    for maps, gradients in [
        special(),
        (rng.normal(size=(3, 30, 40)), rng.normal(size=(3, 30, 40))),
        (np.round(rng.normal(size=(2, 30, 40))), rng.normal(size=(2, 30, 40))),  # ties far apart
        (np.zeros((0, 2, 2)), np.zeros((0, 2, 2))),
    ]:
        one, two = maps.astype(dtype), gradients.astype(dtype)
        carried = min_max_gradient(cupy.asarray(one), cupy.asarray(two))
        assert isinstance(carried, cupy.ndarray)
        want = min_max_gradient(one, two)
        assert carried.dtype == want.dtype
        assert_allclose(cupy.asnumpy(carried), want, rtol=1e-5 if dtype == "f4" else 1e-13, atol=slack * 40)


@pytest.mark.parametrize("pixel", [0, 511, 512, 1199])
def test_a_nan_anywhere_spoils_the_map(pixel: int, cupy: Any, rng: np.random.Generator) -> None:
    maps, gradients = rng.normal(size=(2, 30, 40)), rng.normal(size=(2, 30, 40))
    maps[1].ravel()[pixel] = np.nan
    on_device = min_max_gradient(cupy.asarray(maps), cupy.asarray(gradients))
    for carried in (min_max_gradient(maps, gradients), cupy.asnumpy(on_device)):
        assert np.isfinite(carried[0]).all()
        assert np.isnan(carried[1]).all()


def test_shapes_and_sides_that_do_not_fit_are_refused(fake_cupy: Any) -> None:
    with pytest.raises(ShapeError, match="do not fit maps"):
        min_max_gradient(np.zeros((1, 2, 2)), np.zeros((1, 2, 3)))
    with pytest.raises(ShapeError, match="must lie on one side"):
        min_max_gradient(np.zeros((1, 2, 2)), fake_cupy.asarray(np.zeros((1, 2, 2))))
