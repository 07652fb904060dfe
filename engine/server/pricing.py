"""
What a request costs, in forwards of its model, before anything of it is run.

Grad-CAM is one forward and a little more, Score-CAM one forward a channel, Opti-CAM hundreds of gradients: a queue that
counted requests would say nothing. In: an `Explainer` and an `Ask`. Out: a `Price`, which admission counts in and by which
dear requests are told from cheap ones.
"""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass
from typing import Any

from ..drawing import TTA_GAINS
from ..estimate import cost_of
from ..explainer import Explainer
from ..methods import Method, resolve
from .asks import Ask, Wish
from .faults import TooLargeError

__all__ = ["Price", "price", "work_of"]

BACKWARD = 2.0  # forwards through the same part of the model; measured: 1.4 (ResNet-18, ResNet-50) to 2.4 (MobileNetV2)
SHALLOW = 0.02  # of a forward, for what lies behind the last layer; measured: 0.01 to 0.05
HEAVY_IMAGE = 8.0  # forwards an image: above Grad-CAM with augmentation, below everything that masks or repeats
HEAVY_REQUEST = 64.0  # forwards that others may have to wait for
REMEMBERED = 512  # wishes a model

_lock = threading.Lock()
_known: weakref.WeakKeyDictionary[Explainer, dict[tuple[Any, ...], tuple[float, bool]]] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Price:
    """
    What a request costs.

    Attributes
    ----------
    work : float
        Forward-equivalents.
    heavy : bool
        Whether it is run by itself, beside the cheap ones.
    """

    work: float
    heavy: bool


def price(explainer: Explainer, ask: Ask, *, most: float = float("inf")) -> Price:
    """
    Tell what a request costs.

    Parameters
    ----------
    explainer : Explainer
        The model.
    ask : Ask
        The request.
    most : float, optional
        Forward-equivalents that a request may cost.

    Returns
    -------
    Price
        Of all its images and targets. Scores alone are one forward an image.

    Raises
    ------
    TooLargeError
        If it costs more than `most`.
    MethodError, LayerError
        If the method does not exist, or does not work at the layer.
    """
    if ask.wish is None:
        each, masks = 1.0, False
    else:
        each, masks = _looked_up(explainer, ask.wish, ask.width)
    work = each * ask.count
    if work > most:
        raise TooLargeError(
            f"the request takes about {work:.0f} forwards of the model ({ask.count} images of {each:.0f}); at most "
            f"{most:.0f} are allowed: send fewer images or targets, or choose options that take less"
        )
    return Price(work, masks or each > HEAVY_IMAGE or work > HEAVY_REQUEST)


def work_of(explainer: Explainer, wish: Wish, targets: int = 1) -> float:
    """
    Tell what one image costs.

    Parameters
    ----------
    explainer : Explainer
        The model.
    wish : Wish
        How it is explained.
    targets : int, default 1
        How many targets.

    Returns
    -------
    float
        Forward-equivalents. Forwards of masked images are shared by targets that hide the same; a part of the model behind
        a layer counts by the layer's place in it, a gradient `BACKWARD` times as much.

    Raises
    ------
    MethodError, LayerError
        If the method does not exist, or does not work at the layer.

    Notes
    -----
    An upper bound as far as masks go: constant and repeated ones are left out when they are run, and a budget may end it.
    """
    return _looked_up(explainer, wish, targets)[0]


def _looked_up(explainer: Explainer, wish: Wish, targets: int) -> tuple[float, bool]:
    """Return an image's work, and whether the method hides parts of images; what was worked out before is remembered."""
    key = (*wish.key, targets)
    with _lock:
        known = _known.setdefault(explainer, {})
        if key in known:
            return known[key]
    found = _worked_out(explainer, wish, targets)
    with _lock:
        if len(known) >= REMEMBERED:
            known.clear()
        known[key] = found
    return found


def _worked_out(explainer: Explainer, wish: Wish, targets: int) -> tuple[float, bool]:
    """Add up one image's work over layers and targets."""
    method = resolve(wish.method)
    order = {layer.name: place for place, layer in enumerate(explainer.layers)}
    names = explainer.layers_of(method.id, list(wish.layer) if wish.layer else None)
    turns = 1 if method.class_free else targets
    work = 1.0  # the forward of the image itself
    for name in names:
        layer = explainer.layers[order[name]]
        cost = cost_of(method, dict(wish.options), channels=layer.channels, cells=layer.grid[0] * layer.grid[1])
        behind = max(SHALLOW, 1 - (order[name] + 1) / len(order))
        rows = cost.forwards - 1 + cost.tails * behind
        if wish.budget is not None and wish.budget.forwards is not None:
            rows = min(rows, wish.budget.forwards)
        gradients = BACKWARD * (cost.layer_gradients * behind + cost.image_gradients)
        work += (1 if _is_shared(method) else turns) * rows + turns * gradients
    if len(names) > 1 and turns > 1 and "grads" in method.needs:
        work += turns  # each target runs the whole model again
    if wish.tta:
        work = 1 + 2 * len(TTA_GAINS) * work
    return work, method.runs is not None or method.family == "optimised"


def _is_shared(method: Method) -> bool:
    """Tell whether all targets of an image hide the same parts of it."""
    return method.runs is not None and "grads" not in method.needs
