"""
Eigen-CAM: activations projected on their leading principal axis.

Activations of one layer go in, a raw map comes out, the same for every class. Muhammad and Yeasin 2020,
arXiv:2008.00299.
"""

from __future__ import annotations

from camrt import kernels

from .arrays import Array
from .component import agree, is_tied, lapack_component, upright
from .table import Method, Result, register


def eigencam(acts: Array, *, variant: str = "paper") -> Result:
    """
    Project activations on their first right singular vector.

    Parameters
    ----------
    acts : ndarray of float, shape (N, K, h, w)
        Activations of one layer.
    variant : {"paper", "centred", "pytorch-grad-cam"}
        "paper" does not centre, and takes the sign that agrees with the sum over channels. "centred" subtracts each
        channel's mean and makes the largest magnitude positive. "pytorch-grad-cam" is centred with the sign as LAPACK
        returns it.

    Returns
    -------
    Result
        Raw map (N,h,w), and the flag ``unstable`` (N,): the two leading singular values tie.

    Notes
    -----
    Cost: a Gram matrix of the smaller side and its leading eigenvector; for "pytorch-grad-cam" a full SVD.

    References
    ----------
    Muhammad and Yeasin 2020, Eigen-CAM, arXiv:2008.00299.
    """
    if variant == "pytorch-grad-cam":
        maps, values = lapack_component(acts)
    elif variant == "centred":
        maps, values = kernels.leading_component(acts, center=True)
        maps = upright(maps)
    else:
        maps, values = kernels.leading_component(acts, center=False)
        maps = agree(maps, acts.sum(axis=1))
    return Result(maps, {"unstable": is_tied(values)})


register(
    Method(
        id="eigencam",
        function=eigencam,
        needs=("acts",),
        gives="map",
        family="activation",
        work=1.0,
        paper="arXiv:2008.00299",
        title="Eigen-CAM",
        variants=("paper", "centred", "pytorch-grad-cam"),
        class_free=True,
    )
)
