"""
Occlusion: how much the class loses where a patch is hidden.

Masked forwards go in, a raw map of the image's size comes out; the model is a black box. Zeiler and Fergus 2014,
arXiv:1311.2901, section 4.2. A patch is slid over the image and hides what is under it; with p the class's probability
and x_i the image without patch i,

    S(u) = mean over patches i that cover u of  p(x) - p(x_i)
"""

from __future__ import annotations

import math

import numpy as np

from ..errors import MethodError
from ..masks import Lazy, Masks
from .arrays import Array, namespace
from .scorecam import MaskedOf, ScoreOf
from .table import Method, Option, register


def occlusion(
    x: Array,
    size: tuple[int, int],
    logits: Array,
    masked_of: MaskedOf,
    score_of: ScoreOf,
    *,
    variant: str = "official",
    patch: float = 0.2,
    stride: float = 0.05,
) -> Array:
    """
    Hide one patch after the other, and share out what the class loses.

    A hidden pixel shows what the request's mask space says.

    Parameters
    ----------
    x : ndarray, shape (N, ...)
        The model's input; its type and its side (host or device) are those of the map.
    size : tuple of int
        ``(H, W)`` of the input.
    logits : ndarray of float, shape (N, C)
        Logits of the clean input.
    masked_of : callable
        Takes `Masks`, returns the logits of masked images.
    score_of : callable
        Takes logits (N,M,C) and "probability", returns the target's scores (N,M).
    variant : {"official", "relu"}
        Whether the heatmap shows gains, too, as the lower end of its range, or losses alone.
    patch : float
        The patch's sides, as a share of the image's.
    stride : float
        The largest step between patches, as a share of the image's sides. Patches are evenly spaced, the first and the
        last at the edges.

    Returns
    -------
    ndarray of float, shape (N, H, W)
        Raw map in units of probability, negative where the class gains; 0 where no patch that covers a pixel has been run.

    Raises
    ------
    MethodError
        If the stride is larger than the patch, which would leave pixels out.

    Notes
    -----
    Cost: one masked forward a patch, for all targets. Patches are run in an order that soon covers the whole image.

    References
    ----------
    Zeiler and Fergus 2014, Visualizing and Understanding Convolutional Networks, arXiv:1311.2901, section 4.2.
    """
    if stride > patch:
        raise MethodError(
            f"occlusion's stride must be at most its patch, {patch:g}, to leave no pixel out; got {stride:g}"
        )
    down, across = (_covered(side, patch, stride) for side in size)  # (ny, H), (nx, W)
    order = _spread(len(down) * len(across))
    rows, columns = np.divmod(order, len(across))
    xp = namespace(x)

    def _make(image: int, wanted: Array) -> Array:
        hidden = down[rows[wanted], :, None] & across[columns[wanted], None, :]
        masks: Array = xp.asarray((~hidden).astype("f4"))
        return masks

    key = ("occlusion", patch, stride)
    scored = masked_of(Masks(Lazy(len(order), _make, key), scaling="none"))
    drops = score_of(logits[:, None], "probability") - score_of(scored.logits, "probability")
    placed = np.zeros((2, len(x), len(down), len(across)))
    placed[:, :, rows, columns] = np.where(scored.live, drops, 0), scored.live
    sums, counts = down.T.astype("f8") @ placed @ across.astype("f8")  # each (N, H, W)
    return xp.asarray(sums / np.maximum(counts, 1), x.dtype if x.dtype.kind == "f" else "f4")  # type: ignore[no-any-return]


def _places(patch: float, stride: float) -> int:
    """Return how many places a patch takes along a side."""
    return 1 + math.ceil(round((1 - patch) / stride, 9))


def _covered(side: int, patch: float, stride: float) -> Array:
    """Tell which pixels of a side each place of the patch covers; (places, side) bool, none twice."""
    length = math.ceil(round(patch * side, 9))  # up, so that no gap is left where stride and patch are alike
    starts = np.unique(np.linspace(0, side - length, _places(patch, stride)).round().astype(int))
    pixel = np.arange(side)
    covered: Array = (starts[:, None] <= pixel) & (pixel < starts[:, None] + length)
    return covered


def _spread(count: int) -> Array:
    """Return 0 .. count - 1 in an order whose every beginning is spread out: steps of the golden section."""
    step = next(step for step in range(round(count * 0.618), count + 2) if math.gcd(step, count) == 1)
    return np.arange(count) * step % count


register(
    Method(
        id="occlusion",
        function=occlusion,
        needs=("x", "size", "logits", "masked_of", "score_of"),
        gives="map",
        family="black-box",
        work=290.0,
        paper="arXiv:1311.2901",
        title="Occlusion",
        variants=("official", "relu"),
        relu={"official": False, "relu": True},
        options={
            "patch": Option(0.2, "number", "the patch's sides, as a share of the image's", low=1e-3, high=1),
            "stride": Option(
                0.05, "number", "largest step between patches, as a share of the image's sides", low=1e-3, high=1
            ),
        },
        runs=lambda options, channels, cells: _places(options["patch"], options["stride"]) ** 2,
    )
)
