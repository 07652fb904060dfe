"""
The masks of the kinks, on ONNX Runtime at the float32 numbers next to each bound: they must be exactly 0 or 1.

The oracle is the comparison of NumPy on the same numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camrt.export.load import load
from camrt.export.programs import build
from camrt.export.vjp.gate import complement, scale
from tests import tiny
from tests.export.vjp.run import emitted, gradients

Array = np.ndarray[Any, Any]


def neighbours(*bounds: float) -> Array:
    """Return each bound, the two float32 numbers on either side of it, and numbers far from all."""
    near = [np.float32(b) for b in bounds]
    with np.errstate(over="ignore", under="ignore"):
        for direction in (-np.inf, np.inf):
            for b in bounds:
                step = np.nextafter(np.float32(b), np.float32(direction))
                near += [step, np.nextafter(step, np.float32(direction))]
    far = [-np.inf, -3e38, -1e30, -1.0, -1e-30, -1.2e-38, 1.2e-38, 1e-30, 1e-8, 0.5, 1.0, 7.0, 1e30, 3e38, np.inf]
    values = np.array([*near, *far], np.float32)
    return np.asarray(
        values[(values == 0) | (np.abs(values) >= np.finfo(np.float32).tiny)]
    )  # subnormal numbers are another test


def test_the_relu_mask_is_exactly_0_or_1_for_every_normal_number() -> None:
    x = neighbours(0, 1, 6)
    (got,) = gradients("Relu", [x])
    np.testing.assert_array_equal(got, (x > 0).astype(np.float32))


def test_the_relu_mask_of_a_subnormal_number_is_between_0_and_1() -> None:
    x = np.array([1e-45, 1e-40, 5e-39, -1e-40], np.float32)
    (got,) = gradients("Relu", [x])
    np.testing.assert_allclose(got, [1e-45 * 2.0**127, 1e-40 * 2.0**127, 5e-39 * 2.0**127, 0], rtol=0.5)


BOUNDS = [
    (0, 6),
    (-1, 1),
    (0.1, 0.3),
    (-1e30, 2e30),
    (3, 3.0000002),
    (1e-20, 1e20),
    (-6, 0),
    (0, 3.4028234663852886e38),
]
TINY = [(0, 1e-35), (1e-37, 2e-37), (-1e-32, 1)]  # beyond the trick: compared instead


@pytest.mark.parametrize(("low", "high"), BOUNDS + TINY)
def test_the_clip_mask_is_exactly_0_or_1_next_to_its_bounds(low: float, high: float) -> None:
    low, high = np.float32(low), np.float32(high)
    x = neighbours(low, high, 0)
    inside = (x > low) & (x < high)
    if high == np.finfo(np.float32).max:
        inside |= x >= high  # the largest number bounds nothing
    (got,) = gradients("Clip", [x, low, high])
    np.testing.assert_array_equal(got, inside.astype(np.float32))


@settings(max_examples=60, deadline=None)
@given(
    low=st.floats(-100, 100, width=32),
    width=st.floats(2.0**-10, 100, width=32),
    x=st.lists(st.floats(-200, 200, width=32, allow_subnormal=False), min_size=1, max_size=8),
)
def test_the_clip_mask_equals_comparisons(low: float, width: float, x: list[float]) -> None:
    bounds = np.float32(low), np.float32(low) + np.float32(width)
    values = np.array([*x, *bounds], np.float32)
    inside = (values > bounds[0]) & (values < bounds[1])
    (got,) = gradients("Clip", [values, *map(np.asarray, bounds)])
    np.testing.assert_array_equal(got, inside.astype(np.float32))


def filling_blocks(values: Array) -> Array:
    """Return an image of 16 channels that holds each of `values`."""
    return np.tile(values, 16)[: 16 * len(values)].reshape(1, len(values), 16, 1).swapaxes(1, 2)


HIGHS = [6.0, 1.0, 0.5, 0.75, float(np.nextafter(np.float32(0.5), np.float32(1))), 3e-7, 1e-20, 1e20, 8.0, 7.9999995]


@pytest.mark.parametrize("high", HIGHS)
def test_one_mask_of_two_bounds_is_exactly_0_or_1_next_to_both(high: float) -> None:
    x = filling_blocks(np.abs(neighbours(0, np.float32(high))))
    inside = (x > 0) & (x < np.float32(high))
    (got,) = gradients("Clip", [x, np.float32(0), np.float32(high)])
    np.testing.assert_array_equal(got, inside.astype(np.float32))


@settings(max_examples=60, deadline=None)
@given(
    high=st.floats(2.0**-20, 2.0**20, width=32),
    parts=st.lists(st.floats(-0.5, 1.5, width=32, allow_subnormal=False), min_size=1, max_size=8),
)
def test_one_mask_of_two_bounds_equals_comparisons(high: float, parts: list[float]) -> None:
    bound = np.float32(high)
    values = np.array([*(np.float32(part) * bound for part in parts), bound, np.nextafter(bound, np.float32(0))])
    x = filling_blocks(values[(values == 0) | (np.abs(values) >= np.finfo(np.float32).tiny)])
    (got,) = gradients("Clip", [x, np.float32(0), bound])
    np.testing.assert_array_equal(got, ((x > 0) & (x < bound)).astype(np.float32))


def test_a_hard_sigmoid_of_images_has_one_mask_too() -> None:
    x = filling_blocks(neighbours(-3, 3, 0))
    y = np.clip(np.float32(0.25) * x + np.float32(0.5), 0, 1)
    (got,) = gradients("HardSigmoid", [x], {"alpha": 0.25, "beta": 0.5})
    np.testing.assert_array_equal(got, np.where((y > 0) & (y < 1), np.float32(0.25), np.float32(0)))


def test_the_leaky_relu_slope_is_right_next_to_zero() -> None:
    x = neighbours(0)
    for slope in (0.01, 0.1, 0.25, 1 / 3):
        (got,) = gradients("LeakyRelu", [x[np.isfinite(x)]], {"alpha": slope})
        want = np.where(x[np.isfinite(x)] * slope > 1e-38, 1.0, slope)
        normal = np.abs(x[np.isfinite(x)] * slope) > 1.2e-38  # the mask is read from the output
        np.testing.assert_allclose(got[normal], want[normal], rtol=1.2e-7)


def test_the_hard_sigmoid_derivative_is_exactly_alpha_or_0() -> None:
    x = neighbours(-3, 3, 0)
    y = np.clip(np.float32(0.25) * x + np.float32(0.5), 0, 1)
    (got,) = gradients("HardSigmoid", [x], {"alpha": 0.25, "beta": 0.5})
    np.testing.assert_array_equal(got, np.where((y > 0) & (y < 1), np.float32(0.25), np.float32(0)))


def test_the_derivative_of_abs_is_the_sign() -> None:
    x = neighbours(0)
    (got,) = gradients("Abs", [x])
    np.testing.assert_array_equal(got, np.sign(x))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("shape", [(5,), (2, 3), (1, 2, 3, 2)])
def test_scaling_multiplies_by_the_number(shape: tuple[int, ...], dtype: type, rng: np.random.Generator) -> None:
    x = rng.normal(size=shape).astype(dtype)
    got = emitted(x, lambda e, value: scale(e, value, 0.375, value))
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, x * dtype(0.375))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_the_complement_is_1_minus_the_value(dtype: type) -> None:
    x = np.linspace(0, 1, 33).astype(dtype)
    np.testing.assert_array_equal(emitted(x, complement), 1 - x)


@pytest.mark.parametrize("data", [tiny.gap(), tiny.mlp()])
def test_no_mask_has_an_offset_of_exactly_0(data: bytes) -> None:
    """A runtime that reads a beta of 0 as absent takes the default, one half: OpenVINO's masks were 0.5 where x is 0."""
    program, _ = build(load(data), "input_gradient")
    masks = [node for node in program.graph if node.op_type == "HardSigmoid"]
    assert masks
    assert all(node.attributes.get_float("beta", 0.5) != 0 for node in masks)
