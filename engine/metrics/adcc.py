"""
Three properties of a good map and their harmonic mean: coherency, low complexity, low drop, and ADCC.

In: maps, the method's maps of what the maps show, and scores. Out: one number an image, and for ADCC the number of a
data set, which is made of means. With M the map of picture x and e = x * M what it shows,

    coherency  = (r + 1) / 2, r the correlation over all pixels of the map of x and the map of e, for the same class
    complexity = mean of M
    ADCC       = 3 / (1 / coherency + 1 / (1 - complexity) + 1 / (1 - drop))

Poppi et al. 2021, arXiv:2104.10252. Every table that was printed, there and since, is the ADCC of the mean coherency,
complexity and drop; the authors' code gives the ADCC of each image, whose mean is never larger. Both are here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from camrt import kernels

from ..device import on_host
from ..errors import InputError, MethodError
from ..methods.arrays import namespace
from .case import Array, Case
from .changes import Change, Masked
from .confidence import HIDDEN, Floats, drop_values
from .model import Judged
from .plain import Explain, checked_heatmaps, judged
from .table import Field, Metric, register

__all__ = ["adcc", "adcc_of_means", "coherency", "complexity", "harmonic_mean"]

SHOWN = Masked(HIDDEN)
LEAST = 5e-324  # the smallest number above 0
EFFECTIVE = 1e-5  # pixels above it count as used (Nguyen and Martinez 2020, as Quantus has it)


def coherency(
    model: Judged,
    x: Array,
    heatmaps: Array,
    classes: Any = None,
    *,
    explain: Explain,
    mask_space: str = "normalised",
) -> Floats:
    """
    Return how alike a map and the map of what it shows are.

    ``(r + 1) / 2`` with r Pearson's correlation over all pixels of the map of x and the map of x times the map, for the
    same class; in [0, 1], higher is better. 1 for maps that are equal up to scale and offset, 0.5 for unrelated ones, 0
    where either is constant.

    Parameters
    ----------
    model : camrt.metrics.Model, camrt.Explainer or callable
        The classifier; a function takes inputs (M, ...) and gives logits (M, C).
    x : ndarray, shape (N, ...)
        The model's inputs, after preprocessing.
    heatmaps : ndarray, shape (N, H, W)
        Maps in [0, 1], from any library.
    classes : array of int, shape (N,), optional
        The classes the maps explain; the predictions where None.
    explain : callable
        ``explain(x, classes)`` returns the same method's maps (N, H, W) of other inputs.
    mask_space : {"normalised", "raw"}, default "normalised"
        What hidden pixels show: zero after preprocessing, which makes e the product x * M of the paper, or black.

    Returns
    -------
    ndarray of float64, shape (N,)
        The coherency of each image; papers print 100 times the mean.

    Raises
    ------
    ShapeError, NumericError
        If maps have another size than the pictures, hold NaN or leave [0, 1].

    Notes
    -----
    Cost: one more explanation an image. Printed by ADCC, ReciproCAM and those that follow them, on grey. ReciproCAM's
    evaluator compares maps at the layer's resolution, which differs slightly: that is the variant "low-res" of
    `camrt.evaluate`. For a constant map the authors' code has no number.

    References
    ----------
    Poppi et al. 2021, ADCC, arXiv:2104.10252.
    """
    found = judged(COHERENCY, model, x, heatmaps, classes, explain=explain, mask_space=mask_space)
    return found["coherency"]


def complexity(heatmaps: Array) -> Floats:
    """
    Return how much of the picture a map shows: its mean.

    The L1 norm over the number of pixels; in [0, 1], lower is better.

    Parameters
    ----------
    heatmaps : ndarray, shape (N, H, W)
        Maps in [0, 1], of any size.

    Returns
    -------
    ndarray of float64, shape (N,)
        The complexity of each map; papers print 100 times the mean.

    Raises
    ------
    ShapeError, NumericError
        If they are no maps, hold NaN or leave [0, 1].

    Notes
    -----
    Needs no model. Printed by ADCC and ReciproCAM. Quantus gives the same name to the entropy of the map as a
    distribution over pixels, which is `camrt.evaluate`'s ``complexity.entropy``; its effective complexity, the number
    of pixels above 1e-5, is ``complexity.effective``.

    References
    ----------
    Poppi et al. 2021, ADCC, arXiv:2104.10252; Bhatt et al. 2020, arXiv:2005.00631 (entropy); Nguyen and Martinez
    2020, arXiv:2007.07584 (effective complexity).

    Examples
    --------
    >>> complexity([[[1.0, 0.5], [0.0, 0.0]]])
    array([0.375])
    """
    return _mean(checked_heatmaps(heatmaps))


def adcc(
    model: Judged,
    x: Array,
    heatmaps: Array,
    classes: Any = None,
    *,
    explain: Explain,
    mask_space: str = "normalised",
) -> Floats:
    """
    Return the harmonic mean of coherency, 1 - complexity and 1 - drop of each image.

    In [0, 1], higher is better; 0 where any of the three is.

    Parameters
    ----------
    model : camrt.metrics.Model, camrt.Explainer or callable
        The classifier; a function takes inputs (M, ...) and gives logits (M, C).
    x : ndarray, shape (N, ...)
        The model's inputs, after preprocessing.
    heatmaps : ndarray, shape (N, H, W)
        Maps in [0, 1], from any library.
    classes : array of int, shape (N,), optional
        The classes the maps explain; the predictions where None.
    explain : callable
        ``explain(x, classes)`` returns the same method's maps (N, H, W) of other inputs.
    mask_space : {"normalised", "raw"}, default "normalised"
        What hidden pixels show: zero after preprocessing, or black.

    Returns
    -------
    ndarray of float64, shape (N,)
        The ADCC of each image. The number that papers print is no mean of these: it is `adcc_of_means`.

    Raises
    ------
    ShapeError, NumericError
        As `coherency`.

    Notes
    -----
    Cost: two forwards and one more explanation an image. Printed by ADCC, ReciproCAM, OpenVINO and JAFAR, on grey. The
    authors' code divides by zero where a term is 0.

    References
    ----------
    Poppi et al. 2021, ADCC, arXiv:2104.10252.
    """
    return judged(ADCC, model, x, heatmaps, classes, explain=explain, mask_space=mask_space)["adcc"]


def adcc_of_means(average_drop: Any, coherency: Any, complexity: Any) -> float | Floats:
    """
    Return the ADCC that papers print: the harmonic mean of a data set's means.

    Parameters
    ----------
    average_drop, coherency, complexity : float or array of float
        Means over the same images, as fractions.

    Returns
    -------
    float or ndarray of float64
        In [0, 1]; 0 where the drop or the complexity is 1, or the coherency 0.

    Raises
    ------
    InputError
        If any lies outside [0, 1]: printed tables hold 100 times the fraction.

    References
    ----------
    Poppi et al. 2021, ADCC, arXiv:2104.10252.

    Examples
    --------
    >>> round(adcc_of_means(0.3288, 0.8934, 0.2633), 4)
    0.7563
    """
    given = {"average_drop": average_drop, "coherency": coherency, "complexity": complexity}
    drop, coh, compl = (_fraction(name, value) for name, value in given.items())
    made = harmonic_mean(coh, 1 - compl, 1 - drop)
    return made if made.ndim else float(made)


def harmonic_mean(*terms: Array) -> Floats:
    """
    Return the harmonic mean of terms; 0 where any is 0 or below.

    Parameters
    ----------
    *terms : ndarray of float
        Of shapes that broadcast.

    Returns
    -------
    ndarray of float64
        Between the smallest and the largest term.
    """
    stacked = np.stack(np.broadcast_arrays(*terms)).astype(np.float64, copy=False)
    least = stacked.min(0)
    positive = least > 0
    shares = (np.where(positive, least, 1) / np.where(positive, stacked, 1)).sum(0)  # none above 1: nothing overflows
    return np.where(positive, len(terms) * least / shares, 0.0)


# what the table calls ---------------------------------------------------------------------------------------------


def shown(size: tuple[int, int], *, variant: str) -> tuple[Change, ...]:
    """
    Name what a map shows: to be scored, or explained again.

    Parameters
    ----------
    size : tuple of int
        Height and width of the maps.
    variant : str
        Any.

    Returns
    -------
    tuple of Change
        One.
    """
    return (SHOWN,)


def coherency_values(case: Case, *, variant: str) -> dict[str, Array]:
    """
    Return the coherency of each image.

    Parameters
    ----------
    case : Case
        With maps of what the maps show.
    variant : {"official", "low-res"}
        Maps at full resolution, or before they are resized.

    Returns
    -------
    dict of str to ndarray
        ``coherency`` and ``coherency.degenerate`` (N,), 1 where either map is constant.

    Raises
    ------
    MethodError
        If low-res is asked and maps at the layer's resolution are not there.
    """
    again = case.again[SHOWN]
    first, second = case.heat, again.heat
    if variant == "low-res":
        if case.raw is None or again.raw is None:
            raise MethodError(
                "coherency's variant low-res compares maps before they are resized, and none are given: take "
                "camrt.evaluate and a method with a map at one layer, or the official variant"
            )
        first, second = (namespace(raw).maximum(raw, 0) if case.relu else raw for raw in (case.raw, again.raw))
    r, flat = case.once(f"coherency {variant}", lambda: tuple(map(on_host, kernels.pearson(first, second))))
    return {"coherency": np.where(flat, 0.0, (r + 1) / 2), "coherency.degenerate": flat.astype(np.float64)}


def complexity_values(case: Case, *, variant: str) -> dict[str, Array]:
    """
    Return the complexity of each map.

    Parameters
    ----------
    case : Case
        Maps alone.
    variant : str
        The only one.

    Returns
    -------
    dict of str to ndarray
        ``complexity``, ``complexity.entropy`` and ``complexity.effective`` (N,).
    """
    return {
        "complexity": case.once("mean", lambda: _mean(case.heat)),
        "complexity.entropy": _entropy(case.heat),
        "complexity.effective": on_host((case.heat > EFFECTIVE).sum((1, 2))).astype(np.float64),
    }


def adcc_values(case: Case, *, variant: str) -> dict[str, Array]:
    """
    Return the ADCC of each image, and what it is made of.

    Parameters
    ----------
    case : Case
        With scores of the clean picture and of what the map shows, and maps of that.
    variant : str
        The only one.

    Returns
    -------
    dict of str to ndarray
        ``adcc``, ``adcc.coherency``, ``adcc.complexity`` and ``adcc.drop`` (N,).
    """
    parts = {
        "adcc.coherency": coherency_values(case, variant="official")["coherency"],
        "adcc.complexity": case.once("mean", lambda: _mean(case.heat)),
        "adcc.drop": drop_values(case, variant="paper")["average_drop"],
    }
    return {"adcc": _adcc(parts), **parts}


def adcc_overall(means: Mapping[str, Array], *, variant: str) -> dict[str, Array]:
    """
    Return the ADCC of the means, and the mean of each image's.

    Parameters
    ----------
    means : mapping of str to ndarray
        Means of what `adcc_values` gives, of any shape.
    variant : str
        The only one.

    Returns
    -------
    dict of str to ndarray
        ``adcc`` and ``adcc.per_image_mean``.
    """
    return {"adcc": _adcc(means), "adcc.per_image_mean": np.asarray(means["adcc"])}


def _adcc(parts: Mapping[str, Array]) -> Floats:
    """Return the harmonic mean of the three parts."""
    return harmonic_mean(parts["adcc.coherency"], 1 - parts["adcc.complexity"], 1 - parts["adcc.drop"])


def _mean(heat: Array) -> Floats:
    """Return each map's mean, on the host."""
    means: Floats = on_host(kernels.map_means(heat))
    return means


def _entropy(heat: Array) -> Floats:
    """Return the entropy, in nats, of each map as a distribution over pixels; 0 for a map of zeros."""
    xp = namespace(heat)
    whole, within = xp.zeros(len(heat)), xp.zeros(len(heat))
    for row, one in enumerate(heat):  # map by map, which keeps the work in the cache
        values = one.astype(np.float64).reshape(-1)
        logs = xp.maximum(values, LEAST)  # zero times that logarithm is zero
        xp.log(logs, out=logs)
        logs *= values
        whole[row], within[row] = values.sum(), logs.sum()
    share = xp.where(whole > 0, whole, 1)
    entropy: Floats = on_host(xp.maximum(xp.log(share) - within / share, 0))
    return entropy


def _fraction(name: str, value: Any) -> Floats:
    """Check one mean."""
    made = np.asarray(value, np.float64)
    if not ((made >= 0) & (made <= 1)).all():
        raise InputError(f"{name} must be a fraction in [0, 1]; got {value}: tables print 100 times it")
    return made


COHERENCY = register(
    Metric(
        id="coherency",
        title="Coherency",
        paper="arXiv:2104.10252",
        settings="official: ADCC, on grey. low-res: ReciproCAM's evaluator, on maps at the layer's resolution",
        fields=(
            Field("coherency", "higher", 0, 1, "likeness of the map and the map of what it shows", percent=True),
            Field("coherency.degenerate", "lower", 0, 1, "share of images where either map is constant", percent=True),
        ),
        variants=("official", "low-res"),
        values=coherency_values,
        again=shown,
        needs=("map", "again"),
    )
)
COMPLEXITY = register(
    Metric(
        id="complexity",
        title="Complexity",
        paper="arXiv:2104.10252",
        settings="ADCC and ReciproCAM. Quantus calls the entropy so",
        fields=(
            Field("complexity", "lower", 0, 1, "mean of the map", percent=True),
            Field("complexity.entropy", "lower", 0, np.inf, "entropy of the map over pixels, in nats"),
            Field("complexity.effective", "lower", 0, np.inf, "number of pixels above 1e-5"),
        ),
        variants=("official",),
        values=complexity_values,
    )
)
ADCC = register(
    Metric(
        id="adcc",
        title="ADCC",
        paper="arXiv:2104.10252",
        settings="ADCC, ReciproCAM, OpenVINO and JAFAR print it of means, on grey",
        fields=(
            Field(
                "adcc", "higher", 0, 1, "adcc_of_means: harmonic mean of the means, as papers print it", percent=True
            ),
            Field(
                "adcc.per_image_mean", "higher", 0, 1, "mean of each image's ADCC; never the larger one", percent=True
            ),
        ),
        variants=("official",),
        values=adcc_values,
        changes=shown,
        again=shown,
        overall=adcc_overall,
        needs=("map", "scores", "again"),
    )
)
