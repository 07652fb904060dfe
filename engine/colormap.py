"""
From numbers to colours.

A heatmap in [0, 1] goes in, RGB comes out, through a table of 256 colours. "jet" is the rainbow that users of CAM
expect and that OpenCV draws; "viridis" is even in lightness, so that it misleads no eye and survives colour blindness
and grey printing (Smith and van der Walt, SciPy 2015; published under CC0).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from .errors import MethodError, ShapeError

__all__ = ["COLORMAPS", "colorize"]

# Every fifth of viridis' 256 colours, six hexadecimal digits each; straight lines between stay within 1/255 of them.
_VIRIDIS = (
    "44015446085c471063481769481d6f482475472a7a46307e453781433d844142873f48893d4e8a"
    "3a538b38598c355e8d33638d31688e2e6d8e2c718e2a768e297b8e27808e25848e23898e218e8d"
    "20928c1f978b1e9c891fa18821a58524aa8328ae802eb37c35b7793dbc7446c06f50c46a5ac864"
    "65cb5e70cf577cd25089d54895d840a2da37b0dd2fbddf26cae11fd8e219e5e419f1e51dfde725"
)


def _jet() -> npt.NDArray[np.uint8]:
    """Return jet: red, green and blue are trapezoids around 3/4, 1/2 and 1/4, clip(1.5 - |4 t - c|) with c = 3, 2, 1."""
    level = np.arange(256)[:, None] / 255
    ramps = np.clip(1.5 - np.abs(4 * level - np.array([3, 2, 1])), 0, 1)
    table: npt.NDArray[np.uint8] = np.rint(255 * ramps).astype(np.uint8)
    return table


def _viridis() -> npt.NDArray[np.uint8]:
    """Return viridis, interpolated between its knots."""
    knots = np.frombuffer(bytes.fromhex(_VIRIDIS), np.uint8).reshape(-1, 3)
    levels, places = np.arange(256), np.arange(0, 256, 5)
    return np.rint(np.stack([np.interp(levels, places, knots[:, c]) for c in range(3)], 1)).astype(np.uint8)


COLORMAPS: Mapping[str, npt.NDArray[np.uint8]] = {"jet": _jet(), "viridis": _viridis()}


def colorize(heat: npt.NDArray[np.floating], colormap: str = "jet") -> npt.NDArray[np.uint8]:
    """
    Colour a heatmap.

    Parameters
    ----------
    heat : ndarray of float, shape (...)
        Values in [0, 1]; what lies beyond is clipped.
    colormap : {"jet", "viridis"}, default "jet"
        The table of colours.

    Returns
    -------
    ndarray of uint8, shape (..., 3)
        RGB.

    Raises
    ------
    MethodError
        If there is no such colormap.
    ShapeError
        If a value is NaN.

    Examples
    --------
    >>> colorize(np.array([0.0, 0.5, 1.0])).tolist()
    [[0, 0, 128], [130, 255, 126], [128, 0, 0]]
    """
    if colormap not in COLORMAPS:
        raise MethodError(f"no colormap is called {colormap!r}; there are {', '.join(COLORMAPS)}")
    values = np.asarray(heat, np.float32)
    if np.isnan(values).any():
        raise ShapeError("a heatmap to draw must hold numbers in [0, 1]; this one holds NaN")
    colours: npt.NDArray[np.uint8] = COLORMAPS[colormap][np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)]
    return colours
