"""Correlations, region sums and means against values worked by hand, SciPy, exact sums, and the CUDA kernels."""

from __future__ import annotations

from math import fsum, sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from camrt.errors import ShapeError
from camrt.kernels import map_means, pearson, region_sums

TYPES = ["f2", "f4", "f8"]


def test_correlations_worked_by_hand() -> None:
    """0 0 0 1 against 0 0 1 1: covariance 2/16, variances 3/16 and 4/16, so r = 1 / sqrt(3)."""
    a, b = np.array([[[0.0, 0], [0, 1]]]), np.array([[[0.0, 0], [1, 1]]])
    assert_allclose(pearson(a, b)[0], [1 / sqrt(3)], rtol=1e-15)
    assert pearson(a, 3 * a + 7)[0].tolist() == [1]
    assert pearson(a, 1 - a)[0].tolist() == [-1]
    assert pearson(np.array([[1.0, 1, -1, -1]]), np.array([[1.0, -1, 1, -1]]))[0].tolist() == [0]


@pytest.mark.parametrize("types", [("f2", "f2"), ("f4", "f4"), ("f8", "f8"), ("f4", "f8")])
@pytest.mark.parametrize("shape", [(4, 9, 31), (2, 7), (3, 2, 5, 20), (0, 3, 3)])
def test_correlations_equal_scipys_and_the_cuda_kernel_numpy(
    shape: tuple[int, ...], types: tuple[str, str], cupy: Any, rng: np.random.Generator
) -> None:
    stats = pytest.importorskip("scipy.stats")
    a, b = (rng.normal(size=shape).astype(dtype) for dtype in types)
    r, constant = pearson(a, b)
    want = [stats.pearsonr(u.astype("f8").ravel(), v.astype("f8").ravel()).statistic for u, v in zip(a, b, strict=True)]
    assert r.dtype == np.float64
    assert_allclose(r, np.reshape(want, -1), rtol=0, atol=1e-14)
    assert_array_equal(constant, np.zeros(len(a), bool), strict=True)
    on_gpu = pearson(cupy.asarray(a), cupy.asarray(b))
    assert all(isinstance(found, cupy.ndarray) for found in on_gpu)
    assert_allclose(cupy.asnumpy(on_gpu[0]), r, rtol=0, atol=1e-14)
    assert_array_equal(cupy.asnumpy(on_gpu[1]), constant, strict=True)


@pytest.mark.parametrize(("dtype", "bound"), [("f4", 1e-6), ("f8", 1e-12)])
def test_a_constant_row_on_either_side_correlates_to_zero_and_is_flagged(dtype: str, bound: float, cupy: Any) -> None:
    ramp = np.linspace(0, 1, 6)
    flat = 5 * (1 - ramp * bound / 2)  # within the bound
    hardly = 5 * (1 - ramp * bound * 2)  # beyond it
    a = np.stack([ramp, flat, np.zeros(6), ramp, hardly]).astype(dtype)
    b = np.stack([flat, ramp, ramp, np.zeros(6), ramp]).astype(dtype)
    for r, constant in (pearson(a, b), map(cupy.asnumpy, pearson(cupy.asarray(a), cupy.asarray(b)))):
        assert constant.tolist() == [True] * 4 + [False]
        assert r[:4].tolist() == [0] * 4
        assert r[4] < -0.7


def test_the_bound_is_that_of_each_rows_own_type(cupy: Any) -> None:
    """A variation of 1e-9 of the size is rounding in float32, but not in float64."""
    ramp = np.linspace(0, 1, 5)[None]
    fine = 1 + 1e-9 * ramp
    assert pearson(fine, ramp.astype("f4"))[1].tolist() == [False]
    assert_allclose(pearson(fine, ramp.astype("f4"))[0], [1], rtol=1e-6)
    assert pearson(ramp, fine.astype("f4"))[1].tolist() == [True]
    coarse = np.array([[1, 1 - 2**-24 * 2, 1, 1]], "f4")
    sides = cupy.asarray(ramp[:, :4].copy()), cupy.asarray(coarse)
    assert cupy.asnumpy(pearson(*sides)[1]).tolist() == pearson(ramp[:, :4], coarse)[1].tolist() == [True]


def test_what_is_not_finite_stays_visible_in_its_row(cupy: Any, rng: np.random.Generator) -> None:
    a = rng.normal(size=(5, 600)).astype("f4")
    b = a.copy()
    a[1, 555], b[2, 3], a[3, 0] = np.nan, np.inf, -np.inf
    for r, constant in (pearson(a, b), map(cupy.asnumpy, pearson(cupy.asarray(a), cupy.asarray(b)))):
        assert_array_equal(np.isnan(r), [False, True, True, True, False])
        assert not constant.any()


@pytest.mark.parametrize("least", [1.0, 0.0])
def test_squares_that_would_overflow_or_vanish_do_not(least: float, cupy: Any) -> None:
    a = np.array([[least, 2.0, 4.0]])
    for size in (1e200, 1e-200):
        want = pearson(a, a * [[3, 1, 2]])[0]
        assert_allclose(pearson(a * size, a * [[3, 1, 2]] / size)[0], want, rtol=1e-12)
        found = pearson(cupy.asarray(a * size), cupy.asarray(a * [[3, 1, 2]] / size))[0]
        assert_allclose(cupy.asnumpy(found), want, rtol=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(2, 40), st.floats(0.01, 100), st.floats(-10, 10), st.integers(0, 2**32 - 1))
def test_correlation_is_symmetric_bounded_and_blind_to_scale_and_shift(
    n: int, n_values: int, gain: float, shift: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(n, n_values)), rng.normal(size=(n, n_values))
    r, _ = pearson(a, b)
    assert (np.abs(r) <= 1).all()
    assert_array_equal(pearson(b, a)[0], r)
    assert_allclose(pearson(a * gain + shift, b)[0], r, rtol=0, atol=1e-11)
    assert_allclose(pearson(-a, b)[0], -r, rtol=0, atol=1e-13)
    assert_array_equal(np.concatenate([pearson(u[None], v[None])[0] for u, v in zip(a, b, strict=True)]), r)


def test_sums_worked_by_hand() -> None:
    maps = np.array([[[1.0, 2.0], [4.0, 8.0]]], "f4")
    inside, total = region_sums(maps, np.array([[[0, 7], [1, 0]]], np.uint8))
    assert (inside.tolist(), total.tolist(), map_means(maps).tolist()) == ([6], [15], [3.75])


@pytest.mark.parametrize("kind", [bool, np.uint8])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(3, 9, 31), (1, 1, 1), (2, 30, 20), (0, 4, 4)])
def test_sums_and_means_equal_exact_ones_on_both_sides(
    shape: tuple[int, ...], dtype: str, kind: Any, cupy: Any, rng: np.random.Generator
) -> None:
    maps, regions = rng.random(shape).astype(dtype), rng.integers(0, 2, shape).astype(kind)
    inside = [fsum(one[region != 0].astype("f8")) for one, region in zip(maps, regions, strict=True)]
    total = [fsum(one.astype("f8").ravel()) for one in maps]
    for module in (np, cupy):
        on_side = module.asarray(maps)
        found = *region_sums(on_side, module.asarray(regions)), map_means(on_side)
        wanted = np.array(inside), np.array(total), np.array(total) / maps[:1].size if len(maps) else np.zeros(0)
        for got, want in zip(found, wanted, strict=True):
            assert isinstance(got, module.ndarray)
            assert got.dtype == np.float64
            assert_allclose(np.asarray(got), want, rtol=1e-14)


def test_the_whole_map_is_inside_to_the_bit_and_an_empty_region_holds_nothing(
    cupy: Any, rng: np.random.Generator
) -> None:
    maps = rng.normal(size=(3, 40, 33)).astype("f4")
    for module in (np, cupy):
        everywhere = region_sums(module.asarray(maps), module.asarray(np.ones(maps.shape, bool)))
        assert_array_equal(np.asarray(everywhere[0]), np.asarray(everywhere[1]))
        nowhere = region_sums(module.asarray(maps), module.asarray(np.zeros(maps.shape, bool)))[0]
        assert np.asarray(nowhere).tolist() == [0, 0, 0]


def test_a_nan_outside_the_region_spoils_the_total_alone(cupy: Any) -> None:
    maps, regions = np.ones((2, 3, 3), "f4"), np.zeros((2, 3, 3), bool)
    maps[0, 0, 0], maps[1, 2, 2], regions[:, 2] = np.nan, np.nan, True
    for module in (np, cupy):
        inside, total = region_sums(module.asarray(maps), module.asarray(regions))
        assert_array_equal(np.asarray(inside), [3, np.nan])
        assert np.isnan(np.asarray(total)).all()
        assert np.isnan(np.asarray(map_means(module.asarray(maps)))).all()


def test_the_mean_of_a_constant_map_is_its_value_and_layout_and_neighbours_do_not_matter(
    rng: np.random.Generator,
) -> None:
    assert map_means(np.ones((2, 224, 224), "f4")).tolist() == [1, 1]
    maps = rng.random((5, 17, 23))
    regions = maps > 0.5
    want = map_means(maps), *region_sums(maps, regions)
    single = [[map_means(m[None]), *region_sums(m[None], r[None])] for m, r in zip(maps, regions, strict=True)]
    for found, wanted in zip(zip(*single, strict=True), want, strict=True):
        assert_array_equal(np.concatenate(found), wanted)
    fortran = np.asfortranarray(maps)
    assert_array_equal(map_means(fortran), want[0])
    assert_array_equal(region_sums(fortran, regions)[0], want[1])
    assert_array_equal(pearson(fortran, maps**2)[0], pearson(maps, maps**2)[0])


def test_what_does_not_fit_is_refused(fake_cupy: Any) -> None:
    maps = np.zeros((2, 3, 3))
    with pytest.raises(ShapeError, match=r"a and b must be of one shape, got \(2, 3, 3\) and \(2, 9\)"):
        pearson(maps, np.zeros((2, 9)))
    with pytest.raises(ShapeError, match=r"a must have the shape \(B, ...\), got \(3,\)"):
        pearson(np.zeros(3), np.zeros(3))
    with pytest.raises(ShapeError, match="b must be float32 or float64"):
        pearson(maps, maps.astype(int))
    with pytest.raises(ShapeError, match="a must be a NumPy or CuPy array"):
        pearson([[1.0]], maps)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="has an empty axis"):
        pearson(np.zeros((2, 3, 0)), np.zeros((2, 3, 0)))
    with pytest.raises(ShapeError, match=r"regions must be bool or uint8 \(2, 3, 3\), got float64"):
        region_sums(maps, maps)
    with pytest.raises(ShapeError, match=r"got bool \(1, 3, 3\)"):
        region_sums(maps, np.zeros((1, 3, 3), bool))
    with pytest.raises(ShapeError, match="a and b must lie on one side"):
        pearson(maps, fake_cupy.asarray(maps))
    with pytest.raises(ShapeError, match="maps and regions must lie on one side"):
        region_sums(maps, fake_cupy.asarray(maps > 0))
    with pytest.raises(ShapeError, match=r"maps must have the shape \(B, H, W\), got \(3, 3\)"):
        map_means(np.zeros((3, 3)))
    with pytest.raises(ShapeError, match=r"maps must have the shape \(B, H, W\), got \(3, 3\)"):
        region_sums(np.zeros((3, 3)), np.zeros((3, 3), bool))
