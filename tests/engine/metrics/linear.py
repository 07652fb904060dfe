"""
Two classes with linear logits, and every change of pixels made by plain loops: oracles for metrics that walk by rank.

`picture` reads a `Change` as its docstring says and builds the pixels one by one, so that it shares nothing with
`camrt.metrics.filling`. `Linear` scores pictures in closed form, and `case` lays out what a metric judges.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from camrt.metrics.case import Case, Scores
from camrt.metrics.changes import Change, Clean, Imputed, Order, Substrate, Swapped, Whole
from camrt.metrics.model import Model
from camrt.metrics.table import Metric, validate

Array = npt.NDArray[Any]

BLACK = -1.5
NEIGHBOURS = {(i, j): 1 / 6 if i * j == 0 else 1 / 12 for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j}


@dataclass(frozen=True)
class Linear:
    """Two classes; the logit of class 0 is linear in the picture, that of class 1 is zero."""

    weights: Array  # (C, H, W)
    bias: float = 0.0

    def margin(self, pictures: Array) -> Array:
        """Return the logit of class 0 of pictures (N, C, H, W)."""
        logit: Array = (pictures * self.weights).sum((1, 2, 3)) + self.bias
        return logit

    def scores(self, pictures: Array, classes: Array) -> Scores:
        """Score pictures in closed form: the sigmoid of the difference of the logits."""
        logit = self.margin(pictures)
        margin = np.where(classes == 0, logit, -logit)
        hit = (margin > 0) | ((margin == 0) & (classes == 0))
        return Scores(-np.logaddexp(0, -margin), -np.logaddexp(0, margin), hit)

    def model(self) -> Model:
        """Return the same as metrics ask it; its black is BLACK."""
        return Model(lambda x: np.stack([self.margin(x), np.zeros(len(x))], axis=1), black=(BLACK,))


def substrate(kind: Substrate, x: Array) -> Array:
    """Make what stands where pixels of x (C, H, W) are missing; any blur is half of the way to the channels' means."""
    means = np.broadcast_to(x.mean((1, 2), keepdims=True), x.shape)
    constant = {"hidden": 0.0, "grey": 0.0, "black": BLACK, "minimum": x.min()}
    if kind.kind in constant:
        return np.full_like(x, constant[kind.kind])
    return means if kind.kind == "mean" else (x + means) / 2


def squares(heat: Array, order: Order) -> list[list[tuple[int, int]]]:
    """List the pixels of each rank, in order; each pixel goes with the first square that reaches it."""
    assert order.seed is None and not order.jitter
    height, width = heat.shape
    side = order.patch
    corners = [(i, j) for i in range(0, height, side) for j in range(0, width, side)]
    sums = [float(heat[i : i + side, j : j + side].sum()) for i, j in corners]
    sign = -1 if order.descending else 1
    reach = side + order.overlap
    taken: set[tuple[int, int]] = set()
    ranks = []
    for place in sorted(range(len(corners)), key=lambda k: (sign * sums[k], k)):
        i, j = corners[place]
        inside = [(a, b) for a in range(i, min(i + reach, height)) for b in range(j, min(j + reach, width))]
        ranks.append([pixel for pixel in inside if pixel not in taken])
        taken.update(inside)
    return ranks


def imputed(x: Array, missing: set[tuple[int, int]]) -> Array:
    """Replace missing pixels so that each is the weighted mean of its neighbours; a dense system, one row a pixel."""
    height, width = x.shape[1:]
    found = x.copy()
    unknown = sorted(missing)
    where = {pixel: row for row, pixel in enumerate(unknown)}
    left, right = np.zeros((len(unknown), len(unknown))), np.zeros((len(unknown), len(x)))
    for (i, j), row in where.items():
        for (a, b), weight in NEIGHBOURS.items():
            other = (i + a, j + b)
            if 0 <= other[0] < height and 0 <= other[1] < width:
                left[row, row] += weight
                if other in where:
                    left[row, where[other]] -= weight
                else:
                    right[row] += weight * x[:, other[0], other[1]]
    for (i, j), value in zip(unknown, np.linalg.solve(left, right), strict=True):
        found[:, i, j] = value
    return found


def picture(change: Change, x: Array, heat: Array) -> Array:
    """Make one changed picture (C, H, W)."""
    if isinstance(change, Clean):
        return x
    if isinstance(change, Whole):
        return substrate(change.substrate, x)
    if isinstance(change, Swapped):
        changed, filler = x.copy(), substrate(change.substrate, x)
        for pixels in squares(heat, change.order)[change.start : change.stop]:
            for i, j in pixels:
                changed[:, i, j] = filler[:, i, j]
        return changed
    assert isinstance(change, Imputed) and not change.sigma
    ranks = squares(heat, change.order)
    return imputed(x, {pixel for pixels in ranks[: change.count] for pixel in pixels})


def scored(heat: Array, scores: Mapping[Change, Scores]) -> Case:
    """Lay out maps (N, H, W) with scores that were written down by hand."""
    n = len(heat)
    x = np.zeros((n, 1, *heat.shape[1:]))
    return Case(heat, np.zeros(n, bool), np.zeros(n, np.int64), np.arange(n, dtype=np.uint64), x, scores=scores)


def case(linear: Linear, x: Array, heat: Array, changes: Iterable[Change]) -> Case:
    """Lay out maps (N, H, W) of pictures (N, C, H, W) for class 0, every change scored in closed form."""
    classes = np.zeros(len(x), np.int64)
    made = {
        change: linear.scores(np.stack([picture(change, *pair) for pair in zip(x, heat, strict=True)]), classes)
        for change in {*changes, Clean()}
    }
    return Case(heat, np.zeros(len(x), bool), classes, np.arange(len(x), dtype=np.uint64), x, scores=made)


def judged(
    metric: Metric, linear: Linear, x: Array, heat: Array, variant: str | None = None, **options: object
) -> Mapping[str, Array]:
    """Return a metric's values of maps, with pictures and scores from here."""
    chosen, full = validate(metric, variant, options)
    assert metric.changes is not None
    height, width = heat.shape[1:]
    asked = metric.changes((height, width), variant=chosen, **full)
    return metric.values(case(linear, x, heat, asked), variant=chosen, **full)


def p(*values: float) -> Scores:
    """Return scores of one image or several with given probabilities, hit where they are above a half."""
    given = np.array(values)
    return Scores(np.log(given), np.log1p(-given), given > 0.5)
