"""
What each method costs on a model, before it is run: runs of the model, multiply-adds, bytes.

In: a row of the table of methods, and the `camrt.export.work.Work` of a model and layer. Out: plain data. A method's
cost is a number of full forwards F, runs of the layer's tail T, gradients to the layer b and gradients to the image B.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from .methods import METHODS, Method, validate

if TYPE_CHECKING:
    from camrt.export.work import Work

__all__ = ["Cost", "cost_of", "estimates"]


class Cost(NamedTuple):
    """How often a method runs each part of the model for one image."""

    forwards: int = 0
    tails: int = 0
    layer_gradients: int = 0
    image_gradients: int = 0

    def __str__(self) -> str:
        """Write it as METHODS does, for example ``1F+1b``."""
        return "+".join(f"{n}{letter}" for n, letter in zip(self, "FTbB", strict=True) if n)


_ACTIVATIONS, _GRADIENT = Cost(1), Cost(1, 0, 1)
_OWN = {  # what their needs do not tell
    "finercam": Cost(1, 1, 1),
    "fullgrad": Cost(2, 0, 0, 1),
    "guidedgradcam": Cost(2, 0, 1, 1),
    "liftcam": Cost(1, 2, 1),
    "relevancecam": Cost(1, 1, 2),
    "shapleycam": Cost(1, 3, 1),
}
_REPEATS = {"gradients_at": ("n", "steps")}  # evidence asked for again and again, and the options that say how often


def cost_of(method: Method, options: Mapping[str, object] | None = None) -> Cost:
    """
    Return how often a method runs the model for one image and target.

    Parameters
    ----------
    method : Method
        A row of the table.
    options : mapping of str to object, optional
        Options that are not at their defaults.

    Returns
    -------
    Cost
        Of its default variant.

    Examples
    --------
    >>> str(cost_of(METHODS["gradcam"])), str(cost_of(METHODS["smoothgradcampp"], {"n": 4}))
    ('1F+1b', '5F+4b')
    """
    _, full = validate(method, None, options)
    if method.id in _OWN:
        return _OWN[method.id]
    for need, names in _REPEATS.items():
        if need in method.needs:
            times = next(int(str(full[name])) for name in names if name in full)
            return Cost(1 + times, 0, times)
    return _GRADIENT if {"grads", "head", "gradients_of"} & set(method.needs) else _ACTIVATIONS


def estimates(work: Work) -> dict[str, dict[str, Any]]:
    """
    Estimate every method at its default options.

    Parameters
    ----------
    work : Work
        What one image costs on the model, at one layer.

    Returns
    -------
    dict of str to dict
        By method id: ``cost`` in letters; ``forwards``, ``tails``, ``layer_gradients`` and ``image_gradients`` as numbers;
        ``multiply_adds``; ``relative``, those by the ones of a bare forward; ``bytes`` of tensors an image holds at most,
        weights aside: a forward's peak, and every tensor a gradient passes together with its gradient.
    """
    found: dict[str, dict[str, Any]] = {}
    for name in sorted(METHODS):
        cost = cost_of(METHODS[name])
        total = (
            cost.forwards * work.forward
            + cost.tails * work.tail
            + cost.layer_gradients * work.tail_backward
            + cost.image_gradients * work.backward
        )
        kept = 2 * work.path_bytes if cost.image_gradients else 2 * work.tail_bytes
        held = kept if cost.image_gradients or cost.layer_gradients else work.layer_bytes
        found[name] = {
            "cost": str(cost),
            **cost._asdict(),
            "multiply_adds": total,
            "relative": round(total / work.forward, 3) if work.forward else None,
            "bytes": work.peak_bytes + held,
        }
    return found
