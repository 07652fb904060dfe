"""
Random-CAM: random channel weights, the floor every method must beat.

Activations and a content hash of each image go in, channel weights come out. Introduced by pytorch-grad-cam, without a
paper.
"""

from __future__ import annotations

import numpy as np

from .arrays import Array, namespace
from .table import Method, Option, register


def randomcam(acts: Array, ids: Array, *, variant: str = "pytorch-grad-cam", seed: int = 0) -> Array:
    """
    Weigh channels at random, uniformly in [-1, 1).

    Parameters
    ----------
    acts : ndarray of float, shape (N, K, h, w)
        Activations of one layer.
    ids : ndarray of uint64, shape (N,)
        Content hash of each image.
    variant : {"pytorch-grad-cam"}
        The only definition.
    seed : int
        Seed of the weights.

    Returns
    -------
    ndarray of float, shape (N, K)
        Channel weights that depend on `seed`, the image's id and the channel's index only.

    References
    ----------
    ``RandomCAM`` of pytorch-grad-cam; no paper.
    """
    streams = [np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, int(image))))) for image in ids]
    uniform = np.stack([stream.random(acts.shape[1]) for stream in streams])
    weights: Array = namespace(acts).asarray(2 * uniform - 1, dtype=acts.dtype)
    return weights


register(
    Method(
        id="randomcam",
        function=randomcam,
        needs=("acts", "ids"),
        gives="weights",
        family="baseline",
        work=1.0,
        paper="pytorch-grad-cam",
        title="Random-CAM",
        variants=("pytorch-grad-cam",),
        options={"seed": Option(0, "integer", "seed of the weights", low=0)},
        class_free=True,
    )
)
