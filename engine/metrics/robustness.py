"""
Whether a map says what small changes of the picture do, and whether it stays when they do little.

In: the class's probability on pictures from which noise is taken, or the maps of pictures with noise. Out: infidelity
and max-sensitivity, one number an image, with how sure the first is. Yeh et al. 2019, arXiv:1901.09392.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..device import on_host
from ..methods.table import Option
from .case import Case
from .changes import Change, Clean, Shifted
from .model import Judged
from .plain import Explain, judged
from .shifting import channel_mean, shift_of
from .table import Field, Metric, register

__all__ = ["infidelity", "infidelity_from", "max_sensitivity"]

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]


def infidelity(
    model: Judged,
    x: Array,
    heatmaps: Any,
    classes: Any = None,
    *,
    variant: str = "scaled",
    samples: int = 10,
    scale: float = 0.2,
    seed: int = 0,
) -> Floats:
    """
    Return how far a map is from telling what taking noise away does to the class's probability.

    ``mean over I of (beta <I, Phi> - (p(x) - p(x - I)))^2``, in [0, inf), lower is better. Phi is the map, shared evenly by
    the C channels: M / C.

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
    variant : {"scaled", "unscaled", "square"}
        "scaled" takes I from a normal distribution and the beta that fits the image's samples best, so that the map's own
        scale does not matter. "unscaled" takes a beta of 1. "square" is scaled, and I is the picture inside one random
        square of side H/8 to H/2 and zero elsewhere: the square is blanked.
    samples : int, default 10
        How many I.
    scale : float, default 0.2
        Standard deviation of the normal I, for each element of the input, in its units.
    seed : int, default 0
        I depends on it, the sample and the picture's hash.

    Returns
    -------
    ndarray of float64, shape (N,)
        The infidelity.

    Raises
    ------
    ShapeError, NumericError
        If heatmaps have another size than the pictures, hold NaN or leave [0, 1], or logits are not finite.

    Notes
    -----
    Cost: one forward an image and sample, shared by all methods. An evaluation also reports ``error``, the standard error of
    the mean over I: with ten samples it is large. Captum's ``infidelity`` with ``normalize=True`` fits the same beta; it
    leaves f and the noise to the caller. Quantus blanks fixed squares with the picture's minimum. The authors' code draws
    noise of deviation 0.2 too, clipped to the range of pixels, which is not done here.

    References
    ----------
    Yeh et al. 2019, On the (In)fidelity and Sensitivity of Explanations, arXiv:1901.09392, definition 2.1 and section 5.
    """
    options = {"samples": samples, "scale": scale, "seed": seed}
    return judged(INFIDELITY, model, x, heatmaps, classes, variant=variant, options=options)["infidelity"]


def max_sensitivity(
    model: Judged,
    x: Array,
    heatmaps: Any,
    classes: Any = None,
    *,
    explain: Explain,
    variant: str = "captum",
    samples: int | None = None,
    radius: float | None = None,
    seed: int = 0,
) -> Floats:
    """
    Return how far a map moves, at most, when noise is added to the picture.

    ``max over d of |M(x + d) - M(x)| / |M(x)|``, Frobenius norms, in [0, inf), lower is better.

    Parameters
    ----------
    model : camrt.metrics.Model, camrt.Explainer or callable
        The classifier, which says the class where none is given; the class stays the same for all noise.
    x : ndarray, shape (N, ...)
        The model's inputs, after preprocessing.
    heatmaps : ndarray, shape (N, H, W)
        Maps of `x` in [0, 1].
    classes : array of int, shape (N,), optional
        The classes the maps explain; the predictions where None.
    explain : callable
        ``explain(x, classes)`` makes maps (N, H, W) in [0, 1] of other inputs, by the same method.
    variant : {"captum", "quantus"}
        "captum" takes 10 samples within 0.02, "quantus" 200 within 0.2.
    samples : int, optional
        How many.
    radius : float, optional
        Noise is even within plus and minus this, for each element of the input, in its units.
    seed : int, default 0
        Noise depends on it, the sample and the picture's hash.

    Returns
    -------
    ndarray of float64, shape (N,)
        The sensitivity; where the map is all zero, the norm of the change itself.

    Raises
    ------
    ShapeError, NumericError
        If heatmaps have another size than the pictures, hold NaN or leave [0, 1].

    Notes
    -----
    Cost: one explanation an image and sample. It is a lower bound of the maximum over the ball, and grows with `samples`. The
    defaults are those of the libraries; Quantus may drop samples whose prediction changes, here none is, and divides by the
    norm of an all-zero map too. An evaluation also reports ``mean``, the average over samples.

    References
    ----------
    Yeh et al. 2019, On the (In)fidelity and Sensitivity of Explanations, arXiv:1901.09392, definition 3.1.
    """
    given = {"samples": samples, "radius": radius, "seed": seed}
    options = {name: value for name, value in given.items() if value is not None}
    found = judged(MAX_SENSITIVITY, model, x, heatmaps, classes, variant=variant, options=options, explain=explain)
    return found["max_sensitivity"]


def infidelity_from(products: Array, drops: Array, *, scaled: bool = True) -> tuple[Floats, Floats]:
    """
    Return infidelity from what samples gave.

    Parameters
    ----------
    products : ndarray, shape (N, S)
        ``<I, Phi>`` of each image and sample.
    drops : ndarray, shape (N, S)
        ``f(x) - f(x - I)``.
    scaled : bool, default True
        Whether products are multiplied by ``beta = mean(product drop) / mean(product^2)``, the best factor of each image; 0
        where all products are 0.

    Returns
    -------
    values : ndarray of float64, shape (N,)
        Means over samples of the squared difference.
    errors : ndarray of float64, shape (N,)
        Their standard errors; 0 for a single sample.

    Examples
    --------
    >>> infidelity_from([[1.0, 2.0]], [[3.0, 6.0]])[0].tolist()
    [0.0]
    """
    told, seen = np.asarray(products, np.float64), np.asarray(drops, np.float64)
    if scaled:
        squares = (told**2).sum(1)
        beta = np.divide((told * seen).sum(1), squares, out=np.zeros(len(told)), where=squares > 0)
        told = beta[:, None] * told
    terms = (told - seen) ** 2
    count = terms.shape[1]
    errors = terms.std(1, ddof=1) / np.sqrt(count) if count > 1 else np.zeros(len(terms))
    return terms.mean(1), errors


# what the table calls ---------------------------------------------------------------------------------------------


def infidelity_changes(
    size: tuple[int, int], *, variant: str, samples: int, scale: float, seed: int
) -> tuple[Change, ...]:
    """
    Name the pictures that noise is taken from.

    Parameters
    ----------
    size : tuple of int
        Height and width of the maps.
    variant, samples, scale, seed : optional
        As in `infidelity`.

    Returns
    -------
    tuple of Change
        One a sample.
    """
    return _taken(variant, samples, scale, seed)


def infidelity_values(case: Case, *, variant: str, samples: int, scale: float, seed: int) -> dict[str, Array]:
    """
    Return the infidelity of each image.

    Parameters
    ----------
    case : Case
        Maps, inputs, and scores of the changed pictures.
    variant, samples, scale, seed : optional
        As in `infidelity`.

    Returns
    -------
    dict of str to ndarray
        ``infidelity`` and its standard error ``infidelity.error``, (N,).
    """
    changes = _taken(variant, samples, scale, seed)
    shown = on_host(case.x) if variant == "square" else [None] * len(case.x)  # noise needs no picture
    heat, last = case.host.astype(np.float64), case.channels_last
    products = np.empty((len(heat), samples))
    for i, (picture, image) in enumerate(zip(shown, case.ids, strict=True)):
        for j, change in enumerate(changes):
            mean = case.shift_means.get((change, i))
            if mean is None:
                shift = shift_of(change, case.x.shape[1:], int(image), picture, channels_last=last)
                mean = channel_mean(shift, channels_last=last)
            products[i, j] = (mean * heat[i]).sum()
    clean = case.scores[Clean()].p
    drops = np.stack([clean - case.scores[change].p for change in changes], axis=1)
    values, errors = infidelity_from(products, drops, scaled=variant != "unscaled")
    return {"infidelity": values, "infidelity.error": errors}


def sensitivity_again(
    size: tuple[int, int], *, variant: str, samples: int, radius: float, seed: int
) -> tuple[Change, ...]:
    """
    Name the pictures with noise that are explained once more.

    Parameters
    ----------
    size : tuple of int
        Height and width of the maps.
    variant, samples, radius, seed : optional
        As in `max_sensitivity`.

    Returns
    -------
    tuple of Change
        One a sample.
    """
    return tuple(Shifted("uniform", radius, seed, sample) for sample in range(samples))


def sensitivity_values(case: Case, *, variant: str, samples: int, radius: float, seed: int) -> dict[str, Array]:
    """
    Return how far each map moves.

    Parameters
    ----------
    case : Case
        Maps, and those of the changed pictures.
    variant, samples, radius, seed : optional
        As in `max_sensitivity`.

    Returns
    -------
    dict of str to ndarray
        ``max_sensitivity``, ``.mean``, and ``.all_zero``, which is 1 where the map is all zero and the change is divided by 1,
        each (N,).
    """
    heat = case.host.reshape(len(case.heat), -1).astype(np.float64)
    norm = np.sqrt((heat**2).sum(1))
    empty = norm == 0
    moved = np.empty((len(heat), samples))
    for j, change in enumerate(
        sensitivity_again(case.size, variant=variant, samples=samples, radius=radius, seed=seed)
    ):
        again = on_host(case.again[change].heat).reshape(heat.shape)
        moved[:, j] = np.sqrt(((again - heat) ** 2).sum(1))
    moved /= np.where(empty, 1.0, norm)[:, None]
    name = "max_sensitivity"
    return {name: moved.max(1), f"{name}.mean": moved.mean(1), f"{name}.all_zero": empty.astype(np.float64)}


def _taken(variant: str, samples: int, scale: float, seed: int) -> tuple[Shifted, ...]:
    """Return what is taken from a picture."""
    if variant == "square":
        return tuple(Shifted("square", 0.0, seed, sample, -1) for sample in range(samples))
    return tuple(Shifted("gaussian", scale, seed, sample, -1) for sample in range(samples))


SEED = Option(0, "integer", "seed of the noise, beside the picture's hash", low=0)
INFIDELITY = register(
    Metric(
        id="infidelity",
        title="Infidelity",
        paper="arXiv:1901.09392",
        settings="scaled: Captum with normalize=True and the authors' noise. square: their square removal",
        fields=(
            Field("infidelity", "lower", 0, np.inf, "squared error of what the map says of changes in probability"),
            Field("infidelity.error", "neither", 0, np.inf, "its standard error within an image, averaged"),
        ),
        variants=("scaled", "unscaled", "square"),
        values=infidelity_values,
        changes=infidelity_changes,
        needs=("map", "scores"),
        options={
            "samples": Option(10, "integer", "perturbations of each image", low=1),
            "scale": Option(0.2, "number", "standard deviation of the noise, in units of the model's input", low=0),
            "seed": SEED,
        },
    )
)
MAX_SENSITIVITY = register(
    Metric(
        id="max_sensitivity",
        title="Max-Sensitivity",
        paper="arXiv:1901.09392",
        settings="captum and quantus: the defaults of these libraries",
        fields=(
            Field("max_sensitivity", "lower", 0, np.inf, "largest change of the map under noise, relative to the map"),
            Field(
                "max_sensitivity.mean", "lower", 0, np.inf, "mean change of the map under noise, relative to the map"
            ),
            Field("max_sensitivity.all_zero", "neither", 0, 1, "maps that are all zero, divided by 1", percent=True),
        ),
        variants=("captum", "quantus"),
        values=sensitivity_values,
        again=sensitivity_again,
        needs=("map", "again"),
        options={
            "samples": Option(10, "integer", "pictures with noise explained again", low=1, by_variant={"quantus": 200}),
            "radius": Option(
                0.02, "number", "bound of the noise, in units of the model's input", low=0, by_variant={"quantus": 0.2}
            ),
            "seed": SEED,
        },
        aliases=("sensitivity_max",),
    )
)
