"""
Ablation-CAM: channel weights are the share of the score that is lost without the channel.

Activations, clean logits and edited runs of the layer's tail go in, channel weights come out. Desai and Ramaswamy 2020,
WACV. With s the score and s_k the score while channel k is ablated,

    w_k = (s - s_k) / s          S = ReLU(sum over channels of  w_k A_k)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from camrt import kernels

from ..masks import Scored
from .arrays import Array, namespace
from .table import Method, Option, Result, register

FAR, RUN = 1e7, 32  # pytorch-grad-cam: how far below the smallest activation it goes, again for each row of a run
OBJECT = 0.01  # and the share of its Eigen-CAM's range from which on a cell belongs to an object


def ablationcam(
    acts: Array,
    logits: Array,
    ablated_of: Callable[[Array, Array | None], Scored],
    score_of: Callable[[Array, str], Array],
    *,
    variant: str = "abs",
    value: str = "zero",
    ratio: float = 1.0,
) -> Result:
    """
    Weigh channels by what their absence costs.

    Parameters
    ----------
    acts : ndarray of float, shape (N, K, h, w)
        Activations of one layer.
    logits : ndarray, shape (N, C)
        Logits of the clean input.
    ablated_of : callable
        Takes values (N,K) and which channels (N,K), returns the logits with one channel set to its value.
    score_of : callable
        Takes logits (N,M,C) and "probability" or "logit", returns the target's scores (N,M).
    variant : {"abs", "paper", "pytorch-grad-cam"}
        "paper" divides by the score itself, so that a negative score turns the whole map round; "abs" divides by its
        magnitude. "pytorch-grad-cam" divides like the paper and ablates to "far". Where the score is 0, all divide by 1.
    value : {"zero", "mean", "min", "far"}
        What an ablated channel is set to: 0; its own mean, which leaves the logits as they are where only averages are
        read; its own minimum; or far below anything: 0 where the image's smallest activation is 0, else 1e7 below that,
        and 1e7 more for each channel of a run of 32, as pytorch-grad-cam's buffer has it.
    ratio : float
        The share of channels ablated that lie most inside an Eigen-CAM's object, and as many that lie least inside it;
        the others weigh 0. 1 ablates all.

    Returns
    -------
    Result
        Weights (N,K); 0 for a channel that has not been run.

    Notes
    -----
    Cost: one row of the tail a channel, none where global average pooling and one linear layer follow; further targets
    cost nothing.

    References
    ----------
    Desai and Ramaswamy 2020, Ablation-CAM, WACV, eqs. 3 and 4. `ratio` and "far" are pytorch-grad-cam's; no paper.
    """
    xp = namespace(acts)
    place, only = _places(acts, ratio) if ratio < 1 else (xp.arange(acts.shape[1])[None], None)
    scored = ablated_of(_values(acts, value, place), only)
    clean = xp.asarray(score_of(logits[:, None], "logit"))  # (N, 1)
    lost = xp.where(xp.asarray(scored.live), clean - xp.asarray(score_of(scored.logits, "logit")), 0)
    scale = abs(clean) if variant == "abs" else clean
    weights = lost / xp.where(scale == 0, 1, scale)
    return Result(weights.astype(acts.dtype))


def _values(acts: Array, value: str, place: Array) -> Array:
    """Return what each channel is set to, (N, K)."""
    xp = namespace(acts)

    def far() -> Array:
        lowest = acts.min(axis=(1, 2, 3)).astype(xp.float64)[:, None]
        return xp.where(lowest == 0, 0, lowest - FAR * (1 + place % RUN))  # type: ignore[no-any-return]

    known: dict[str, Callable[[], Array]] = {
        "zero": lambda: xp.zeros(acts.shape[:2]),
        "mean": lambda: acts.mean(axis=(2, 3)),
        "min": lambda: acts.min(axis=(2, 3)),
        "far": far,
    }
    return known[value]().astype(acts.dtype, copy=False)


def _places(acts: Array, ratio: float) -> tuple[Array, Array]:
    """Return each channel's turn, and which channels are ablated, (N, K)."""
    xp, k = namespace(acts), acts.shape[1]
    size = abs(acts) - abs(acts).min(axis=(2, 3), keepdims=True)
    projected = kernels.min_max(abs(kernels.leading_component(acts, center=True)[0]))[0]
    whole = size.sum(axis=(2, 3))
    inside = (size * (projected > OBJECT)[:, None]).sum(axis=(2, 3))
    share = xp.where(whole > 0, inside / xp.where(whole > 0, whole, 1), xp.inf)  # a flat channel's 0/0 sorts last
    rank, count = xp.argsort(xp.argsort(share, axis=1), axis=1), max(1, int(k * ratio))
    most, least = rank >= k - count, rank < count
    return xp.where(most, k - 1 - rank, count + rank), most | least


def _edits(options: Mapping[str, Any], channels: int, cells: int) -> int:
    """Return how many channels of one image are ablated."""
    ratio = float(options["ratio"])
    return channels if ratio == 1 else min(channels, 2 * max(1, int(channels * ratio)))


register(
    Method(
        id="ablationcam",
        function=ablationcam,
        needs=("acts", "logits", "ablated_of", "score_of"),
        gives="weights",
        family="ablation",
        work=2.0,
        paper="WACV 2020, Desai and Ramaswamy",
        title="Ablation-CAM",
        variants=("abs", "paper", "pytorch-grad-cam"),
        options={
            "value": Option(
                "zero",
                "choice",
                "what an ablated channel is set to",
                choices=("zero", "mean", "min", "far"),
                by_variant={"pytorch-grad-cam": "far"},
            ),
            "ratio": Option(
                1.0, "number", "share of channels ablated, from either end of an Eigen-CAM's order", low=0.001, high=1
            ),
        },
        nonnegative=True,
        runs=_edits,
    )
)
