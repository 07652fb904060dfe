"""
Pixel flipping: how the class fares while pixels, squares or tenths of the picture are blacked out by rank.

In: a map's order and the model's answers to pictures with ever more of them flipped. Out: one number an image and the curve
behind it. It is deletion under other names; what the papers differ in is one row each of `PROTOCOLS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from camrt.kernels import areas

from ..methods.table import Option
from .case import Case
from .changes import Change, Order, Substrate, swapped
from .curves import curve_of, stops
from .model import Judged
from .plain import judged
from .table import Field, Metric, register

__all__ = ["Protocol", "flips", "pixel_flipping"]

Array = npt.NDArray[Any]

BLACK = Substrate("black")
MINIMUM = Substrate("minimum")
MOST_FIRST = Order()
LEAST_FIRST = Order(descending=False)


@dataclass(frozen=True)
class Protocol:
    """
    How a paper or library flips.

    Attributes
    ----------
    steps : int
        How many times the picture is changed, at most.
    substrate : Substrate
        What flipped pixels show.
    order : Order
        Which come first.
    walk : {"whole", "first", "tenths"}
        "whole": equal steps over all pixels. "first": one patch a step, so many of them. "tenths": equal steps that stop one
        short of both ends: 9 are 10 to 90 % of the pixels.
    value : {"area", "later", "drop", "hits"}
        "area": the trapezoid of the probability over the fraction flipped. "later": the same without the first point. "drop":
        the mean of what is lost of the first point's probability. "hits": the trapezoid of whether the class is still the
        prediction, divided by the fraction spanned.
    """

    steps: int
    substrate: Substrate = BLACK
    order: Order = MOST_FIRST
    walk: Literal["whole", "first", "tenths"] = "whole"
    value: Literal["area", "later", "drop", "hits"] = "area"


PROTOCOLS: Mapping[str, Protocol] = {
    "camrt": Protocol(224),
    "quantus": Protocol(224, MINIMUM, value="later"),
    "region": Protocol(100, MINIMUM, Order(patch=8), walk="first", value="drop"),
    "chefer-positive": Protocol(9, walk="tenths", value="hits"),
    "chefer-negative": Protocol(9, order=LEAST_FIRST, walk="tenths", value="hits"),
}


def pixel_flipping(
    model: Judged,
    x: Array,
    heatmaps: Array,
    classes: Any = None,
    *,
    variant: str = "camrt",
    steps: int | None = None,
) -> npt.NDArray[np.float64]:
    """
    Return how the class fares while pixels are flipped by the map's order.

    In [0, 1], lower is better, but for two variants: "region" is a mean drop in [-1, 1] and "chefer-negative" flips the least
    important first; both are better high.

    Parameters
    ----------
    model : camrt.metrics.Model, camrt.Explainer or callable
        The classifier; a function takes inputs (M, ...) and gives logits (M, C). What black is, is said by a `Model`'s
        `black`; of a function it is zero.
    x : ndarray, shape (N, ...)
        The model's inputs, after preprocessing.
    heatmaps : ndarray, shape (N, H, W)
        Maps in [0, 1], from any library; they count through the order of their pixels alone.
    classes : array of int, shape (N,), optional
        The classes the maps explain; the predictions where None.
    variant : {"camrt", "quantus", "region", "chefer-positive", "chefer-negative"}
        Whose definition; the notes tell them apart.
    steps : int, optional
        How many times the picture is changed, at most; the variant's own where None. For "region" how many squares.

    Returns
    -------
    ndarray of float64, shape (N,)
        The value of each image.

    Raises
    ------
    MethodError
        If there is no such variant, or `steps` is below 1.
    ShapeError, NumericError
        If heatmaps have another size than the pictures, hold NaN or leave [0, 1], or logits are not finite.

    Notes
    -----
    Cost: `steps` forwards an image, beside the picture itself. All channels of a pixel are flipped together.

    ===============  =====  ===================  ==================================================================
    variant          steps  flipped to           value
    ===============  =====  ===================  ==================================================================
    camrt            224    raw black            area under p over the fraction flipped
    quantus          224    the input's minimum  the same area without the point of the whole picture
    region           100    the input's minimum  mean of p(x) - p(x_k) over the first 100 squares of 8 pixels (AOPC)
    chefer-positive  9      raw black            area under the top-1 hit from 10 to 90 %, divided by 0.8
    chefer-negative  9      raw black            the same, the least important pixels first
    ===============  =====  ===================  ==================================================================

    Quantus flips every channel of a pixel apart, 150528 forwards at 224 x 224, unless `features_in_step` is given; its area
    counts steps, so divide it by their number less one. Of one channel and no ties the two agree; of three, the channels of a
    pixel are tied. Quantus' squares may lie anywhere and skip those that overlap an earlier one; here they lie on a grid, as
    in Samek et al., who count the whole picture among the points and flip to random colours. In the mean over images the two
    hits are areas of accuracy where `classes` are the true ones, which is what Chefer et al. print.

    References
    ----------
    Bach et al. 2015, PLoS ONE 10(7) e0130140; Samek et al. 2017, IEEE TNNLS 28(11), AOPC; Chefer, Gur, Wolf 2021,
    arXiv:2012.09838, the perturbation tests.
    """
    options = {} if steps is None else {"steps": steps}
    return judged(PIXEL_FLIPPING, model, x, heatmaps, classes, variant=variant, options=options)["pixel_flipping"]


def flips(size: tuple[int, int], *, variant: str, steps: int) -> tuple[int, tuple[int, ...]]:
    """
    Return how many ranks there are, and how many are flipped at each point.

    Parameters
    ----------
    size : tuple of int
        Height and width of the maps.
    variant : str
        Which definition.
    steps : int
        How many times the picture is changed, at most.

    Returns
    -------
    total : int
        Pixels, or patches.
    counts : tuple of int
        One a point of the curve.

    Examples
    --------
    >>> flips((10, 10), variant="chefer-positive", steps=9)
    (100, (10, 20, 30, 40, 50, 60, 70, 80, 90))
    """
    protocol = PROTOCOLS[variant]
    patch = protocol.order.patch
    total = -(-size[0] // patch) * -(-size[1] // patch)
    if protocol.walk == "first":
        return total, tuple(range(min(steps, total) + 1))
    if protocol.walk == "tenths":
        return total, tuple(total * k // (steps + 1) for k in range(1, steps + 1))
    return total, stops(total, steps)


def changes(size: tuple[int, int], *, variant: str, steps: int) -> tuple[Change, ...]:
    """
    Name the pictures of the curve, one a point.

    Parameters
    ----------
    size : tuple of int
        Height and width of the maps.
    variant : str
        Which definition.
    steps : int
        How many times the picture is changed, at most.

    Returns
    -------
    tuple of Change
        With ever more flipped.
    """
    protocol = PROTOCOLS[variant]
    total, counts = flips(size, variant=variant, steps=steps)
    return tuple(swapped(protocol.order, 0, count, total, protocol.substrate) for count in counts)


def values(case: Case, *, variant: str, steps: int) -> dict[str, Array]:
    """
    Judge maps by flipping.

    Parameters
    ----------
    case : Case
        With scores of `changes`.
    variant : str
        Which definition.
    steps : int
        How many times the picture is changed, at most.

    Returns
    -------
    dict of str to ndarray
        "pixel_flipping" (N,) and "pixel_flipping.curve" (N, P): probabilities, or hits of the two variants by Chefer.
    """
    _, counts = flips(case.size, variant=variant, steps=steps)
    asked = changes(case.size, variant=variant, steps=steps)
    kind, places = PROTOCOLS[variant].value, np.array(counts)
    if kind == "hits":
        curve = np.stack([case.scores[change].hit for change in asked], axis=1).astype(np.float64)
        value = _level(curve, places)
    else:
        curve = curve_of(case, asked)
        if kind == "drop":
            value = (curve[:, :1] - curve[:, 1:]).mean(1)
        else:
            value = _level(curve, places) if kind == "area" else _level(curve[:, 1:], places[1:])
    return {"pixel_flipping": value, "pixel_flipping.curve": curve}


def _level(curve: Array, places: Array) -> Array:
    """Return the area under a curve divided by what it spans, (N,); of one point, or of points in one place, their mean."""
    level: Array = areas(curve, places) if places[-1] > places[0] else curve.mean(1)
    return level


def _field(better: Literal["higher", "lower"], low: float, text: str) -> tuple[Field, ...]:
    """Return a variant's only field."""
    return (Field("pixel_flipping", better, low, 1, text),)


PIXEL_FLIPPING = register(
    Metric(
        id="pixel_flipping",
        title="Pixel flipping",
        paper="doi:10.1371/journal.pone.0130140",
        settings=(
            "quantus: the library's defaults, channels together. region: Samek et al., as in Quantus. chefer-positive, "
            "chefer-negative: the perturbation tables of Chefer et al. 2021 (2012.09838)"
        ),
        fields=_field("lower", 0, "area under the probability while pixels are blacked out"),
        by_variant={
            "region": _field("higher", -1, "mean drop of the probability while squares are flipped (AOPC)"),
            "chefer-positive": _field("lower", 0, "area under the accuracy, the most important pixels first"),
            "chefer-negative": _field("higher", 0, "area under the accuracy, the least important pixels first"),
        },
        variants=tuple(PROTOCOLS),
        values=values,
        changes=changes,
        needs=("map", "scores"),
        options={
            "steps": Option(
                224,
                "integer",
                "how many times the picture is changed, at most",
                low=1,
                by_variant={name: protocol.steps for name, protocol in PROTOCOLS.items()},
            )
        },
        aliases=("aopc",),
    )
)
