"""
Finer-CAM: what tells a class from the classes most like it.

Activations, logits and a callable that gives gradients for a cotangent at the logits go in; what the base method gives
comes out. Zhang et al. 2025, arXiv:2501.11309. The contrastive target needs no graph of its own: with q the softmax
over the reference logits,

    T = s_c - alpha * sum_d q_d s_d          dT/ds_c = 1,   dT/ds_d = -alpha q_d (1 + s_d - sum_j q_j s_j)
"""

from __future__ import annotations

from collections.abc import Callable

from ..errors import MethodError, TargetError
from .arrays import Array, namespace
from .derived import base_options, run_base
from .table import Method, Option, Result, register


def finercam(
    acts: Array,
    logits: Array,
    target: Array,
    gradients_of: Callable[[Array], Array],
    *,
    variant: str = "official",
    base: str = "gradcam",
    base_variant: str | None = None,
    alpha: float = 1.0,
    ranks: tuple[int, ...] = (1, 2, 3),
) -> Result:
    """
    Run a gradient method on the contrast of a class with its nearest ones.

    Parameters
    ----------
    acts : ndarray of float, shape (N, K, h, w)
        Activations of one layer.
    logits : ndarray of float, shape (N, C)
        Logits of the clean input.
    target : ndarray of int64, shape (N,)
        The class explained.
    gradients_of : callable
        Takes a cotangent at the logits (N,C), returns gradients at the layer (N,K,h,w).
    variant : {"official", "torchcam"}
        "official" weighs references by their probability and lets the gradient flow through the weights; "torchcam"
        takes their plain mean, with alpha 0.6.
    base : str
        The method that turns activations and gradients into a map.
    base_variant : str, optional
        Its variant.
    alpha : float
        Strength of the contrast; 0 gives the base method.
    ranks : tuple of int
        Which classes are references: 1 is the class whose logit is nearest to the target's.

    Returns
    -------
    Result
        What the base gives.

    Raises
    ------
    TargetError
        If an image's target is not a single class.
    MethodError
        If no class has one of the ranks.

    Notes
    -----
    Cost: one gradient run from the logits.

    References
    ----------
    Zhang et al. 2025, Finer-CAM, arXiv:2501.11309.
    """
    seed = finer_seed(logits, target, variant=variant, alpha=alpha, ranks=ranks)
    return run_base(acts, gradients_of(seed), base, base_variant, variant)


def finer_seed(
    logits: Array, target: Array, *, variant: str = "official", alpha: float = 1.0, ranks: tuple[int, ...] = (1, 2, 3)
) -> Array:
    """
    Return the cotangent of the contrastive target at the logits.

    Parameters
    ----------
    logits : ndarray of float, shape (N, C)
        Logits of the clean input.
    target : ndarray of int64, shape (N,)
        The class explained.
    variant : str
        As for `finercam`.
    alpha : float
        As for `finercam`.
    ranks : tuple of int
        As for `finercam`. Ranks beyond the number of other classes are left out; ties go by class index.

    Returns
    -------
    ndarray of float, shape (N, C)
        ``dT / d logits``.

    Raises
    ------
    TargetError
        If an image's target is not a single class.
    MethodError
        If no class has one of the ranks.

    Examples
    --------
    >>> import numpy as np
    >>> finer_seed(np.array([[2.0, 0.0, 1.0]]), np.array([0]), variant="torchcam", alpha=0.6)
    array([[ 1. , -0.3, -0.3]])
    """
    xp = namespace(logits)
    images, classes = logits.shape
    target = xp.asarray(target)
    if bool(((target < 0) | (target >= classes)).any()):
        raise TargetError(
            "finercam contrasts one class with others and needs a class index; got another kind of target"
        )
    kept = [rank for rank in ranks if rank < classes]
    if not kept:
        raise MethodError(f"finercam needs a reference class; with {classes} classes none has rank {ranks}")
    row = xp.arange(images)
    scores = logits.astype(xp.float64)
    distance = abs(scores - scores[row, target][:, None])
    distance[row, target] = -1  # so that the target itself has rank 0
    references = xp.argsort(distance, axis=1, kind="stable")[:, kept]  # (N, R)
    found = scores[row[:, None], references]
    if variant == "torchcam":
        share = xp.full_like(found, 1 / len(kept))
    else:
        odds = xp.exp(found - found.max(axis=1, keepdims=True))
        odds = odds / odds.sum(axis=1, keepdims=True)
        share = odds * (1 + found - (odds * found).sum(axis=1, keepdims=True))
    seed = xp.zeros_like(scores)
    seed[row, target] = 1
    seed[row[:, None], references] = -alpha * share
    finished: Array = seed.astype(logits.dtype)
    return finished


register(
    Method(
        id="finercam",
        function=finercam,
        needs=("acts", "logits", "target", "gradients_of"),
        gives="weights",
        family="gradient",
        work=2.2,
        paper="arXiv:2501.11309",
        title="Finer-CAM",
        variants=("official", "torchcam"),
        options={
            **base_options("gradcam"),
            "alpha": Option(1.0, "number", "strength of the contrast", low=0, by_variant={"torchcam": 0.6}),
            "ranks": Option((1, 2, 3), "integers", "ranks of the reference classes by nearness of logit", low=1),
        },
    )
)
