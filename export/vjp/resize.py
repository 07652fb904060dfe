"""
Gradient rule of Resize: one small matrix an axis.

Resize is linear and separable: along each axis ``y = M x`` with a matrix known at export, so ``dx = M^T g``: a MatMul
an axis, far cheaper than the convolutions around it. Nearest upsampling by whole factors sums blocks instead.
Reference: ONNX operator Resize-19, whose antialiased filters fold what lies outside onto the border.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from .along import contract
from .emit import Emit, constant, dims
from .fixed import is_fixed
from .gate import scale
from .known import given, optional_input, refuse, size_of
from .table import vjp

__all__ = ["resize_matrix"]

Array = np.ndarray[Any, Any]

ROUND: dict[str, Callable[[Array], Array]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


@vjp("Resize")
def resize(e: Emit, node: ir.Node, g: ir.Value) -> Sequence[ir.Value | None]:
    """y = M_h x M_w^T  =>  dx = M_h^T g M_w."""
    x, y = given(node), node.outputs[0]
    rest = (None,) * (len(node.inputs) - 1)
    rank = len(dims(x))
    crops = _crops(node)
    factors = {
        axis: factor
        for axis, factor in _factors(node).items()
        if factor != 1 or dims(x)[axis] != dims(y)[axis] or crops.get(axis, (0, 1)) != (0, 1)
    }
    sizes = {axis: (size_of(node, dims(x), axis), size_of(node, dims(y), axis)) for axis in factors}
    matrices = {axis: _matrix(node, *sizes[axis], factor, crops.get(axis)) for axis, factor in factors.items()}
    blocks = [_block(matrices[axis]) if axis in matrices else 1 for axis in range(rank)]
    if rank == 4 and factors and set(factors) <= {2, 3} and all(blocks):
        pooled = e.AveragePool(g, kernel_shape=blocks[2:], strides=blocks[2:])
        return scale(e, pooled, blocks[2] * blocks[3], x), *rest
    for axis, matrix in matrices.items():
        g = contract(e, g, rank, axis, matrix.astype(e.numpy_dtype(x)))
    return g, *rest


def _axes(node: ir.Node) -> list[int]:
    """Return the axes that the node's scales, sizes and crops are for."""
    rank = len(dims(given(node)))
    return [axis % rank for axis in node.attributes.get_ints("axes", tuple(range(rank)))]


def _factors(node: ir.Node) -> dict[int, float]:
    """Return the scale of each axis."""
    x, y, axes = dims(given(node)), dims(node.outputs[0]), _axes(node)
    sizes, scales = optional_input(node, 3), optional_input(node, 2)
    given_scales = constant(scales)
    if given_scales is not None and given_scales.size:
        return {axis: float(factor) for axis, factor in zip(axes, given_scales, strict=True)}
    if not is_fixed(sizes) or not is_fixed(scales):
        raise refuse(node, "its sizes or scales are computed at run time; constants are needed")
    policy = node.attributes.get_string("keep_aspect_ratio_policy", "stretch")
    moved = [axis for axis in axes if x[axis] != y[axis] or axis in _crops(node)]
    if policy == "stretch":
        return {axis: size_of(node, y, axis) / size_of(node, x, axis) for axis in moved}
    wanted = constant(sizes)
    if wanted is None:
        raise refuse(node, f"its sizes are computed at run time; keep_aspect_ratio_policy {policy!r} needs constants")
    ratios = [float(n) / size_of(node, x, axis) for n, axis in zip(wanted, axes, strict=True)]
    return dict.fromkeys(axes, min(ratios) if policy == "not_larger" else max(ratios))


def _crops(node: ir.Node) -> dict[int, tuple[float, float]]:
    """Return the part of each axis that is read, in units of its length; nothing where all of it is."""
    if node.attributes.get_string("coordinate_transformation_mode", "half_pixel") != "tf_crop_and_resize":
        return {}
    roi, axes = constant(optional_input(node, 1)), _axes(node)
    if roi is None:
        raise refuse(node, "the region it crops to is computed at run time; a constant is needed")
    return {axis: (float(a), float(b)) for axis, a, b in zip(axes, *np.split(roi, 2), strict=True)}


def _matrix(node: ir.Node, n_in: int, n_out: int, factor: float, crop: tuple[float, float] | None) -> Array:
    """Return the matrix of one axis from the attributes of `node`; what a crop reads outside x is a constant."""
    read = node.attributes
    if crop is None:
        coordinates = _coordinates(node, n_in, n_out, factor)
    else:
        if factor == 1 and crop != (0, 1):
            raise refuse(node, "it crops without scaling, which runtimes read differently")
        share = np.arange(n_out) / (n_out - 1) if n_out > 1 else np.full(1, 0.5)
        coordinates = (crop[0] + share * (crop[1] - crop[0])) * (n_in - 1)
    matrix = resize_matrix(
        n_in,
        n_out,
        factor,
        mode=read.get_string("mode", "nearest"),
        coordinates=coordinates,
        rounding=read.get_string("nearest_mode", "round_prefer_floor"),
        cubic=read.get_float("cubic_coeff_a", -0.75),
        antialias=bool(read.get_int("antialias", 0)),
        exclude_outside=bool(read.get_int("exclude_outside", 0)),
    )
    if crop is not None:
        matrix[(coordinates < 0) | (coordinates > n_in - 1)] = 0
    return matrix


def _coordinates(node: ir.Node, n_in: int, n_out: int, factor: float) -> Array:
    """Return where in the input each output position reads."""
    mode = node.attributes.get_string("coordinate_transformation_mode", "half_pixel")
    at = np.arange(n_out, dtype=np.float64)
    if mode == "asymmetric":
        return at / factor
    if mode == "align_corners":
        return at * (n_in - 1) / max(n_out - 1, 1)
    if mode == "half_pixel" or (mode == "pytorch_half_pixel" and n_out > 1):
        return (at + 0.5) / factor - 0.5
    if mode == "pytorch_half_pixel":
        return np.zeros(1)
    if mode == "half_pixel_symmetric":
        return n_in / 2 * (1 - n_out / (factor * n_in)) + (at + 0.5) / factor - 0.5
    raise refuse(node, f"coordinate_transformation_mode {mode!r}")


def resize_matrix(
    n_in: int,
    n_out: int,
    factor: float,
    *,
    mode: str,
    coordinates: Array,
    rounding: str = "round_prefer_floor",
    cubic: float = -0.75,
    antialias: bool = False,
    exclude_outside: bool = False,
) -> Array:
    """
    Return the matrix M of a one-dimensional resize ``y = M x``.

    Parameters
    ----------
    n_in, n_out : int
        Lengths of x and y.
    factor : float
        Scale; only the width of antialiasing filters depends on it.
    mode : {"nearest", "linear", "cubic"}
        Interpolation.
    coordinates : ndarray of float64, shape (n_out,)
        Where in x each entry of y reads.
    rounding : str
        The attribute ``nearest_mode``.
    cubic : float
        The attribute ``cubic_coeff_a``.
    antialias : bool
        Widen the filter by ``1 / factor`` where that is above 1.
    exclude_outside : bool
        Give taps outside x no weight; otherwise they repeat the border.

    Returns
    -------
    ndarray of float64, shape (n_out, n_in)
        Each row sums to 1.

    Notes
    -----
    Cost: ``n_out * n_in`` numbers, once at export.

    References
    ----------
    ONNX operator Resize-19.
    """
    if mode == "nearest":
        index = np.clip(ROUND[rounding](coordinates), 0, n_in - 1).astype(int)
        return np.asarray(np.eye(n_in)[index])
    shrink = min(factor, 1.0) if antialias else 1.0
    reach = int(np.ceil(2 / shrink)) + 1  # taps each side, at least the filter's half width
    taps = np.arange(int(np.floor(coordinates.min())) - reach, int(np.ceil(coordinates.max())) + reach + 1)
    distance = np.abs(coordinates[:, None] - taps) * shrink
    weights = np.maximum(1 - distance, 0) if mode == "linear" else _keys(distance, cubic)
    if exclude_outside:
        weights = np.where((taps >= 0) & (taps < n_in), weights, 0)
    weights /= weights.sum(axis=1, keepdims=True)
    matrix: Array = np.zeros((n_out, n_in))
    np.add.at(matrix.T, np.clip(taps, 0, n_in - 1), weights.T)
    return matrix


def _keys(distance: Array, a: float) -> Array:
    """Return the cubic convolution kernel of Keys (1981) at `distance` >= 0."""
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = a * (((distance - 5) * distance + 8) * distance - 4)
    return np.asarray(np.where(distance <= 1, near, np.where(distance < 2, far, 0)))


def _block(matrix: Array) -> int:
    """Return k if the matrix repeats each entry k times in a row, else 0."""
    count = len(matrix) // matrix.shape[1]
    return count if count and np.array_equal(matrix, np.repeat(np.eye(matrix.shape[1]), count, axis=0)) else 0
