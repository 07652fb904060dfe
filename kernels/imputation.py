"""
Missing pixels filled in from their neighbours: the linear imputation of ROAD.

In go images and masks of missing pixels; out come the images with each missing pixel replaced by the weighted mean of
its eight neighbours, of which those missing count with their own new value. That is one sparse linear system a mask,
the same for every channel. Scaled by 12 it reads, with ``K = [1 2 1]' [1 2 1]`` the sum over a pixel's square (the
pixel itself weighs 4, which cancels) and M the mask,

    (E - M K M) u = M K (known pixels),    E = 16, or 12 along an edge and 9 in a corner of the picture

symmetric and positive definite as soon as one pixel is known.

NumPy solves it by conjugate gradients, preconditioned by one multigrid cycle. Every level of the cycle is a matrix of
that same form on a grid of half the size, so that one code serves all: M there marks the cells that some missing pixel
reaches, and E is such that a constant has the energy that it has on the finest level. The CUDA kernel solves it by
plain conjugate gradients, one block a plane.
"""

from __future__ import annotations

from math import prod
from typing import TypeAlias

import numpy as np

from camrt.errors import InputError, NumericError, ShapeError

from .array import Array, DType, computing_dtype, is_cupy, require_indices, require_same_side
from .array import tolerance as rounding
from .device import Gpu, Kernel

__all__ = ["impute"]

MAX_CYCLES = 60  # eight are usual; what has not converged by then never will
FEW = 64  # cells that are solved at once, through a dense inverse
CENTRE = 4  # what K weighs a pixel itself with
OVERSHOOT = 1.1  # what coarse corrections are multiplied by: their matrices are a little too stiff

THREADS = 1024  # a plane is one block; imputation.cu has it too
STEPS = 20  # of plain conjugate gradients at most, for each pixel of the picture's width and height; 1 is usual
IMPUTE = Kernel("imputation", "impute", (THREADS,))

INT64 = np.dtype(np.int64)

Window: TypeAlias = tuple[slice, slice]


def impute(
    images: Array,
    missing: Array,
    *,
    which: Array | None = None,
    channels_last: bool = False,
    tolerance: float = 2e-5,
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
        Largest error of a pixel, as a share of the range of its channel's known pixels; at least 1e-6, or 1e-12 for
        float64.

    Returns
    -------
    Array, shape (B, C, H, W) or (B, H, W, C)
        The images, same unit and side (host or device) as `images`; known pixels are unchanged to the bit.

    Raises
    ------
    ShapeError
        If `images` is not of rank 4 and a real floating type, or `missing` or `which` do not fit.
    InputError
        If no pixel of a picture is known, `which` lies outside, or `tolerance` is too small.
    NumericError
        If a system is not solved within 60 cycles.

    Notes
    -----
    Imputed values lie within the range of the known ones. A known pixel that is not finite makes every missing pixel of
    its channel NaN; the other channels do not see it.

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
    if is_cupy(images):
        return _on_gpu(images, missing, which, channels_last, dtype, tolerance, Gpu.of(images))
    return _on_numpy(images, missing, which, channels_last, dtype, tolerance)


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
    images: Array, missing: Array, which: Array | None, channels_last: bool, dtype: DType, tolerance: float
) -> Array:
    """Compute `impute` row by row, which keeps the work in the cache."""
    imputed = np.array(images if which is None else images[which], dtype, order="C")
    planes = np.moveaxis(imputed, -1, 1) if channels_last else imputed
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite ends as NaN, on purpose
        for row, (picture, mask) in enumerate(zip(planes, missing, strict=True)):
            if mask.any() and not _fill(picture, mask, tolerance):
                raise NumericError(f"row {row} is not solved to {tolerance} in {MAX_CYCLES} cycles; ask for less")
    return imputed


def _fill(picture: Array, missing: Array, tolerance: float) -> bool:
    """Replace the missing pixels of one picture (C, H, W) in place; tell whether the system was solved."""
    row, column = np.unravel_index(missing.argmin(), missing.shape)  # a known pixel: holes as bright as it widen no range
    known = np.where(missing, picture[:, row, column, None, None], picture)
    low, middle, half, high = _range(known)
    window = _window(missing)
    inside, holes = picture[:, *window], missing[window]
    grids = _grids(len(picture), holes, picture.dtype)
    finest = grids[0]
    # between -1 and 1, so that squares neither overflow nor vanish; a constant channel is exactly zero
    given = finest.cells(finest.correction)
    np.subtract(known[:, *window], middle, out=given)
    given /= half
    given *= ~holes
    given[~np.isfinite(half[:, 0, 0])] = 0
    np.multiply(finest.sums(finest.correction), finest.mask, out=finest.residual)
    found, solved = _conjugate_gradients(grids, 2 * tolerance)  # the range is 2 here
    filled = finest.cells(found)
    filled *= half
    filled += middle
    np.copyto(inside, np.clip(filled, low, high, out=filled), where=holes)
    return solved


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
    rows, columns = (missing.any(axis).nonzero()[0] for axis in (1, 0))
    return slice(max(rows[0] - 1, 0), rows[-1] + 2), slice(max(columns[0] - 1, 0), columns[-1] + 2)


class _Grid:
    """
    One level: a rectangle of cells in a frame of zeros, the matrix ``E - M K M`` on it, and what a cycle keeps there.

    The coarser grid has a cell on every other row and column, the first included. The frame is one cell wide, or two at
    a far side where the last coarser cell lies in it. Planes lie one behind another as one line of numbers, in which a
    cell's neighbours are always at the same distances.
    """

    def __init__(self, channels: int, mask: Array, pinned: Array) -> None:
        """Keep M and the row sums of ``E - M K M``, arrays (h, w), and make room for `channels` planes."""
        self.size, self.coarser = mask.shape, (mask.shape[0] // 2 + 1, mask.shape[1] // 2 + 1)
        framed = 2 * self.coarser[0] + 1, 2 * self.coarser[1] + 1
        room = np.zeros((6, channels, *framed), pinned.dtype)
        self.residual, self.correction, self.direction, self.lattice, self.result, self.spare = room
        kap = min((2 * n - 1) / (4 * half - 2) for n, half in zip(self.size, self.coarser))
        self.passing = 1 / (4 * kap)
        self.mask, self.pinned = np.zeros((2, *framed), pinned.dtype)
        self.cells(self.mask)[:] = mask
        np.multiply(pinned, mask, out=self.cells(self.pinned))
        self.diagonal = self.sums(self.mask[None])[0] * self.mask + self.pinned
        self.relaxing = self.mask / (self.diagonal - CENTRE)

    def cells(self, planes: Array) -> Array:
        """Return a view of the cells without their frame."""
        return planes[..., 1 : 1 + self.size[0], 1 : 1 + self.size[1]]

    def sums(self, planes: Array) -> Array:
        """Return K times `planes`, in `result`; its frame holds arbitrary finite numbers."""
        line, step = planes.reshape(-1), planes.shape[-1]
        result, spare = self.result.reshape(-1)[: line.size], self.spare.reshape(-1)[: line.size]
        # sums of two neighbours: along the row, and again, along the column, and again, which ends on the centre
        np.add(line[:-1], line[1:], out=spare[1:])
        np.add(spare[1:-1], spare[2:], out=result[1:-1])
        np.add(result[:-step], result[step:], out=spare[step:])
        np.add(spare[step:-step], spare[2 * step :], out=result[step:-step])
        return self.result[: len(planes)]

    def gathered(self, planes: Array) -> Array:
        """Return what the coarser cells gather of `planes`, the transpose of `interpolated`: a view of `result`."""
        return self.sums(planes)[..., 1::2, 1::2]

    def interpolated(self, coarse: Array) -> Array:
        """Return 4 times the values of the coarser cells, bilinearly interpolated to this grid, in `result`."""
        self.lattice[..., 1::2, 1::2] = coarse
        return self.sums(self.lattice)


def _grids(channels: int, holes: Array, dtype: DType) -> list[_Grid]:
    """Return the levels for the missing pixels of a window, finest first."""
    known = np.pad((~holes).astype(dtype), 1)
    rows = known[:-2] + 2 * known[1:-1] + known[2:]
    grids = [_Grid(channels, holes, rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:])]
    while prod(grids[-1].size) > FEW:
        fine = grids[-1]
        reached = fine.gathered(fine.mask[None])[0] > 0
        grids.append(_Grid(channels, reached, fine.gathered(fine.pinned[None])[0] * fine.passing))
    return grids


def _inverse(grid: _Grid) -> Array:
    """Return the inverse of a grid's whole matrix, the identity where M is 0."""
    along = [2 * np.eye(n) + np.eye(n, k=1) + np.eye(n, k=-1) for n in grid.size]
    mask = grid.cells(grid.mask).reshape(-1).astype(np.float64)
    matrix = np.diag(grid.cells(grid.diagonal).reshape(-1) + 1 - mask) - np.outer(mask, mask) * np.kron(*along)
    inverse: Array = np.linalg.inv(matrix).astype(grid.mask.dtype)
    return inverse


def _cycle(grids: list[_Grid], inverse: Array) -> Array:
    """Return about what the finest matrix makes the residual of: a symmetric V-cycle with Jacobi relaxation."""
    fine, *coarser = grids
    if not coarser:
        residual, correction = fine.cells(fine.residual), fine.cells(fine.correction)
        correction[:] = (residual.reshape(len(residual), -1) @ inverse).reshape(correction.shape)
        return fine.correction
    np.multiply(fine.residual, fine.relaxing, out=fine.correction)
    left = fine.sums(fine.correction)
    left -= np.multiply(fine.correction, CENTRE, out=fine.spare)  # the residual is (E - 4) times the correction
    left *= fine.mask
    coarse = coarser[0]
    np.multiply(fine.gathered(left), fine.passing, out=coarse.cells(coarse.residual))
    step = fine.interpolated(coarse.cells(_cycle(coarser, inverse)) * (OVERSHOOT / 4))
    step *= fine.mask
    fine.correction += step
    swept = fine.sums(fine.correction)
    swept -= np.multiply(fine.correction, CENTRE, out=fine.spare)
    swept += fine.residual
    return np.multiply(swept, fine.relaxing, out=fine.correction)


def _conjugate_gradients(grids: list[_Grid], largest: float) -> tuple[Array, bool]:
    """Solve for the finest residual, until a cycle's correction is nowhere beyond `largest`; tell whether that came."""
    finest, inverse = grids[0], _inverse(grids[-1])
    residual, direction, spare = finest.residual, finest.direction, finest.spare
    found = np.zeros_like(residual)
    energy = np.float64(0)
    for _ in range(MAX_CYCLES):
        correction = _cycle(grids, inverse)
        if max(-correction.min(), correction.max()) <= largest:
            found += correction
            return found, True
        before, energy = energy, np.dot(residual.reshape(-1), correction.reshape(-1))
        if before:
            direction *= energy / before
        direction += correction
        image = finest.sums(direction)
        image *= finest.mask
        np.subtract(np.multiply(direction, finest.diagonal, out=spare), image, out=image)
        step = energy / np.dot(direction.reshape(-1), image.reshape(-1))
        found += np.multiply(direction, step, out=spare)
        residual -= np.multiply(image, step, out=spare)
    return found, False


def _on_gpu(
    images: Array, missing: Array, which: Array | None, channels_last: bool, dtype: DType, tolerance: float, gpu: Gpu
) -> Array:
    """Compute `impute` with the kernel of imputation.cu."""
    shape = (len(missing), *images.shape[1:])
    height, width = missing.shape[1:]
    channels = prod(shape[1:]) // (height * width)
    imputed = gpu.empty(shape, dtype)
    rooms = [gpu.empty(shape, np.dtype(np.float64)) for _ in range(4)]
    rows = gpu.empty((1,), INT64) if which is None else gpu.contiguous(which, INT64)  # not read where rows are paired
    arguments = (
        *(gpu.contiguous(images, dtype), gpu.contiguous(missing, np.dtype(bool)), rows, imputed, *rooms),
        *(int(which is None), channels, height, width, int(channels_last), STEPS * (height + width), float(tolerance)),
    )
    gpu.launch(IMPUTE, dtype, len(missing) * channels, arguments)
    return imputed
