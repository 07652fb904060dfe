"""A classifier in plain NumPy whose every answer is known, and changed pictures made the slow way."""

from __future__ import annotations

import numpy as np

from camrt.metrics.changes import Clean, Masked, Swapped, Whole
from camrt.metrics.model import Model

SIZE = (6, 5)
BLACK, UNIT = (-2.0, -1.5, -1.0), (4.0, 3.0, 2.0)
WEIGHTS = np.random.default_rng(7).normal(size=(3 * 6 * 5, 4)) * 0.3


def logits(x):
    """Return linear scores."""
    return x.reshape(len(x), -1) @ WEIGHTS


def model(**settings):
    """Return the classifier as metrics see it."""
    return Model(logits, black=BLACK, unit=UNIT, **settings)


def pictures(n=3, seed=0):
    """Return inputs (n, 3, 6, 5)."""
    return np.random.default_rng(seed).normal(size=(n, 3, *SIZE))


def maps(n=3, seed=1):
    """Return maps in [0, 1] with minimum 0 and maximum 1."""
    raw = np.random.default_rng(seed).random((n, *SIZE))
    low, high = raw.min((1, 2), keepdims=True), raw.max((1, 2), keepdims=True)
    return (raw - low) / (high - low)


def fill_of(substrate, x):
    """Return a substrate of one colour, (3, 1, 1)."""
    return np.zeros((3, 1, 1)) if substrate.kind in ("grey", "hidden") else np.array(BLACK)[:, None, None]


def changed(change, x, heat):
    """Return one picture changed, pixel by pixel."""
    if isinstance(change, Clean):
        return x
    fill = fill_of(change.substrate, x) + np.zeros_like(x)
    if isinstance(change, Whole):
        return fill
    if isinstance(change, Masked):
        m = 1 - heat if change.inverted else heat
        return x * m + fill * (1 - m)
    assert isinstance(change, Swapped)
    keys = [(-v if change.order.descending else v, i) for i, v in enumerate(heat.ravel())]
    order = [i for _, i in sorted(keys)]
    out = x.reshape(3, -1).copy()
    for rank in range(change.start, min(change.stop, len(order))):
        out[:, order[rank]] = fill.reshape(3, -1)[:, order[rank]]
    return out.reshape(x.shape)


def log_softmax(scores):
    """Return the logarithm of the softmax over the last axis."""
    top = scores.max(-1, keepdims=True)
    return scores - top - np.log(np.exp(scores - top).sum(-1, keepdims=True))
