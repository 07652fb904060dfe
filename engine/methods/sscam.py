"""
SS-CAM: Score-CAM with scores averaged over noise.

Activations of one layer and masked forwards go in; what Score-CAM gives comes out. Wang, Naidu et al. 2020,
arXiv:2006.14255. With H_k Score-CAM's mask and noise d_i of standard deviation sigma,

    w_k = mean over i of  p(x * (H_k + d_i))        or, for "input-noise",        p(x * H_k + d_i)
"""

from __future__ import annotations

from typing import Literal

from ..errors import MethodError
from ..masks import Masks, Noise
from .arrays import Array
from .scorecam import FORMS, SCALED, MaskedOf, ScoreOf, score_weighted
from .table import Method, Option, Result, register

FREE = 20_000  # forwards an image that need no confirmation


def sscam(
    acts: Array,
    masked_of: MaskedOf,
    score_of: ScoreOf,
    *,
    variant: str = "prob",
    n: int = 35,
    sigma: float = 2.0,
    seed: int = 0,
    allow_slow: bool = False,
) -> Result:
    """
    Weigh channels by the mean score of noisy masks.

    Parameters
    ----------
    acts : ndarray of float, shape (N, K, h, w)
        Activations of one layer.
    masked_of, score_of : callable
        As for `scorecam`.
    variant : {"prob", "input-noise", "torchcam", "torchcam-0.2"}
        "prob": noise on the mask, mean class probability. "input-noise": noise on the masked image. "torchcam": masks
        scaled before they are upsampled, softmax over channels of the mean logit. "torchcam-0.2": the same masks, mean
        class probability, channels scaled to [0, 1] combined (torch-cam's noise of that time differed by colour).
    n : int
        Noisy samples.
    sigma : float
        Standard deviation of the noise, in units of the mask or of the model's input; 0 gives Score-CAM by one sample.
    seed : int
        Seed of the noise. It depends on seed, image and sample alone: all channels of an image share it, where torch-cam
        draws other noise for each.
    allow_slow : bool
        Confirms that more than 20 000 forwards an image are meant.

    Returns
    -------
    Result
        As for `scorecam`.

    Raises
    ------
    MethodError
        If it takes more than 20 000 forwards an image and nobody has confirmed that.

    Notes
    -----
    Cost: ``n * K`` masked forwards.

    References
    ----------
    Wang, Naidu et al. 2020, SS-CAM, arXiv:2006.14255.
    """
    channels = acts.shape[1]
    samples = n if sigma else 1
    if samples * channels > FREE and not allow_slow:
        raise MethodError(
            f"sscam would take {samples} x {channels} = {samples * channels} forwards an image, more than {FREE}; lower n, take "
            "a layer with fewer channels, or confirm with allow_slow=True"
        )
    form = variant if variant in FORMS else "official"
    on: Literal["mask", "input"] = "input" if variant == "input-noise" else "mask"
    noises = [Noise(on, sigma, seed, sample) for sample in range(n)] if sigma else [None]
    return score_weighted(
        acts,
        [Masks(acts, **FORMS[form], noise=noise) for noise in noises],
        masked_of,
        score_of,
        weighting="softmax_logit" if variant == "torchcam" else "prob",
        scaled=form in SCALED,
    )


register(
    Method(
        id="sscam",
        function=sscam,
        needs=("acts", "masked_of", "score_of"),
        gives="weights",
        family="masked",
        work=17921.0,
        paper="arXiv:2006.14255",
        title="SS-CAM",
        variants=("prob", "input-noise", "torchcam", "torchcam-0.2"),
        options={
            "n": Option(35, "integer", "noisy samples", low=1, high=10_000),
            "sigma": Option(2.0, "number", "standard deviation of the noise", low=0),
            "seed": Option(0, "integer", "seed of the noise", low=0),
            "allow_slow": Option(False, "flag", "confirms more than 20 000 forwards an image"),
        },
        runs=lambda options, channels, cells: (options["n"] if options["sigma"] else 1) * channels,
    )
)
