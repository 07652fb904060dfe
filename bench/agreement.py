"""
Whether two libraries drew the same heatmaps; without that, comparing their speed means nothing.

In: two batches of heatmaps. Out: the worst cosine and the largest difference.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["compare"]


def compare(ours: npt.NDArray[np.float32], theirs: npt.NDArray[np.float32]) -> tuple[float, float, int]:
    """
    Say how nearly two batches of heatmaps are the same.

    Parameters
    ----------
    ours, theirs : ndarray of float32, shape (N, H, W)
        In [0, 1].

    Returns
    -------
    cosine : float
        The smallest over the images; 1 where both maps are empty, 0 where one is.
    difference : float
        The largest of any pixel.
    flat : int
        Images whose map is empty on both sides.

    Examples
    --------
    >>> compare(np.eye(2, dtype="f4")[None], np.eye(2, dtype="f4")[None])
    (1.0, 0.0, 0)
    """
    a, b = (m.reshape(len(m), -1).astype(np.float64) for m in (ours, theirs))
    norms = np.sqrt((a * a).sum(1)), np.sqrt((b * b).sum(1))
    flat = (norms[0] == 0) & (norms[1] == 0)
    cosine = np.where(flat, 1, (a * b).sum(1) / np.maximum(norms[0] * norms[1], 1e-300))
    return float(cosine.min()), float(np.abs(a - b).max()), int(flat.sum())
