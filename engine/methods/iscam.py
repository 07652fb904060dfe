"""
IS-CAM: Score-CAM with scores integrated along masks that grow from nothing.

Activations of one layer and masked forwards go in; what Score-CAM gives comes out. Naidu et al. 2020, arXiv:2010.03023.
With H_k Score-CAM's mask,

    w_k = mean over i = 1..n of  p(c_i x * H_k)        c_i = i / n        or, accumulated,        c_i = (1 + ... + i) / n
"""

from __future__ import annotations

from ..masks import Masks
from .arrays import Array
from .scorecam import FORMS, SCALED, MaskedOf, ScoreOf, score_weighted
from .table import Method, Option, Result, register


def iscam(
    acts: Array,
    masked_of: MaskedOf,
    score_of: ScoreOf,
    *,
    variant: str = "riemann",
    n: int = 10,
    accumulate: bool = False,
) -> Result:
    """
    Weigh channels by the mean score of scaled masks.

    Parameters
    ----------
    acts : ndarray of float, shape (N, K, h, w)
        Activations of one layer.
    masked_of, score_of : callable
        As for `scorecam`.
    variant : {"riemann", "torchcam", "torchcam-0.2"}
        "riemann": Score-CAM's masks, mean class probability. "torchcam": masks scaled before they are upsampled,
        softmax over channels of the mean logit. "torchcam-0.2": the same masks, mean class probability, channels scaled
        to [0, 1] combined.
    n : int
        Steps; 1 gives Score-CAM.
    accumulate : bool
        Whether the scales add up, as torch-cam has it: the last is then ``(n + 1) / 2``, not 1.

    Returns
    -------
    Result
        As for `scorecam`.

    Notes
    -----
    Cost: ``n * K`` masked forwards.

    References
    ----------
    Naidu et al. 2020, IS-CAM, arXiv:2010.03023.
    """
    form = variant if variant in FORMS else "official"
    scales = [i * (i + 1) / 2 / n if accumulate else i / n for i in range(1, n + 1)]
    return score_weighted(
        acts,
        [Masks(acts, **FORMS[form], gain=scale) for scale in scales],
        masked_of,
        score_of,
        weighting="softmax_logit" if variant == "torchcam" else "prob",
        scaled=form in SCALED,
    )


register(
    Method(
        id="iscam",
        function=iscam,
        needs=("acts", "masked_of", "score_of"),
        gives="weights",
        family="masked",
        work=5121.0,
        paper="arXiv:2010.03023",
        title="IS-CAM",
        variants=("riemann", "torchcam", "torchcam-0.2"),
        options={
            "n": Option(10, "integer", "steps", low=1, high=10_000),
            "accumulate": Option(
                False, "flag", "let the scales add up", by_variant={"torchcam": True, "torchcam-0.2": True}
            ),
        },
        runs=lambda options, channels, cells: options["n"] * channels,
    )
)
