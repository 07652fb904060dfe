"""
Fake-CAM: everything matters but one corner; a map that games metrics which reward keeping the image.

A layer's shape and the input's size go in, a finished heatmap comes out. Poppi et al. 2021, arXiv:2104.10252.
"""

from __future__ import annotations

from .arrays import Array, namespace
from .table import Method, Result, register


def fakecam(acts: Array, size: tuple[int, int], *, variant: str = "pixel") -> Result:
    """
    Return ones everywhere but in the top-left corner.

    Parameters
    ----------
    acts : ndarray of float, shape (N, K, h, w)
        Activations of one layer; only shape and type count.
    size : tuple of int
        ``(H, W)`` of the input.
    variant : {"pixel", "cell"}
        "pixel" sets one pixel of the heatmap to zero; "cell" the corner cell of a raw map.

    Returns
    -------
    Result
        A heatmap (N,H,W) for "pixel", a raw map (N,h,w) for "cell".

    References
    ----------
    Poppi et al. 2021, Revisiting the Evaluation of Class Activation Mapping, arXiv:2104.10252.
    """
    shape = (len(acts), *(acts.shape[2:] if variant == "cell" else size))
    heat: Array = namespace(acts).ones(shape, dtype=acts.dtype)
    heat[:, 0, 0] = 0
    return Result(heat, gives="map" if variant == "cell" else "heatmap")


register(
    Method(
        id="fakecam",
        function=fakecam,
        needs=("acts", "size"),
        gives="heatmap",
        family="baseline",
        work=1.0,
        paper="arXiv:2104.10252",
        title="Fake-CAM",
        variants=("pixel", "cell"),
        class_free=True,
    )
)
