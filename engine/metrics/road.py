"""
ROAD: how the class fares when a share of the pixels is replaced by what their neighbours tell.

In: the model's answers to pictures whose most important pixels (MoRF) or least important ones (LeRF) are imputed, at several
levels. Out: the two curves, their means, and half of their difference. Imputation (Rong et al. 2022) leaves no edge that
would give the mask away; the pictures are made by `camrt.metrics.filling`, the linear systems solved by a kernel.

`counts` says how many pixels each definition removes; `arcc` takes the settings of "pytorch-grad-cam".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..methods.table import Option
from .case import Case
from .changes import Change, Clean, Imputed, Order
from .curves import curve_of
from .model import Judged
from .plain import judged
from .table import Field, Metric, register

__all__ = ["Protocol", "counts", "road", "road_changes", "road_values"]

Array = npt.NDArray[Any]
Removes = Literal["level", "rest", "percentile"]


@dataclass(frozen=True)
class Protocol:
    """
    How a paper or library sets the metric.

    Attributes
    ----------
    levels : tuple of int
        In percent.
    morf, lerf : {"level", "rest", "percentile"} or None
        What is removed at level p: p percent of the pixels; all but p percent; or those that NumPy's p-th percentile leaves.
        None where the definition has no such curve.
    unit : {"raw", "input"}
        Of the noise: the picture between 0 and 1, or the model's input.
    jitter : float
        Deviation of the noise that breaks ties, on a map in [0, 1].
    """

    levels: tuple[int, ...]
    morf: Removes = "level"
    lerf: Removes | None = "level"
    unit: Literal["raw", "input"] = "raw"
    jitter: float = 0.0


LEVELS = (10, 20, 30, 40, 50, 70, 90)
PROTOCOLS: Mapping[str, Protocol] = {
    "camrt": Protocol(LEVELS),
    "official": Protocol(LEVELS, lerf="rest", jitter=1e-4),
    "pytorch-grad-cam": Protocol(tuple(range(10, 100, 10)), "percentile", "percentile", unit="input"),
    "quantus": Protocol(tuple(range(1, 100, 2)), lerf=None, unit="input"),
}


def road(
    model: Judged,
    x: Array,
    heatmaps: Array,
    classes: Any = None,
    *,
    variant: str = "camrt",
    levels: Sequence[int] | None = None,
    noise: float | None = None,
    seed: int | None = None,
) -> npt.NDArray[np.float64]:
    """
    Return how much better the class survives the loss of unimportant pixels than that of important ones.

    Half of the mean probability with the least important pixels imputed, less that with the most important ones: in
    [-0.5, 0.5], higher is better. "quantus" is another number: the share of levels at which the class is still the prediction
    with the most important pixels imputed, in [0, 1], lower is better.

    Parameters
    ----------
    model : camrt.metrics.Model, camrt.Explainer or callable
        The classifier; a function takes inputs (M, ...) and gives logits (M, C). How much of the input a raw unit is, is said
        by a `Model`'s `unit`; of a function it is one.
    x : ndarray, shape (N, ...)
        The model's inputs, after preprocessing.
    heatmaps : ndarray, shape (N, H, W)
        Maps in [0, 1], from any library; they count through the order of their pixels alone.
    classes : array of int, shape (N,), optional
        The classes the maps explain; the predictions where None.
    variant : {"camrt", "official", "pytorch-grad-cam", "quantus"}
        Whose definition; the notes tell them apart.
    levels : sequence of int, optional
        Percentages, 1 to 99; the variant's own where None.
    noise : float, optional
        Standard deviation of the noise on imputed pixels, 0.01 where None; in raw units for the first two variants, in those
        of the input for the others.
    seed : int, optional
        Of the noise, 0 where None.

    Returns
    -------
    ndarray of float64, shape (N,)
        The value of each image.

    Raises
    ------
    MethodError
        If there is no such variant, or an option is out of range.
    ShapeError, NumericError
        If heatmaps have another size than the pictures, hold NaN or leave [0, 1], or logits are not finite.

    Notes
    -----
    Cost: two forwards a level and image ("quantus": one) and as many linear systems.

    ================  =============  ==========================  ======================================================
    variant           levels in %    removed at level p          what else
    ================  =============  ==========================  ======================================================
    camrt             10 to 50, 70,  floor(p H W) of either end  ties by raster index
                      90
    official          the same       LeRF removes all but p      the map is jittered by 1e-4 to break ties
    pytorch-grad-cam  10 to 90       100 - p, see below          noise on the normalised input; morf and lerf are changes
    quantus           1, 3, to 99    p                           MoRF alone, top-1 hits; noise on the normalised input
    ================  =============  ==========================  ======================================================

    The paper prints accuracy against p: `road.hits_morf` and `road.hits_lerf` in results, where the classes are the true
    ones. pytorch-grad-cam keeps the pixels strictly below NumPy's p-th percentile, ``ceil(p (H W - 1) / 100)`` of them where
    no two are equal; where many are, as zeros after a ReLU, its threshold removes all of them at once, while here exactly that
    number is removed, by raster index. Its scores are of whatever target it is given, the logit by default; ours are softmax
    probabilities. No library seeds the noise.

    References
    ----------
    Rong et al. 2022, "A Consistent and Efficient Evaluation Strategy for Attribution Methods", arXiv:2202.00449:
    noisy linear imputation, MoRF and LeRF.
    """
    given = {"levels": levels, "noise": noise, "seed": seed}
    options = {name: value for name, value in given.items() if value is not None}
    return judged(ROAD, model, x, heatmaps, classes, variant=variant, options=options)["road"]


def counts(size: tuple[int, int], levels: Sequence[int], removes: Removes) -> tuple[int, ...]:
    """
    Return how many pixels are imputed at each level; one at least is always left.

    Parameters
    ----------
    size : tuple of int
        Height and width of the maps.
    levels : sequence of int
        In percent.
    removes : {"level", "rest", "percentile"}
        As in `Protocol`.

    Returns
    -------
    tuple of int
        One a level.

    Examples
    --------
    >>> counts((10, 10), (10, 90), "rest")
    (90, 10)
    """
    total = size[0] * size[1]
    return tuple(total - max(_kept(total, level, removes), 1) for level in levels)


def road_changes(
    size: tuple[int, int], *, variant: str, levels: tuple[int, ...], noise: float, seed: int
) -> tuple[Change, ...]:
    """
    Name the pictures with imputed pixels, level by level: all of MoRF, then all of LeRF.

    Parameters
    ----------
    size : tuple of int
        Height and width of the maps.
    variant : str
        Which definition.
    levels : tuple of int
        In percent.
    noise : float
        Standard deviation of the noise.
    seed : int
        Of the noise and of the jitter.

    Returns
    -------
    tuple of Change
        `Clean` where no pixel is removed.
    """
    morf, lerf = _sides(size, variant, levels, noise, seed)
    return (*morf, *lerf)


def road_values(
    case: Case, *, variant: str, levels: tuple[int, ...], noise: float, seed: int
) -> dict[str, npt.NDArray[np.float64]]:
    """
    Judge maps by ROAD.

    Parameters
    ----------
    case : Case
        With scores of `road_changes`.
    variant : str
        Which definition.
    levels : tuple of int
        In percent.
    noise : float
        Standard deviation of the noise.
    seed : int
        Of the noise and of the jitter.

    Returns
    -------
    dict of str to ndarray
        "road", "road.morf", "road.lerf", "road.accuracy_morf" and "road.accuracy_lerf" (N,), means over levels;
        "road.curve_morf", "road.curve_lerf" (N, P) of probabilities and "road.hits_morf", "road.hits_lerf" (N, P) of 0 and 1.
        "quantus" has "road" and the two of MoRF alone.
    """
    morf, lerf = _sides(case.size, variant, levels, noise, seed)
    found = {"road.curve_morf": curve_of(case, morf), "road.hits_morf": _hits(case, morf)}
    accuracy = found["road.hits_morf"].mean(1)
    if not lerf:
        return {"road": accuracy, **found}
    found |= {"road.curve_lerf": curve_of(case, lerf), "road.hits_lerf": _hits(case, lerf)}
    means = {side: found[f"road.curve_{side}"].mean(1) for side in ("morf", "lerf")}
    combined = (means["lerf"] - means["morf"]) / 2
    if variant == "pytorch-grad-cam":
        means = {side: mean - case.scores[Clean()].p for side, mean in means.items()}
    return {
        "road": combined,
        "road.morf": means["morf"],
        "road.lerf": means["lerf"],
        "road.accuracy_morf": accuracy,
        "road.accuracy_lerf": found["road.hits_lerf"].mean(1),
        **found,
    }


def _kept(total: int, level: int, removes: Removes) -> int:
    """Return how many pixels a level leaves."""
    if removes == "level":
        return total - total * level // 100
    if removes == "rest":
        return total * level // 100
    return -(-(total - 1) * level // 100)  # of n distinct values so many lie below the percentile


def _sides(
    size: tuple[int, int], variant: str, levels: tuple[int, ...], noise: float, seed: int
) -> tuple[tuple[Change, ...], tuple[Change, ...]]:
    """Name the pictures of MoRF and those of LeRF, one a level."""
    protocol = PROTOCOLS[variant]

    def side(removes: Removes | None, descending: bool) -> tuple[Change, ...]:
        if removes is None:
            return ()
        order = Order(descending, seed=seed if protocol.jitter else None, jitter=protocol.jitter)
        return tuple(
            Imputed(order, count, noise, protocol.unit, seed) if count else Clean()
            for count in counts(size, levels, removes)
        )

    return side(protocol.morf, descending=True), side(protocol.lerf, descending=False)


def _hits(case: Case, changes: tuple[Change, ...]) -> npt.NDArray[np.float64]:
    """Return whether the class is the prediction on each of some pictures, 0 or 1, (N, P)."""
    return np.stack([case.scores[change].hit for change in changes], axis=1).astype(np.float64)


def _fields(low: float, high: float, what: str) -> tuple[Field, ...]:
    """Return the fields of variants that have both curves."""
    return (
        Field("road", "higher", -0.5, 0.5, "half of the least-first mean less the most-first mean"),
        Field("road.morf", "lower", low, high, f"{what}, the most important pixels imputed"),
        Field("road.lerf", "higher", low, high, f"{what}, the least important pixels imputed"),
        Field("road.accuracy_morf", "lower", 0, 1, "accuracy, the most important pixels imputed"),
        Field("road.accuracy_lerf", "higher", 0, 1, "accuracy, the least important pixels imputed"),
    )


ROAD = register(
    Metric(
        id="road",
        title="ROAD",
        paper="arXiv:2202.00449",
        settings=(
            "official: Rong et al., accuracy at each level. pytorch-grad-cam: its ROADCombined, and ARCC's with levels "
            "20,40,60,80. quantus: the library's defaults"
        ),
        fields=_fields(0, 1, "mean probability"),
        by_variant={
            "pytorch-grad-cam": _fields(-1, 1, "mean change of the probability"),
            "quantus": (Field("road", "lower", 0, 1, "accuracy, the most important pixels imputed"),),
        },
        variants=tuple(PROTOCOLS),
        values=road_values,
        changes=road_changes,
        needs=("map", "scores"),
        options={
            "levels": Option(
                LEVELS,
                "integers",
                "percentages removed",
                low=1,
                high=99,
                by_variant={name: protocol.levels for name, protocol in PROTOCOLS.items()},
            ),
            "noise": Option(0.01, "number", "standard deviation of the noise on imputed pixels", low=0),
            "seed": Option(0, "integer", "seed of that noise, and of the jitter", low=0),
        },
    )
)
