"""
RISE: the mean of random masks, weighted by how the class scores on the image seen through each.

Masked forwards go in, a raw map of the image's size comes out; the model is a black box. Petsiuk et al. 2018,
arXiv:1806.07421. A mask is an s x s grid of cells, each 1 with probability p and 0 otherwise, upsampled bilinearly to
s + 1 cells of ceil(H/s) x ceil(W/s) pixels and cropped to the image at a random offset. With N masks M_i,

    S = 1 / (p N)  sum over masks of  p_c(x * M_i) M_i
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from camrt import kernels

from ..masks import Lazy, Masks
from .arrays import Array, namespace
from .scorecam import MaskedOf, ScoreOf
from .table import Method, Option, Result, register

_CHUNK = 64  # masks a matrix product; their halves take 2 MB at 224 x 224


def rise(
    ids: Array,
    x: Array,
    size: tuple[int, int],
    masked_of: MaskedOf,
    score_of: ScoreOf,
    *,
    variant: str = "official",
    n: int = 4000,
    s: int = 7,
    p: float = 0.5,
    seed: int = 0,
) -> Result:
    """
    Sum random masks by the class's probability behind them.

    Parameters
    ----------
    ids : ndarray of uint64, shape (N,)
        Content hash of each image.
    x : ndarray, shape (N, ...)
        The model's input; its type and its side (host or device) are those of the map.
    size : tuple of int
        ``(H, W)`` of the input.
    masked_of : callable
        Takes `Masks`, returns the logits of masked images.
    score_of : callable
        Takes logits (N,M,C) and "probability", returns the target's scores (N,M).
    variant : {"official"}
        The only definition.
    n : int
        Masks an image.
    s : int
        Cells of the grid along each side.
    p : float
        Probability that a cell is seen.
    seed : int
        Seed of the masks. A mask depends on `seed`, the image's id and its index only.

    Returns
    -------
    Result
        Raw map (N,H,W) in units of probability. ``standard_error`` (N,): the Monte-Carlo error of the map, root mean
        square over pixels, as a share of the map's range; at most 1, which is also said where fewer than two masks have
        been run.

    Notes
    -----
    Cost: `n` masked forwards; further targets cost nothing. No mask is kept.

    References
    ----------
    Petsiuk et al. 2018, RISE, arXiv:1806.07421, equation 6 and section 3.2; 4000 masks for VGG16, 8000 for ResNet-50.
    """
    xp, dtype = namespace(x), x.dtype if x.dtype.kind == "f" else np.dtype("f4")
    grids = [_draw(xp, (seed, int(image)), n, s, p, size) for image in ids]

    def _make(image: int, rows: Array) -> Array:
        left, right = grids[image].halves(rows)
        masks: Array = left @ right
        return masks

    scored = masked_of(Masks(Lazy(n, _make, ("rise", seed, n, s, p)), scaling="none"))
    scores = score_of(scored.logits, "probability")
    found = [grid.mean(row, np.flatnonzero(live)) for grid, row, live in zip(grids, scores, scored.live, strict=True)]
    maps = xp.stack([mean for mean, _ in found]) / p
    return Result(maps.astype(dtype), {"standard_error": np.array([error for _, error in found])})


@dataclass(frozen=True, eq=False)
class _Grids:
    """
    The masks of one image, unmade: bilinear upsampling is separable, so that a mask is ``down @ cells[i] @ across.T``.

    Cells are (n,s,s), offsets (n,2); `down` (H',s) and `across` (W',s) are cropped to `size` at the mask's offset.
    """

    cells: Array
    offsets: Array
    down: Array
    across: Array
    size: tuple[int, int]

    def halves(self, rows: Array) -> tuple[Array, Array]:
        """Return (m,H,s) and (m,s,W), whose products are the masks of these rows, float32."""
        xp = namespace(self.cells)
        rows = xp.asarray(rows)
        places = [self.offsets[rows, side, None] + xp.arange(self.size[side]) for side in (0, 1)]
        return self.down[places[0]] @ self.cells[rows], self.across[places[1]].transpose(0, 2, 1)

    def mean(self, scores: Array, rows: Array) -> tuple[Array, float]:
        """Return the mean of score times mask over some rows, float64 (H,W), and its error as a share of its range."""
        xp = namespace(self.cells)
        total, power = xp.zeros(self.size), 0.0
        for start in range(0, len(rows), _CHUNK):
            part = rows[start : start + _CHUNK]
            left, right = self.halves(part)
            left = left * xp.asarray(scores[part, None, None], left.dtype)
            total += xp.tensordot(left, right, axes=((0, 2), (0, 1)))
            left, right = left.astype(total.dtype), right.astype(total.dtype)
            power += float(((left.transpose(0, 2, 1) @ left) * (right @ right.transpose(0, 2, 1))).sum())
        if len(rows) < 2:
            return total, 1.0
        mean = total / len(rows)
        variance = (power / len(rows) - float((mean**2).sum())) / mean.size / (len(rows) - 1)
        spread = float(mean.max() - mean.min())
        return mean, min(1.0, max(variance, 0.0) ** 0.5 / spread) if spread else 1.0


def _draw(xp: Any, words: tuple[int, int], n: int, s: int, p: float, size: tuple[int, int]) -> _Grids:
    """Draw the masks of one image; one stream, so that mask i is the same however many there are."""
    drawn = np.random.Generator(np.random.Philox(np.random.SeedSequence(words))).random((n, s * s + 2))
    cell = [-(-side // s) for side in size]
    down, across = (kernels.resize(np.eye(s, dtype="f4")[None], ((s + 1) * side, s))[0] for side in cell)
    cells = (drawn[:, :-2] < p).astype("f4").reshape(n, s, s)
    offsets = (drawn[:, -2:] * cell).astype(np.int64)
    return _Grids(xp.asarray(cells), xp.asarray(offsets), xp.asarray(down), xp.asarray(across), size)


register(
    Method(
        id="rise",
        function=rise,
        needs=("ids", "x", "size", "masked_of", "score_of"),
        gives="map",
        family="black-box",
        work=4001.0,
        paper="arXiv:1806.07421",
        title="RISE",
        variants=("official",),
        relu=False,
        options={
            "n": Option(4000, "integer", "masks", low=1, high=1_000_000),
            "s": Option(7, "integer", "cells of a mask along each side", low=1),
            "p": Option(0.5, "number", "probability that a cell is seen", low=0.01, high=0.99),
            "seed": Option(0, "integer", "seed of the masks", low=0),
        },
        runs=lambda options, channels, cells: int(options["n"]),
    )
)
