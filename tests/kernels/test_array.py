"""What is accepted as an array, and in which type it is computed."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from camrt import kernels
from camrt.errors import InputError, ShapeError
from camrt.kernels.array import Scratch, computing_dtype, is_cupy, require_indices, require_same_side, tolerance


def test_numpy_arrays_and_other_things_are_not_cupy() -> None:
    assert not is_cupy(np.zeros(2))
    assert not is_cupy([1.0])


def test_an_instance_of_the_loaded_cupys_ndarray_is_cupy(fake_cupy: Any) -> None:
    assert is_cupy(fake_cupy.asarray(np.zeros(2)))
    assert not is_cupy(np.zeros(2))


def test_importing_the_kernels_loads_no_library_but_numpy() -> None:
    code = "import sys, camrt.kernels; print(*{'cupy', 'scipy', 'torch', 'onnx', 'onnxruntime'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_public_names_are_the_kernels() -> None:
    published = {"leading_component", "min_max", "resize", "weighted_sum"}
    published |= {"class_scores", "softmax_parts", "fill_masks", "keep_cells", "wipe_channels"}
    published |= {"gaussian_blur", "impute", "min_max_gradient", "resize_adjoint"}
    published |= {"box_blur", "rise_blur", "patch_ranks", "pixel_ranks", "fill_swapped", "log_scores"}
    published |= {"areas", "map_means", "pearson", "region_sums"}
    assert set(kernels.__all__) == {"Array", "is_cupy"} | published
    assert all(hasattr(kernels, name) for name in kernels.__all__)


@pytest.mark.parametrize(("given", "computed"), [("f2", "f4"), ("f4", "f4"), ("f8", "f8"), (">f4", "f4")])
def test_half_precision_is_computed_in_float32_and_the_rest_in_its_own_type(given: str, computed: str) -> None:
    assert computing_dtype("maps", np.zeros((1, 2, 3), given), "(N, h, w)") == np.dtype(computed)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([[1.0]], "must be a NumPy or CuPy array (N, h, w), got list"),
        (np.zeros((1, 2, 3), np.int64), "must be float32 or float64 (N, h, w), got int64"),
        (np.zeros((1, 2, 3), np.complex64), "got complex64"),
        (np.zeros((1, 2, 3), np.longdouble), "must be float32 or float64"),
        (np.zeros((2, 3), np.float32), "must have the shape (N, h, w), got (2, 3)"),
        (np.zeros((1, 0, 3), np.float32), "has an empty axis: (1, 0, 3)"),
    ],
)
def test_what_is_no_array_of_the_wanted_kind_is_refused_with_the_reason(value: Any, message: str) -> None:
    with pytest.raises(ShapeError) as caught:
        computing_dtype("maps", value, "(N, h, w)")
    assert message in str(caught.value)
    assert str(caught.value).startswith("maps ") and "\n" not in str(caught.value)


def test_arrays_on_two_sides_are_refused(fake_cupy: Any) -> None:
    host, gpu = np.zeros(2), fake_cupy.asarray(np.zeros(2))
    with pytest.raises(ShapeError, match=r"got acts on the GPU, weights on the host; use cupy\.asarray"):
        require_same_side("acts", gpu, "weights", host)
    require_same_side("acts", gpu, "weights", gpu)
    require_same_side("acts", host, "weights", host)


def test_the_tolerance_of_a_constant_map_is_the_documented_one() -> None:
    assert tolerance(np.dtype("f4")) == 1e-6
    assert tolerance(np.dtype("f8")) == 1e-12


@pytest.mark.parametrize("indices", [np.zeros(2, "i4"), np.zeros(3, "i8"), np.zeros((2, 1), "i8"), np.zeros(2)])
def test_indices_that_are_not_one_int64_a_row_are_refused(indices: np.ndarray) -> None:
    with pytest.raises(ShapeError, match=r"which must be int64 \(2,\), one a row, got"):
        require_indices("which", indices, 2, 9)


@pytest.mark.parametrize(("indices", "range_"), [([0, 3], "0 to 3"), ([-1, 2], "-1 to 2")])
def test_indices_that_lie_outside_are_refused_on_the_host(indices: list[int], range_: str, fake_cupy: Any) -> None:
    with pytest.raises(InputError, match=f"which must be between 0 and 2, got {range_}"):
        require_indices("which", np.array(indices), 2, 3)
    require_indices("which", fake_cupy.asarray(np.array(indices)), 2, 3)
    require_indices("which", np.array([0, 2]), 2, 3)
    require_indices("which", np.zeros(0, np.int64), 0, 0)


def test_a_thread_gets_its_own_scratch_again_and_no_other_thread_does() -> None:
    scratch, asked = Scratch(10**4), (2, (3, 5), np.dtype(np.float32))
    mine = scratch.planes(*asked)
    mine[:] = 7
    assert np.shares_memory(scratch.planes(*asked), mine)
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(scratch.planes, *asked).result()
    assert other.shape == mine.shape and not np.shares_memory(other, mine)
    assert scratch.planes(2, (3, 5), np.dtype(np.float64)).dtype == np.float64  # another type, another size: fresh ones
    assert scratch.planes(3, (3, 5), np.dtype(np.float32)).shape == (3, 3, 5)


def test_large_scratch_is_not_kept() -> None:
    scratch, large = Scratch(100), (1, (26,), np.dtype(np.float32))  # 104 bytes
    assert not np.shares_memory(scratch.planes(*large), scratch.planes(*large))
    small = scratch.planes(1, (25,), np.dtype(np.float32))
    scratch.planes(*large)
    assert np.shares_memory(scratch.planes(1, (25,), np.dtype(np.float32)), small)
