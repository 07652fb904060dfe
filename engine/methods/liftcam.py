"""
LIFT-CAM: channel weights are what each channel adds to the target, seen from activations of zero.

Activations and ways through the layer's tail go in; channel weights come out. Jung and Oh 2021, arXiv:2102.05228. A
channel's weight is its SHAP value, and DeepLIFT approximates it in one pass: the contributions of all cells sum to
T(A) - T(0), and a channel's weight is the sum over its own. Two cruder approximations of the same paper are variants.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..errors import MethodError
from .arrays import Array, namespace
from .table import Method, Option, register


def liftcam(
    acts: Array,
    ids: Array,
    piecewise: bool,
    seed: Callable[[], Array],
    lift_of: Callable[[Array], Array],
    gradients_of: Callable[[Array], Array],
    logits_from: Callable[[Array], Array],
    *,
    variant: str = "official",
    samples: int | None = None,
    noise_seed: int = 0,
) -> Array:
    """
    Weigh channels by their contributions.

    Parameters
    ----------
    acts : ndarray of float, shape (N, K, h, w)
        Activations of one layer.
    ids : ndarray of uint64, shape (N,)
        Content hash of each image; the masks of "lime" depend on it and on `noise_seed` only.
    piecewise : bool
        Whether the model is piecewise linear behind the layer.
    seed : callable
        Returns the target's cotangent at the logits.
    lift_of : callable
        Takes a cotangent, returns DeepLIFT's contributions (N,K,h,w) against activations of zero.
    gradients_of : callable
        Takes a cotangent, returns gradients at the layer.
    logits_from : callable
        Takes activations, returns the logits they lead to.
    variant : {"official", "lrp", "lime"}
        "official" takes DeepLIFT's rescale rule; "lrp" the basic rule of layer-wise relevance propagation, which is
        gradient times activation where the tail is piecewise linear (Ancona et al. 2018); "lime" fits a linear function
        of which channels are kept.
    samples : int, optional
        How many random sets of channels "lime" tries; as many as there are channels where None.
    noise_seed : int
        Seed of those sets.

    Returns
    -------
    ndarray of float, shape (N, K)
        Channel weights.

    Raises
    ------
    MethodError
        If "lrp" is asked for a layer whose tail is not piecewise linear.

    Notes
    -----
    Cost: two runs of the tail and one gradient through it; "lrp" one gradient; "lime" `samples` runs of the tail.

    References
    ----------
    Jung and Oh 2021, LIFT-CAM, arXiv:2102.05228; Ancona et al. 2018, arXiv:1711.06104, proposition 1.
    """
    if variant == "lime":
        return _surrogate(acts, ids, seed(), logits_from, samples or acts.shape[1], noise_seed)
    if variant == "official":
        parts = lift_of(seed())
    elif piecewise:
        parts = acts * gradients_of(seed())
    else:
        raise MethodError(
            "liftcam's variant lrp needs a layer behind which the model is piecewise linear (ReLU, pooling, linear layers); "
            "take a later layer, or the official variant"
        )
    weights: Array = parts.sum(axis=(2, 3)).astype(acts.dtype, copy=False)
    return weights


def _surrogate(
    acts: Array, ids: Array, seed: Array, logits_from: Callable[[Array], Array], samples: int, noise_seed: int
) -> Array:
    """Fit each image's target by least squares on random sets of channels; of equal fits, the smallest weights."""
    xp, channels = namespace(acts), acts.shape[1]
    kept = np.stack([_sets(samples, channels, noise_seed, int(image)) for image in ids])  # (N, samples, K)
    scores = []
    for index in range(samples):
        mask = xp.asarray(kept[:, index], acts.dtype)
        scores.append((logits_from(acts * mask[:, :, None, None]) * seed).sum(axis=1))
    reached = xp.stack(scores, axis=1).astype(xp.float64)
    reached = reached - reached.mean(axis=1, keepdims=True)
    centred = xp.asarray(kept - kept.mean(axis=1, keepdims=True))
    fits = [xp.linalg.lstsq(a, b, rcond=None)[0] for a, b in zip(centred, reached, strict=True)]
    weights: Array = xp.stack(fits).astype(acts.dtype)
    return weights


def _sets(samples: int, channels: int, seed: int, image: int) -> Array:
    """Return 0 and 1 with equal odds, depending on (seed, image) only."""
    stream = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, image))))
    return stream.integers(0, 2, (samples, channels)).astype(np.float64)


register(
    Method(
        id="liftcam",
        function=liftcam,
        needs=("acts", "ids", "piecewise", "seed", "lift_of", "gradients_of", "logits_from"),
        gives="weights",
        family="gradient",
        work=1.3,
        paper="arXiv:2102.05228",
        title="LIFT-CAM",
        variants=("official", "lrp", "lime"),
        options={
            "samples": Option(
                None, "integer", "sets of channels that lime tries; none: as many as channels", low=2, optional=True
            ),
            "noise_seed": Option(0, "integer", "seed of lime's sets", low=0),
        },
    )
)
