"""
Masked forwards the slow way: mask by mask and image by image, as an oracle for methods that ask for them.

`masked_evidence` lays out what such a method may ask of any forward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from camrt.kernels import resize
from camrt.masks import Lazy, Masks, Scored
from camrt.noise import standard_normal

Array = NDArray[Any]


def mask_of(values: Array, size: tuple[int, int], masks: Masks) -> Array | None:
    """Return one map (h,w) as a mask (H,W) before gain, inversion and noise; None where it is constant."""
    values = values.astype(np.float64)
    low, high = values.min(), values.max()
    if masks.scaling != "none" and high - low <= 1e-6 * max(abs(low), abs(high)):
        return None
    if masks.scaling == "before":
        values = (values - low) / (high - low + masks.eps)
    mask = resize(values[None], size, align=masks.align)[0]
    if masks.scaling in ("after", "range"):
        bottom, span = mask.min(), mask.max() - mask.min() + masks.eps
        mask = (mask if masks.scaling == "range" else mask - bottom) / span
    return mask


def noise_of(image: int, masks: Masks, shape: tuple[int, ...]) -> Array:
    """Return the noise of one image (3,H,W), or (H,W) on a mask; zero where there is none."""
    if masks.noise is None:
        return np.zeros(shape)
    shape = shape if masks.noise.on == "input" else shape[-2:]
    return masks.noise.sigma * standard_normal(shape, masks.noise.seed, image, masks.noise.sample)


def masked_image(x: Array, image: int, values: Array, masks: Masks, hidden: Array) -> Array | None:
    """Return one image (3,H,W) seen through one map, or None where that map is not run."""
    mask = mask_of(values, x.shape[-2:], masks)
    if mask is None:
        if masks.constant == "skip":
            return None
        mask = np.zeros(x.shape[-2:])
    mask = masks.gain * mask
    mask = 1 - mask if masks.inverted else mask
    noise = noise_of(image, masks, x.shape)
    if masks.noise is not None and masks.noise.on == "mask":
        mask, noise = mask + noise, np.zeros(x.shape)
    seen: Array = x * mask + hidden * (1 - mask) + noise
    return seen


def scorer(target: Array) -> Callable[[Array, str], Array]:
    """Return what scores logits (N,M,C) by each image's class."""

    def score_of(logits: Array, kind: str) -> Array:
        picked = np.arange(len(target)), slice(None), target
        if kind == "logit":
            return logits.astype(np.float64)[picked]
        odds = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
        shares: Array = (odds / odds.sum(axis=-1, keepdims=True))[picked]
        return shares

    return score_of


def masked_evidence(
    x: Array,
    forward: Callable[[Array], Array],
    target: Array,
    *,
    ids: Array | None = None,
    hidden: float = 0.0,
    budget: int | None = None,
) -> dict[str, Any]:
    """Lay out what methods may ask of masked forwards; `budget` is how many rows an image may have run, in order."""
    names = np.arange(len(x)) if ids is None else ids
    left = [np.inf if budget is None else budget] * len(x)

    def masked_of(masks: Masks) -> Scored:
        background = np.broadcast_to(hidden if masks.hidden is None else masks.hidden, x.shape)
        rows = []
        for n, image in enumerate(x):
            maps = masks.maps
            maps = maps.make(n, np.arange(maps.count)) if isinstance(maps, Lazy) else maps[n]
            wanted = np.ones(len(maps), bool) if masks.only is None else masks.only[n]
            seen = [masked_image(image, int(names[n]), m, masks, background[n]) for m in maps]
            for k, row in enumerate(seen):
                if row is not None and (not wanted[k] or left[n] <= 0):
                    seen[k] = None
                left[n] -= seen[k] is not None
            rows.append(seen)
        live = np.array([[row is not None for row in seen] for seen in rows])
        some = forward(x)
        logits = np.zeros((*live.shape, some.shape[1]), some.dtype)
        for n, k in np.argwhere(live):
            logits[n, k] = forward(rows[n][k][None])[0]
        return Scored(logits, live)

    return {
        "masked_of": masked_of,
        "score_of": scorer(target),
        "logits_at": forward,
        "hidden": np.full((1, 1, 1, 1), hidden),
    }
