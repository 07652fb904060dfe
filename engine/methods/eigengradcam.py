"""
Eigen-Grad-CAM: gradient times activation projected on its leading principal axis.

Activations and gradients of one layer go in, a raw map comes out. Introduced by pytorch-grad-cam without a paper; the
variant "seg" is Seg-Eigen-CAM, Chung and Ying 2025, Applied Sciences 15(13) 7562.
"""

from __future__ import annotations

from camrt import kernels

from .arrays import Array
from .component import is_tied, lapack_component, upright
from .table import Method, Result, register


def eigengradcam(acts: Array, grads: Array, *, variant: str = "centred") -> Result:
    """
    Project gradient times activation on its first principal axis.

    Parameters
    ----------
    acts, grads : ndarray of float, shape (N, K, h, w)
        Activations, and the gradient of the target with respect to them.
    variant : {"centred", "pytorch-grad-cam", "seg"}
        "centred" makes the largest magnitude positive; "pytorch-grad-cam" leaves the sign as LAPACK returns it; "seg"
        takes ``abs(grads) * acts`` and makes the largest magnitude positive.

    Returns
    -------
    Result
        Raw map (N,h,w), and the flag ``unstable`` (N,): the two leading singular values tie.

    Notes
    -----
    Cost: a Gram matrix of the smaller side and its leading eigenvector; for "pytorch-grad-cam" a full SVD.

    References
    ----------
    Chung and Ying 2025, Seg-Eigen-CAM, Applied Sciences 15(13) 7562, eqs. 10-13.
    """
    if variant == "pytorch-grad-cam":
        maps, values = lapack_component(grads * acts)
    else:
        weighted = abs(grads) * acts if variant == "seg" else grads * acts
        maps, values = kernels.leading_component(weighted, center=True)
        maps = upright(maps)
    return Result(maps, {"unstable": is_tied(values)})


register(
    Method(
        id="eigengradcam",
        function=eigengradcam,
        needs=("acts", "grads"),
        gives="map",
        family="gradient",
        work=1.1,
        paper="pytorch-grad-cam; doi:10.3390/app15137562",
        title="Eigen-Grad-CAM",
        variants=("centred", "pytorch-grad-cam", "seg"),
    )
)
