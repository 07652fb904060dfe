"""
Insertion and deletion: how the class's probability follows the pixels that a map calls important.

In: a map's order of the pixels and the probabilities of pictures with ever more of them shown (insertion, from a blurred
picture to the whole) or taken away (deletion, from the whole picture to nothing). Out: the area under the curve, the curve,
and how many pixels of the map are tied. A map counts through its order alone.

One table, `PROTOCOLS`, says how each paper or library sets the pair: how many steps, what is shown where pixels are
missing, and how scores become an area. Everything else is the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from camrt.kernels import areas

from ..device import on_host
from ..methods.table import Option
from .case import Case
from .changes import Change, Order, Substrate, swapped
from .model import Judged
from .plain import judged
from .table import Better, Field, Metric, register

__all__ = ["Protocol", "deletion", "insertion", "positions", "stops"]

Array = npt.NDArray[Any]
Mode = Literal["insertion", "deletion"]

GREY = Substrate("grey")
HIDDEN = Substrate("hidden")
ONE_BY_ONE = 1_000_000  # more steps than a picture has patches: one a step


@dataclass(frozen=True)
class Protocol:
    """
    How a paper or library draws the two curves.

    Attributes
    ----------
    steps : int
        Into how many steps the pixels are divided, at most.
    insertion, deletion : Substrate
        What is shown where pixels are missing.
    patch, overlap : int
        Side of the squares that change together, and how far they reach over each other.
    area : {"trapezoid", "mean", "scores"}
        "trapezoid": over the fraction of pixels changed. "mean": of the scores but the first. "scores": the sum of the
        trapezoids divided by the number of scores, not of intervals.
    """

    steps: int = 224
    insertion: Substrate = GREY
    deletion: Substrate = GREY
    patch: int = 1
    overlap: int = 0
    area: Literal["trapezoid", "mean", "scores"] = "trapezoid"


PROTOCOLS: Mapping[str, Protocol] = {
    "official": Protocol(insertion=Substrate("rise", 11, 5.0), deletion=HIDDEN),
    "polycam": Protocol(insertion=Substrate("gaussian", 11, 5.0), deletion=Substrate("gaussian", 11, 5.0), area="mean"),
    "group-cam": Protocol(28, insertion=Substrate("gaussian", 51, 50.0)),
    "ca-stream": Protocol(28, insertion=Substrate("rise", 5, 5.0)),
    "reciprocam": Protocol(ONE_BY_ONE, insertion=Substrate("mean"), patch=32, overlap=1, area="scores"),
    "torchcam": Protocol(20),
    "gomez": Protocol(14 * 14, insertion=Substrate("box")),  # its size follows the picture's
    "score-cam": Protocol(100, insertion=HIDDEN, deletion=HIDDEN),
}


def insertion(
    model: Judged,
    x: Array,
    heatmaps: Array,
    classes: Any = None,
    *,
    variant: str = "official",
    steps: int | None = None,
    seed: int | None = None,
    mask_space: str = "normalised",
) -> npt.NDArray[np.float64]:
    """
    Return the area under the class's probability while the picture's pixels are put in, the most important first.

    The walk begins at a blurred picture and ends at the whole one. In [0, 1], higher is better.

    Parameters
    ----------
    model : camrt.metrics.Model, camrt.Explainer or callable
        The classifier; a function takes inputs (M, ...) and gives logits (M, C).
    x : ndarray, shape (N, ...)
        The model's inputs, after preprocessing.
    heatmaps : ndarray, shape (N, H, W)
        Maps in [0, 1], from any library; they count through the order of their pixels alone.
    classes : array of int, shape (N,), optional
        The classes the maps explain; the predictions where None.
    variant : {"official", "polycam", "group-cam", "ca-stream", "reciprocam", "torchcam", "gomez", "score-cam"}
        Whose definition; the notes tell them apart.
    steps : int, optional
        Into how many steps the pixels are divided, ceil(H W / steps) each, the last maybe fewer; the variant's own where
        None. As many as there are pixels is one pixel a step.
    seed : int, optional
        Pixels of equal value are taken in a random order that this seed and the picture decide; by raster index where None.
    mask_space : {"normalised", "raw"}, default "normalised"
        What a hidden pixel shows, for "score-cam": zero after preprocessing, or black.

    Returns
    -------
    ndarray of float64, shape (N,)
        The area of each image.

    Raises
    ------
    MethodError
        If there is no such variant, or `steps` is below 1.
    ShapeError, NumericError
        If heatmaps have another size than the pictures, hold NaN or leave [0, 1], or logits are not finite.

    Notes
    -----
    Cost: ``steps + 1`` forwards an image; the first belongs to the picture alone and the last is the picture itself, so that
    both are shared with all maps. The area is the trapezoid over the fraction of pixels changed, where nothing else is said.

    ============  ======  =========================  ===================  =====================================================
    variant       steps   insertion from             deletion to          area
    ============  ======  =========================  ===================  =====================================================
    official      224     RISE's blur 11, sigma 5    `mask_space`         RISE; with ``steps=28`` its batch setting
    polycam       224     Gaussian 11, sigma 5       the same blur        mean of the scores without the first
    group-cam     28      Gaussian 51, sigma 50      grey
    ca-stream     28      RISE's blur 5, sigma 5     grey                 CA-Stream's and Opti-CAM's group's tables
    reciprocam    32 px   mean colour                grey                 sum of trapezoids / number of scores; its insertion
                                                                          has no empty picture, and the whole one twice
    torchcam      20      grey                       grey
    gomez         196     box blur, a fifth of H     grey
    score-cam     100     `mask_space`               `mask_space`         Score-CAM's table
    ============  ======  =========================  ===================  =====================================================

    "reciprocam" changes squares of 32 pixels that reach one pixel over each other, one a step. Grey is zero after
    preprocessing. Areas under different blurs, steps or substrates are not comparable. ADCC's tables name the two metrics but
    not their setting. Where a map has many equal values (`insertion.ties` in results), the order among them is arbitrary;
    RISE's code takes whatever an unstable sort gives.

    References
    ----------
    Petsiuk et al. 2018, RISE, arXiv:1806.07421: the causal metrics, and evaluation.py of its code.
    """
    given = {"steps": steps, "seed": seed}
    options = {name: value for name, value in given.items() if value is not None}
    found = judged(INSERTION, model, x, heatmaps, classes, variant=variant, options=options, mask_space=mask_space)
    return found["insertion"]


def deletion(
    model: Judged,
    x: Array,
    heatmaps: Array,
    classes: Any = None,
    *,
    variant: str = "official",
    steps: int | None = None,
    seed: int | None = None,
    mask_space: str = "normalised",
) -> npt.NDArray[np.float64]:
    """
    Return the area under the class's probability while the picture's pixels are taken away, the most important first.

    The walk begins at the whole picture and ends at nothing. In [0, 1], lower is better.

    Parameters
    ----------
    model : camrt.metrics.Model, camrt.Explainer or callable
        The classifier, as in `insertion`.
    x : ndarray, shape (N, ...)
        The model's inputs, after preprocessing.
    heatmaps : ndarray, shape (N, H, W)
        Maps in [0, 1].
    classes : array of int, shape (N,), optional
        The classes the maps explain; the predictions where None.
    variant : str
        As in `insertion`.
    steps : int, optional
        As in `insertion`.
    seed : int, optional
        As in `insertion`.
    mask_space : {"normalised", "raw"}, default "normalised"
        What a hidden pixel shows, for "official" and "score-cam": zero after preprocessing, or black.

    Returns
    -------
    ndarray of float64, shape (N,)
        The area of each image.

    Raises
    ------
    MethodError, ShapeError, NumericError
        As `insertion`.

    Notes
    -----
    Cost: ``steps + 1`` forwards an image; the first is the picture itself, and one colour alone is run once for all pictures.
    The variants are in the table of `insertion`. With one substrate and no ties, the deletion curve of a map read backwards
    is the insertion curve of its negative.

    References
    ----------
    Petsiuk et al. 2018, RISE, arXiv:1806.07421: the causal metrics, and evaluation.py of its code.
    """
    given = {"steps": steps, "seed": seed}
    options = {name: value for name, value in given.items() if value is not None}
    found = judged(DELETION, model, x, heatmaps, classes, variant=variant, options=options, mask_space=mask_space)
    return found["deletion"]


def stops(total: int, steps: int) -> tuple[int, ...]:
    """
    Divide a walk over ranks into equal steps; the last may be shorter.

    Parameters
    ----------
    total : int
        How many ranks there are.
    steps : int
        The most steps to take.

    Returns
    -------
    tuple of int
        How many ranks are passed at each point: 0, then ``ceil(total / steps)`` more each time, at last `total`.

    Examples
    --------
    >>> stops(10, 4)
    (0, 3, 6, 9, 10)
    """
    return (*range(0, total, -(-total // steps)), total)


def positions(size: tuple[int, int], *, variant: str, steps: int, seed: int | None = None) -> Array:
    """
    Return where the points of a curve lie.

    Parameters
    ----------
    size : tuple of int
        Height and width of the maps.
    variant : str
        A variant of the two metrics.
    steps : int
        Into how many steps the pixels are divided.
    seed : int, optional
        Unused; it stands here so that all options may be handed over.

    Returns
    -------
    ndarray of float64, shape (P,)
        The fraction of pixels changed, or of patches, from 0 to 1.
    """
    total = _ranks(size, PROTOCOLS[variant].patch)
    return np.array(stops(total, steps)) / total


def insertion_changes(size: tuple[int, int], *, variant: str, steps: int, seed: int | None) -> tuple[Change, ...]:
    """
    Name the pictures of the insertion curve, one a point.

    Parameters
    ----------
    size : tuple of int
        Height and width of the maps.
    variant : str
        Which definition.
    steps : int
        Into how many steps the pixels are divided.
    seed : int or None
        Of a random order among ties.

    Returns
    -------
    tuple of Change
        From the substrate alone to the whole picture.
    """
    protocol, order, total = _walk(size, variant, seed)
    shown = stops(total, steps)
    if protocol.area == "scores":
        shown = (*shown[1:], total)  # ReciproCAM's code scores no empty picture, and the whole one twice
    return tuple(swapped(order, stop, total, total, _sized(protocol.insertion, size)) for stop in shown)


def deletion_changes(size: tuple[int, int], *, variant: str, steps: int, seed: int | None) -> tuple[Change, ...]:
    """
    Name the pictures of the deletion curve, one a point.

    Parameters
    ----------
    size : tuple of int
        Height and width of the maps.
    variant : str
        Which definition.
    steps : int
        Into how many steps the pixels are divided.
    seed : int or None
        Of a random order among ties.

    Returns
    -------
    tuple of Change
        From the whole picture to the substrate alone.
    """
    protocol, order, total = _walk(size, variant, seed)
    return tuple(swapped(order, 0, stop, total, _sized(protocol.deletion, size)) for stop in stops(total, steps))


def insertion_values(case: Case, **options: Any) -> dict[str, Array]:
    """
    Judge maps by insertion.

    Parameters
    ----------
    case : Case
        With scores of `insertion_changes`.
    **options : Any
        Those of `insertion_changes`.

    Returns
    -------
    dict of str to ndarray
        "insertion" and "insertion.ties" (N,), "insertion.curve" (N, P) of probabilities.
    """
    return _values("insertion", case, insertion_changes(case.size, **options), options)


def deletion_values(case: Case, **options: Any) -> dict[str, Array]:
    """
    Judge maps by deletion.

    Parameters
    ----------
    case : Case
        With scores of `deletion_changes`.
    **options : Any
        Those of `deletion_changes`.

    Returns
    -------
    dict of str to ndarray
        "deletion" and "deletion.ties" (N,), "deletion.curve" (N, P) of probabilities.
    """
    return _values("deletion", case, deletion_changes(case.size, **options), options)


def curve_of(case: Case, changes: tuple[Change, ...]) -> npt.NDArray[np.float64]:
    """
    Line up the probabilities of some changes.

    Parameters
    ----------
    case : Case
        With scores of them.
    changes : tuple of Change
        One a point.

    Returns
    -------
    ndarray of float64, shape (N, P)
        Probabilities.
    """
    return np.stack([case.scores[change].p for change in changes], axis=1)


def tied(heat: Array) -> npt.NDArray[np.float64]:
    """
    Measure how much of a map's order is arbitrary.

    Parameters
    ----------
    heat : ndarray, shape (N, H, W)
        Maps, on the host or a device.

    Returns
    -------
    ndarray of float64, shape (N,)
        The fraction of pixels whose value another pixel has as well.
    """
    flat = heat.reshape(len(heat), -1).copy()
    flat.sort(axis=1)
    same = flat[:, 1:] == flat[:, :-1]
    runs = same[:, :1].sum(1) + (same[:, 1:] & ~same[:, :-1]).sum(1)  # each run of r equalities joins r + 1 pixels
    shares: npt.NDArray[np.float64] = on_host(same.sum(1) + runs) / np.float64(flat.shape[1])
    return shares


def _values(mode: Mode, case: Case, changes: tuple[Change, ...], options: Mapping[str, Any]) -> dict[str, Array]:
    """Return the area under a curve, the curve, and the share of tied pixels."""
    curve = curve_of(case, changes)
    kind = PROTOCOLS[options["variant"]].area
    if kind == "mean":
        area = curve[:, 1:].mean(1)
    elif kind == "scores":
        area = areas(curve) * (curve.shape[1] - 1) / curve.shape[1]
    else:
        area = areas(curve, positions(case.size, **options))
    return {mode: area, f"{mode}.curve": curve, f"{mode}.ties": tied(case.heat)}


def _walk(size: tuple[int, int], variant: str, seed: int | None) -> tuple[Protocol, Order, int]:
    """Return a variant's protocol, the order of its walk, and how many ranks there are."""
    protocol = PROTOCOLS[variant]
    order = Order(patch=protocol.patch, overlap=protocol.overlap, seed=seed)
    return protocol, order, _ranks(size, protocol.patch)


def _ranks(size: tuple[int, int], patch: int) -> int:
    """Count the patches of a picture."""
    return -(-size[0] // patch) * -(-size[1] // patch)


def _sized(substrate: Substrate, size: tuple[int, int]) -> Substrate:
    """Give the box blur its side: a fifth of the height, 9 at least, made odd."""
    return replace(substrate, size=max(size[0] // 5, 9) | 1) if substrate.kind == "box" else substrate


def _fields(metric: str, better: Better) -> tuple[Field, ...]:
    """Return the fields of either metric."""
    return (
        Field(metric, better, 0, 1, f"area under the {metric} curve"),
        Field(f"{metric}.ties", "neither", 0, 1, "share of pixels whose value another pixel of the map has as well"),
    )


OPTIONS = {
    "steps": Option(
        224,
        "integer",
        "into how many steps the pixels are divided",
        low=1,
        by_variant={name: protocol.steps for name, protocol in PROTOCOLS.items()},
    ),
    "seed": Option(None, "integer", "seed of a random order among pixels of equal value", low=0, optional=True),
}
SETTINGS = (
    "official: RISE, one picture; steps=28: its batches. polycam: Poly-CAM. group-cam: Group-CAM. ca-stream: CA-Stream, "
    "Opti-CAM's group. reciprocam: ReciproCAM. torchcam: torch-cam. gomez: Gomez et al. score-cam: Score-CAM's table"
)
INSERTION = register(
    Metric(
        id="insertion",
        title="Insertion",
        paper="arXiv:1806.07421",
        settings=SETTINGS,
        fields=_fields("insertion", "higher"),
        variants=tuple(PROTOCOLS),
        values=insertion_values,
        changes=insertion_changes,
        needs=("map", "scores"),
        options=OPTIONS,
        aliases=("iauc",),
    )
)
DELETION = register(
    Metric(
        id="deletion",
        title="Deletion",
        paper="arXiv:1806.07421",
        settings=SETTINGS,
        fields=_fields("deletion", "lower"),
        variants=tuple(PROTOCOLS),
        values=deletion_values,
        changes=deletion_changes,
        needs=("map", "scores"),
        options=OPTIONS,
        aliases=("dauc",),
    )
)
