"""
From a raw map to a heatmap: ReLU, resize and scaling, in the orders in use.

A raw map (N,h,w) at a layer's resolution goes in, a heatmap (N,H,W) in [0, 1] and a flag for maps without any contrast
come out. The order matters: scaling before the resize leaves a peak below 1, and a ReLU after it keeps other pixels.

    camrt              ReLU -> resize -> min-max
    pytorch-grad-cam   ReLU, always -> min-max at the layer's size -> resize | mean over layers -> ReLU -> min-max
    torchcam           ReLU -> min-max at the layer's size -> resize

What stands before the bar happens to each layer before their mean is taken, the rest to the mean (`camrt.fuse`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from camrt import kernels
from camrt.kernels import Array

from .errors import MethodError

Size = tuple[int, int]


@dataclass(frozen=True)
class Pipeline:
    """
    One order of operations; call it with a raw map.

    Attributes
    ----------
    name : str
        The name in `PIPELINES`.
    layer : callable
        ``layer(raw, size, relu)`` brings one layer's raw map (N,h,w) to the image's size (N,H,W).
    finish : callable
        ``finish(maps)`` scales maps (N,H,W), whose memory it may take, and tells which have no contrast, (N,) bool.
    early : tuple of str
        Fusions that join the layers' maps before `finish`; all others join finished ones.
    """

    name: str
    layer: Callable[[Array, Size, bool], Array]
    finish: Callable[[Array], tuple[Array, Array]]
    early: tuple[str, ...] = ()

    def __call__(self, raw: Array, size: Size, relu: bool = True) -> tuple[Array, Array]:
        """
        Turn raw maps of one layer into heatmaps.

        Parameters
        ----------
        raw : ndarray of float, shape (N, h, w)
            Signed maps, finite.
        size : tuple of int
            ``(H, W)`` of the image, in pixels.
        relu : bool
            Whether the method's negative parts are cut off.

        Returns
        -------
        heat : ndarray of float, shape (N, H, W)
            Heatmaps in [0, 1]; all zero where degenerate.
        degenerate : ndarray of bool, shape (N,)
            Which raw maps had no contrast.

        Notes
        -----
        Cost: one resize and one or two passes of min-max.
        """
        return self.finish(self.layer(raw, size, relu))


def pipeline(name: str) -> Pipeline:
    """
    Return a pipeline by its name.

    Parameters
    ----------
    name : str
        A key of `PIPELINES`.

    Returns
    -------
    Pipeline
        The order of operations.

    Raises
    ------
    MethodError
        If there is none of that name.

    Examples
    --------
    >>> import numpy as np
    >>> heat, degenerate = pipeline("camrt")(np.eye(2)[None], (4, 4), True)
    >>> heat.shape, float(heat.max()), bool(degenerate[0])
    ((1, 4, 4), 1.0, False)
    """
    if name not in PIPELINES:
        raise MethodError(f"no pipeline is called {name!r}; choose from {', '.join(PIPELINES)}")
    return PIPELINES[name]


def _cut(raw: Array, relu: bool) -> Array:
    """Set negative values to zero if asked; any shape."""
    return raw.clip(0, None) if relu else raw


def _unit(maps: Array, eps: float) -> Array:
    """Scale each map to [0, 1) with eps added to its maximum; constant maps become zero."""
    constant = kernels.min_max(maps)[1]
    shifted = maps - maps.min(axis=(1, 2), keepdims=True)
    scaled: Array = shifted / (shifted.max(axis=(1, 2), keepdims=True) + eps)
    return scaled * (~constant)[:, None, None]


def _camrt_layer(raw: Array, size: Size, relu: bool) -> Array:
    """ReLU, then resize; METHODS' own order."""
    return kernels.resize(_cut(raw, relu), size)


def _camrt_finish(maps: Array) -> tuple[Array, Array]:
    """Min-max scaling, in the memory of the maps."""
    return kernels.min_max(maps, overwrite=True)


def _pytorch_grad_cam_layer(raw: Array, size: Size, relu: bool) -> Array:
    """ReLU whatever the method, scaling at the layer's size, then resize."""
    return kernels.resize(_unit(_cut(raw, True), 1e-7), size)


def _pytorch_grad_cam_finish(maps: Array) -> tuple[Array, Array]:
    """Scale once more, with the same eps."""
    positive = _cut(maps, True)
    return _unit(positive, 1e-7), kernels.min_max(positive)[1]


def _torchcam_layer(raw: Array, size: Size, relu: bool) -> Array:
    """ReLU, scaling at the layer's size, then resize."""
    return kernels.resize(_unit(_cut(raw, relu), 1e-8), size)


def _torchcam_finish(maps: Array) -> tuple[Array, Array]:
    """Leave the maps as they are."""
    return maps, kernels.min_max(maps)[1]


PIPELINES: Mapping[str, Pipeline] = MappingProxyType(
    {
        "camrt": Pipeline("camrt", _camrt_layer, _camrt_finish),
        "pytorch-grad-cam": Pipeline(
            "pytorch-grad-cam", _pytorch_grad_cam_layer, _pytorch_grad_cam_finish, early=("mean",)
        ),
        "torchcam": Pipeline("torchcam", _torchcam_layer, _torchcam_finish),
    }
)
