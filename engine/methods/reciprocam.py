"""
ReciproCAM: a cell's value is the score of its activations alone.

Runs of the layer's tail go in, of which each keeps one cell, and a raw map comes out. Byun and Lee 2024,
arXiv:2209.14074. With A^(u) the activations whose cells are zero but for u,

    S(u) = softmax(tail(A^(u)))_c
"""

from __future__ import annotations

from collections.abc import Callable

from ..masks import Scored
from .arrays import Array, namespace
from .table import Method, Option, register


def reciprocam(
    acts: Array,
    tokens: bool,
    cells_of: Callable[[bool], Scored],
    score_of: Callable[[Array, str], Array],
    *,
    variant: str = "official",
    score: str | None = None,
) -> Array:
    """
    Score each cell by itself.

    Parameters
    ----------
    acts : ndarray of float, shape (N, K, h, w)
        Activations of one layer.
    tokens : bool
        Whether the layer is a sequence of tokens.
    cells_of : callable
        Takes whether cells spread over their neighbours, returns the logits (N,Z,C) of one cell at a time.
    score_of : callable
        Takes logits (N,M,C) and "probability" or "logit", returns the target's scores (N,M).
    variant : {"official", "gaussian", "openvino-vit"}
        "openvino-vit" spreads the cell's vector over its 3x3 neighbourhood by a Gaussian, cut off at borders, and takes
        the logit. "gaussian" spreads it and takes the probability. "official" depends on the layer: on tokens it is
        "openvino-vit", elsewhere the cell alone and its probability. Prefix tokens are always kept.
    score : {"probability", "logit"}, optional
        What a cell shows; the variant's own where None.

    Returns
    -------
    ndarray of float, shape (N, h, w)
        Raw map. A cell that has not been run shows the least of the others.

    Notes
    -----
    With a linear head and logits the map is CAM divided by the number of cells, plus the bias. A tail that turns
    activations of zero into logits of its own, as batch normalisation does, is seen behind every cell.
    Cost: one row of the tail a cell, none where global average pooling and one linear layer follow; further targets cost
    nothing.

    References
    ----------
    Byun and Lee 2024, Recipro-CAM, arXiv:2209.14074, eqs. 2 to 4; the form for transformers is OpenVINO's.
    """
    xp = namespace(acts)
    is_vit = variant == "openvino-vit" or (variant == "official" and tokens)
    scored = cells_of(is_vit or variant == "gaussian")
    scores = xp.asarray(score_of(scored.logits, score or ("logit" if is_vit else "probability")))
    live = xp.asarray(scored.live)
    least = xp.where(live, scores, xp.inf).min(axis=1, keepdims=True)
    shown: Array = xp.where(live, scores, xp.where(xp.isfinite(least), least, 0))
    return shown.astype(acts.dtype).reshape(len(acts), *acts.shape[2:])


register(
    Method(
        id="reciprocam",
        function=reciprocam,
        needs=("acts", "tokens", "cells_of", "score_of"),
        gives="map",
        family="ablation",
        work=2.0,
        paper="arXiv:2209.14074",
        title="Recipro-CAM",
        variants=("official", "gaussian", "openvino-vit"),
        options={
            "score": Option(
                None,
                "choice",
                "what a cell shows; none: the variant's own",
                choices=("probability", "logit"),
                optional=True,
            )
        },
        relu=False,
        runs=lambda options, channels, cells: cells,
    )
)
