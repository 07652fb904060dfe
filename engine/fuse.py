"""
One heatmap out of several layers.

Maps of each layer go in, one heatmap and its flag come out. Some fusions join finished heatmaps (mean, max, product,
nth-root); others join raw maps at the size of the largest layer, before the pipeline (layercam, largest-product, polycam).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from types import MappingProxyType
from typing import Any

from camrt import kernels

from .errors import MethodError, ShapeError
from .methods.arrays import Array, namespace
from .methods.layercam import fuse_layercam
from .methods.polycam import fuse_polycam
from .methods.refinecam import fuse_largest
from .pipeline import Pipeline, Size


def _mean(maps: Sequence[Array]) -> Array:
    """Average; k times (N,H,W) -> (N,H,W)."""
    return reduce(namespace(maps[0]).add, maps) / len(maps)


def _product(maps: Sequence[Array]) -> Array:
    """Multiply; a map without contrast is zero and makes the product zero."""
    return reduce(namespace(maps[0]).multiply, maps)


def _nth_root(maps: Sequence[Array]) -> Array:
    """Geometric mean."""
    root: Array = _product(maps) ** (1 / len(maps))
    return root


def _maximum(maps: Sequence[Array]) -> Array:
    """Take the largest value of each pixel."""
    return reduce(namespace(maps[0]).maximum, maps)


HEAT_FUSIONS: Mapping[str, Callable[[Sequence[Array]], Array]] = MappingProxyType(
    {"mean": _mean, "max": _maximum, "product": _product, "nth-root": _nth_root}
)
RAW_FUSIONS: Mapping[str, Callable[..., Array]] = MappingProxyType(
    {"layercam": fuse_layercam, "largest-product": fuse_largest, "polycam": fuse_polycam}
)


def fuse(maps: Sequence[Array], how: str = "mean") -> tuple[Array, Array]:
    """
    Join finished heatmaps of several layers and scale the result.

    Parameters
    ----------
    maps : sequence of ndarray of float, shape (N, H, W)
        One heatmap an image and layer, each already through the pipeline.
    how : {"mean", "max", "product", "nth-root"}
        The fusion. One layer alone is returned as it is.

    Returns
    -------
    heat : ndarray of float, shape (N, H, W)
        The fused heatmap in [0, 1].
    degenerate : ndarray of bool, shape (N,)
        Where it has no contrast; with a product, wherever one layer has none.

    Raises
    ------
    MethodError
        If there is no such fusion of heatmaps.
    ShapeError
        If no map is given, or their shapes differ.

    Notes
    -----
    Cost: one pass over each map, and one min-max.

    Examples
    --------
    >>> import numpy as np
    >>> one, two = np.array([[[0.0, 1.0]]]), np.array([[[0.5, 1.0]]])
    >>> fuse([one, two], "product")[0].tolist()
    [[[0.0, 1.0]]]
    """
    if how not in HEAT_FUSIONS:
        raise MethodError(f"no fusion of heatmaps is called {how!r}; choose from {', '.join(HEAT_FUSIONS)}")
    _check_shapes(maps)
    return kernels.min_max(maps[0] if len(maps) == 1 else HEAT_FUSIONS[how](maps))


def fuse_layers(
    raws: Sequence[Array],
    size: Size,
    pipeline: Pipeline,
    *,
    how: str = "mean",
    relu: bool = True,
    options: Mapping[str, Any] | None = None,
) -> tuple[Array, Array]:
    """
    Take raw maps of one or several layers to one heatmap.

    Parameters
    ----------
    raws : sequence of ndarray of float, shape (N, h_l, w_l)
        Raw maps of each layer, the shallowest first.
    size : tuple of int
        ``(H, W)`` of the image.
    pipeline : Pipeline
        The order of operations.
    how : str
        A key of `HEAT_FUSIONS` or `RAW_FUSIONS`; without effect on one layer.
    relu : bool
        Whether the method's negative parts are cut off.
    options : mapping of str to object, optional
        Fusion options of the method (``method.fusion_options``), for fusions of raw maps.

    Returns
    -------
    heat : ndarray of float, shape (N, H, W)
        Heatmaps in [0, 1]; all zero where degenerate.
    degenerate : ndarray of bool, shape (N,)
        Where the result has no contrast.

    Raises
    ------
    MethodError
        If there is no such fusion.
    ShapeError
        If no map is given, or the numbers of images differ.
    """
    if how not in HEAT_FUSIONS and how not in RAW_FUSIONS:
        raise MethodError(f"no fusion is called {how!r}; choose from {', '.join([*HEAT_FUSIONS, *RAW_FUSIONS])}")
    if len(raws) == 1:
        return pipeline(raws[0], size, relu)
    if how in RAW_FUSIONS:
        return pipeline(RAW_FUSIONS[how](raws, **(options or {})), size, relu)
    maps = [pipeline.layer(raw, size, relu) for raw in raws]
    if how not in pipeline.early:
        maps = [pipeline.finish(array)[0] for array in maps]
    _check_shapes(maps)
    return pipeline.finish(HEAT_FUSIONS[how](maps))


def _check_shapes(maps: Sequence[Array]) -> None:
    """Refuse an empty list and maps of different shapes."""
    if not maps or len({array.shape for array in maps}) != 1:
        shapes = [tuple(array.shape) for array in maps]
        raise ShapeError(f"fusion takes maps (N,H,W) of one shape, at least one; got {shapes}")
