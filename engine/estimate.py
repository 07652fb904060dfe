"""
What each method costs on a model, before it is run: runs of the model, multiply-adds, bytes.

In: a row of the table of methods, and the `camrt.export.work.Work` of a model and layer. Out: plain data. A method's
cost is a number of full forwards F, runs of the layer's tail T, gradients to the layer b and gradients to the image B.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .methods import METHODS, Method, validate

if TYPE_CHECKING:
    from camrt.export.manifest import Layer
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
    "legrad": Cost(1, 0, 2),
    "liftcam": Cost(1, 2, 1),
    "relevancecam": Cost(1, 1, 2),
    "shapleycam": Cost(1, 3, 1),
}
_REPEATS = {"gradients_at": ("n", "steps")}  # evidence asked for again and again, and the options that say how often


def cost_of(method: Method, options: Mapping[str, object] | None = None, *, channels: int = 0, cells: int = 0) -> Cost:
    """
    Return how often a method runs the model for one image and target.

    Parameters
    ----------
    method : Method
        A row of the table.
    options : mapping of str to object, optional
        Options that are not at their defaults.
    channels, cells : int
        Of the layer, for methods that hide one after the other.

    Returns
    -------
    Cost
        Of its default variant, before constant and repeated masks are left out. A tail that is one linear layer is not run
        at all.

    Examples
    --------
    >>> str(cost_of(METHODS["gradcam"])), str(cost_of(METHODS["smoothgradcampp"], {"n": 4}))
    ('1F+1b', '5F+4b')
    >>> str(cost_of(METHODS["scorecam"], channels=512, cells=49)), str(cost_of(METHODS["reciprocam"], cells=49))
    ('513F', '1F+49T')
    """
    _, full = validate(method, None, options)
    if method.id in _OWN:
        return _OWN[method.id]
    if method.id == "opticam":
        iterations = int(str(full["iters"]))
        return Cost(2 + iterations, 0, 0, iterations)  # and the last iterate's value
    gradient = bool({"grads", "head", "gradients_of"} & set(method.needs))
    if method.runs is not None:
        rows = method.runs(full, channels, cells)
        edits = {"ablated_of", "cells_of"} & set(method.needs)
        return Cost(1, rows, int(gradient)) if edits else Cost(1 + rows, 0, int(gradient))
    for need, names in _REPEATS.items():
        if need in method.needs:
            times = next(int(str(full[name])) for name in names if name in full)
            return Cost(1 + times, 0, times)
    return _GRADIENT if gradient else _ACTIVATIONS


def estimates(work: Work, layers: Sequence[Layer], stages: Sequence[Layer] = ()) -> dict[str, dict[str, Any]]:
    """
    Estimate every method at its default options.

    Parameters
    ----------
    work : Work
        What one image costs on the model, at one layer.
    layers : sequence of Layer
        That layer alone.
    stages : sequence of Layer
        The layers of a method of several resolutions.

    Returns
    -------
    dict of str to dict
        By method id: ``cost`` in letters; ``forwards``, ``tails``, ``layer_gradients`` and ``image_gradients`` as numbers;
        ``multiply_adds``; ``relative``, those by the ones of a bare forward; ``bytes`` of tensors an image holds at most,
        weights aside: a forward's peak, and every tensor a gradient passes together with its gradient.
    """
    found: dict[str, dict[str, Any]] = {}
    for name in sorted(METHODS):
        cost = _summed(METHODS[name], stages if METHODS[name].stages and stages else layers)
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


def _summed(method: Method, layers: Sequence[Layer]) -> Cost:
    """Return the cost over several layers, which share the forward of the image itself."""
    costs = [cost_of(method, channels=layer.channels, cells=layer.grid[0] * layer.grid[1]) for layer in layers]
    return Cost(
        sum(cost.forwards for cost in costs) - len(costs) + 1, *(sum(cost[i] for cost in costs) for i in (1, 2, 3))
    )
