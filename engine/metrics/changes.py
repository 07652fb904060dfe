"""
The changed pictures that metrics ask the model about, as plain data.

A metric never touches pixels. It names *changes*: "the 500 pixels highest in the map replaced by grey", "the picture
times the map". A change is frozen and equal to another that makes the same picture, so what two metrics ask for is run
once (`camrt.metrics.plan`), and the number of forwards is known before anything runs. `camrt.metrics.filling` makes the
pixels, straight into a chunk.

::

    Clean            the picture itself; never run, its logits come with the explanation
    Whole            the substrate alone: what is left when every pixel is taken away
    Masked           x * M + substrate * (1 - M), or with 1 - M
    Swapped          pixels of rank start to stop in the map's order replaced by the substrate
    Imputed          the first pixels in the map's order replaced by what their neighbours tell (ROAD)
    Shifted          the picture plus or minus noise; it does not depend on the map
    Cropped          the map's box, resized to the whole picture
    Randomised       the picture itself, before a model whose weights are redrawn; explained again, never scored

Functions that build changes return the simplest equal one: nothing swapped is `Clean`, everything swapped is `Whole`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

__all__ = [
    "Change",
    "Clean",
    "Cropped",
    "Imputed",
    "Masked",
    "Order",
    "Randomised",
    "Shifted",
    "Substrate",
    "Swapped",
    "Whole",
    "depends_on_map",
    "is_seeded",
    "settled",
    "swapped",
]

Hiding: TypeAlias = Literal["hidden", "grey", "black", "mean", "minimum", "gaussian", "rise", "box"]


@dataclass(frozen=True)
class Substrate:
    """
    What stands where pixels are taken away.

    Attributes
    ----------
    kind : {"hidden", "grey", "black", "mean", "minimum", "gaussian", "rise", "box"}
        "hidden": what the request's mask space shows. "grey": zero after preprocessing, the mean colour. "black": raw
        zero. "mean": the mean of each channel of the picture. "minimum": the smallest value of the whole input. The others
        blur the picture: "gaussian" by a truncated Gaussian with mirrored borders (torchvision's), "rise" by RISE's window
        with zeros around the picture, "box" by a mean over a square.
    size : int
        Side of a blur's window in pixels, odd.
    sigma : float
        Standard deviation of a Gaussian, in pixels.
    """

    kind: Hiding = "hidden"
    size: int = 0
    sigma: float = 0.0


@dataclass(frozen=True)
class Order:
    """
    In which order a map takes the pixels.

    Attributes
    ----------
    descending : bool
        Whether the highest come first. Ties go by raster index, both ways.
    patch : int
        Side of the squares that change together, ordered by the sum of the map in them; 1 is single pixels. Squares begin at
        row and column 0, those at the far edges may be smaller.
    overlap : int
        Pixels that a square reaches over its right and lower neighbours; a pixel goes with the first of its squares.
    seed : int or None
        Ties are broken at random, by this seed and the picture's hash, where it is given.
    jitter : float
        Standard deviation of normal noise that is added to the map before it is sorted; it needs a seed.
    """

    descending: bool = True
    patch: int = 1
    overlap: int = 0
    seed: int | None = None
    jitter: float = 0.0


@dataclass(frozen=True)
class Clean:
    """The picture itself."""


@dataclass(frozen=True)
class Whole:
    """The substrate alone."""

    substrate: Substrate = field(default_factory=Substrate)


@dataclass(frozen=True)
class Masked:
    """The picture times the map, the substrate showing through; times 1 - map where `inverted`."""

    substrate: Substrate = field(default_factory=Substrate)
    inverted: bool = False


@dataclass(frozen=True)
class Swapped:
    """
    Pixels with ``start <= rank < stop`` replaced by the substrate; every channel of them.

    A rank is a pixel's place in the order, from 0; of patches, the place of its patch. Build it with `swapped`.
    """

    order: Order
    start: int
    stop: int
    substrate: Substrate = field(default_factory=Substrate)


@dataclass(frozen=True)
class Imputed:
    """
    The first `count` pixels of the order replaced by noisy linear imputation.

    Attributes
    ----------
    order : Order
        Which come first.
    count : int
        How many are imputed.
    sigma : float
        Standard deviation of the noise added to imputed pixels.
    unit : {"raw", "input"}
        Whether `sigma` is in units of the raw picture, 0 to 1, or of the model's input.
    seed : int
        Of the noise, beside the picture's hash, the count and the order's direction.
    """

    order: Order
    count: int
    sigma: float = 0.0
    unit: Literal["raw", "input"] = "raw"
    seed: int = 0


@dataclass(frozen=True)
class Shifted:
    """
    The picture plus ``sign`` times an array that depends on the seed, the sample and the picture's hash alone.

    Attributes
    ----------
    kind : {"gaussian", "uniform", "square"}
        Normal noise of deviation `scale`; uniform noise within plus and minus `scale`; or the picture itself inside one
        random square of side H/8 to H/2 and zero elsewhere, so that subtracting it takes the square away.
    scale : float
        In units of the model's input; unused by "square".
    seed, sample : int
        The seed, and which of the samples.
    sign : {1, -1}
        Added or subtracted.
    """

    kind: Literal["gaussian", "uniform", "square"]
    scale: float = 0.0
    seed: int = 0
    sample: int = 0
    sign: int = 1


@dataclass(frozen=True)
class Cropped:
    """The tight box of the map's largest component above its mean, resized to the picture's size by cubic interpolation."""


@dataclass(frozen=True)
class Randomised:
    """
    The picture itself, explained by the model with redrawn weights.

    Attributes
    ----------
    mode : {"cascading", "independent"}
        Every layer from the logits down to this one, or this one alone.
    step, steps : int
        Which of so many layers, evenly spaced from the logits (step 1) to the input (step `steps`).
    seed : int
        Of the weights.
    """

    mode: Literal["cascading", "independent"]
    step: int
    steps: int
    seed: int = 0


Change: TypeAlias = Clean | Whole | Masked | Swapped | Imputed | Shifted | Cropped | Randomised


def is_seeded(change: Change) -> bool:
    """
    Tell whether a change draws noise, or breaks ties, by the picture's content hash.

    Parameters
    ----------
    change : Change
        Any.

    Returns
    -------
    bool
        False where no hash is needed, which costs as much as a quarter of a small network's forward.
    """
    if isinstance(change, Imputed):
        return bool(change.sigma) or change.order.seed is not None or bool(change.order.jitter)
    if isinstance(change, Swapped):
        return change.order.seed is not None or bool(change.order.jitter)
    return isinstance(change, Shifted)


def settled(change: Change, mask_space: str) -> Change:
    """
    Name what a hidden pixel shows, so that changes that make the same picture are equal.

    Parameters
    ----------
    change : Change
        Any.
    mask_space : {"normalised", "raw"}
        What ``Substrate("hidden")`` means.

    Returns
    -------
    Change
        The same with "grey" or "black" in place of "hidden".

    Examples
    --------
    >>> settled(Whole(), "raw")
    Whole(substrate=Substrate(kind='black', size=0, sigma=0.0))
    """
    if isinstance(change, Whole | Masked | Swapped) and change.substrate.kind == "hidden":
        return replace(change, substrate=Substrate("grey" if mask_space == "normalised" else "black"))
    return change


def swapped(order: Order, start: int, stop: int, total: int, substrate: Substrate) -> Change:
    """
    Name the picture with some ranks replaced.

    Parameters
    ----------
    order : Order
        What ranks are.
    start, stop : int
        The ranks replaced, half-open.
    total : int
        How many ranks there are.
    substrate : Substrate
        What replaces them.

    Returns
    -------
    Change
        `Clean` where nothing is replaced, `Whole` where everything is.

    Examples
    --------
    >>> swapped(Order(), 0, 0, 9, Substrate())
    Clean()
    """
    if start >= stop:
        return Clean()
    return Whole(substrate) if start <= 0 and stop >= total else Swapped(order, start, stop, substrate)


def depends_on_map(change: Change) -> bool:
    """
    Tell whether a change differs from map to map; the others are run once for all methods.

    Parameters
    ----------
    change : Change
        Any.

    Returns
    -------
    bool
        False for the picture itself, the substrate alone and noise.
    """
    return not isinstance(change, Clean | Whole | Shifted | Randomised)
