"""
CAM: the head's own weights, for networks that end in global average pooling and one linear layer.

Activations and the head's row for each image's class go in, channel weights come out. Zhou et al. 2016,
arXiv:1512.04150, eq. 2.
"""

from __future__ import annotations

from ..errors import MethodError
from .arrays import Array
from .table import Method, register


def cam(acts: Array, head: Array | None, *, variant: str = "official") -> Array:
    """
    Weigh channels by the linear head.

    The bias takes no part. The original has no ReLU; the variant "relu" leaves one to the pipeline.

    Parameters
    ----------
    acts : ndarray of float, shape (N, K, h, w)
        Activations of the last layer before global average pooling.
    head : ndarray of float, shape (N, K), or None
        The linear head's weights for each image's class; None where the network has no such head.
    variant : {"official", "relu"}
        The definition.

    Returns
    -------
    ndarray of float, shape (N, K)
        Channel weights.

    Raises
    ------
    MethodError
        If the network has no global average pooling followed by one linear layer.

    References
    ----------
    Zhou et al. 2016, Learning Deep Features for Discriminative Localization, arXiv:1512.04150, eq. 2.
    """
    if head is None:
        raise MethodError(
            "cam needs global average pooling and one linear layer after it, and this network ends otherwise; "
            "use gradcam, which generalises it"
        )
    return head


register(
    Method(
        id="cam",
        function=cam,
        needs=("acts", "head"),
        gives="weights",
        family="activation",
        work=1.0,
        paper="arXiv:1512.04150",
        title="CAM",
        variants=("official", "relu"),
        relu={"official": False, "relu": True},
    )
)
