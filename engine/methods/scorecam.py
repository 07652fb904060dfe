"""
Score-CAM: channels weighted by how the class scores on the image seen through them.

Activations of one layer and masked forwards go in, channel weights come out (a raw map where a variant combines scaled
activations). Wang et al. 2020, arXiv:1910.01279. With H_k the upsampled channel k scaled to [0, 1] and p the class's
probability,

    w_k = p(x * H_k)            S = sum over channels of  w_k A_k

`score_weighted` serves the methods that differ in their masks alone: fasterscorecam, sscam and iscam.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from camrt import kernels

from ..masks import Masks, Scored
from .arrays import Array, namespace
from .remaining import constant_maps, remaining
from .table import Method, Option, Result, register

MaskedOf = Callable[[Masks], Scored]
ScoreOf = Callable[[Array, str], Array]

FORMS: Mapping[str, Mapping[str, Any]] = MappingProxyType(  # how a channel becomes a mask
    {
        "official": {"scaling": "after"},
        "paper": {"scaling": "after"},
        "pytorch-grad-cam": {"scaling": "after", "eps": 1e-8, "align": "corners", "constant": "keep"},
        "torchcam": {"scaling": "before", "eps": 1e-8, "constant": "keep"},
        "torchcam-0.3": {"scaling": "before"},
        "torchcam-0.2": {"scaling": "before"},
        "tabayashi": {"scaling": "range"},
    }
)
SCALED = ("torchcam-0.3", "torchcam-0.2")  # these combine channels scaled to [0, 1]
WEIGHTING = Option(
    "prob",
    "choice",
    "what a channel weighs: its probability, what that exceeds a hidden image's, or a softmax of logits over channels",
    choices=("prob", "prob_minus_baseline", "softmax_logit"),
    by_variant=dict.fromkeys(("paper", "pytorch-grad-cam", "torchcam", "torchcam-0.3"), "softmax_logit"),
)


def scorecam(
    acts: Array, masked_of: MaskedOf, score_of: ScoreOf, *, variant: str = "official", weighting: str = "prob"
) -> Result:
    """
    Weigh channels by the score of the image masked by them.

    Parameters
    ----------
    acts : ndarray of float, shape (N, K, h, w)
        Activations of one layer.
    masked_of : callable
        Takes `Masks`, returns the logits of masked images.
    score_of : callable
        Takes logits (N,M,C) and "probability" or "logit", returns the target's scores (N,M).
    variant : {"official", "paper", "pytorch-grad-cam", "torchcam", "torchcam-0.3", "torchcam-0.2", "tabayashi"}
        They differ in the default of `weighting`, and in the mask: upsampled, then scaled (the first two);
        "pytorch-grad-cam" the same with corners aligned and 1e-8 in the denominator; the three of torch-cam scaled, then
        upsampled; "tabayashi" divided by its range, nothing subtracted. "torchcam-0.3" and "torchcam-0.2" combine
        channels scaled to [0, 1].
    weighting : {"prob", "prob_minus_baseline", "softmax_logit"}
        "prob" is the class's probability; "prob_minus_baseline" subtracts that of the hidden image, which can make
        weights negative; "softmax_logit" is the softmax of logits over channels (algorithm 1 of the paper), from which
        every baseline cancels.

    Returns
    -------
    Result
        Weights (N,K), or a raw map (N,h,w). A channel that is constant or has not been run weighs 0 and has no part in a
        softmax. Where one has not been run, the flag ``bound`` says as in `remaining` how far the map may be from its end;
        not with a softmax, whose weights all move.

    Notes
    -----
    Cost: K masked forwards, one more for the baseline; further targets cost nothing.

    References
    ----------
    Wang et al. 2020, Score-CAM, arXiv:1910.01279, section 3 and algorithm 1.
    """
    return score_weighted(
        acts, [Masks(acts, **FORMS[variant])], masked_of, score_of, weighting=weighting, scaled=variant in SCALED
    )


def score_weighted(
    acts: Array,
    samples: Sequence[Masks],
    masked_of: MaskedOf,
    score_of: ScoreOf,
    *,
    weighting: str = "prob",
    scaled: bool = False,
) -> Result:
    """
    Weigh channels by their mean score over several sets of masks.

    Parameters
    ----------
    acts : ndarray of float, shape (N, K, h, w)
        Activations of one layer.
    samples : sequence of Masks
        Sets of K masks, one mask a channel; all of them want the same channels.
    masked_of, score_of : callable
        As for `scorecam`.
    weighting : {"prob", "prob_minus_baseline", "softmax_logit"}
        As for `scorecam`.
    scaled : bool
        Combine channels scaled to [0, 1], not the activations themselves.

    Returns
    -------
    Result
        As for `scorecam`.
    """
    xp = namespace(acts)
    kind = "logit" if weighting == "softmax_logit" else "probability"
    baseline = xp.zeros(())
    if weighting == "prob_minus_baseline":
        nothing = masked_of(Masks(xp.zeros_like(acts[:, :1]), constant="keep"))
        baseline = xp.asarray(score_of(nothing.logits, kind))
    total, runs = xp.zeros(acts.shape[:2]), xp.zeros(acts.shape[:2], int)
    for masks in samples:
        scored = masked_of(masks)
        live = xp.asarray(scored.live)
        total += xp.where(live, xp.asarray(score_of(scored.logits, kind)), 0)
        runs += live
    mean = total / xp.maximum(runs, 1)
    weights = _softmax(mean, runs > 0) if kind == "logit" else xp.where(runs > 0, mean - baseline, 0)
    weights = weights.astype(acts.dtype)
    combined = kernels.min_max(acts.reshape(-1, *acts.shape[2:]))[0].reshape(acts.shape) if scaled else acts

    flags: dict[str, Array] = {}
    if kind == "probability":
        settled = constant_maps(acts) if samples[0].only is None else constant_maps(acts) | ~samples[0].only
        missing = xp.where(settled, 0, 1 - runs / len(samples))
        if bool(missing.any()):
            flags["bound"] = remaining(combined, kernels.weighted_sum(combined, weights), missing)
    return Result(kernels.weighted_sum(combined, weights), flags, "map") if scaled else Result(weights, flags)


def _softmax(scores: Array, live: Array) -> Array:
    """Return the softmax over channels that have a score; 0 elsewhere."""
    xp = namespace(scores)
    top = xp.where(live, scores, scores.min(axis=1, keepdims=True)).max(axis=1, keepdims=True)
    odds = live * xp.exp(xp.minimum(scores - top, 0))
    whole = odds.sum(axis=1, keepdims=True)
    shares: Array = odds / xp.where(whole > 0, whole, 1)
    return shares


register(
    Method(
        id="scorecam",
        function=scorecam,
        needs=("acts", "masked_of", "score_of"),
        gives="weights",
        family="masked",
        work=513.0,
        paper="arXiv:1910.01279",
        title="Score-CAM",
        variants=tuple(FORMS),
        options={"weighting": WEIGHTING},
        runs=lambda options, channels, cells: channels + (options["weighting"] == "prob_minus_baseline"),
    )
)
