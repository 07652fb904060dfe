"""
Faster Score-CAM: Score-CAM on the channels that vary most.

Activations of one layer and masked forwards go in, what Score-CAM gives comes out. There is no paper; the definition is
that of the repository tabayashi0117/Score-CAM.
"""

from __future__ import annotations

from ..masks import Masks
from .arrays import Array, namespace
from .scorecam import FORMS, SCALED, WEIGHTING, MaskedOf, ScoreOf, score_weighted
from .table import Method, Option, Result, register


def fasterscorecam(
    acts: Array,
    masked_of: MaskedOf,
    score_of: ScoreOf,
    *,
    variant: str = "official",
    weighting: str = "prob",
    max_n: int | None = 64,
) -> Result:
    """
    Run Score-CAM on the channels with the largest standard deviation over positions.

    Parameters
    ----------
    acts : ndarray of float, shape (N, K, h, w)
        Activations of one layer.
    masked_of, score_of : callable
        As for `scorecam`.
    variant, weighting : str
        As for `scorecam`.
    max_n : int, optional
        How many channels are kept; ties go by channel index. All where None, which is `scorecam`.

    Returns
    -------
    Result
        As for `scorecam`; channels that are not kept weigh 0.

    Notes
    -----
    Cost: `max_n` masked forwards; channels that Score-CAM has run on the same image cost nothing.

    References
    ----------
    github.com/tabayashi0117/Score-CAM.
    """
    masks = Masks(acts, **FORMS[variant], only=_most_varied(acts, max_n))
    return score_weighted(acts, [masks], masked_of, score_of, weighting=weighting, scaled=variant in SCALED)


def _most_varied(acts: Array, count: int | None) -> Array | None:
    """Mark the `count` channels (N,K) that vary most; None stands for all."""
    channels = acts.shape[1]
    if count is None or count >= channels:
        return None
    xp = namespace(acts)
    spread = acts.std(axis=(2, 3), dtype=xp.float64)
    first = xp.argsort(-spread, axis=1, kind="stable")[:, :count]
    kept: Array = (first[:, :, None] == xp.arange(channels)).any(axis=1)
    return kept


register(
    Method(
        id="fasterscorecam",
        function=fasterscorecam,
        needs=("acts", "masked_of", "score_of"),
        gives="weights",
        family="masked",
        work=65.0,
        paper="none",
        title="Faster Score-CAM",
        variants=tuple(FORMS),
        options={
            "weighting": WEIGHTING,
            "max_n": Option(64, "integer", "channels that are kept; none: all", low=1, optional=True),
        },
        runs=lambda options, channels, cells: (
            min(options["max_n"] or channels, channels) + (options["weighting"] == "prob_minus_baseline")
        ),
    )
)
