"""
Missing pixels filled in from their neighbours: the linear imputation of ROAD.

In go images and masks of missing pixels; out come the images with each missing pixel replaced by the weighted mean of
its eight neighbours, of which those missing count with their own new value. That is one sparse linear system a mask,
the same for every channel. Scaled by 12 it reads, with ``K = [1 2 1]' [1 2 1]`` the sum over a pixel's square (the
pixel itself weighs 4, which cancels) and M the mask,

    (E - M K M) u = M K (known pixels),    E = 16, or 12 along an edge and 9 in a corner of the picture

symmetric and positive definite as soon as one pixel is known.

NumPy solves it by conjugate gradients, preconditioned by one multigrid cycle. Every level of the cycle is a matrix of
that same form on a grid of half the size, so one code serves all: M there marks the cells that some missing pixel
reaches, E makes the energy of a constant what it is on the finest level, and bilinear interpolation is K too, over
values set apart by zeros. The CUDA kernel solves it by plain conjugate gradients in float64, one block a plane.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from math import prod
from typing import TypeAlias

import numpy as np

from camrt.errors import InputError, NumericError, ShapeError

from .array import Array, DType, computing_dtype, is_cupy, require_indices, require_same_side
from .array import tolerance as rounding
from .device import Gpu, Kernel

__all__ = ["impute"]

MAX_CYCLES = 60  # in one solution; six are usual, and what has not converged by then never will
FEW = 64  # cells that are solved at once, through a dense inverse
FIRST = 3  # how much larger than the tolerance the first solution's last cycle may be: a second solution follows
MORE = 4  # solutions after the first at most; one is usual
DRIFT = 100  # a solution below this many times the tolerance is too small for its own rounding to matter
OVERSHOOT = 1.1  # what coarse corrections are multiplied by: their matrices are a little too stiff

THREADS = 512  # a plane is one block; imputation.cu has it too
STEPS = 20  # of plain conjugate gradients at most, for each pixel of the picture's width and height; 1 is usual
IMPUTE = Kernel("imputation", "impute", (THREADS,))

INT64, FLOAT64 = np.dtype(np.int64), np.dtype(np.float64)
MOST_THREADS = 8  # beyond that they wait for the interpreter
SMALL = 2**18  # values of a picture up to which two threads wait for the interpreter longer than they work
KEPT_BYTES = 64 * 2**20  # a picture of 512 x 512 in float32; what is larger is given back

Window: TypeAlias = tuple[slice, slice]


def impute(
    images: Array,
    missing: Array,
    *,
    which: Array | None = None,
    channels_last: bool = False,
    tolerance: float = 2e-5,
    threads: int | None = None,
) -> Array:
    """
    Replace missing pixels by the weighted mean of their neighbours, solved jointly.

    A pixel above, below, left or right weighs 1/6, a diagonal one 1/12. At the border of the picture the weights of the
    neighbours that exist are divided by their sum.

    Parameters
    ----------
    images : Array of float32 or float64, shape (N, C, H, W) or (N, H, W, C)
        Any values, any memory layout; float16 is computed in float32.
    missing : Array of bool, shape (B, H, W)
        True where a pixel is replaced, in all channels. At least one pixel of each mask must be known.
    which : Array of int64, shape (B,), optional
        For each mask, the image it belongs to; by default B is N and mask i belongs to image i.
    channels_last : bool, default False
        Whether `images` are (N, H, W, C).
    tolerance : float, default 2e-5
        Largest error of a pixel beside the rounding of its type, as a share of the range of its channel's known
        pixels; at least 1e-6, or 1e-12 for float64.
    threads : int, optional
        How many rows are solved at a time on the host at most; unless told otherwise as many as there are cores, 8 at
        most. Pictures of up to 2**18 values, 295 x 295 in three channels, are solved one by one: on two cores two threads
        took 1.3 times as long for 224 x 224, and 0.8 for 320 x 320. The result does not depend on it.

    Returns
    -------
    Array, shape (B, C, H, W) or (B, H, W, C)
        The images, same unit and side (host or device) as `images`; known pixels are unchanged to the bit.

    Raises
    ------
    ShapeError
        If `images` is not of rank 4 and a real floating type, or `missing` or `which` do not fit.
    InputError
        If every pixel of a row is missing, `which` lies outside, or `tolerance` or `threads` is out of range. A GPU's
        masks are not read back: a row without a known pixel is NaN.
    NumericError
        If a system is not solved within 60 cycles. On the GPU its missing pixels are NaN.

    Notes
    -----
    Imputed values lie within the range of the known ones. A known pixel that is not finite makes every missing pixel of
    its channel NaN; the other channels do not see it. What a missing pixel held is never read. A row does not depend on
    the rows beside it.

    The bound on the error: NumPy stops where one more multigrid cycle, applied to a residual taken in float64, changes
    nothing by more than the tolerance. What a cycle leaves is no larger than what it takes away, since its product with
    the matrix has eigenvalues of 0.5 to 2 (found for masks of maps, noise, bands and single known pixels, from 28 x 28
    to 448 x 448 and down to one row). The kernel stops at an energy of the error that allows no more (imputation.cu).

    Cost: on the host about eight cycles of fifty passes over the smallest rectangle that holds the missing pixels. On
    the GPU one launch, no host synchronisation, four float64 planes for each plane of the result.

    References
    ----------
    Rong et al. 2022, "A Consistent and Efficient Evaluation Strategy for Attribution Methods", arXiv:2202.00449,
    section 4: noisy linear imputation, here without the noise.

    Examples
    --------
    >>> image = np.array([[1.0, 0.0, 3.0]]).reshape(1, 1, 1, 3)
    >>> impute(image, np.array([[[False, True, False]]]))
    array([[[[1., 2., 3.]]]])
    """
    dtype = computing_dtype("images", images, "(N, H, W, C)" if channels_last else "(N, C, H, W)")
    _check_masks(images, missing, which, channels_last)
    if not rounding(dtype) <= tolerance < 1:
        raise InputError(f"tolerance must be between {rounding(dtype)} for {dtype} and 1, got {tolerance}")
    if threads is not None and threads < 1:
        raise InputError(f"threads must be at least 1, got {threads}")
    if is_cupy(images):
        return _on_gpu(images, missing, which, channels_last, dtype, tolerance, Gpu.of(images))
    return _on_numpy(images, missing, which, channels_last, dtype, tolerance, threads or _cores())


def _check_masks(images: Array, missing: Array, which: Array | None, channels_last: bool) -> None:
    """Refuse masks that do not fit the images."""
    size = images.shape[1:3] if channels_last else images.shape[2:]
    if missing.dtype != np.bool_ or missing.ndim != 3 or missing.shape[1:] != size:
        raise ShapeError(f"missing must be bool (B, {size[0]}, {size[1]}), got {missing.dtype} {missing.shape}")
    require_same_side("images", images, "missing", missing)
    if which is not None:
        require_indices("which", which, len(missing), len(images))
        require_same_side("images", images, "which", which)
    elif len(missing) != len(images):
        raise ShapeError(f"{len(missing)} masks do not fit {len(images)} images; say which image each belongs to")
    if not is_cupy(missing) and missing.all((1, 2)).any():
        raise InputError(
            f"every pixel is missing in row {int(missing.all((1, 2)).argmax())}, so nothing tells what it was; "
            "leave one pixel known"
        )


def _on_numpy(
    images: Array,
    missing: Array,
    which: Array | None,
    channels_last: bool,
    dtype: DType,
    tolerance: float,
    threads: int,
) -> Array:
    """Compute `impute` row by row; what takes time in a row, NumPy does without the interpreter's lock."""
    imputed = np.array(images if which is None else images[which], dtype, order="C")
    planes = np.moveaxis(imputed, -1, 1) if channels_last else imputed
    rows: list[int] = np.flatnonzero(missing.any((1, 2))).tolist()

    def _is_solved(row: int) -> bool:
        with np.errstate(invalid="ignore", over="ignore"), _memory() as memory:  # not finite: ends as NaN, on purpose
            return _fill(planes[row], missing[row], tolerance, memory)

    workers = min(threads, len(rows)) if rows and planes[0].size > SMALL else 1
    if workers > 1:
        with ThreadPoolExecutor(workers, "camrt-impute") as pool:
            solved = list(pool.map(_is_solved, rows))
    else:
        solved = [_is_solved(row) for row in rows]
    if not all(solved):
        row = rows[solved.index(False)]
        raise NumericError(f"row {row} is not solved to {tolerance} in {MAX_CYCLES} cycles; ask for less")
    return imputed


def _fill(picture: Array, missing: Array, tolerance: float, memory: _Memory) -> bool:
    """Replace the missing pixels of one picture (C, H, W) in place; tell whether the system was solved."""
    row, column = np.unravel_index(missing.argmin(), missing.shape)
    known = np.where(missing, picture[:, row, column, None, None], picture)  # a known pixel's value widens no range
    low, middle, half, high = _range(known)
    window = _window(missing)
    inside, holes = picture[:, *window], missing[window]
    grids = _grids(len(picture), holes, picture.dtype, memory)
    # between -1 and 1, so that squares neither overflow nor vanish; a constant channel is exactly zero
    values = memory.zeros(grids[0].residual.shape, FLOAT64)
    filled = grids[0].cells(values)
    np.subtract(known[:, *window], middle, out=filled)
    filled /= half
    filled *= ~holes
    filled[~np.isfinite(half[:, 0, 0])] = 0
    solved = _solve(grids, values, 2 * tolerance, memory)
    filled *= half
    filled += middle
    np.copyto(inside, np.clip(filled, low, high, out=filled), where=holes, casting="same_kind")
    return solved


def _cores() -> int:
    """Return how many rows are solved at a time unless told otherwise."""
    return min(MOST_THREADS, os.cpu_count() or 1)


def _range(picture: Array) -> tuple[Array, Array, Array, Array]:
    """Return each channel's smallest value, middle, half range (1 if that is 0) and largest value, (C, 1, 1)."""
    flat = picture.reshape(len(picture), -1)
    low, high = flat.min(1)[:, None, None], flat.max(1)[:, None, None]
    half = high / 2 - low / 2
    middle = low + half
    half[half == 0] = 1
    return low, middle, half, high


def _window(missing: Array) -> Window:
    """Return the smallest rectangle that holds the missing pixels and their neighbours."""
    rows, columns = (np.flatnonzero(missing.any(axis)) for axis in (1, 0))
    return slice(max(rows[0] - 1, 0), rows[-1] + 2), slice(max(columns[0] - 1, 0), columns[-1] + 2)


class _Memory:
    """Memory for one row, used again for others: to have fresh pages mapped takes half as long as to solve a picture."""

    def __init__(self) -> None:
        self._kept: Array = np.empty(0, np.uint8)
        self._taken = 0

    def begin(self) -> None:
        """Take all of it back, and have at least what was wanted last time."""
        if self._kept.size < self._taken <= KEPT_BYTES:
            self._kept = np.empty(self._taken, np.uint8)
        self._taken = 0

    def zeros(self, shape: tuple[int, ...], dtype: DType) -> Array:
        """Return zeros that are the caller's until the next beginning."""
        start, n_bytes = self._taken, prod(shape) * dtype.itemsize
        self._taken += -(-n_bytes // 64) * 64  # whole cache lines
        if self._taken > self._kept.size:
            return np.zeros(shape, dtype)
        zeros = self._kept[start : start + n_bytes].view(dtype).reshape(shape)
        zeros.fill(0)
        return zeros


_FREE: list[_Memory] = []  # as many as rows were ever solved at a time


@contextmanager
def _memory() -> Iterator[_Memory]:
    """Lend memory that nobody uses."""
    try:
        lent = _FREE.pop()
    except IndexError:
        lent = _Memory()
    lent.begin()
    try:
        yield lent
    finally:
        _FREE.append(lent)


class _Grid:
    """
    One level: a rectangle of cells in a frame of zeros, the matrix ``E - M K M`` on it, and what a cycle keeps there.

    The coarser grid has a cell on every other row and column, the first included. The frame is one cell wide, or two at
    a far side where the last coarser cell lies in it. Planes lie one behind another as one line of numbers, in which a
    cell's neighbours are always at the same distances.
    """

    residual: Array  # what a cycle is given on this level
    correction: Array  # what it makes of that
    lattice: Array  # coarser cells in their places, zeros between
    result: Array  # of `sums`
    spare: Array

    def __init__(self, channels: int, mask: Array, pinned: Array, memory: _Memory) -> None:
        """Keep M and the row sums of ``E - M K M``, arrays (h, w), and take room for `channels` planes."""
        self.size, self.coarser = mask.shape, (mask.shape[0] // 2 + 1, mask.shape[1] // 2 + 1)
        framed = 2 * self.coarser[0] + 1, 2 * self.coarser[1] + 1
        self.residual, self.correction, self.lattice, self.result, self.spare = memory.zeros(
            (5, channels, *framed), pinned.dtype
        )
        # n rows conduct like 2n - 1 along them, and coarser cells, twice as far apart, should conduct half of that
        self.thinning = min((2 * n - 1) / (4 * half - 2) for n, half in zip(self.size, self.coarser, strict=True))
        self.own = 2 if 1 in self.size else 4  # K's weight of the cell itself; half on a line, where Jacobi swings
        self.mask, self.pinned = memory.zeros((2, *framed), pinned.dtype)
        self.cells(self.mask)[:] = mask
        np.multiply(pinned, mask, out=self.cells(self.pinned))
        self.diagonal = self.sums(self.mask[None])[0] * self.mask + self.pinned
        self.relaxing = self.mask / (self.diagonal - self.own)

    def cells(self, planes: Array) -> Array:
        """Return a view of the cells without their frame."""
        return planes[..., 1 : 1 + self.size[0], 1 : 1 + self.size[1]]

    def sums(self, planes: Array) -> Array:
        """Return K times `planes`, in `result`; its frame holds arbitrary finite numbers."""
        return _sums(planes, self.result[: len(planes)], self.spare[: len(planes)])

    def gathered(self, planes: Array) -> Array:
        """Return what the coarser cells gather of `planes`, the transpose of `interpolated`: a view of `result`."""
        return self.sums(planes)[..., 1::2, 1::2]

    def interpolated(self, coarse: Array) -> Array:
        """Return 4 times the values of the coarser cells, bilinearly interpolated to this grid, in `result`."""
        self.lattice[..., 1::2, 1::2] = coarse
        return self.sums(self.lattice)


def _sums(planes: Array, result: Array, spare: Array) -> Array:
    """Return K times framed planes, in `result`; its frame holds arbitrary finite numbers, if it held finite ones."""
    step = planes.shape[-1]
    line, result_line, spare_line = planes.reshape(-1), result.reshape(-1), spare.reshape(-1)
    # sums of two neighbours: along the row, and again, along the column, and again, which ends on the centre
    np.add(line[:-1], line[1:], out=spare_line[1:])
    np.add(spare_line[1:-1], spare_line[2:], out=result_line[1:-1])
    np.add(result_line[:-step], result_line[step:], out=spare_line[step:])
    np.add(spare_line[step:-step], spare_line[2 * step :], out=result_line[step:-step])
    return result


def _grids(channels: int, holes: Array, dtype: DType, memory: _Memory) -> list[_Grid]:
    """Return the levels for the missing pixels of a window, finest first."""
    known = np.pad((~holes).astype(dtype), 1)
    rows = known[:-2] + 2 * known[1:-1] + known[2:]
    grids = [_Grid(channels, holes, rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:], memory)]
    while prod(grids[-1].size) > FEW:
        fine = grids[-1]
        reached = fine.gathered(fine.mask[None])[0] > 0
        grids.append(_Grid(channels, reached, fine.gathered(fine.pinned[None])[0] / (4 * fine.thinning), memory))
    return grids


def _inverse(grid: _Grid) -> Array:
    """Return the inverse of a grid's whole matrix, zero where M is."""
    along = [2 * np.eye(n) + np.eye(n, k=1) + np.eye(n, k=-1) for n in grid.size]
    mask = grid.cells(grid.mask).reshape(-1).astype(np.float64)
    both = np.outer(mask, mask)
    matrix = np.diag(grid.cells(grid.diagonal).reshape(-1) + 1 - mask) - both * np.kron(*along)
    inverse: Array = (np.linalg.inv(matrix) * both).astype(grid.mask.dtype)
    return inverse


def _cycle(grids: list[_Grid], inverse: Array) -> Array:
    """Return nearly what the finest matrix makes the residual of: a symmetric V-cycle with Jacobi relaxation."""
    fine, *coarser = grids
    if not coarser:
        residual, correction = fine.cells(fine.residual), fine.cells(fine.correction)
        correction[:] = (residual.reshape(len(residual), -1) @ inverse).reshape(correction.shape)
        return fine.correction
    np.multiply(fine.residual, fine.relaxing, out=fine.correction)
    left = fine.sums(fine.correction)
    left -= np.multiply(fine.correction, fine.own, out=fine.spare)  # the residual was (E - own) times the correction
    left *= fine.mask
    coarse = coarser[0]
    np.multiply(fine.gathered(left), 1 / (4 * fine.thinning), out=coarse.cells(coarse.residual))
    step = fine.interpolated(coarse.cells(_cycle(coarser, inverse)) * (OVERSHOOT / 4))
    step *= fine.mask
    fine.correction += step
    swept = fine.sums(fine.correction)
    swept -= np.multiply(fine.correction, fine.own, out=fine.spare)
    swept += fine.residual
    np.multiply(swept, fine.relaxing, out=fine.correction)
    return fine.correction


def _solve(grids: list[_Grid], values: Array, largest: float, memory: _Memory) -> bool:
    """
    Find the missing values, float64 and zero before, to within `largest`; tell whether that was reached.

    By rounding, conjugate gradients drift away from the true residual. So what they find is added up in float64 and the
    residual of the sum solved for again, until what that finds is small.
    """
    finest = grids[0]
    inverse = _inverse(grids[-1])
    residual, spare = memory.zeros((2, *values.shape), FLOAT64)
    found, direction = memory.zeros((2, *values.shape), finest.residual.dtype)
    for goal in (FIRST * largest, *[largest] * MORE):
        _sums(values, residual, spare)
        residual -= np.multiply(values, finest.diagonal, out=spare)
        np.multiply(residual, finest.mask, out=finest.residual, casting="same_kind")
        if not _conjugate_gradients(grids, inverse, goal, found, direction):
            return False
        values += found
        if goal == largest and max(-found.min(), found.max()) <= DRIFT * largest:
            return True
    return False


def _conjugate_gradients(grids: list[_Grid], inverse: Array, largest: float, found: Array, direction: Array) -> bool:
    """Find what the finest residual asks for, until a cycle adds nowhere more than `largest`; tell whether that came."""
    finest = grids[0]
    residual, spare = finest.residual, finest.spare
    found[:] = direction[:] = 0
    energy = residual.dtype.type(0)
    for _ in range(MAX_CYCLES):
        correction = _cycle(grids, inverse)
        if max(-correction.min(), correction.max()) <= largest:
            found += correction
            return True
        before, energy = energy, np.dot(residual.reshape(-1), correction.reshape(-1))
        if before:
            direction *= energy / before
        direction += correction
        image = finest.sums(direction)  # right where pixels are missing; elsewhere nothing reads the residual
        np.subtract(np.multiply(direction, finest.diagonal, out=spare), image, out=image)
        step = energy / np.dot(direction.reshape(-1), image.reshape(-1))
        found += np.multiply(direction, step, out=spare)
        residual -= np.multiply(image, step, out=spare)
    return False


def _on_gpu(
    images: Array, missing: Array, which: Array | None, channels_last: bool, dtype: DType, tolerance: float, gpu: Gpu
) -> Array:
    """Compute `impute` with the kernel of imputation.cu."""
    shape = (len(missing), *images.shape[1:])
    height, width = missing.shape[1:]
    channels = prod(shape[1:]) // (height * width)
    imputed = gpu.empty(shape, dtype)
    rooms = [gpu.empty(shape, FLOAT64) for _ in range(4)]
    rows = gpu.empty((1,), INT64) if which is None else gpu.contiguous(which, INT64)  # not read where rows are paired
    arguments = (
        *(gpu.contiguous(images, dtype), gpu.contiguous(missing, np.dtype(bool)), rows, imputed, *rooms),
        *(int(which is None), channels, height, width, int(channels_last), STEPS * (height + width), float(tolerance)),
    )
    gpu.launch(IMPUTE, dtype, len(missing) * channels, arguments)
    return imputed
