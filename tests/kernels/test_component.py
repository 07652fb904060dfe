"""The first principal component against NumPy's singular value decomposition, and the CUDA kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from camrt.errors import ShapeError
from camrt.kernels import leading_component

SHAPES = [(1, 1, 1, 1), (2, 1, 3, 4), (2, 5, 1, 1), (2, 5, 3, 4), (3, 40, 2, 3), (2, 6, 3, 2), (3, 4, 1, 9)]


def oracle(tensor: np.ndarray, center: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return one image's projection and two largest singular values by SVD in float64; the sign is LAPACK's."""
    k = tensor.shape[0]
    matrix = tensor.reshape(k, -1).T.astype("f8")  # (Z, K)
    if center:
        matrix = matrix - matrix.mean(0)
    u, values, _ = np.linalg.svd(matrix, full_matrices=False)
    return (values[0] * u[:, 0]).reshape(tensor.shape[1:]), np.append(values, 0)[:2]


def assert_equals_svd(tensor: np.ndarray, center: bool, maps: np.ndarray, values: np.ndarray) -> None:
    """Hold every image against the oracle: same values, same map up to its sign."""
    eps = float(np.finfo(maps.dtype).eps)
    for one, got, pair in zip(tensor, maps, values, strict=True):
        want, want_values = oracle(one, center)
        size = max(want_values[0], 1e-300)
        assert_allclose(pair[0], want_values[0], rtol=8 * eps, atol=1e-13)
        assert_allclose(pair[1], want_values[1], rtol=8 * eps, atol=4e-8 * size)  # the root of float64's rounding
        if want_values[0] < 1e-10:  # centred, and one cell or constant: nothing is left
            assert_array_equal(got, np.zeros_like(got))
            continue
        gap = 1 - (want_values[1] / size) ** 2
        assert gap > 1e-3, "the oracle itself is ill-conditioned here; choose other data"
        turn = np.sign(np.vdot(got, want))
        assert_allclose(got, turn * want, rtol=0, atol=size * (2 * eps + 1e-14 / gap))


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("shape", [*SHAPES, (1, 2048, 7, 7), (1, 30, 14, 14)])
def test_the_component_equals_the_singular_value_decomposition(
    shape: tuple[int, ...], center: bool, dtype: str, rng: np.random.Generator
) -> None:
    tensor = rng.gamma(1.0, size=shape).astype(dtype)
    maps, values = leading_component(tensor, center=center)
    assert maps.dtype == values.dtype == dtype
    assert maps.shape == (shape[0], *shape[2:])
    assert_equals_svd(tensor, center, maps, values)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("shape", [*SHAPES, (1, 70, 5, 7), (1, 19, 6, 7)])
def test_the_cuda_kernels_equal_numpy(
    shape: tuple[int, ...], center: bool, dtype: str, cupy: Any, rng: np.random.Generator
) -> None:
    tensor = rng.gamma(1.0, size=shape).astype(dtype)
    maps, values = leading_component(cupy.asarray(tensor), center=center)
    assert isinstance(maps, cupy.ndarray)
    assert isinstance(values, cupy.ndarray)
    want, want_values = leading_component(tensor, center=center)
    assert_equals_svd(tensor, center, cupy.asnumpy(maps), cupy.asnumpy(values))
    size = want_values.max()
    rounding = 4 * float(np.finfo(dtype).eps) + 1e-11  # 1e-11: the eigenvector's condition at a gap of 1e-3 or more
    assert_allclose(cupy.asnumpy(maps), want, rtol=0, atol=size * rounding)  # the signs agree too
    assert maps.dtype == values.dtype == dtype


def test_the_cuda_kernels_take_half_precision_any_layout_and_no_images(cupy: Any, rng: np.random.Generator) -> None:
    tensor = (60000 * rng.random((2, 4, 3, 5))).astype(np.float16)
    maps, values = leading_component(cupy.asarray(tensor).transpose(0, 1, 3, 2), center=True)
    assert maps.dtype == np.float32
    assert_equals_svd(tensor.transpose(0, 1, 3, 2), True, cupy.asnumpy(maps), cupy.asnumpy(values))
    maps, values = leading_component(cupy.asarray(tensor[:0]), center=True)
    assert (maps.shape, values.shape) == ((0, 3, 5), (0, 2))


def spectrum(values: list[float], k: int, z: int, rng: np.random.Generator) -> np.ndarray:
    """Return a (1, K, 1, Z) tensor whose singular values are `values`."""
    left, _ = np.linalg.qr(rng.normal(size=(k, len(values))))
    right, _ = np.linalg.qr(rng.normal(size=(z, len(values))))
    tensor: np.ndarray = ((left * values) @ right.T)[None, :, None, :]
    return tensor


SPECTRA = [
    [3.0, 2.0, 1.0],
    [1.0, 1e-9],
    [1.0, 1 - 1e-6, 0.5],
    [1e-3],
    [1e12, 1.0],
    [1.0] * 5,
    [2.0, 2.0, 1.0],
    [3e-9, 1e-9],
]


@pytest.mark.parametrize("values", SPECTRA, ids=str)
@pytest.mark.parametrize(("k", "z"), [(8, 30), (30, 8)])
def test_both_values_are_right_whatever_the_spectrum(
    values: list[float], k: int, z: int, cupy: Any, rng: np.random.Generator
) -> None:
    tensor = spectrum(values, k, z, rng)
    for array, back in ((tensor, np.asarray), (cupy.asarray(tensor), cupy.asnumpy)):
        maps, pair = (back(part) for part in leading_component(array, center=False))
        assert_allclose(pair[0], [*values, 0][:2], rtol=1e-8, atol=4e-8 * values[0])
        # a tie leaves the component free within its plane, but it is always a map of that length
        assert_allclose(np.linalg.norm(maps), values[0], rtol=1e-8)


def test_two_cells_worked_by_hand() -> None:
    """Cells (3, 4) and (0, 0): v1 = (3, 4)/5 and S = (5, 0); centred, cells (1.5, 2) and -(1.5, 2): S = (2.5, -2.5)."""
    tensor = np.array([[[[3.0, 0.0]], [[4.0, 0.0]]]])
    maps, values = leading_component(tensor, center=False)
    assert_allclose(maps, [[[5, 0]]], atol=1e-14)
    assert_allclose(values, [[5, 0]], atol=1e-7)
    maps, values = leading_component(tensor, center=True)
    assert_allclose(maps, [[[2.5, -2.5]]], atol=1e-14)
    assert_allclose(values, [[12.5**0.5, 0]], atol=1e-7)


def test_the_first_of_nearly_largest_cells_is_positive(cupy: Any) -> None:
    """One channel is its own component: (-0.9995, 1) turns, because 0.9995 counts as largest; (-0.99, 1) does not."""
    tensor = np.array([[-0.9995, 1.0], [-0.99, 1.0]]).reshape(2, 1, 1, 2)
    for array, back in ((tensor, np.asarray), (cupy.asarray(tensor), cupy.asnumpy)):
        maps, _ = leading_component(array, center=False)
        assert_allclose(back(maps)[:, 0], [[0.9995, -1.0], [-0.99, 1.0]], rtol=1e-12)


def test_rank_one_has_a_second_value_of_zero_to_rounding_and_never_nan(cupy: Any, rng: np.random.Generator) -> None:
    tensor = (rng.normal(size=(40, 2, 1)) * rng.normal(size=(40, 1, 3)))[:, :, None, :]
    for array, back in ((tensor, np.asarray), (cupy.asarray(tensor), cupy.asnumpy)):
        values = back(leading_component(array, center=False)[1])
        assert (values[:, 1] >= 0).all()
        assert (values[:, 1] <= 4e-8 * values[:, 0]).all()


def degenerate_tensor(dtype: str) -> np.ndarray:
    """Return six images: zero, constant, constant channels, nearly constant, ordinary, and with a NaN."""
    rng = np.random.default_rng(5)
    channels = rng.normal(size=(4, 1, 1)) * np.ones((4, 3, 5))
    nearly = 0.1 * (1 + np.finfo(dtype).eps * rng.integers(-1, 2, size=(4, 3, 5)))
    ordinary = rng.normal(size=(4, 3, 5))
    spoiled = ordinary.copy()
    spoiled[1, 2, 3] = np.nan
    zero = np.zeros((4, 3, 5))
    return np.stack([zero, zero + 0.1, channels, nearly, ordinary, spoiled]).astype(dtype)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_zero_and_centred_constant_channels_give_zero_and_nan_stays_in_its_image(dtype: str, cupy: Any) -> None:
    tensor = degenerate_tensor(dtype)
    for array, back in ((tensor, np.asarray), (cupy.asarray(tensor), cupy.asnumpy)):
        maps, values = (back(part) for part in leading_component(array, center=True))
        assert_array_equal(maps[:4], np.zeros((4, 3, 5)))
        assert_array_equal(values[:4], np.zeros((4, 2)))
        assert_equals_svd(tensor[4:5], True, maps[4:5], values[4:5])
        assert np.isnan(maps[5]).all()
        assert np.isnan(values[5]).all()


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_uncentred_zero_gives_zero_and_a_constant_gives_a_constant(dtype: str, cupy: Any) -> None:
    """A constant c in K channels of Z cells: the one singular value is c * sqrt(K * Z), and S = c * sqrt(K)."""
    tensor = degenerate_tensor(dtype)[:2]
    for array, back in ((tensor, np.asarray), (cupy.asarray(tensor), cupy.asnumpy)):
        maps, values = (back(part) for part in leading_component(array, center=False))
        assert_array_equal(maps[0], np.zeros((3, 5)))
        assert_array_equal(values[0], [0, 0])
        assert_allclose(maps[1], np.full((3, 5), 0.1 * 4**0.5), rtol=1e-6 if dtype == "f4" else 1e-12)
        assert_allclose(values[1], [0.1 * 60**0.5, 0], rtol=1e-6, atol=1e-7)


def test_infinity_gives_nan(cupy: Any) -> None:
    tensor = np.ones((1, 3, 2, 2), np.float32)
    tensor[0, 0, 0, 0] = -np.inf
    for array, back in ((tensor, np.asarray), (cupy.asarray(tensor), cupy.asnumpy)):
        maps, values = (back(part) for part in leading_component(array, center=True))
        assert np.isnan(maps).all()
        assert np.isnan(values).all()


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 5),
    st.integers(1, 12),
    st.integers(1, 5),
    st.integers(1, 5),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_a_batch_equals_its_images_one_by_one_and_the_sign_follows_the_rule(
    n: int, k: int, h: int, w: int, center: bool, seed: int
) -> None:
    tensor = np.random.default_rng(seed).normal(size=(n, k, h, w)).astype("f4")
    maps, values = leading_component(tensor, center=center)
    for i in range(n):
        one_map, one_values = leading_component(tensor[i : i + 1], center=center)
        assert_array_equal(one_map[0], maps[i])
        assert_array_equal(one_values[0], values[i])
        flat = maps[i].ravel()
        assert flat[np.argmax(np.abs(flat) >= 0.999 * np.abs(flat).max())] >= 0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_nonnegative_activations_have_a_nonnegative_uncentred_component(seed: int) -> None:
    """Perron and Frobenius: a nonnegative matrix has a nonnegative leading vector, and the sign rule picks it."""
    tensor = np.random.default_rng(seed).random((1, 7, 3, 4))
    maps, _ = leading_component(tensor, center=False)
    assert maps.min() > 0


def test_the_order_of_channels_does_not_matter(rng: np.random.Generator) -> None:
    tensor = rng.gamma(1.0, size=(2, 9, 3, 4))
    maps, values = leading_component(tensor, center=True)
    shuffled, same_values = leading_component(tensor[:, rng.permutation(9)], center=True)
    assert_allclose(shuffled, maps, rtol=0, atol=1e-12 * values.max())
    assert_allclose(same_values, values, rtol=1e-12)


def test_257_images_none_at_all_and_any_layout(rng: np.random.Generator) -> None:
    tensor = rng.gamma(1.0, size=(257, 3, 2, 4))
    maps, values = leading_component(tensor, center=False)
    assert_equals_svd(tensor, False, maps, values)
    channels_last = np.ascontiguousarray(tensor.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    assert_array_equal(leading_component(channels_last, center=False)[0], maps)
    maps, values = leading_component(tensor[:0], center=True)
    assert (maps.shape, values.shape) == ((0, 2, 4), (0, 2))


def test_the_input_is_kept(rng: np.random.Generator) -> None:
    tensor = rng.normal(size=(1, 3, 2, 4))
    before = tensor.copy()
    leading_component(tensor, center=True)
    assert_array_equal(tensor, before)


def test_half_precision_does_not_overflow() -> None:
    """One cell of K = 4 channels at 60000: the value is 120000, beyond float16; its square beyond it by far."""
    maps, values = leading_component(np.full((1, 4, 1, 1), 60000, np.float16), center=False)
    assert maps.dtype == np.float32
    assert_allclose(maps, [[[120000]]], rtol=1e-6)
    assert_allclose(values, [[120000, 0]], rtol=1e-6)


def test_a_tensor_of_another_rank_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"tensor must have the shape \(N, K, h, w\), got \(2, 2, 2\)"):
        leading_component(np.zeros((2, 2, 2)), center=True)
