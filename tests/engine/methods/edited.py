"""
Edited activations the slow way: edit by edit, as an oracle for methods that ask a layer's tail.

`edited_evidence` lays out what such a method may ask of any tail.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from camrt.masks import Scored
from tests.engine.methods.masked import scorer

Array = NDArray[Any]
BELL = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16


def edited_evidence(
    tail: Callable[[Array], Array], acts: Array, target: Array, *, budget: int | None = None
) -> dict[str, Any]:
    """Lay out what methods may ask of edited activations; `budget` is how many edits of an image are run, in order."""
    n, k, h, w = acts.shape

    def scored(edits: Array, wanted: Array) -> Scored:
        live = wanted & (np.cumsum(wanted, axis=1) <= (np.inf if budget is None else budget))
        logits = np.stack([tail(edits[i]) for i in range(n)])
        return Scored(np.where(live[:, :, None], logits, 0), live)

    def ablated_of(values: Array, only: Array | None = None) -> Scored:
        edits = np.repeat(acts[:, None], k, axis=1)
        for channel in range(k):
            edits[:, channel, channel] = values[:, channel, None, None]
        return scored(edits, np.ones((n, k), bool) if only is None else only)

    def cells_of(gaussian: bool) -> Scored:
        edits = np.zeros((n, h * w, k, h, w))
        for u in range(h * w):
            y, x = divmod(u, w)
            for dy in (-1, 0, 1) if gaussian else (0,):
                for dx in (-1, 0, 1) if gaussian else (0,):
                    if 0 <= y + dy < h and 0 <= x + dx < w:
                        share = BELL[1 + dy, 1 + dx] if gaussian else 1
                        edits[:, u, :, y + dy, x + dx] = share * acts[:, :, y, x]
        return scored(edits, np.ones((n, h * w), bool))

    return {"ablated_of": ablated_of, "cells_of": cells_of, "score_of": scorer(target), "tokens": False}
