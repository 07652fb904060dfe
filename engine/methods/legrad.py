"""
LeGrad: how a vision transformer's attention would have to change to raise the class, block by block.

A callable that gives a map of each block's attention goes in; a map of the grid of patches comes out, whatever the
layer. Bousselham et al. 2024, arXiv:2404.03214. With Z^l the tokens behind block l and A^l its attention,

    s^l = head(norm(mean of the tokens Z^l))    map = sum over l of the mean over heads and queries of ReLU(d s^l / d A^l)

The gradient of s^l flows into the attention of block l alone; attention values are not multiplied in, and the keys of
prefix tokens are dropped.
"""

from __future__ import annotations

from collections.abc import Callable

from .arrays import Array
from .table import Method, Option, register

LAST = (-2, -1)  # the official code's layer_index of -2: from the last block but one


def legrad(
    seed: Callable[[], Array],
    attention_of: Callable[[Array, tuple[int, ...] | None], Array],
    *,
    variant: str = "official",
    blocks: tuple[int, ...] | None = LAST,
) -> Array:
    """
    Join the maps of some blocks.

    Parameters
    ----------
    seed : callable
        Returns the target's cotangent at the logits; it is put at each block's own scores.
    attention_of : callable
        Takes a cotangent and which blocks, all where None; returns their maps (N, blocks, h, w), never negative.
    variant : {"official", "torchcam"}
        "official" adds the maps up; "torchcam" takes their mean, which is the same but for its size.
    blocks : tuple of int, optional
        Which blocks, counted from 0, or from -1 backwards; all where None.

    Returns
    -------
    ndarray of float, shape (N, h, w)
        Raw map, never negative.

    Notes
    -----
    Cost: one run for a class at default options: a forward, and a gradient through the second half of each block. For
    other targets or blocks a forward more, and that run once a target.

    References
    ----------
    Bousselham et al. 2024, LeGrad: An Explainability Method for Vision Transformers via Feature Formation Sensitivity,
    arXiv:2404.03214.
    """
    maps = attention_of(seed(), blocks)
    joined: Array = maps.sum(axis=1) if variant == "official" else maps.mean(axis=1)
    return joined


register(
    Method(
        id="legrad",
        function=legrad,
        needs=("seed", "attention_of"),
        gives="map",
        family="gradient",
        work=1.2,
        paper="arXiv:2404.03214",
        title="LeGrad",
        variants=("official", "torchcam"),
        options={
            "blocks": Option(LAST, "integers", "blocks from 0, or from -1 backwards; none: all of them", optional=True)
        },
        aliases=("le-grad",),
    )
)
