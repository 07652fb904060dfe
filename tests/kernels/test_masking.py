"""Masked images against PyTorch in float64, the kernels they are made of, values worked by hand, and the CUDA kernel."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from camrt.errors import InputError, NumericError, ShapeError
from camrt.kernels import fill_masks, min_max, resize

SCALINGS = ["after", "before", "range", "none"]
ALIGNS = ["half_pixel", "corners"]
SIZES = [
    ((7, 7), (28, 30)),
    ((3, 5), (20, 9)),
    ((9, 12), (4, 5)),
    ((40, 3), (7, 16)),
    ((1, 1), (5, 3)),
    ((6, 4), (1, 1)),
]
TYPES = ["f2", "f4", "f8", "u1"]


def some_images(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Return images whose values use the type's range."""
    return rng.integers(0, 256, shape).astype(dtype) if dtype == "u1" else rng.normal(size=shape).astype(dtype)


def by_pytorch(images: np.ndarray, which: np.ndarray, maps: np.ndarray, **words: Any) -> Any:
    """Return the masked images (B, C, H, W) in float64, with PyTorch's interpolation."""
    torch = pytest.importorskip("torch")

    def up(values: np.ndarray) -> Any:
        tensor = torch.from_numpy(values.astype("f8"))[:, None]
        corners = words.get("align") == "corners"
        return torch.nn.functional.interpolate(tensor, images.shape[2:], mode="bilinear", align_corners=corners)[
            :, 0
        ].numpy()

    def scale(values: np.ndarray) -> Any:
        low, high = values.min((1, 2), keepdims=True), values.max((1, 2), keepdims=True)
        flat = high - low <= 1e-6 * np.maximum(abs(low), abs(high))
        start = 0 if words["scaling"] == "range" else low
        return np.where(flat, 0, (values - start) / np.where(flat, 1, high - low + words["eps"]))

    if words["scaling"] == "before":
        masks = up(scale(maps.astype("f8")))
    else:
        masks = up(maps) if words["scaling"] == "none" else scale(up(maps))
    masks = masks * words["gain"]
    masks = 1 - masks if words["inverted"] else masks
    noise = words.get("noise")
    if noise is not None and words["noise_on"] == "mask":
        masks = masks + noise[words["noise_of"]]
    masked = images[which].astype("f8") * masks[:, None]
    if words.get("hidden") is not None:
        masked += np.broadcast_to(words["hidden"], images.shape)[which] * (1 - masks[:, None])
    if noise is not None and words["noise_on"] == "input":
        masked += noise[words["noise_of"]]
    return masked


def bound(dtype: str, want: np.ndarray) -> Any:
    """Return by how much a value may differ: what its computation rounds, and what the type it is stored in does."""
    computed = (1e-12 if dtype == "f8" else 2e-6) * np.maximum(1, np.abs(want).max())
    stored = {"u1": np.full_like(want, 0.5), "f2": 2.0**-11 * np.abs(want) + 2.0**-25}
    return computed + stored.get(dtype, np.zeros_like(want))


WORDS: list[dict[str, Any]] = [
    {"scaling": "after", "eps": 0.0, "gain": 1.0, "inverted": False},
    {"scaling": "before", "eps": 0.0, "gain": 1.0, "inverted": False},
    {"scaling": "range", "eps": 0.0, "gain": 0.5, "inverted": False},
    {"scaling": "none", "eps": 0.0, "gain": 1.0, "inverted": True},
    {"scaling": "after", "eps": 0.3, "gain": -2.0, "inverted": True},
    {"scaling": "before", "eps": 1e-8, "gain": 1.0, "inverted": True},
]


@pytest.mark.parametrize("words", WORDS, ids=lambda words: f"{words['scaling']}{'-inverted' * words['inverted']}")
@pytest.mark.parametrize("dtype", TYPES)
def test_masked_images_equal_pytorchs_in_float64(words: dict[str, Any], dtype: str, rng: np.random.Generator) -> None:
    for (before, after), align in product(SIZES, ALIGNS):
        images = some_images(rng, (2, 3, *after), dtype)
        maps = rng.normal(size=(5, *before)).astype("f8" if dtype == "f8" else "f4")
        which, out = np.array([1, 0, 0, 1, 1]), np.empty((5, 3, *after), dtype)
        fill_masks(out, images, which, maps, align=align, **words)
        want = by_pytorch(images, which, maps, align=align, **words)
        if dtype == "u1":
            want = want.clip(0, 255)
        assert (np.abs(out - want) <= bound(dtype, want)).all(), (before, after, align)


@pytest.mark.parametrize("noise_on", ["mask", "input"])
@pytest.mark.parametrize("fill", ["colour", "image", "scalar"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_noise_and_what_is_hidden_equal_the_formula(
    noise_on: Any, fill: str, channels_last: bool, rng: np.random.Generator
) -> None:
    """In float64 by hand and PyTorch; the layout of the channels moves the numbers and changes none."""
    images, maps = rng.normal(size=(2, 3, 12, 10)), rng.normal(size=(4, 3, 5))
    hidden = rng.normal(size={"colour": (3, 1, 1), "image": (2, 3, 12, 10), "scalar": ()}[fill])
    noise = rng.normal(size=(3, 12, 10) if noise_on == "mask" else (3, 3, 12, 10))
    which, noise_of = np.array([0, 1, 1, 0]), np.array([2, 0, 1, 1])
    words: dict[str, Any] = {"scaling": "after", "eps": 0.0, "gain": 1.5, "inverted": False, "noise_on": noise_on}
    want = by_pytorch(images, which, maps, hidden=hidden, noise=noise, noise_of=noise_of, **words)
    if channels_last:
        images, want = (np.ascontiguousarray(np.moveaxis(a, 1, -1)) for a in (images, want))
        hidden = np.moveaxis(hidden, -3, -1) if hidden.ndim else hidden
        noise = np.moveaxis(noise, 1, -1) if noise_on == "input" else noise
    out = np.empty((4, *images.shape[1:]))
    fill_masks(
        out, images, which, maps, hidden=hidden, noise=noise, noise_of=noise_of, channels_last=channels_last, **words
    )
    assert_allclose(out, want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("align", ALIGNS)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_masks_are_those_of_resize_and_min_max_bit_for_bit(dtype: str, align: Any, rng: np.random.Generator) -> None:
    for before, after in SIZES:
        images, maps = rng.normal(size=(1, 2, *after)).astype(dtype), rng.normal(size=(6, *before)).astype(dtype)
        maps[2], maps[4] = 3.3, maps[4] * 1e20
        which, out = np.zeros(6, np.int64), np.empty((6, 2, *after), dtype)

        masks, flags = min_max(resize(maps, after, align=align))
        assert_array_equal(fill_masks(out, images, which, maps, align=align), flags)
        assert_array_equal(out, images * masks[:, None])

        masks, flags = min_max(maps)
        assert_array_equal(fill_masks(out, images, which, maps, scaling="before", align=align), flags)
        assert_array_equal(out, images * resize(masks, after, align=align)[:, None])

        assert not fill_masks(out, images, which, maps, scaling="none", align=align).any()
        assert_array_equal(out, images * resize(maps, after, align=align)[:, None])


def test_each_scaling_worked_by_hand() -> None:
    """The map (1, 5) at four pixels is 1, 2, 4, 5; its span is 4, also before the resize."""
    images, maps, which = np.full((1, 1, 1, 4), 8.0), np.array([[[1.0, 5.0]]]), np.array([0])
    out = np.empty_like(images)
    rows: list[tuple[dict[str, Any], list[float]]] = [
        ({"scaling": "after"}, [0, 2, 6, 8]),
        ({"scaling": "after", "eps": 4.0}, [0, 1, 3, 4]),
        ({"scaling": "before"}, [0, 2, 6, 8]),
        ({"scaling": "range"}, [2, 4, 8, 10]),
        ({"scaling": "none"}, [8, 16, 32, 40]),
        ({"gain": 0.5}, [0, 1, 3, 4]),
        ({"inverted": True}, [8, 6, 2, 0]),
        ({"gain": 0.5, "inverted": True}, [8, 7, 5, 4]),
        ({"hidden": np.array(4.0)}, [4, 5, 7, 8]),
        ({"inverted": True, "hidden": np.full((1, 1, 1, 4), 4.0)}, [8, 7, 5, 4]),
    ]
    for words, want in rows:
        fill_masks(out, images, which, maps, **words)
        assert_array_equal(out.ravel(), want, err_msg=str(words))


def test_scaling_before_and_after_the_resize_differ_where_the_peak_falls_between_pixels() -> None:
    """Three cells (0, 1, 0) at two pixels sample 1/4 and 7/4: both 1/4 of the way off; after it the map is constant."""
    images, maps, which, out = (
        np.ones((1, 1, 1, 2)),
        np.array([[[0.0, 1.0, 0.0]]]),
        np.array([0]),
        np.empty((1, 1, 1, 2)),
    )
    assert fill_masks(out, images, which, maps).tolist() == [True]
    assert_array_equal(out, 0)
    assert fill_masks(out, images, which, maps, scaling="before").tolist() == [False]
    assert_array_equal(out.ravel(), [0.25, 0.25])


@pytest.mark.parametrize("value", [0.0, 3.3, -1e-30, 1e30])
@pytest.mark.parametrize("scaling", ["after", "before", "range"])
def test_a_constant_map_shows_what_is_hidden_and_inverted_the_image(
    value: float, scaling: Any, rng: np.random.Generator
) -> None:
    images, maps = rng.normal(size=(1, 3, 9, 8)).astype("f4"), np.full((1, 4, 3), value, np.float32)
    hidden = rng.normal(size=(1, 3, 9, 8)).astype("f4")
    which, out = np.array([0]), np.empty_like(images)
    for words, want in (({}, np.zeros_like(images)), ({"hidden": hidden}, hidden), ({"inverted": True}, images)):
        assert fill_masks(out, images, which, maps, scaling=scaling, gain=3.0, **words).tolist() == [True]
        assert_array_equal(out, want)


@pytest.mark.parametrize(("dtype", "least"), [("f4", 1e-6), ("f8", 1e-12)])
@pytest.mark.parametrize("scaling", ["after", "before", "range"])
def test_the_bound_of_a_constant_map_is_relative_to_its_own_size(dtype: str, least: float, scaling: Any) -> None:
    images, which = np.ones((1, 1, 1, 2), dtype), np.array([0])
    for size in (1.0, -1e20):
        for factor, flagged in ((0.5, True), (2.0, False)):
            maps = np.array([[[size, size * (1 - factor * least)]]], dtype)
            assert fill_masks(np.empty_like(images), images, which, maps, scaling=scaling).tolist() == [flagged]


def test_without_scaling_a_constant_map_is_a_mask_like_any_other() -> None:
    images, out = np.full((1, 1, 2, 2), 8.0), np.empty((1, 1, 2, 2))
    assert fill_masks(out, images, np.array([0]), np.full((1, 3, 3), 0.25), scaling="none").tolist() == [False]
    assert_array_equal(out, 2)


def non_finite(dtype: str) -> np.ndarray:
    """Return maps of 2 x 3 cells that are not finite, or whose span is not, between two that are."""
    nan, inf, huge = np.nan, np.inf, float(np.finfo(dtype).max)
    rows = [
        [0, 1, 2, 3, 4, 5],
        [nan, 1, 2, 3, 4, 5],
        [1, 2, 3, 4, 5, inf],
        [-inf, 2, 3, 4, 5, inf],
        [-huge, *[huge] * 5],
    ]
    return np.array([*rows, [5, 4, 3, 2, 1, 0]], dtype).reshape(-1, 2, 3)


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("scaling", ["after", "before", "range"])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_nan_and_infinity_stay_visible_in_their_row_and_in_no_other(scaling: Any, dtype: str, inverted: bool) -> None:
    maps = non_finite("f8" if dtype == "f8" else "f4")
    images, out = np.ones((1, 2, 5, 4), dtype), np.empty((6, 2, 5, 4), dtype)
    constant = fill_masks(out, images, np.zeros(6, np.int64), maps, scaling=scaling, inverted=inverted)
    assert not constant.any()
    assert np.isnan(out[1:5]).all()
    assert np.isfinite(out[[0, 5]]).all()


def test_without_scaling_nan_spoils_the_pixels_that_sample_it() -> None:
    maps = np.zeros((1, 5, 5))
    maps[0, 2, 2] = np.nan
    out = np.empty((1, 1, 50, 50))
    fill_masks(out, np.ones((1, 1, 50, 50)), np.array([0]), maps, scaling="none")
    assert_array_equal(np.isnan(out[0, 0]), np.isnan(resize(maps, (50, 50))[0]))
    assert np.isnan(out).sum() == 400


def test_a_map_as_large_as_the_image_is_the_mask_itself_and_nan_spreads_as_in_a_resize(
    rng: np.random.Generator,
) -> None:
    images, maps = rng.random((1, 2, 5, 4)).astype(np.float32), rng.random((1, 5, 4)).astype(np.float32)
    out = np.empty_like(images)
    fill_masks(out, images, np.zeros(1, np.int64), maps, scaling="none")
    assert_array_equal(out, images * maps[:, None])
    maps[0, 2, 2] = np.nan
    fill_masks(out, images, np.zeros(1, np.int64), maps, scaling="none")
    assert_array_equal(np.isnan(out[0, 0]), np.isnan(resize(maps, (5, 4))[0]))


@pytest.mark.parametrize("side", ["host", "device"])
def test_bytes_have_no_nan_so_such_maps_are_refused_and_counted(side: str, fake_cupy: Any) -> None:
    maps, images, which = non_finite("f4"), np.ones((1, 2, 5, 4), np.uint8), np.zeros(6, np.int64)
    arrays = [np.empty((6, 2, 5, 4), np.uint8), images, which, maps]
    if side == "device":
        arrays = [fake_cupy.asarray(array) for array in arrays]
    with pytest.raises(NumericError, match="4 of 6 maps hold a NaN or an infinity, and a uint8 image has none"):
        fill_masks(*arrays)


def test_bytes_are_rounded_to_nearest_even_and_clipped() -> None:
    """The mask (0, 1/2, 1) of 5 and 7: 2.5 rounds to 2 and 3.5 to 4; doubled twice, 2 x 200 is clipped to 255."""
    maps, which, out = np.array([[[0.0, 0.5, 1.0]]], np.float32), np.array([0]), np.empty((1, 1, 1, 3), np.uint8)
    for value, gain, want in (
        (5, 1.0, [0, 2, 5]),
        (7, 1.0, [0, 4, 7]),
        (200, 2.0, [0, 200, 255]),
        (9, -1.0, [0, 0, 0]),
    ):
        fill_masks(out, np.full((1, 1, 1, 3), value, np.uint8), which, maps, gain=gain)
        assert_array_equal(out.ravel(), want)


def test_half_precision_is_computed_in_float32_and_rounded_once() -> None:
    """60000 * 2 - 60000 * 1 overflows in half precision on the way; 70000 does at the end."""
    images, maps = np.full((1, 1, 1, 2), 60000, np.float16), np.array([[[1, 2]]], np.float16)
    out = np.empty_like(images)
    fill_masks(out, images, np.array([0]), maps, scaling="none", hidden=np.full((1, 1, 1), 60000, np.float16))
    assert_array_equal(out.ravel(), [60000, 60000])
    fill_masks(out, images, np.array([0]), maps, scaling="none", gain=70000 / 60000)
    assert_array_equal(out.ravel(), [np.inf, np.inf])


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 9), st.integers(1, 12), st.integers(1, 12), st.integers(1, 30), st.integers(1, 30),
    st.sampled_from(SCALINGS), st.sampled_from(TYPES), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_a_row_does_not_depend_on_its_neighbours_bit_for_bit(
    n: int, h: int, w: int, height: int, width: int, scaling: Any, dtype: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    images, maps = some_images(rng, (3, 2, height, width), dtype), rng.normal(size=(n, h, w))
    which, out = rng.integers(0, 3, n), np.empty((n, 2, height, width), dtype)
    flags = fill_masks(out, images, which, maps, scaling=scaling)
    for row in range(n):
        alone = np.empty_like(out[:1])
        one = slice(row, row + 1)
        assert_array_equal(fill_masks(alone, images, which[one], maps[one], scaling=scaling), flags[one])
        assert_array_equal(alone[0], out[row])


def test_257_rows_and_none_at_all(rng: np.random.Generator) -> None:
    images, maps = rng.normal(size=(4, 1, 9, 11)), rng.normal(size=(257, 3, 4))
    which, out = rng.integers(0, 4, 257), np.empty((257, 1, 9, 11))
    fill_masks(out, images, which, maps)
    assert_array_equal(out, images[which] * min_max(resize(maps, (9, 11)))[0][:, None])
    assert fill_masks(out[:0], images, which[:0], maps[:0]).shape == (0,)


def test_inputs_are_kept_and_their_layout_does_not_matter(rng: np.random.Generator) -> None:
    images, maps = rng.normal(size=(2, 3, 6, 8)), rng.normal(size=(2, 5, 4))
    copies = images.copy(), maps.copy()
    out, turned = np.empty((2, 2, 3, 6, 8))
    for scaling in ("after", "before"):
        fill_masks(out, images, np.array([1, 0]), maps, scaling=scaling)
        rows = np.array([[1, 0], [0, 0]])[:, ::-1][0, ::-1]
        layouts = np.asfortranarray(images), np.asfortranarray(maps)
        fill_masks(turned, layouts[0], rows, layouts[1], scaling=scaling)
        assert_array_equal(turned, out)
    assert_array_equal(images, copies[0])
    assert_array_equal(maps, copies[1])


def test_calls_of_other_sizes_types_and_threads_in_between_leave_no_trace() -> None:
    """The oracle is `resize` and `min_max`, which keep nothing between calls."""

    def agrees(size: tuple[int, int], dtype: str, seed: int) -> bool:
        mine = np.random.default_rng(seed)
        images, maps = mine.normal(size=(1, 2, *size)).astype(dtype), mine.normal(size=(3, 4, 5)).astype(dtype)
        out = np.empty((3, 2, *size), dtype)
        fill_masks(out, images, np.zeros(3, np.int64), maps)
        return bool((out == images * min_max(resize(maps, size))[0][:, None]).all())

    sizes: list[tuple[int, int]] = [(30, 40), (40, 30), (30, 40), (730, 720), (7, 5)]
    calls = [(size, dtype, seed) for seed, (size, dtype) in enumerate(product(sizes, ("f4", "f8")))]
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda call: agrees(*call), calls * 2))
    assert all(agrees(*call) for call in calls)


# ---- the CUDA kernel


def both_sides(cupy: Any, out: np.ndarray, arrays: list[np.ndarray], words: dict[str, Any]) -> None:
    """Assert that the CUDA kernel gives NumPy's bits."""
    want = out.copy()
    flags = fill_masks(want, *arrays, **words)
    moved = {k: cupy.asarray(v) if isinstance(v, np.ndarray) else v for k, v in words.items()}
    got = cupy.asarray(np.full_like(out, 77))
    constant = fill_masks(got, *map(cupy.asarray, arrays), **moved)
    assert isinstance(constant, cupy.ndarray)
    assert_array_equal(cupy.asnumpy(constant), flags, strict=True)
    assert_array_equal(cupy.asnumpy(got), want, strict=True)


@pytest.mark.parametrize("words", WORDS, ids=lambda words: f"{words['scaling']}{'-inverted' * words['inverted']}")
@pytest.mark.parametrize("dtype", TYPES)
def test_the_cuda_kernel_equals_numpy_bit_for_bit(
    words: dict[str, Any], dtype: str, cupy: Any, rng: np.random.Generator
) -> None:
    for (before, after), computed in product([*SIZES[1:], ((5, 6), (40, 70))], ("f4", "f8")):
        images, maps = some_images(rng, (2, 3, *after), dtype), rng.normal(size=(3, *before)).astype(computed)
        maps[1] = 2.5
        given = words | {"align": "corners" if words["inverted"] else "half_pixel"}
        both_sides(cupy, np.empty((3, 3, *after), dtype), [images, np.array([1, 0, 1]), maps], given)


@pytest.mark.parametrize("noise_on", ["mask", "input"])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", ["f2", "f4"])
def test_the_cuda_kernel_adds_noise_and_hides_as_numpy_does(
    noise_on: Any, channels_last: bool, dtype: str, cupy: Any, rng: np.random.Generator
) -> None:
    shape = (2, 9, 34, 3) if channels_last else (2, 3, 9, 34)
    pixels = shape[1:3] if channels_last else shape[2:]
    colour = (3,) if channels_last else (3, 1, 1)
    noise = rng.normal(size=(3, *pixels) if noise_on == "mask" else (3, *shape[1:])).astype("f4")
    arrays = [rng.normal(size=shape).astype(dtype), np.array([0, 1, 1, 0]), rng.normal(size=(4, 3, 5)).astype("f4")]
    words = {"noise": noise, "noise_on": noise_on, "noise_of": np.array([2, 0, 1, 1]), "channels_last": channels_last}
    for kind in (None, colour, shape, (2, 1, *shape[2:]), ()):
        hidden = None if kind is None else np.asarray(rng.normal(size=kind), np.float32)
        both_sides(cupy, np.empty((4, *shape[1:]), dtype), arrays, {**words, "hidden": hidden})


@pytest.mark.parametrize("scaling", SCALINGS)
def test_the_cuda_kernel_keeps_nan_visible(scaling: Any, cupy: Any) -> None:
    maps = non_finite("f4")
    both_sides(cupy, np.empty((6, 2, 5, 4), np.float32), [np.ones((1, 2, 5, 4), np.float32), np.zeros(6, np.int64), maps],
               {"scaling": scaling})  # fmt: skip


def test_the_cuda_kernel_rounds_every_half_as_numpy_does(cupy: Any) -> None:
    """All halves there are, through the mask 1, and halves' neighbours and midpoints, through the mask ``gain``."""
    everything = np.arange(2**16, dtype=np.uint16).view(np.float16).reshape(1, 1, 256, 256)
    arrays = [everything, np.array([0]), np.ones((1, 1, 1), np.float32)]
    for gain in (1.0, 1 + 2.0**-11, 1 - 2.0**-12, 0.5, 2.0**-12, 3.0, 65519.5 / 65504, 65520.0 / 65504):
        both_sides(cupy, np.empty_like(everything), arrays, {"scaling": "none", "gain": gain})


def test_the_cuda_kernel_takes_half_precision_maps_any_layout_and_no_rows(cupy: Any, rng: np.random.Generator) -> None:
    maps = rng.normal(size=(2, 4, 5)).astype(np.float16).transpose(0, 2, 1)
    images = rng.normal(size=(2, 9, 8, 3)).astype("f4").transpose(0, 3, 1, 2)
    both_sides(cupy, np.empty((2, 3, 9, 8), np.float32), [images, np.array([1, 0]), maps], {})
    out, which = cupy.empty((0, 3, 9, 8), np.float32), cupy.asarray(np.zeros(0, np.int64))
    assert fill_masks(out, cupy.asarray(images), which, cupy.asarray(maps[:0])).shape == (0,)


# ---- what is refused


def good() -> dict[str, Any]:
    """Return arguments that are accepted."""
    return {
        "out": np.empty((2, 3, 6, 8), np.float32),
        "images": np.ones((2, 3, 6, 8), np.float32),
        "which": np.array([0, 1]),
        "maps": np.ones((2, 3, 4), np.float32),
    }


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"out": np.empty((2, 3, 6, 8), np.int32)}, "out must be"),
        ({"out": np.empty((2, 6, 8), np.float32)}, "out must be"),
        ({"out": np.empty((2, 3, 6, 16), np.float32)[..., ::2]}, "out must be C-contiguous"),
        ({"images": np.ones((2, 3, 6, 8))}, "images float64 .* do not fit out float32"),
        ({"images": np.ones((2, 3, 8, 6), np.float32)}, "images .* do not fit out"),
        ({"maps": np.ones((3, 3, 4), np.float32)}, "maps .* do not fit out"),
        ({"maps": np.ones((3, 4), np.float32)}, "maps must have the shape"),
        ({"which": np.array([0, 1], np.int32)}, "which must be int64"),
        ({"which": np.array([0])}, "which must be int64"),
        ({"hidden": np.ones((2, 1, 1), np.float32)}, "hidden must be float and broadcastable"),
        ({"hidden": np.ones((3, 1, 1), np.uint8)}, "hidden must be float and broadcastable"),
        ({"hidden": np.ones((1, 1, 3, 1, 1), np.float32)}, "hidden must be float and broadcastable"),
        ({"noise": np.ones((2, 6, 8), np.float32)}, "noise needs noise_of"),
        ({"noise": np.ones((2, 8, 6), np.float32), "noise_of": np.array([0, 1])}, "noise on the mask must be float"),
        ({"noise": np.ones((2, 6, 8), "f4"), "noise_of": np.array([0, 1]), "noise_on": "input"}, "noise on the input"),
    ],
)  # fmt: skip
def test_arrays_that_do_not_fit_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        fill_masks(**good() | wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"scaling": "max"}, "scaling must be one of after, before, range, none, got 'max'"),
        ({"align": "center"}, "align must be one of half_pixel, corners, got 'center'"),
        ({"noise_on": "map"}, "noise_on must be one of mask, input, got 'map'"),
        ({"which": np.array([0, 2])}, "which must be between 0 and 1, got 0 to 2"),
        ({"noise": np.ones((1, 6, 8), "f4"), "noise_of": np.array([0, 1])}, "noise_of must be between 0 and 0"),
    ],
)
def test_words_and_indices_that_do_not_exist_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        fill_masks(**good() | wrong)


@pytest.mark.parametrize("name", ["images", "which", "maps", "hidden", "noise", "noise_of"])
def test_host_and_device_are_not_mixed(name: str, fake_cupy: Any) -> None:
    given = good() | {"hidden": np.ones((3, 1, 1)), "noise": np.ones((2, 6, 8)), "noise_of": np.array([0, 1])}
    with pytest.raises(ShapeError, match="must lie on one side"):
        fill_masks(**given | {name: fake_cupy.asarray(given[name])})
