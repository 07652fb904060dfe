"""Linear imputation against a solution of the whole system by SciPy, its identities, and the CUDA kernel."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csc_matrix
from scipy.sparse.linalg import spsolve

from camrt.errors import InputError, NumericError, ShapeError
from camrt.kernels import imputation, impute

DEFAULT = 2e-5  # of the known pixels' range
SIZES = [(1, 1), (1, 2), (2, 2), (1, 9), (9, 1), (3, 3), (5, 7), (8, 8), (9, 8), (16, 17), (30, 21), (1, 150), (3, 90)]


def oracle(image: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Fill one image (C, H, W): the mean of the neighbours written out pixel by pixel, and solved as a sparse system."""
    channels, height, width = image.shape
    holes = [(int(y), int(x)) for y, x in np.argwhere(missing)]
    number = {hole: i for i, hole in enumerate(holes)}
    entries: list[tuple[int, int, float]] = []
    known = np.zeros((len(holes), channels))
    for i, (y, x) in enumerate(holes):
        around = [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
        inside = [(v, u) for v, u in around if 0 <= v < height and 0 <= u < width]
        weights = [1 / 6 if v == y or u == x else 1 / 12 for v, u in inside]
        entries.append((i, i, sum(weights)))
        for weight, place in zip(weights, inside, strict=True):
            if place in number:
                entries.append((i, number[place], -weight))
            else:
                known[i] += weight * image[:, *place].astype("f8")
    filled = image.astype("f8")
    if holes:
        rows, columns, values = zip(*entries, strict=True)
        matrix = csc_matrix((values, (rows, columns)), shape=(len(holes), len(holes)))
        filled[:, missing] = spsolve(matrix, known).reshape(len(holes), channels).T
    return filled


def assert_imputed(got: np.ndarray, image: np.ndarray, missing: np.ndarray, tolerance: float) -> None:
    """Hold one image (C, H, W) against the oracle, and its known pixels against the image."""
    assert_array_equal(got[:, ~missing], image[:, ~missing])
    span = np.ptp(image[:, ~missing].astype("f8"), axis=1)[:, None, None]
    largest = np.abs(image[:, ~missing]).max()
    rounding = (2 * float(np.finfo(got.dtype).eps) + 1e-11) * largest  # the second is the oracle's
    assert (np.abs(got - oracle(image, missing)) <= tolerance * span + rounding).all()


def masks(kind: str, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Return three masks (3, H, W) that know one pixel at least."""
    height, width = size
    y, x = np.mgrid[:height, :width]
    if kind == "noise":
        missing = rng.random((3, *size)) < np.array([0.1, 0.5, 0.9])[:, None, None]
    elif kind == "blobs":
        centre = rng.random((3, 2, 1, 1)) * np.array(size)[:, None, None]
        missing = np.hypot(y - centre[:, 0], x - centre[:, 1]) < np.array([0.2, 0.4, 0.8])[:, None, None] * max(size)
    elif kind == "one missing":
        missing = y * width + x == rng.integers(height * width, size=3)[:, None, None]
    else:  # one known, and the corners
        missing = y * width + x != np.array([0, height * width - 1, height * width // 2])[:, None, None]
    missing[missing.all((1, 2)), height // 2, width // 2] = False
    return missing


KINDS = ["noise", "blobs", "one missing", "one known"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [*SIZES, (40, 64)])
def test_missing_pixels_solve_the_sparse_system(kind: str, size: tuple[int, int], rng: np.random.Generator) -> None:
    images = rng.normal(2, 5, size=(3, 2, *size))
    missing = masks(kind, size, rng)
    for dtype, tolerance in (("f4", DEFAULT), ("f8", DEFAULT), ("f8", 1e-10)):
        imputed = impute(images.astype(dtype), missing, tolerance=tolerance)
        assert imputed.dtype == dtype
        for got, image, mask in zip(imputed, images.astype(dtype), missing, strict=True):
            assert_imputed(got, image, mask, tolerance)


def test_a_long_strip_with_one_known_end_is_exact_in_float32() -> None:
    """The solution is the known pixel everywhere, and for the second row of the batch a ramp between both ends."""
    images = np.zeros((2, 1, 1, 400), np.float32)
    images[:, ..., 0], images[:, ..., -1] = 1, [[[3.0]], [[5.0]]]
    missing = np.ones((2, 1, 400), bool)
    missing[:, :, 0] = missing[1, :, -1] = False
    imputed = impute(images, missing, tolerance=1e-6)
    assert_array_equal(imputed[0], np.ones((1, 1, 400)))
    assert_allclose(imputed[1, 0, 0], np.linspace(1, 5, 400), rtol=0, atol=4e-6 + 1e-6)


@pytest.mark.parametrize(
    ("missing", "filled"),
    [
        ([[0, 0, 0], [0, 1, 0], [0, 0, 0]], (1 + 3 + 7 + 9) / 12 + (2 + 4 + 6 + 8) / 6),
        ([[1, 0, 0], [0, 0, 0], [0, 0, 0]], (2 * 2 + 2 * 4 + 5) / 5),
        ([[0, 1, 0], [0, 0, 0], [0, 0, 0]], (2 * 1 + 2 * 3 + 4 + 2 * 5 + 6) / 8),
        ([[0, 0, 0], [0, 0, 0], [0, 1, 0]], (4 + 2 * 5 + 6 + 2 * 7 + 2 * 9) / 8),
    ],
    ids=["middle", "corner", "upper edge", "lower edge"],
)
def test_one_missing_pixel_of_nine_worked_by_hand(missing: list[list[int]], filled: float, cupy: Any) -> None:
    """Direct neighbours weigh twice as much as diagonal ones, and those outside the picture do not count."""
    image = np.arange(1.0, 10.0).reshape(1, 1, 3, 3)
    mask = np.array(missing, bool)[None]
    want = np.where(mask, filled, image)
    assert_allclose(impute(image, mask), want, rtol=1e-12)
    assert_allclose(cupy.asnumpy(impute(cupy.asarray(image), cupy.asarray(mask))), want, rtol=1e-12)


def test_two_missing_neighbours_worked_by_hand(cupy: Any) -> None:
    """In the row 1 u v 4 both weigh their two neighbours alike: u = (1 + v)/2, v = (u + 4)/2, so u = 2 and v = 3."""
    image, mask = np.array([1.0, 0, 0, 4]).reshape(1, 1, 1, 4), np.array([[[False, True, True, False]]])
    want = np.array([1.0, 2, 3, 4]).reshape(1, 1, 1, 4)
    assert_allclose(impute(image, mask), want, rtol=1e-12)
    assert_allclose(cupy.asnumpy(impute(cupy.asarray(image), cupy.asarray(mask))), want, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(1, 9), (7, 5), (11, 12)])
def test_the_cuda_kernel_solves_the_same_system(
    kind: str, size: tuple[int, int], dtype: str, cupy: Any, rng: np.random.Generator
) -> None:
    images = rng.normal(2, 5, size=(3, 1, *size)).astype(dtype)
    missing = masks(kind, size, rng)
    imputed = impute(cupy.asarray(images), cupy.asarray(missing))
    assert isinstance(imputed, cupy.ndarray)
    assert imputed.dtype == dtype
    for got, image, mask in zip(cupy.asnumpy(imputed), images, missing, strict=True):
        assert_imputed(got, image, mask, DEFAULT)


def test_the_cuda_kernel_stops_early_enough_to_matter_and_late_enough_to_hold(cupy: Any) -> None:
    """A strip whose ends are known needs all its steps; a loose tolerance is held too."""
    images = np.linspace(0, 1, 120).reshape(1, 1, 2, 60) ** 2
    missing = np.ones((1, 2, 60), bool)
    missing[..., 0] = missing[..., -1] = False
    for tolerance in (1e-2, 1e-10):
        imputed = cupy.asnumpy(impute(cupy.asarray(images), cupy.asarray(missing), tolerance=tolerance))
        assert_imputed(imputed[0], images[0], missing[0], tolerance)


def test_which_and_the_layout_choose_rows_and_axes(cupy: Any, rng: np.random.Generator) -> None:
    images = rng.normal(size=(2, 3, 6, 5)).astype("f4")
    missing = rng.random((4, 6, 5)) < 0.4
    which = np.array([1, 0, 1, 1])
    want = impute(images[which], missing)
    assert_array_equal(impute(images, missing, which=which), want)
    last = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    got = impute(last, missing, which=which, channels_last=True)
    assert got.flags.c_contiguous
    assert_array_equal(got.transpose(0, 3, 1, 2), want)
    assert_array_equal(impute(last.transpose(0, 3, 1, 2), missing, which=which), want)
    for array, channels_last in ((images, False), (last, True)):
        got = cupy.asnumpy(
            impute(cupy.asarray(array), cupy.asarray(missing), which=cupy.asarray(which), channels_last=channels_last)
        )
        assert got.shape == (4, *array.shape[1:])
        for row, mask in enumerate(missing):
            planes = got[row].transpose(2, 0, 1) if channels_last else got[row]
            assert_imputed(planes, images[which[row]], mask, DEFAULT)


@pytest.mark.parametrize("size", [(224, 224), (100, 40), (40, 300), (1, 200), (2, 256), (131, 5)])
def test_ten_cycles_do_at_any_size(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    """That is what the coarser levels are for: conjugate gradients alone take as many steps as the picture is wide."""
    monkeypatch.setattr(imputation, "MAX_CYCLES", 10)
    images = rng.random((3, 1, *size))
    for kind in ("noise", "blobs", "one known"):
        assert np.isfinite(impute(images, masks(kind, size, rng))).all()  # else it raises


def test_threads_and_the_memory_they_keep_change_nothing(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    images, missing = rng.random((12, 2, 40, 30)), rng.random((12, 40, 30)) < rng.random((12, 1, 1))
    missing[::2, :20] = False  # so that windows differ in size
    want = impute(images, missing, threads=1)
    monkeypatch.setattr(imputation, "SMALL", 0)
    for threads in (2, 5, None):
        assert_array_equal(impute(images, missing, threads=threads), want)
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda i: impute(images[i : i + 1], missing[i : i + 1])[0], list(range(12)) * 4))
    assert_array_equal(np.reshape(got, (4, *want.shape)), np.stack([want] * 4))
    monkeypatch.setattr(imputation, "KEPT_BYTES", 0)
    assert_array_equal(impute(images, missing), want)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 5), st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_a_batch_equals_its_rows_one_by_one_to_the_bit(n: int, h: int, w: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(n, 2, h, w)).astype("f4")
    missing = rng.random((n, h, w)) < rng.random((n, 1, 1))
    missing[:, rng.integers(h), rng.integers(w)] = False
    imputed = impute(images, missing)
    for i in rng.permutation(n):
        assert_array_equal(impute(images[i : i + 1], missing[i : i + 1])[0], imputed[i])


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 24), st.integers(1, 24), st.integers(0, 2**32 - 1))
def test_values_stay_in_range_and_follow_affine_changes_of_the_image(h: int, w: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(1, 3, h, w))
    missing = rng.random((1, h, w)) < rng.random()
    missing[:, rng.integers(h), rng.integers(w)] = False
    imputed = impute(images, missing)
    known = images[:, :, ~missing[0]]
    assert (imputed >= known.min(2)[..., None, None])[:, :, missing[0]].all()
    assert (imputed <= known.max(2)[..., None, None])[:, :, missing[0]].all()
    scale, shift = np.array([3.0, -0.25, 1e-30])[:, None, None], np.array([100.0, -7.0, 0.0])[:, None, None]
    moved = impute(images * scale + shift, missing)
    span = np.abs(scale) * np.ptp(known, axis=2)[..., None, None]
    assert (np.abs(moved - (imputed * scale + shift)) <= 2 * DEFAULT * span + 1e-13 * np.abs(shift)).all()


def test_nothing_missing_changes_nothing_and_a_constant_stays(cupy: Any, rng: np.random.Generator) -> None:
    images = rng.normal(size=(2, 3, 9, 20)).astype("f4")
    missing = rng.random((2, 9, 20)) < 0.8
    nothing = np.zeros_like(missing)
    constant = np.full_like(images, 0.1)
    for array, mask, want in ((images, nothing, images), (constant, missing, constant)):
        assert_array_equal(impute(array, mask), want)
        assert_array_equal(cupy.asnumpy(impute(cupy.asarray(array), cupy.asarray(mask))), want)
    assert impute(images, nothing) is not images


def test_what_a_missing_pixel_held_and_the_channels_beside_do_not_matter(cupy: Any, rng: np.random.Generator) -> None:
    images = rng.normal(size=(1, 3, 7, 12))
    missing = rng.random((1, 7, 12)) < 0.5
    want = impute(images, missing)
    other = np.where(missing[:, None], np.array([np.nan, np.inf, 1e300])[:, None, None], images)
    assert_array_equal(impute(other, missing), want)
    got = cupy.asnumpy(impute(cupy.asarray(other), cupy.asarray(missing)))
    assert_imputed(got[0], images[0], missing[0], DEFAULT)


@pytest.mark.parametrize("spoiler", [np.nan, np.inf, -np.inf])
def test_a_known_pixel_that_is_not_finite_spoils_its_channel_alone(
    spoiler: float, cupy: Any, rng: np.random.Generator
) -> None:
    images = rng.normal(size=(2, 2, 5, 9)).astype("f4")
    missing = rng.random((2, 5, 9)) < 0.5
    missing[0, 2, 3] = False
    clean = impute(images, missing)
    images[0, 1, 2, 3] = spoiler
    for array, mask, back in (
        (images, missing, np.asarray),
        (cupy.asarray(images), cupy.asarray(missing), cupy.asnumpy),
    ):
        imputed = back(impute(array, mask))
        assert np.isnan(imputed[0, 1][missing[0]]).all()
        assert_array_equal(imputed[0, 1][~missing[0]], images[0, 1][~missing[0]])
        spared = np.array([[True, False], [True, True]])
        assert_allclose(imputed[spared], clean[spared], rtol=0, atol=2 * DEFAULT * np.ptp(clean))


def test_half_precision_any_layout_no_rows_and_the_input_kept(cupy: Any, rng: np.random.Generator) -> None:
    images = (1e4 * rng.normal(size=(2, 2, 6, 4))).astype(np.float16)
    missing = rng.random((2, 4, 6)) < 0.5
    before = images.copy()
    turned = images.transpose(0, 1, 3, 2)
    for imputed in (
        impute(turned, missing),
        cupy.asnumpy(impute(cupy.asarray(images).transpose(0, 1, 3, 2), cupy.asarray(missing))),
    ):
        assert imputed.dtype == np.float32
        for got, image, mask in zip(imputed, turned.astype("f4"), missing, strict=True):
            assert_imputed(got, image, mask, DEFAULT)
    assert_array_equal(images, before)
    assert impute(images[:0], missing[:0].transpose(0, 2, 1)).shape == (0, 2, 6, 4)
    assert impute(cupy.asarray(images[:0]), cupy.asarray(missing[:0].transpose(0, 2, 1))).shape == (0, 2, 6, 4)


def test_a_row_without_a_known_pixel_is_refused_and_is_nan_on_the_gpu(cupy: Any) -> None:
    images, missing = np.ones((2, 1, 3, 4)), np.zeros((2, 3, 4), bool)
    missing[1] = True
    with pytest.raises(InputError, match="every pixel is missing in row 1, so nothing tells what it was; leave one"):
        impute(images, missing)
    got = cupy.asnumpy(impute(cupy.asarray(images), cupy.asarray(missing)))
    assert_array_equal(got[0], images[0])
    assert np.isnan(got[1]).all()


@pytest.mark.parametrize(("shape", "workers"), [((2, 3, 8, 8), []), ((2, 1, 520, 520), [2])])
def test_only_large_pictures_are_shared_by_threads(
    shape: tuple[int, ...], workers: list[int], monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    made = []

    class Pool(ThreadPoolExecutor):
        def __init__(self, n: int, name: str) -> None:
            made.append(n)
            super().__init__(n, name)

    monkeypatch.setattr(imputation, "ThreadPoolExecutor", Pool)
    missing = np.zeros((2, *shape[2:]), bool)
    missing[:, 3, 3] = True
    impute(rng.random(shape, np.float32), missing, threads=2)
    assert made == workers


def test_what_does_not_converge_is_an_error_and_is_nan_on_the_gpu(
    cupy: Any, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    images, missing = rng.random((1, 1, 12, 12)), np.ones((1, 12, 12), bool)
    missing[0, [0, 11], [0, 11]] = False
    monkeypatch.setattr(imputation, "MAX_CYCLES", 2)
    monkeypatch.setattr(imputation, "STEPS", 0)
    with pytest.raises(NumericError, match="row 0 is not solved to 1e-10 in 2 cycles"):
        impute(images, missing, tolerance=1e-10)
    easy = np.zeros_like(missing)
    monkeypatch.setattr(imputation, "SMALL", 0)
    for threads in (1, 3):
        with pytest.raises(NumericError, match="row 2 is not solved"):
            impute(images[[0] * 4], np.concatenate([easy, easy, missing, missing]), tolerance=1e-10, threads=threads)
    got = cupy.asnumpy(impute(cupy.asarray(images), cupy.asarray(missing)))
    assert_array_equal(np.isnan(got[0, 0]), missing[0])


@pytest.mark.parametrize(
    ("missing", "which", "message"),
    [
        (np.zeros((2, 3, 4)), None, r"missing must be bool \(B, 3, 4\), got float64 \(2, 3, 4\)"),
        (np.zeros((2, 4, 3), bool), None, r"missing must be bool \(B, 3, 4\), got bool \(2, 4, 3\)"),
        (np.zeros((3, 3, 4), bool), None, "3 masks do not fit 2 images; say which image each belongs to"),
        (np.zeros((3, 3, 4), bool), np.zeros(2, "i8"), r"which must be int64 \(3,\), one a row"),
        (np.zeros((1, 3, 4), bool), np.array([2]), "which must be between 0 and 1, got 2 to 2"),
    ],
)
def test_masks_that_do_not_fit_are_refused(missing: np.ndarray, which: np.ndarray | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        impute(np.zeros((2, 1, 3, 4)), missing, which=which)


def test_arrays_of_two_sides_other_ranks_and_tolerances_out_of_range_are_refused(fake_cupy: Any) -> None:
    images, missing = np.zeros((1, 1, 3, 4), np.float32), np.zeros((1, 3, 4), bool)
    with pytest.raises(ShapeError, match="images on the host, missing on the GPU"):
        impute(images, fake_cupy.asarray(missing))
    with pytest.raises(ShapeError, match=r"images must have the shape \(N, H, W, C\), got \(1, 3, 4\)"):
        impute(images[0], missing, channels_last=True)
    for tolerance in (0.0, 9e-7, 1.0, float("nan")):
        with pytest.raises(InputError, match="tolerance must be between 1e-06 for float32 and 1, got"):
            impute(images, missing, tolerance=tolerance)
    with pytest.raises(InputError, match="threads must be at least 1, got 0"):
        impute(images, missing, threads=0)
