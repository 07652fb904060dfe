"""
Prepared inputs to measure with: seeded noise with the structure of a picture.

In: a shape. Out: a float batch. Large soft shapes with fine noise over them; plain white noise would leave the last
layers nearly the same everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

__all__ = ["batch", "input_shape"]

COARSE = 7  # cells a side; the last layer's grid of the usual models


def batch(shape: Sequence[int], *, seed: int = 0) -> npt.NDArray[np.float32]:
    """
    Draw a batch.

    Parameters
    ----------
    shape : sequence of int
        (N, C, H, W), or (N, H, W, C) with at most four channels.
    seed : int
        The same seed gives the same batch.

    Returns
    -------
    ndarray of float32
        Mean about 0, standard deviation about 1.
    """
    rng = np.random.default_rng(seed)
    last = shape[-1] <= 4
    n, c, h, w = (shape[0], shape[3], shape[1], shape[2]) if last else tuple(shape)
    coarse = rng.normal(size=(n, c, COARSE, COARSE))
    rows, columns = (np.linspace(0, COARSE - 1, side) for side in (h, w))
    soft = _lerp(_lerp(coarse, rows, 2), columns, 3)
    x = (soft + 0.3 * rng.normal(size=soft.shape)).astype(np.float32)
    return np.ascontiguousarray(np.moveaxis(x, 1, 3) if last else x)


def _lerp(values: npt.NDArray[np.float64], at: npt.NDArray[np.float64], axis: int) -> npt.NDArray[np.float64]:
    """Interpolate along one axis."""
    low = np.minimum(at.astype(int), values.shape[axis] - 2)
    share = (at - low).reshape([-1 if i == axis else 1 for i in range(values.ndim)])
    between: npt.NDArray[np.float64] = values.take(low, axis) * (1 - share) + values.take(low + 1, axis) * share
    return between


def input_shape(onnx: Path) -> Mapping[str, object]:
    """
    Read what a classifier takes.

    Parameters
    ----------
    onnx : Path
        The model.

    Returns
    -------
    mapping
        ``shape``, without the batch axis, and ``batch``, None where it is free.

    Raises
    ------
    ValueError
        If its input is not one float32 picture of a known size.
    """
    import onnxruntime

    try:
        inputs = onnxruntime.InferenceSession(str(onnx), providers=["CPUExecutionProvider"]).get_inputs()
    except Exception as error:
        raise ValueError(f"ONNX Runtime cannot open {onnx.name}: {' '.join(str(error).split())[:200]}") from error
    n, *rest = inputs[0].shape
    if len(inputs) != 1 or len(rest) != 3 or not all(isinstance(d, int) for d in rest) or "float" not in inputs[0].type:
        raise ValueError(f"{onnx.name} does not take one float picture of a known size")
    return {"shape": rest, "batch": n if isinstance(n, int) else None}
